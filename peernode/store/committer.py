"""Group commit: many staged commits, one transaction, one sync, one wake-up of the main thread.

The writer takes whatever has gathered while it was busy with the group before; under load the groups grow by
themselves, and a lone write waits for nobody. Outcomes arrive in the order of the commits. When a group fails,
every commit that was staged before the core heard of it fails too (it was decided on rows that do not
exist): `generation` counts the failures and tells those commits from later ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

import msgspec

from protocol.effects import Entry, Stage

from ..limits import GROUP_BYTES_MAX, GROUP_ROWS_MAX
from .writer import StorageFull, Writer


class Stored(msgspec.Struct, frozen=True):
    """These commits are durable."""

    stages: tuple[Stage, ...]


class NotStored(msgspec.Struct, frozen=True):
    """No commit that is still under way will be stored."""

    why: str


class Broken(msgspec.Struct, frozen=True):
    """The store failed in a way that leaves its state unknown: the daemon must stop."""

    error: BaseException


Outcome = Stored | NotStored | Broken


class Committer(Protocol):
    """`submit` queues one commit; its outcome is delivered in the main thread."""

    def submit(self, stage: Stage) -> None: ...
    def acknowledge_failure(self) -> None: ...
    def close(self) -> None: ...


class Group:
    """Takes commits from a source into one group."""

    def __init__(self, first: Stage, more: Callable[[], Stage | None]) -> None:
        self.stages = [first]
        rows, size = len(first.rows), _size(first)
        while rows < GROUP_ROWS_MAX and size < GROUP_BYTES_MAX and (stage := more()) is not None:
            self.stages.append(stage)
            rows += len(stage.rows)
            size += _size(stage)

    def apply(self, writer: Writer) -> Outcome:
        try:
            writer.apply(self.stages)
        except StorageFull as full:
            return NotStored(str(full))
        except Exception as error:  # noqa: BLE001 - the main thread stops the daemon
            return Broken(error)
        return Stored(tuple(self.stages))


class ThreadCommitter:
    """Commits in a thread of its own. `deliver` is called in that thread and hands over to the main one."""

    def __init__(self, writer: Writer, deliver: Callable[[Outcome], None]) -> None:
        self._writer, self._deliver = writer, deliver
        self._queue: SimpleQueue[tuple[int, Stage] | None] = SimpleQueue()
        self._generation = 0
        self._thread = threading.Thread(target=self._run, name="peernode-store", daemon=True)
        self._thread.start()

    def submit(self, stage: Stage) -> None:
        self._queue.put((self._generation, stage))

    def acknowledge_failure(self) -> None:
        """The core has heard that commits failed: what it stages from now on counts again."""
        self._generation += 1

    def close(self) -> None:
        """Commit what is queued, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        failures = 0
        closing = False

        def take() -> Stage | None:
            nonlocal closing
            while not closing:
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    return None
                closing = item is None
                if item is not None and item[0] == failures:
                    return item[1]
            return None

        while not closing:
            item = self._queue.get()
            if item is None:
                break
            if item[0] != failures:
                continue
            outcome = Group(item[1], take).apply(self._writer)
            if isinstance(outcome, NotStored):
                failures += 1
            self._deliver(outcome)
            if isinstance(outcome, Broken):
                break  # a later success would acknowledge what this group did not store
        self._writer.close()


def _size(stage: Stage) -> int:
    return sum(len(row.value or b"") for row in stage.rows if isinstance(row, Entry))
