"""Who counts as running on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peernode.registry import process_started

from ..waiting import wait_until


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_that_ended_does_not_live_until_its_parent_looks() -> None:
    """A killed daemon counts as ended at once, also where its parent (an init, a script) never waits for it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process_started(process.pid) == process_started(process.pid) is not None
        process.kill()
        wait_until(
            lambda: process_started(process.pid) is None, what="the end of a process that nobody waits for"
        )
        assert Path(f"/proc/{process.pid}").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_lives_as_long_as_any_thread_of_it() -> None:
    """Its first thread may be gone already while another still holds its files and its ports open."""
    lives_on = (
        "import ctypes, threading as t; t.Thread(target=input).start(); ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen([sys.executable, "-c", lives_on], stdin=subprocess.PIPE) as process:
        started = process_started(process.pid)
        wait_until(lambda: state(process.pid) == "Z", what="the end of the first thread")
        assert process_started(process.pid) == started is not None
        process.kill()
        wait_until(lambda: process_started(process.pid) is None, what="the end of the other thread")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
