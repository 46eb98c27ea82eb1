"""Cuts the power under a recorded store at many moments, and opens what is left with the real store.

What must hold of each image (store.md calls the first three D1 to D3):

- `opens`: Writer and Reader open it, whatever stands in the place of the wal-index.
- `integrity`: SQLite finds nothing wrong with it, and no row fails its checksum.
- `acknowledged`: it is not behind what was acknowledged before the cut: rows, heads, stamps, runs, records (D1, D2).
- `whole`: it is exactly what all commits up to some one make: none in part, none left out, none twice (D3). So a head
  never covers a row that is not there.
- `goes on`: the next commit can be stored, and is there.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from peernode.store.reader import Reader
from peernode.store.schema import open_reader
from peernode.store.writer import Writer
from protocol.replica.store import DamagedRow

from .disk import SECTORS, Disk, Weather
from .plan import Contents, Plan, read
from .recording import Acknowledged, Recording
from .workload import DATABASE, STORE

KEPT = (0.0, 0.02, 0.5, 0.5, 0.9, 0.98, 1.0)
"""Chances that something not synced is there all the same; the extremes find what a fair coin does not."""


class Violation(AssertionError):
    """A cut after which a promise is broken."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise


@dataclass(frozen=True, slots=True)
class Cut:
    """Recording and number alone decide all of it."""

    number: int
    moment: int
    """So many steps had been done."""
    weather: Weather

    @classmethod
    def of(cls, recording: Recording, number: int) -> Cut:
        random = Random(f"{recording.seed}/cut/{number}")
        moment = random.randint(0, len(recording.steps))
        if random.random() < 0.5:
            moment = random.choice(recording.turning_points) + random.randint(0, 1)
        weather = Weather(random.choice(KEPT), random.choice(SECTORS), random.random() < 0.3)
        return cls(number, moment, weather)


def examine(recording: Recording, numbers: Iterable[int], folder: Path) -> Iterator[tuple[Cut, Violation]]:
    """Make these cuts, in the order of their moments; yields those that break a promise."""
    disk, done, acknowledged = Disk(), 0, 0
    for cut in sorted((Cut.of(recording, number) for number in numbers), key=lambda cut: cut.moment):
        for step in recording.steps[done : cut.moment]:
            if isinstance(step, Acknowledged):
                acknowledged = step.commit
            else:
                disk.do(step)
        done = cut.moment
        random = Random(f"{recording.seed}/image/{cut.number}")
        lay_out(disk.after_cut(cut.weather, random), recording.wal_indexes, random, folder)
        try:
            check(folder / STORE / DATABASE, recording.plan, acknowledged)
        except Violation as broken:
            yield cut, broken


def lay_out(image: dict[str, bytes], wal_indexes: tuple[bytes, ...], random: Random, folder: Path) -> None:
    """Write the files of an image, and anything in the place of the wal-index."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / STORE).mkdir(parents=True)
    for name, content in image.items():
        (folder / name).write_bytes(content)
    index = random.choice([None, b"", bytes(1 << 15), random.randbytes(1 << 15), *wal_indexes])
    if index is not None:
        (folder / STORE / f"{DATABASE}-shm").write_bytes(index)


def check(database: Path, plan: Plan, acknowledged: int) -> None:
    """Raises Violation."""
    try:
        writer = Writer(database)
        reader = Reader(database)
    except sqlite3.Error as error:
        raise Violation("opens", str(error)) from error
    try:
        commit = check_contents(database, reader, plan, acknowledged)
        if commit < len(plan.stages):
            writer.apply([plan.stages[commit]])
            require_equal("goes on", plan.contents[commit + 1], read(reader))
    except (sqlite3.Error, DamagedRow) as error:
        raise Violation("integrity", str(error)) from error
    finally:
        writer.close()
        reader.close()


def check_contents(database: Path, reader: Reader, plan: Plan, acknowledged: int) -> int:
    """The number of the last commit in it. Raises Violation, sqlite3.Error or DamagedRow."""
    connection = open_reader(database)
    try:
        found = connection.execute("PRAGMA integrity_check").fetchall()
    finally:
        connection.close()
    if found != [("ok",)]:
        raise Violation("integrity", "; ".join(line for (line,) in found))
    contents = read(reader)
    if contents.commit < acknowledged:
        raise Violation("acknowledged", f"commit {acknowledged} was; the store is at {contents.commit}")
    require_equal("whole", plan.contents[contents.commit], contents)
    return contents.commit


def require_equal(promise: str, expected: Contents, found: Contents) -> None:
    if different := expected.unlike(found):
        raise Violation(promise, f"commit {expected.commit} leaves other {', '.join(different[:5])}")
