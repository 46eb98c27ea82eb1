"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .e2e.daemons import Daemons, daemons_in


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--swarm-seed", type=int, help="run only this seed of the swarm simulator")
    parser.addoption("--write-golden", action="store_true", help="write golden files that are missing")


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Real daemons in a home of their own."""
    with daemons_in(tmp_path) as made:
        yield made
