"""Processes that outlive the command that started them, and are never mistaken for others.

A process is known by its number and its start time. Numbers are used again; so a signal goes through a handle
that is opened first and checked then (Linux: a pidfd), and reaches this process or none.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .. import registry

POLL_S = 0.01
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What may end a command before it is done."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `started` is what `registry.process_started` said of it."""

    pid: int
    started: str

    @property
    def is_alive(self) -> bool:
        return registry.process_started(self.pid) == self.started

    @property
    def is_paused(self) -> bool:
        """Whether SIGSTOP holds it; not known without /proc, and then no."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return self.is_alive and stat.rpartition(")")[2].split()[0] in "Tt"

    def send(self, number: signal.Signals) -> bool:
        """False: it has ended."""
        try:
            with _handle(self.pid) as handle:
                if not self.is_alive:
                    return False
                if handle is not None:
                    signal.pidfd_send_signal(handle, number)
                else:
                    os.kill(self.pid, number)
                return True
        except ProcessLookupError:
            return False


@contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    """Of the process that has the number now; None where the system has no such thing."""
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        handle = None
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold signals back, for as long as it takes to start a process and to note that it is there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def spawn(command: list[str], environment: dict[str, str], log: Path) -> Process:
    """Start it in a session of its own, without a terminal; what it says is added to the log.

    Not with subprocess, whose Popen objects complain of children that outlive them.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.fspath(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_CLOSE, handle) for handle in _inherited()),
    ]
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions, setsid=True, setsigmask=())
    return Process(pid, registry.process_started(pid) or "ended")


def _inherited() -> list[int]:
    """Files that we were started with, such as a lock that a script holds: a daemon must not keep them open."""
    found = []
    for file in Path("/dev/fd").iterdir():
        handle = int(file.name)
        with suppress(OSError):  # the listing's own is closed already
            if handle > 2 and os.get_inheritable(handle):
                found.append(handle)
    return found


def end(processes: Iterable[Process], patience_s: float) -> list[Process]:
    """SIGTERM to all, paused or not, and SIGKILL to those that live on; returns whom even that does not end."""
    left = [process for process in processes if process.send(signal.SIGTERM)]
    for process in left:
        process.send(signal.SIGCONT)
    for process in await_end(left, patience_s):
        process.send(signal.SIGKILL)
    return await_end(left, patience_s)


def await_end(processes: Iterable[Process], patience_s: float) -> list[Process]:
    """Those that have not ended within this time."""
    until_s = time.monotonic() + patience_s
    left = list(processes)
    while left and time.monotonic() < until_s:
        for process in [process for process in left if not process.is_alive]:
            left.remove(process)
            _reap(process.pid)
        if left:
            time.sleep(POLL_S)
    return left


def _reap(pid: int) -> None:
    """Clear away an ended child of ours; other processes are their own parents' business."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
