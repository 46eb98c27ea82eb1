"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .e2e.daemons import Daemons, daemons_in


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--swarm-seed", type=int, help="run only this seed of the swarm simulator")
    parser.addoption(
        "--kill-rounds", type=int, default=8, help="how often a node of three is killed under load"
    )
    parser.addoption("--kill-seed", type=int, default=1, help="which one each time")
    parser.addoption("--swarm-seeds", type=int, default=60, help="how many seeds of it to run")
    parser.addoption("--commit-seed", type=int, help="run only this seed of the commit model")
    parser.addoption("--commit-seeds", type=int, default=120, help="how many seeds of it to run")
    parser.addoption("--write-golden", action="store_true", help="write golden files that are missing")


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Real daemons in a home of their own."""
    with daemons_in(tmp_path) as made:
        yield made
