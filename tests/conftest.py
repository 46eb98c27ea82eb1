"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .e2e.daemons import Daemons, daemons_in


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Real daemons in a home of their own."""
    with daemons_in(tmp_path) as made:
        yield made
