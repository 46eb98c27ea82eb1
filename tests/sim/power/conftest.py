"""Fixtures for power cuts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .cuts import scratch


@pytest.fixture
def folder() -> Iterator[Path]:
    """For recordings and images: quick, and gone afterwards."""
    with scratch() as made:
        yield made
