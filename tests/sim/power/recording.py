"""What a store asks of the kernel, recorded with strace from the shipped store on Python's own SQLite.

Why strace: nothing of the product or of SQLite is changed, replaced or rebuilt, and what counts is what reached the
kernel. A VFS of our own (ctypes, apsw) would need the very library that Python's `sqlite3` uses, which may be built
into it; a preloaded library needs a compiler, and misses a static one.

What it cannot see are writes through a mapping. SQLite has one, the wal-index (`-shm`), and that is only an index:
who opens a database that nobody has open makes it anew from the WAL. So it is no part of the disk, and all kinds of
rubbish are tried in its place (see cuts.py). Any other hole is refused: a shared writable mapping of another file, a
call that the disk does not know, two calls that overlap. And after each life the steps must have led to the very
files that are there.
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

import msgspec

from ...e2e.system_calls import Call, read_calls
from .disk import Change, Create, Disk, Remove, Rename, Resize, Sync, SyncFailed, SyncFolder, Write
from .plan import Plan
from .workload import ACKNOWLEDGED, BROKEN, INDEX, STORE, Case, Fault

ROOT = Path(__file__).parents[3]
CALLS = (
    "open,openat,openat2,creat,lseek,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,fsync,fdatasync,"
    "sync_file_range,msync,mmap,rename,renameat,renameat2,unlink,unlinkat,link,linkat,sendfile,splice,copy_file_range"
)
WRITE_BYTES_MAX = 1 << 24
"""A longer write is cut off in the trace, and then refused."""


class NotModelled(Exception):
    """The disk of disk.py cannot say what this does."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A client was told that all commits up to this one are durable."""

    commit: int


Step = Change | Acknowledged


@dataclass(frozen=True)
class Recording:
    """All that one store did, in order; before the first step its folder was empty."""

    case: Case
    steps: tuple[Step, ...]
    ends: tuple[str, ...]
    """How its lives ended: `done`, `killed` or `broken`."""
    indexes: tuple[bytes, ...]
    """Wal-indexes that were right at their time."""

    @cached_property
    def plan(self) -> Plan:
        return self.case.plan

    @cached_property
    def turning_points(self) -> list[int]:
        """Numbers of steps that make something sure, or promise it: cuts around them find most."""
        sure = (Sync, SyncFailed, SyncFolder, Acknowledged)
        return [number for number, step in enumerate(self.steps) if isinstance(step, sure)]


def record(case: Case, folder: Path) -> Recording:
    """Run all lives of a store under strace. Raises NotModelled."""
    folder = folder.resolve()
    folder.mkdir()
    reading, ends, trace = Reading(folder), list[str](), folder / "trace"
    for number, life in enumerate(case.lives):
        arguments = [msgspec.json.encode(case).decode(), str(number), str(folder)]
        ends.append(run_traced(trace, life.fault, arguments))
        reading.read(trace)
        reading.compare()
    indexes = tuple(path.read_bytes() for path in sorted(folder.glob("index-*")))
    shutil.rmtree(folder)
    return Recording(case, tuple(reading.steps), tuple(ends), indexes)


def run_traced(trace: Path, fault: Fault | None, arguments: list[str]) -> str:
    """One life; how it ended. A filter in the kernel makes tracing cheap, but strace then puts no faults in."""
    faults = [f"--inject={fault.call}:{fault.what}:when={fault.when}"] if fault else ["--seccomp-bpf"]
    calls = ",".join(f"?{call}" for call in CALLS.split(","))
    strace = ["strace", "-f", "-y", "-xx", "-s", str(WRITE_BYTES_MAX), f"--trace={calls}", *faults]
    process = [sys.executable, "-m", f"{__package__}.workload", *arguments]
    done = subprocess.run(
        [*strace, "-o", str(trace), *process], cwd=ROOT, capture_output=True, text=True, check=False
    )
    end = {0: "done", -signal.SIGKILL: "killed", BROKEN: "broken"}.get(done.returncode)
    if end is None or (end != "done" and fault is None):
        raise RuntimeError(f"the recorded process ended with {done.returncode}: {done.stderr}")
    return end


# From calls to steps

