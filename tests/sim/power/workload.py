"""The process that is recorded: the daemon's store, put together as `peernode.daemon.serve` does, fed from a plan.

A store has several lives. In some a fault is put into a system call by strace: no space (which the store must
outlive), SIGKILL, a sync that fails. The next life goes on where the store says that it is. What is acknowledged is
told in a file of its own, by the thread that tells the core.

Which commits make one group would depend on the speed of two threads. So the store's thread is held, when a burst is
stored, until all of the next one is queued: the same case asks the same of the kernel each time.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from random import Random
from threading import Semaphore

import msgspec

from peernode.store.committer import Outcome, Stored, ThreadCommitter
from peernode.store.reader import Reader
from protocol.effects import Stage

from .plan import Plan, read
from .stores import STORES

STORE = "store"
DATABASE = "store.sqlite"
WAL = f"{STORE}/{DATABASE}-wal"
INDEX = f"{STORE}/{DATABASE}-shm"
ACKNOWLEDGED = "acknowledged"
BROKEN = 3
"""The exit code of a process whose store failed, as a daemon then stops."""
WAIT_S = 60.0


class Fault(msgspec.Struct, frozen=True):
    """Put by strace into the n-th such call of each thread."""

    call: str
    what: str
    when: int


FAULTS: dict[str, Callable[[Random], Fault]] = {
    "full": lambda random: Fault("pwrite64", "error=ENOSPC", random.randint(30, 120)),
    "killed": lambda random: Fault("fdatasync", "signal=KILL", random.randint(1, 8)),
    "torn": lambda random: Fault("pwrite64", "signal=KILL", random.randint(20, 120)),
    # Not the second, which is that of the folder: SQLite takes no notice when that one fails.
    "failed": lambda random: Fault("fdatasync", "error=EIO", random.choice([1, 3, 4, 5, 6])),
}
"""A write finds no space; killed with a commit written and not synced; killed amid the writes; a sync fails."""


class Case(msgspec.Struct, frozen=True):
    """All that a recording depends on."""

    seed: int
    commits: int
    faults: tuple[str, ...] = ()
    store: str = "Writer"
    is_read: bool = True
    """Whether a reader sometimes keeps what it saw: a checkpoint then cannot finish, and the WAL grows."""

    @property
    def plan(self) -> Plan:
        return Plan(self.seed, self.commits)

    @property
    def lives(self) -> list[Life]:
        """First and last a calm one; the commits are shared out evenly."""
        random = Random(f"{self.seed}/lives")
        names = random.sample(self.faults, len(self.faults))
        faults = [None, *(FAULTS[name](random) for name in names), None] if names else [None]
        return [
            Life(self.commits * number // len(faults), fault, self.is_read and not waits_for_readers(fault))
            for number, fault in enumerate(faults, start=1)
        ]


@dataclass(frozen=True, slots=True)
class Life:
    """One process: it ends with this commit, unless a fault ends it before."""

    last: int
    fault: Fault | None
    is_read: bool


@dataclass(frozen=True, slots=True)
class Burst:
    """Commits that wait for the store together."""

    stages: tuple[Stage, ...]
    is_read: bool
    """Whether a reader keeps what it saw before."""


def waits_for_readers(fault: Fault | None) -> bool:
    """A store without space waits seconds for readers to let it move the whole WAL."""
    return fault is not None and fault.what == "error=ENOSPC"


def bursts(stages: tuple[Stage, ...], random: Random) -> Iterator[Burst]:
    """The first has one commit: nothing holds the store's thread yet."""
    first, size = 0, 1
    while first < len(stages):
        yield Burst(stages[first : first + size], random.random() < 0.3)
        first, size = first + size, random.choice([1, 1, 1, 1, 2, 3, 16])


class Session:
    """One life of the store. Raises sqlite3.Error when it does not begin."""

    def __init__(self, case: Case, folder: Path) -> None:
        (folder / STORE).mkdir(exist_ok=True)
        self._told = os.open(folder / ACKNOWLEDGED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.writer = STORES[case.store](folder / STORE / DATABASE)
        self.reader = Reader(folder / STORE / DATABASE)
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._queued = Semaphore(0)
        self._last = 0

    def run(self, stages: tuple[Stage, ...], life: Life, random: Random) -> bool:
        """Whether all was stored."""
        self.writer.apply(stages[:1])  # as a run of the daemon begins
        self._acknowledge(stages[:1])
        committer = ThreadCommitter(self.writer, self._deliver)
        try:
            return all(
                self._store(committer, burst, burst.is_read and life.is_read)
                for burst in bursts(stages[1:], random)
            )
        finally:
            self._queued.release()
            committer.close()
            self.reader.close()

    def _store(self, committer: ThreadCommitter, burst: Burst, is_read: bool) -> bool:
        with self.reader.snapshot() if is_read else nullcontext():
            self.reader.mark("hlc")
            is_first, self._last = self._last == 0, burst.stages[-1].number
            for stage in burst.stages:
                committer.submit(stage)
            if not is_first:
                self._queued.release()
            while isinstance(outcome := self._outcomes.get(timeout=WAIT_S), Stored):
                if outcome.stages[-1].number == self._last:
                    return True
        return False

    def _deliver(self, outcome: Outcome) -> None:
        """In the store's thread."""
        if not isinstance(outcome, Stored):
            self._outcomes.put(outcome)
            return
        self._acknowledge(outcome.stages)
        is_last = outcome.stages[-1].number == self._last
        self._outcomes.put(outcome)
        if is_last:
            self._queued.acquire()

    def _acknowledge(self, stages: tuple[Stage, ...]) -> None:
        os.write(self._told, b"%d\n" % stages[-1].number)


def live(case: Case, number: int, folder: Path) -> int:
    """One life; its exit code."""
    life = case.lives[number]
    try:
        session = Session(case, folder)
        done = read(session.reader).commit
        is_well = session.run(case.plan.stages[done : life.last], life, Random(f"{case.seed}/{number}"))
    except sqlite3.Error as error:
        print(error, file=sys.stderr)
        return BROKEN
    if (folder / INDEX).exists():
        shutil.copy(folder / INDEX, folder / f"index-{number}")
    return 0 if is_well else BROKEN


if __name__ == "__main__":
    sys.exit(live(msgspec.json.decode(sys.argv[1], type=Case), int(sys.argv[2]), Path(sys.argv[3])))
