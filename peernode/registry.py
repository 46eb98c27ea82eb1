"""Where daemons live on this machine: folders, sockets, and a file for each one that runs.

Standard library only: the command line reads what the daemon writes. A registration counts only while its
process lives and is the one that wrote it (a process id may be used again, so its start time is kept too).
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

SOCKET_PATH_BYTES_MAX = 100
"""Unix socket paths end at 108 bytes, on some systems at 104."""

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Registration:
    """One running daemon."""

    pid: int
    started: str
    name: str
    cluster: str
    cluster_id: str
    socket: str
    address: str
    data_dir: str


def home() -> Path:
    """The folder of all daemons of this user: PEERNODE_HOME, else the platform's state folder."""
    if given := os.environ.get("PEERNODE_HOME"):
        return Path(given).absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "peernode"
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "peernode"


def check_name(name: str, what: str = "name") -> str:
    """Raises ValueError with what a name looks like."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}: use 1 to 63 of a-z, 0-9 and -, not - at an end")
    if what == "cluster" and name == "run":
        raise ValueError("a cluster cannot be called run: that folder holds the registry")
    return name


def data_dir(cluster: str, name: str) -> Path:
    """The folder of one node. Raises ValueError for a bad name."""
    return home() / check_name(cluster, "cluster") / check_name(name)


def socket_path(folder: Path) -> Path:
    """`sock` in the data folder, or a short path elsewhere when that would be too long for a socket."""
    path = folder / "sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) / "peernode" if runtime else Path(f"/tmp/peernode-{os.getuid()}")
    return base / f"{blake2b(os.fsencode(folder), digest_size=8).hexdigest()}.sock"


def make_private(folder: Path) -> None:
    """Make a 0700 folder of our own. Raises PermissionError when it is somebody else's or open."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must belong to you alone; mend it with: chmod 700 {folder}")


def register(registration: Registration) -> Path:
    """Tell the command line about a daemon. Returns the file, to be given to `unregister`."""
    folder = home() / "run"
    make_private(folder)
    mark = blake2b(os.fsencode(registration.data_dir), digest_size=4).hexdigest()
    file = folder / f"{registration.name}-{mark}.json"
    aside = file.with_suffix(f".{registration.pid}.new")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump(asdict(registration), out)
    aside.rename(file)
    return file


def unregister(file: Path) -> None:
    file.unlink(missing_ok=True)


def running() -> list[Registration]:
    """Daemons of this user that are alive, by name. Files of dead ones are removed."""
    found: list[Registration] = []
    folder = home() / "run"
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            registration = Registration(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # being written or removed, or of another version
        if process_started(registration.pid) == registration.started:
            found.append(registration)
        else:
            unregister(file)
    return sorted(found, key=lambda registration: (registration.name, registration.cluster))


def process_started(pid: int) -> str | None:
    """A text that is the same as long as this process lives; None when there is none."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if state in "ZX" and int(fields[16]) <= 1:  # its number is taken, but it does not live
            return None
        return fields[18]  # also while threads of it are left: they hold its files and ports open
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, ValueError, IndexError):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