HEX = r"[\\x0-9a-f]*"
FILE = rf"(?P<fd>\d+)<{HEX}>"
NAME = rf'(?:AT_FDCWD<{HEX}>, )?"{HEX}"'
RESULT = r"\) += (?P<result>-?\w+|\?)"
OPEN = re.compile(rf"{NAME}, (?P<flags>[A-Z_|]+).*{RESULT}")
SEEK = re.compile(rf"{FILE}, .*{RESULT}")
WRITE = re.compile(rf'{FILE}, "(?P<data>{HEX})"(?P<more>\.*), \d+(?:, (?P<offset>\d+))?{RESULT}')
RESIZE = re.compile(rf"{FILE}, (?P<size>\d+){RESULT}")
SYNC = re.compile(rf"{FILE}{RESULT}")
REMOVE = re.compile(rf"{NAME}(?:, 0)?{RESULT}")
RENAME = re.compile(rf'"{HEX}", "(?P<to>{HEX})"{RESULT}')
MAP = re.compile(rf"\w+, \d+, (?P<flags>[A-Z_|]+, [A-Z_|]+), {FILE}.*{RESULT}")
PATTERNS = {
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
"""How calls look that the disk knows. `lseek` is here because some builds of SQLite seek and write."""


class Reading:
    """Reads the traces of one folder, process after process."""

    def __init__(self, folder: Path) -> None:
        self.steps: list[Step] = []
        self._folder = folder
        self._path = re.compile(re.escape(hexed(f"{folder}/")) + HEX)
        self._disk = Disk()
        self._positions: dict[str, int] = {}
        """Of open files, by their descriptors."""

    def read(self, trace: Path) -> None:
        ended = -1
        for call in sorted(read_calls(trace), key=lambda call: call.began):
            found = self._path.search(call.text)
            name = self._name(found[0]) if found else ""
            if name != ACKNOWLEDGED and (not name.startswith(STORE) or name == INDEX):
                continue
            if call.began < ended:
                raise NotModelled(f"two calls overlap; the later one: {call.name}({call.text[:300]}")
            ended = call.ended
            step = self._step(call, name)
            if step is not None:
                self.steps.append(step)
                if not isinstance(step, Acknowledged):
                    self._disk.do(step)

    def compare(self) -> None:
        """Whether all changes of the files are among the steps. Raises NotModelled."""
        for path in (self._folder / STORE).iterdir():
            name = str(path.relative_to(self._folder))
            if name != INDEX and path.read_bytes() != self._disk.seen(name):
                raise NotModelled(f"{name} was changed by something that is not in the trace")

    def _step(self, call: Call, name: str) -> Step | None:
        match = pattern.match(call.text) if (pattern := PATTERNS.get(call.name)) else None
        if match is None:
            raise NotModelled(f"{call.name}({call.text[:300]}")
        if match["result"] == "?" or match["result"].startswith("-"):  # killed before it was done, or failed
            return SyncFailed(name) if match.re is SYNC and match["result"] != "?" else None
        if name == ACKNOWLEDGED:
            return Acknowledged(int(unhexed(match["data"]))) if match.re is WRITE else None
        return self._change(match, name)

    def _change(self, match: re.Match[str], name: str) -> Change | None:
        if match.re is OPEN:
            return self._opened(name, match["flags"].split("|"))
        elif match.re is SEEK:
            self._positions[match["fd"]] = int(match["result"])
        elif match.re is WRITE:
            return self._written(name, match)
        elif match.re is RESIZE:
            return Resize(name, int(match["size"]))
        elif match.re is SYNC:
            return SyncFolder() if name == STORE else Sync(name)
        elif match.re is REMOVE:
            return Remove(name)
        elif match.re is RENAME:
            return Rename(name, self._name(match["to"]))
        elif "PROT_WRITE" in match["flags"] and "MAP_SHARED" in match["flags"]:
            raise NotModelled(f"{name} is written through a mapping")
        return None

    def _opened(self, name: str, flags: list[str]) -> Change | None:
        if "O_CREAT" in flags and not self._disk.has(name):
            return Create(name)
        return Resize(name, 0) if "O_TRUNC" in flags else None

    def _written(self, name: str, match: re.Match[str]) -> Write:
        if match["more"]:
            raise NotModelled(f"a write of more than {WRITE_BYTES_MAX} bytes")
        data = unhexed(match["data"])[: int(match["result"])]
        if match["offset"] is not None:
            return Write(name, int(match["offset"]), data)
        offset = self._positions.get(match["fd"], 0)
        self._positions[match["fd"]] = offset + len(data)
        return Write(name, offset, data)

    def _name(self, text: str) -> str:
        return str(Path(unhexed(text).decode()).relative_to(self._folder))


def hexed(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def unhexed(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
