"""What a store asked of the kernel, recorded with strace from the shipped store on Python's own SQLite.

Why strace: nothing of the product or of SQLite is changed, replaced or rebuilt, and what counts is what reached the kernel. A VFS
of our own (ctypes, apsw) would need the very library that Python's `sqlite3` is linked with, which may be
inside it; a preloaded library needs a compiler; both would see what SQLite means to do.

What it cannot see are writes through a mapping. SQLite has one, the wal-index (`-shm`), and it is an index only: whoever opens a
database that nobody has open makes it anew from the WAL. So it is no part of the disk, and every kind of rubbish is
tried in its place (see cuts.py). A shared writable mapping of another file would be a hole, so it is refused, as is
each call that the disk does not know, and each two that overlap: a recording is one order of calls, or none.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from ...e2e.system_calls import Call, read_calls
from .disk import Change, Create, Disk, Remove, Rename, Resize, Sync, SyncFailed, SyncFolder, Write
from .plan import Plan
from .workload import DATABASE, MARKS, STORE, Life, lives

INDEX = f"{STORE}/{DATABASE}-shm"
ROOT = Path(__file__).parents[3]
CALLS = (
    "open,openat,openat2,creat,lseek,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,fsync,fdatasync,"
    "sync_file_range,msync,mmap,rename,renameat,renameat2,unlink,unlinkat,link,linkat,sendfile,splice,copy_file_range"
)
BYTES_MAX = 1 << 24
"""Of one write; a longer one is cut off in the trace, and then refused."""


class NotModelled(Exception):
    """The disk of disk.py does not know what this call does."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A client was told that all commits up to this one are durable."""

    commit: int


Step = Change | Acknowledged


@dataclass(frozen=True)
class Recording:
    """All that one store did, in order; before the first step its folder was empty."""

    seed: int
    store: str
    plan: Plan
    steps: tuple[Step, ...]
    wal_indexes: tuple[bytes, ...]
    """Some that were right at their time."""

    @cached_property
    def turning_points(self) -> list[int]:
        """Numbers of steps that make something sure, or promise it: cuts around them are worth more."""
        sure = (Sync, SyncFolder, Acknowledged)
        return [number for number, step in enumerate(self.steps) if isinstance(step, sure)]


