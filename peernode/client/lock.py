"""Waiting for a lock: when to ask again, and how long a lease that was got still lasts."""

from __future__ import annotations

import time

from .errors import PeernodeError

RETRY_S_MAX = 0.25
"""A released lock is noticed so late at most by those who wait for it."""
RETRY_TTL_SHARE = 0.1
RENEWALS = 3
"""So often a lease is renewed in its time: two renewals may fail."""


class Lease:
    """A lock that was got. Counted from before it was asked for, so that it ends here before it ends for others."""

    def __init__(self, name: str, ttl_s: float, fence: int, asked_s: float) -> None:
        self.name, self.ttl_s, self.fence = name, ttl_s, fence
        self._until_s = asked_s + ttl_s

    @property
    def left_s(self) -> float:
        return self._until_s - time.monotonic()

    @property
    def renewal_s(self) -> float:
        """How long to wait for the next renewal."""
        return min(self.ttl_s / RENEWALS, max(0.0, self.left_s))

    def renewed(self, asked_s: float) -> None:
        self._until_s = asked_s + self.ttl_s


def retry_s(refused: PeernodeError, ttl_s: float, until_s: float) -> float:
    """How long to wait before asking again. Raises the refusal when that is no use, or `until_s` is over."""
    left_s = until_s - time.monotonic()
    if left_s <= 0 or not refused.retryable:
        raise refused
    held_s = float(refused.details.get("retry_ms", 1000 * RETRY_S_MAX)) / 1000
    return min(left_s, held_s, RETRY_S_MAX, max(0.01, ttl_s * RETRY_TTL_SHARE))
