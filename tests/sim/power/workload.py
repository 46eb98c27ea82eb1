"""The process that is recorded: the daemon's store, as `peernode.daemon.serve` puts it together, fed from a plan.

A store's life ends well, or is cut short by a fault that strace puts into a system call; the next life goes on where the store
says that it is. What is acknowledged is told in a file of its own, by the thread that would tell the core.

Which commits make one group would depend on the speed of two threads. So the store's thread is held, when a burst is
stored, until all of the next one is queued: the same seed asks the same of the kernel each time.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from random import Random
from threading import Semaphore

from peernode.store.committer import Outcome, Stored, ThreadCommitter
from peernode.store.reader import Reader
from peernode.store.writer import Writer
from protocol.effects import Stage

from .plan import Plan, read
from .stores import STORES

STORE = "store"
DATABASE = "store.sqlite"
MARKS = "acknowledged"
WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Put into the given call of the store's thread, counted from its start."""

    call: str
    what: str
    when: int


@dataclass(frozen=True, slots=True)
class Life:
    """One process: it ends with this commit, unless a fault ends it."""

    last: int
    fault: Fault | None = None

    @property
    def is_killed(self) -> bool:
        return self.fault is not None and self.fault.what.startswith("signal")

    @property
    def has_full_disk(self) -> bool:
        return self.fault is not None and self.fault.what == "error=ENOSPC"


def lives(seed: int, commits: int) -> list[Life]:
    """A new store; one whose disk is full for a moment; one that is killed while it commits; one more."""
    random = Random(f"{seed}/lives")
    call, when = random.choice([("fdatasync", random.randint(4, 10)), ("pwrite64", random.randint(20, 150))])
    return [
        Life(commits // 4),
        Life(commits // 2, Fault("pwrite64", "error=ENOSPC", random.randint(5, 150))),
        Life(commits * 3 // 4, Fault(call, "signal=KILL", when)),
        Life(commits * 7 // 8, Fault("fdatasync", "error=EIO", random.randint(3, 9))),
        Life(commits),
    ]


class Burst:
    """Commits that wait for the store together."""

    def __init__(self, stages: tuple[Stage, ...], random: Random) -> None:
        self.stages = stages
        self.is_watched = random.random() < 0
        """Whether a reader keeps what it saw before: a checkpoint then cannot finish, and the WAL grows."""


def bursts(stages: tuple[Stage, ...], random: Random) -> Iterator[Burst]:
    """The first has one commit: nothing holds the store's thread yet."""
    first, size = 0, 1
    while first < len(stages):
        yield Burst(stages[first : first + size], random)
        first, size = first + size, random.choice([1, 1, 1, 2, 5, 20])


class Session:
    """One life of the store."""

    def __init__(self, folder: Path, store: str) -> None:
        (folder / STORE).mkdir(exist_ok=True)
        self._marks = os.open(folder / MARKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.writer: Writer = STORES[store](folder / STORE / DATABASE)
        self.reader = Reader(folder / STORE / DATABASE)
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._held = Semaphore(0)
        self._last = 0

    def run(self, stages: tuple[Stage, ...], random: Random) -> None:
        self.writer.apply(stages[:1])  # as a daemon's run begins
        self._acknowledge(stages[:1])
        committer = ThreadCommitter(self.writer, self._deliver)
        for number, burst in enumerate(bursts(stages[1:], random)):
            with self.reader.snapshot() if burst.is_watched else nullcontext():
                self.reader.mark("hlc")
                self._last = burst.stages[-1].number
                for stage in burst.stages:
                    committer.submit(stage)
                if number:
                    self._held.release()
                while self._wait() != self._last:
                    pass
        self._held.release()
        committer.close()
        self.reader.close()

    def _wait(self) -> int:
        outcome = self._outcomes.get(timeout=WAIT_S)
        if not isinstance(outcome, Stored):
            print(outcome); os._exit(0)
        return outcome.stages[-1].number

    def _deliver(self, outcome: Outcome) -> None:
        """In the store's thread."""
        is_stored = isinstance(outcome, Stored)
        if is_stored:
            self._acknowledge(outcome.stages)
        self._outcomes.put(outcome)
        if is_stored and outcome.stages[-1].number == self._last:
            self._held.acquire()

    def _acknowledge(self, stages: tuple[Stage, ...]) -> None:
        os.write(self._marks, b"%d\n" % stages[-1].number)


def live(folder: Path, seed: int, commits: int, number: int, store: str) -> None:
    life = lives(seed, commits)[number]
    session = Session(folder, store)
    done = read(session.reader).commit
    session.run(Plan(seed, life.last).stages[done:], Random(f"{seed}/bursts/{number}"))
    if (folder / STORE / f"{DATABASE}-shm").exists():
        shutil.copy(folder / STORE / f"{DATABASE}-shm", folder / f"wal-index-{number}")


if __name__ == "__main__":
    live(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