def record(folder: Path, seed: int, commits: int, store: str = "Writer") -> Recording:
    """Run all lives of a store under strace. Raises NotModelled."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    folder.mkdir()
    reading = Reading(folder.resolve())
    for number, life in enumerate(lives(seed, commits)):
        trace = folder / f"trace-{number}"
        run_traced(trace, life, [str(folder.resolve()), str(seed), str(commits), str(number), store])
        reading.read(trace)
        reading.compare()
        trace.unlink()
    indexes = tuple(path.read_bytes() for path in sorted(folder.glob("wal-index-*")))
    return Recording(seed, store, Plan(seed, commits), tuple(reading.steps), indexes)


def run_traced(trace: Path, life: Life, arguments: list[str]) -> None:
    fault = life.fault
    inject = [] if fault is None else ["-e", f"inject={fault.call}:{fault.what}:when={fault.when}"]
    calls = ",".join(f"?{call}" for call in CALLS.split(","))
    strace = ["strace", "-f", "-y", "-xx", "-s", str(BYTES_MAX), "-e", f"trace={calls}", *inject]
    process = [sys.executable, "-m", "tests.sim.power.workload", *arguments]
    done = subprocess.run(
        [*strace, "-o", str(trace), *process], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != (-signal.SIGKILL if life.is_killed else 0):
        raise RuntimeError(f"the recorded process ended with {done.returncode}: {done.stderr}")


# From calls to steps

HEX = r"[\\x0-9a-f]*"
FILE = rf"(?P<fd>\d+)<{HEX}>"
NAME = rf'(?:AT_FDCWD<{HEX}>, )?"{HEX}"'
DONE = r"\) += (?P<result>-?\d+|\?)"
OPEN = re.compile(rf"{NAME}, (?P<flags>[A-Z_|]+).*{DONE}")
SEEK = re.compile(rf"{FILE}, .*{DONE}")
WRITE = re.compile(rf'{FILE}, "(?P<data>{HEX})"(?P<more>\.*), \d+(?:, (?P<offset>\d+))?{DONE}')
RESIZE = re.compile(rf"{FILE}, (?P<size>\d+){DONE}")
SYNC = re.compile(rf"{FILE}{DONE}")
REMOVE = re.compile(rf"{NAME}(?:, 0)?{DONE}")
RENAME = re.compile(rf'"{HEX}", "(?P<to>{HEX})"{DONE}')
MAP = re.compile(rf"\w+, \d+, (?P<flags>[A-Z_|]+, [A-Z_|]+), {FILE}.*\) += (?P<result>)")
KINDS = {
    "open": OPEN,
    "openat": OPEN,
    "lseek": SEEK,
    "write": WRITE,
    "pwrite64": WRITE,
    "ftruncate": RESIZE,
    "fsync": SYNC,
    "fdatasync": SYNC,
    "unlink": REMOVE,
    "unlinkat": REMOVE,
    "rename": RENAME,
    "mmap": MAP,
}


class Reading:
    """Reads the traces of one folder, one process after the other: files stay open in none of them."""

    def __init__(self, folder: Path) -> None:
        self.steps: list[Step] = []
        self._disk = Disk()
        self._path = re.compile(re.escape("".join(f"\\x{byte:02x}" for byte in bytes(folder / "_")[:-1])) + HEX)
        self._folder = folder
        self._positions: dict[str, int] = {}

    def read(self, trace: Path) -> None:
        calls = [(call, found[0]) for call in read_calls(trace) if (found := self._path.search(call.text))]
        ended = -1
        for call, path in sorted(calls, key=lambda item: item[0].began):
            name = str(Path(unhex(path).decode()).relative_to(self._folder))
            if name == MARKS or (name.startswith(STORE) and name != INDEX):
                if call.began < ended:
                    raise NotModelled(f"two calls overlap; the later one: {call.name}({call.text[:300]}")
                ended = call.ended
                self._take(call, name)

    def compare(self) -> None:
        """Whether the steps lead to the files as they are: so no change escaped the trace. Raises NotModelled."""
        for path in (self._folder / STORE).iterdir():
            name = str(path.relative_to(self._folder))
            if name != INDEX and path.read_bytes() != self._disk.seen(name):
                raise NotModelled(f"{name} was changed by something that is not in the trace")

    def _take(self, call: Call, name: str) -> None:
        match = pattern.match(call.text) if (pattern := KINDS.get(call.name)) else None
        if match is None:
            raise NotModelled(f"{call.name}({call.text[:300]}")
        if match["result"] == "-1" and match.re is SYNC:
            step: Step|None = SyncFailed(name)
            self.steps.append(step); self._disk.do(step)
            return
        if match["result"].startswith(("-", "?")):
            return  # it failed, or its process was killed before it was done
        step = self._step(match, name)
        if step is None:
            return
        self.steps.append(step)
        if not isinstance(step, Acknowledged):
            self._disk.do(step)

    def _step(self, match: re.Match[str], name: str) -> Step | None:
        if name == MARKS:
            return Acknowledged(int(unhex(match["data"]))) if match.re is WRITE else None
        elif match.re is OPEN:
            return self._open(name, match["flags"].split("|"))
        elif match.re is SEEK:
            self._positions[match["fd"]] = int(match["result"])
            return None
        elif match.re is WRITE:
            return self._write(name, match)
        elif match.re is RESIZE:
            return Resize(name, int(match["size"]))
        elif match.re is SYNC:
            return SyncFolder() if name == STORE else Sync(name)
        elif match.re is REMOVE:
            return Remove(name)
        elif match.re is RENAME:
            return Rename(name, str(Path(unhex(match["to"]).decode()).relative_to(self._folder)))
        elif "PROT_WRITE" in match["flags"] and "MAP_SHARED" in match["flags"]:
            raise NotModelled(f"{name} is written through a mapping")
        return None

    def _open(self, name: str, flags: list[str]) -> Step | None:
        if "O_CREAT" in flags and not self._disk.has(name):
            return Create(name)
        return Resize(name, 0) if "O_TRUNC" in flags else None

    def _write(self, name: str, match: re.Match[str]) -> Write:
        if match["more"]:
            raise NotModelled(f"a write of more than {BYTES_MAX} bytes")
        data = unhex(match["data"])[: int(match["result"])]
        if match["offset"] is not None:
            return Write(name, int(match["offset"]), data)
        offset = self._positions[match["fd"]]
        self._positions[match["fd"]] += len(data)
        return Write(name, offset, data)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
