"""A folder of files as keys and values, and back: the key is the path below the folder, with `/`, byte by byte.

Reading never follows a link out of the folder, never enters one to a folder (so it cannot go round in circles), and
never opens what is no file. Writing never leaves the folder, whatever keys say: keys are what other members wrote.
Each part of a path is opened from the one above and must be a real folder, so no link that lies there leads out; each
file appears whole, under its name, or not at all.
"""

from __future__ import annotations

import fnmatch
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from ..client.bulk import KEY_BYTES_MAX, VALUE_BYTES_MAX

NAME_BYTES_MAX = 255
"""One part of a path, on nearly all file systems."""

OTHER_KINDS = {
    stat.S_IFDIR: "a link to a folder: its files have keys of their own if it is in here",
    stat.S_IFIFO: "a named pipe, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}
BOTH = "it is both a file and a folder; use a .jsonl file for such keys"


class Skipped(NamedTuple):
    """What does not come along, and why. `is_failure`: it should have."""

    path: bytes
    reason: str
    is_failure: bool = False


class File(NamedTuple):
    """A file that was read: its path below the folder, and all of it."""

    path: bytes
    content: bytes


# Reading


def read_folder(root: Path, exclude: Sequence[bytes] = ()) -> Iterator[File | Skipped]:
    """All files below it, in the order of their paths in each folder, but for names that match a glob."""
    real = os.path.realpath(os.fsencode(root)).rstrip(b"/")
    for path in paths_below(real, exclude):
        yield path if isinstance(path, Skipped) else read_file(real, path)


def paths_below(root: bytes, exclude: Sequence[bytes] = ()) -> Iterator[bytes | Skipped]:
    """Everything below that is no folder. Names of one folder at a time are in memory."""
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        if len(folder) > KEY_BYTES_MAX:
            yield Skipped(folder, f"keys of more than {KEY_BYTES_MAX} bytes")
            continue
        try:
            with os.scandir(root + b"/" + folder) as entries:
                found = sorted(
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if not any(fnmatch.fnmatchcase(entry.name, glob) for glob in exclude)
                )
        except OSError as error:
            yield Skipped(folder, reason_of(error), is_failure=True)
            continue
        above = folder + b"/" if folder else b""
        waiting += [above + name for name, is_folder in reversed(found) if is_folder]
        yield from (above + name for name, is_folder in found if not is_folder)


def read_file(root: bytes, path: bytes) -> File | Skipped:
    """The content of a file, or of the file that a link leads to within the root."""
    try:
        place = os.path.realpath(root + b"/" + path, strict=True)
        if not (place + b"/").startswith(root + b"/"):
            return Skipped(path, "a link that leads out of the folder")
        about = os.lstat(place)
        if (kind := stat.S_IFMT(about.st_mode)) != stat.S_IFREG:
            return Skipped(path, OTHER_KINDS.get(kind, "not a file"))
        if about.st_size > VALUE_BYTES_MAX:
            return Skipped(path, too_large(about.st_size))
        return read_open(path, place)
    except OSError as error:
        return Skipped(path, reason_of(error), is_failure=True)


def read_open(path: bytes, place: bytes) -> File | Skipped:
    """It is looked at again once it is open, and once it is read: others may change it meanwhile."""
    with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            return Skipped(path, "not a file any more", is_failure=True)
        content = file.read(VALUE_BYTES_MAX + 1)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return Skipped(path, "it changed while it was read", is_failure=True)
    return File(path, content)


def too_large(size: int) -> str:
    return f"a file of {size} bytes; the limit of a value is {VALUE_BYTES_MAX}"


def reason_of(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# Writing


class FolderWriter:
    """Writes files below a folder, in the order of their keys.

    In that order all keys that are parts of a key come before it: `_parts` are those of the last one, with their
    sizes. So it is known when a key is a folder for others, too. `files` and `bytes` are what was written and stays.
    """

    def __init__(self, root: Path, *, replace: bool = False) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._replace = replace
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._folder: tuple[bytes, ...] = ()
        self._open = os.dup(self._root)
        self._parts: list[tuple[bytes, int]] = []
        self.files = self.bytes = 0
        self._temporary = b".peernode-%s.tmp" % secrets.token_hex(8).encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._open)
        os.close(self._root)

    def write(self, key: bytes, content: bytes) -> list[Skipped]:
        """Write one file; what was skipped: this key, or a former one that had to give way to it."""
        skipped: list[Skipped] = []
        reason = unsafe(key)
        if reason is not None:
            return [Skipped(key, reason)]
        try:
            skipped += self._make_way(key)
            *folder, name = key.split(b"/")
            self._enter(tuple(folder))
            if self._replace or not exists(name, self._open):
                self._write_whole(name, content)
                self._parts.append((key, len(content)))
                self._count(1, len(content))
            else:
                skipped.append(Skipped(key, "another key has this name on this file system"))
        except NotADirectoryError:
            skipped.append(Skipped(key, "a part of its path is there and is no folder"))
        except IsADirectoryError:
            skipped.append(Skipped(key, "there is a folder of this name"))
        except OSError as error:
            skipped.append(Skipped(key, reason_of(error), is_failure=True))
        return skipped

    def _make_way(self, key: bytes) -> list[Skipped]:
        """Remove the file of a key that is a folder of this one."""
        while self._parts and not key.startswith(self._parts[-1][0]):
            self._parts.pop()
        both = [part for part in self._parts if key.startswith(part[0] + b"/")]
        for part in both:
            self._parts.remove(part)
            *folder, name = part[0].split(b"/")
            self._enter(tuple(folder))
            os.unlink(name, dir_fd=self._open)
            self._count(-1, -part[1])
        return [Skipped(path, BOTH) for path, _ in both]

    def _count(self, files: int, size: int) -> None:
        self.files += files
        self.bytes += size

    def _enter(self, folder: tuple[bytes, ...]) -> None:
        """Make this folder the open one."""
        if folder == self._folder:
            return
        handle = os.dup(self._root)
        try:
            for part in folder:
                handle = descend(handle, part)
        except BaseException:
            os.close(handle)
            raise
        os.close(self._open)
        self._folder, self._open = folder, handle

    def _write_whole(self, name: bytes, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self._temporary, flags, 0o666, dir_fd=self._open)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.rename(self._temporary, name, src_dir_fd=self._open, dst_dir_fd=self._open)
        except BaseException:
            os.unlink(self._temporary, dir_fd=self._open)
            raise


def unsafe(key: bytes) -> str | None:
    """Why this key is no path below a folder."""
    parts = key.split(b"/")
    if b"\0" in key or any(part in (b"", b".", b"..") for part in parts):
        return "no safe relative path; use a .jsonl file for such keys"
    if max(map(len, parts)) > NAME_BYTES_MAX:
        return f"a part of its path has more than {NAME_BYTES_MAX} bytes; use a .jsonl file for such keys"
    return None


def exists(name: bytes, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def descend(folder: int, part: bytes) -> int:
    """Open a folder in a folder, made if need be, and close the upper one."""
    try:
        os.mkdir(part, dir_fd=folder)
    except FileExistsError:
        pass
    lower = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    os.close(folder)
    return lower
