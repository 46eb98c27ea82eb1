"""Tasks of one node that want the same keys go one after the other, in the order in which they came.

Without that they would meet at the voters, where all but one wait for locks, are told NO, and try again. A key is
taken until its commit is on its way to the voters, so that the next PREPARE travels together with the word that frees
the lock. Tasks of other nodes are met at the voters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from .transaction import Slot

T = TypeVar("T")


class Queue(Generic[T]):
    """Each task waits in one place at a time."""

    def __init__(self) -> None:
        self._taken: set[Slot] = set()
        self._waiting: dict[Slot, deque[T]] = {}

    def has_to_wait(self, task: T, slots: Iterable[Slot]) -> bool:
        """If so, it is in the queue now."""
        slot = next((slot for slot in slots if slot in self._taken), None)
        if slot is not None:
            self._waiting.setdefault(slot, deque()).append(task)
        return slot is not None

    def take(self, slots: Iterable[Slot]) -> None:
        self._taken.update(slots)

    def free(self, slots: Iterable[Slot]) -> None:
        self._taken.difference_update(slots)

    def has_waiting(self, slots: Iterable[Slot]) -> bool:
        return any(slot in self._waiting for slot in slots)

    def next(self, slot: Slot) -> T | None:
        """The first that waits for this key; None: nobody does, or it is taken."""
        waiting = self._waiting.get(slot)
        if waiting is None or slot in self._taken:
            return None
        task = waiting.popleft()
        if not waiting:
            del self._waiting[slot]
        return task
