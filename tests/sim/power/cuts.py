"""Cuts the power under a recorded store at many moments, and opens what is left with the same store.

What must hold of each image (`acknowledged` is D1 and D2 of the design, `whole` is D3):

- `opens`: Writer and Reader open it, whatever stands in the place of the wal-index.
- `integrity`: SQLite finds nothing wrong with it, its two indexes agree, and no row fails its checksum.
- `acknowledged`: it is not behind what was acknowledged before the cut: rows, heads, stamps, runs, records.
- `whole`: it is exactly what all commits up to some one make: none in part, none left out. So a head never covers
  a row that is not there.
- `goes on`: the next commit can be stored, and is then there.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec

from peernode.store.reader import Reader
from peernode.store.schema import open_reader
from protocol.replica.store import DamagedRow

from .disk import SECTORS, Disk, Weather
from .plan import Contents, IndexesDiffer, read
from .recording import Acknowledged, Recording
from .stores import STORES
from .workload import DATABASE, INDEX, STORE, Case

KEPT = (0.0, 0.02, 0.5, 0.5, 0.9, 0.98, 1.0)
"""Chances that something not synced is there all the same; the extremes find what a fair coin does not."""

MEMORY = Path("/dev/shm")


class Violation(AssertionError):
    """A promise that is broken after a cut."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise


@dataclass(frozen=True, slots=True)
class Cut:
    """Case and number alone decide all of it."""

    number: int
    moment: int
    """So many steps had been done."""
    weather: Weather

    @classmethod
    def of(cls, recording: Recording, number: int) -> Cut:
        random = Random(f"{recording.case.seed}/cut/{number}")
        moment = random.randint(0, len(recording.steps))
        if random.random() < 0.5:
            moment = random.choice(recording.turning_points) + random.randint(0, 1)
        weather = Weather(random.choice(KEPT), random.choice(SECTORS), random.random() < 0.3)
        return cls(number, moment, weather)


@dataclass(frozen=True, slots=True)
class Image:
    """What is found after a cut."""

    cut: Cut
    acknowledged: int
    files: dict[str, bytes]

    def lay_out(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / STORE).mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def images(recording: Recording, numbers: Iterable[int]) -> Iterator[Image]:
    """In the order of their moments."""
    disk, done, acknowledged = Disk(), 0, 0
    for cut in sorted((Cut.of(recording, number) for number in numbers), key=lambda cut: cut.moment):
        for step in recording.steps[done : cut.moment]:
            if isinstance(step, Acknowledged):
                acknowledged = step.commit
            else:
                disk.do(step)
        done = cut.moment
        random = Random(f"{recording.case.seed}/image/{cut.number}")
        files = disk.after_cut(cut.weather, random)
        index = random.choice([None, b"", bytes(1 << 15), random.randbytes(1 << 15), *recording.indexes])
        yield Image(cut, acknowledged, files if index is None else files | {INDEX: index})


def violations(
    recording: Recording, numbers: Iterable[int], folder: Path
) -> Iterator[tuple[Image, Violation]]:
    """The cuts after which a promise is broken."""
    for image in images(recording, numbers):
        image.lay_out(folder)
        try:
            check(recording, folder / STORE / DATABASE, image.acknowledged)
        except Violation as violation:
            yield image, violation


def check(recording: Recording, database: Path, acknowledged: int) -> None:
    """Raises Violation."""
    try:
        writer = STORES[recording.case.store](database)
        reader = Reader(database)
    except sqlite3.Error as error:
        raise Violation("opens", str(error)) from error
    plan = recording.plan
    try:
        check_integrity(database)
        contents = read(reader)
        if contents.commit > len(plan.stages):
            raise Violation("integrity", f"there is no commit {contents.commit}")
        if contents.commit < acknowledged:
            raise Violation("acknowledged", f"{acknowledged} was, and the store is at {contents.commit}")
        require_equal("whole", plan.contents[contents.commit], contents)
        if contents.commit < len(plan.stages):
            writer.apply([plan.stages[contents.commit]])
            require_equal("goes on", plan.contents[contents.commit + 1], read(reader))
    except (sqlite3.Error, msgspec.DecodeError, DamagedRow, IndexesDiffer) as error:
        raise Violation("integrity", str(error)) from error
    finally:
        writer.close()
        reader.close()


def check_integrity(database: Path) -> None:
    connection = open_reader(database)
    try:
        found = connection.execute("PRAGMA integrity_check").fetchall()
    finally:
        connection.close()
    if found != [("ok",)]:
        raise Violation("integrity", "; ".join(line for (line,) in found))


def require_equal(promise: str, expected: Contents, found: Contents) -> None:
    if different := expected.unlike(found):
        raise Violation(promise, f"commit {expected.commit} leaves other {', '.join(different[:5])}")


def told(case: Case, image: Image, violation: Violation) -> str:
    """A violation in words, and the command that shows it again."""
    options = f"--seed {case.seed} --cut {image.cut.number} --commits {case.commits} --store {case.store}"
    faults = " ".join(("--faults", *case.faults)) if case.faults else "--faults"
    calm = "" if case.is_read else " --no-readers"
    return f"{violation}\n  after {image.cut}\n  again: python -m {__package__} {options} {faults}{calm}"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for files that are made and thrown away by the hundred: in memory where that is possible."""
    is_there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="pn-", dir=MEMORY if is_there else None) as made:
        yield Path(made)
