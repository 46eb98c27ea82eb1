"""The only place where clocks and chance enter: everything below takes them as values."""

from __future__ import annotations

import os
import random
import time
from typing import Protocol

import trio

from protocol.types import Instant


class World(Protocol):
    """What a daemon takes from outside. The simulator has one of its own."""

    def now(self) -> Instant: ...
    def entropy(self, size: int) -> bytes: ...
    def random(self) -> random.Random: ...


class RealWorld:
    """`trio.current_time` is the monotonic clock, so that time-outs follow trio's."""

    def now(self) -> Instant:
        return Instant(trio.current_time(), time.time_ns() // 1_000_000)

    def entropy(self, size: int) -> bytes:
        return os.urandom(size)

    def random(self) -> random.Random:
        return random.Random(os.urandom(16))
