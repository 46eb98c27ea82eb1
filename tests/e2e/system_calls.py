"""What a process asked of the kernel, in order: a trace by strace, read into calls with a beginning and an end."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from .daemons import Daemon

LINE = re.compile(r"(?P<thread>\d+) +(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<name>\w+)\()(?P<rest>.*)")
UNFINISHED = "<unfinished ...>"


class Call(NamedTuple):
    """One system call; `began` and `ended` are lines of the trace."""

    name: str
    text: str
    began: int
    ended: int


@contextmanager
def traced(daemon: Daemon, calls: str, prefix: tuple[str, ...] = ()) -> Iterator[Path]:
    """The daemon runs under strace inside, and has ended behind; yields the file of the trace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = daemon.home / f"{daemon.name}.trace"
    options = ("-f", "-y", "-s", "8192", "-e", f"trace={calls}", "-o", str(trace))
    try:
        daemon.start(prefix=("strace", *options, *prefix))
        yield trace
    finally:
        for child in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        daemon.wait()


def read_calls(trace: Path) -> list[Call]:
    """The calls in the order of their ends, those of all threads together."""
    calls: list[Call] = []
    open_calls: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(trace.read_text().splitlines()):
        match = LINE.match(line)
        if match is None:
            continue  # a signal, or an exit
        thread, text = match["thread"], match["rest"]
        if match["resumed"]:
            before, began = open_calls.pop(thread)
            calls.append(Call(match["resumed"], before + text, began, number))
        elif text.endswith(UNFINISHED):
            open_calls[thread] = (text.removesuffix(UNFINISHED), number)
        else:
            calls.append(Call(match["name"], text, number, number))
    return calls
