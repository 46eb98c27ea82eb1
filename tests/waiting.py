"""Waiting in tests: for a condition, with a deadline, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.01


def wait_until(condition: Callable[[], T], timeout_s: float = 10.0, what: str = "the condition") -> T:
    """Poll until the condition is true and return its value; fail with `what` otherwise."""
    until = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < until, f"waited {timeout_s:g} s for {what}"
        time.sleep(POLL_S)
    return value
