"""A disk that loses power: what it may hold after a cut, given what was asked of the kernel until then.

It promises as little as SQLite can live with:

- What was written to a file before a sync of that file is there once the sync has ended. Nothing else is sure.
- Every other write is there or not, sector by sector, in any combination: later ones without earlier ones, the middle
  of a page without its ends. Of several writes to one sector, any first few are there. A lost sector holds what it
  held before or, when the cut *garbles*, anything at all, but only in the bytes that were being written: what
  stands beside them is never harmed (SQLite calls that powersafe overwrite, and counts on it).
- A file has any of the sizes that it had since its last sync, whatever became of its bytes; a hole reads as zeros. It
  is cut in one step, as a size is one number: SQLite counts on that too, when it empties its WAL.
- A name that was made, moved or removed is sure once the folder was synced; each is lost by itself.
- When a sync fails, the kernel has said so once. It goes on showing what was written, takes it for clean, and never
  writes it again ("Can Applications Recover from fsync Failures?", USENIX ATC 2020, for ext4 and XFS).

Real disks are kinder: they keep names in order, and sizes with their bytes. A store that survives here needs none
of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import assert_never

PAGE = 4096
"""What the kernel writes whole when a byte of it was changed."""

SECTORS = (512, 4096)
"""What a disk writes whole or not at all."""


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at an offset of a file; the file may grow by it."""

    name: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A file is cut, or padded with zeros."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Create:
    """A new, empty file under a name that was free."""

    name: str


@dataclass(frozen=True, slots=True)
class Remove:
    """A name is free again."""

    name: str


@dataclass(frozen=True, slots=True)
class Rename:
    """A file takes another name, and the place of what had it."""

    name: str
    to: str


@dataclass(frozen=True, slots=True)
class Sync:
    """What is in the file is durable, its name is not."""

    name: str


@dataclass(frozen=True, slots=True)
class SyncFailed:
    """What was written since the last sync did not reach the disk, and will not."""

    name: str


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """The names of all files are durable, what is in them is not."""


Change = Write | Resize | Create | Remove | Rename | Sync | SyncFailed | SyncFolder


@dataclass(frozen=True, slots=True)
class Weather:
    """How a cut treats what was not synced."""

    kept: float
    """The chance of each sector, size and name to be as the process saw it."""
    sector: int
    garbles: bool
    """Whether a lost sector may hold anything, not just what it held before."""


class Disk:
    """One folder. `after_cut` may be asked at any moment, and changes nothing."""

    def __init__(self) -> None:
        self._names: dict[str, list[File | None]] = {}
        """What each name may mean after a cut: first what is sure, last what the process sees. None: no such file."""

    def do(self, change: Change) -> None:
        match change:
            case Write() | Resize():
                self._file(change.name).add(change)
            case Sync():
                self._file(change.name).sync()
            case SyncFailed():
                self._file(change.name).fail()
            case Create():
                assert not self.has(change.name), f"{change.name} exists"
                self._name(change.name, File())
            case Remove():
                assert self.has(change.name), f"there is no {change.name}"
                self._name(change.name, None)
            case Rename():
                self._name(change.to, self._file(change.name))
                self._name(change.name, None)
            case SyncFolder():
                self._names = {name: meanings[-1:] for name, meanings in self._names.items()}
            case _:
                assert_never(change)

    def has(self, name: str) -> bool:
        """Whether the process sees such a file."""
        return name in self._names and self._names[name][-1] is not None

    def seen(self, name: str) -> bytes:
        """What the process reads from a file."""
        return self._file(name).seen

    def after_cut(self, weather: Weather, random: Random) -> dict[str, bytes]:
        """One of the many things that may be found: files by their names."""
        found = {
            name: meanings[-1] if random.random() < weather.kept else random.choice(meanings)
            for name, meanings in self._names.items()
        }
        return {name: file.after_cut(weather, random) for name, file in found.items() if file is not None}

    def _name(self, name: str, meaning: File | None) -> None:
        self._names.setdefault(name, [None]).append(meaning)

    def _file(self, name: str) -> File:
        file = self._names[name][-1]
        assert file is not None, f"there is no {name}"
        return file


class File:
    """What is on the disk, and what the process sees: the same after a sync, unless one before it failed."""

    def __init__(self) -> None:
        self._durable, self._seen = bytearray(), bytearray()
        self._pending: list[Write | Resize] = []

    @property
    def seen(self) -> bytes:
        return bytes(self._seen)

    def add(self, change: Write | Resize) -> None:
        self._pending.append(change)
        if isinstance(change, Write):
            overwrite(self._seen, change.offset, change.data)
        else:
            resize(self._seen, change.size)

    def sync(self) -> None:
        """Pages are written whole, those that were changed since the last sync."""
        for change in self._pending:
            offset, data = as_bytes(change, len(self._durable))
            first, end = offset - offset % PAGE, offset + len(data)
            overwrite(self._durable, first, self._seen[first : end + -end % PAGE])
        resize(self._durable, len(self._seen))
        self._pending.clear()

    def fail(self) -> None:
        self._pending.clear()

    def after_cut(self, weather: Weather, random: Random) -> bytes:
        content, size = bytearray(self._durable), len(self._durable)
        lost: set[int] = set()
        last = len(self._pending)
        sized = last if random.random() < weather.kept else random.randint(0, last)
        for number, change in enumerate(self._pending):
            if isinstance(change, Write):
                self._write(content, change, lost, weather, random)
            elif number < sized:
                overwrite(content, *as_bytes(change, len(content)))
            if number < sized:
                size = size_after(change, size)
        resize(content, size)
        return bytes(content)

    def _write(
        self, content: bytearray, change: Write, lost: set[int], weather: Weather, random: Random
    ) -> None:
        """Perhaps. Of a sector that is `lost`, what came later did not reach the disk either."""
        for offset, piece in pieces(change.offset, change.data, weather.sector):
            sector = offset // weather.sector
            if sector in lost:
                continue
            if random.random() < weather.kept:
                overwrite(content, offset, piece)
                continue
            lost.add(sector)
            if weather.garbles:
                overwrite(content, offset, random.randbytes(len(piece)))


def size_after(change: Write | Resize, size: int) -> int:
    if isinstance(change, Write):
        return max(size, change.offset + len(change.data))
    return change.size


def as_bytes(change: Write | Resize, size: int) -> tuple[int, bytes]:
    """What a change puts where. What was cut off reads as zeros if the file grows again."""
    if isinstance(change, Write):
        return change.offset, change.data
    return change.size, bytes(max(0, size - change.size))


def pieces(offset: int, data: bytes, sector: int) -> Iterator[tuple[int, bytes]]:
    """A write, divided where sectors meet."""
    first = 0
    while first < len(data):
        end = min(len(data), first + sector - (offset + first) % sector)
        yield offset + first, data[first:end]
        first = end


def overwrite(content: bytearray, offset: int, data: bytes | bytearray) -> None:
    if offset > len(content):
        resize(content, offset)
    content[offset : offset + len(data)] = data


def resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))
