"""The command line on two real daemons: commands run as programs run them, their output as bytes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..waiting import wait_until
from .daemons import Daemon, daemons_in, environment


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The one object on stderr; nothing else may be there, and nothing on stdout."""
        assert self.out == b""
        told: dict[str, dict[str, str]] = json.loads(self.err)
        assert set(told) == {"error"}
        assert set(told["error"]) == {"code", "message", "hint"}
        return told["error"]


class Shell:
    """Runs commands on the daemons of one home: a, and its peer b."""

    def __init__(self, home: Path, a: Daemon, b: Daemon) -> None:
        self.home, self.a, self.b = home, a, b

    def __call__(
        self, *arguments: str | bytes, stdin: bytes = b"", home: Path | None = None, **variables: str
    ) -> Done:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "peernode", *arguments],
            input=stdin,
            capture_output=True,
            env={**environment(home or self.home), **variables},
            timeout=20,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def on_terminal(self, *arguments: str) -> bytes:
        """What a terminal shows of it."""
        ours, theirs = pty.openpty()
        try:
            command = [sys.executable, "-P", "-m", "peernode", *arguments]
            subprocess.run(command, stdout=theirs, env=environment(self.home), timeout=20, check=True)
            return os.read(ours, 65536)
        finally:
            os.close(theirs)
            os.close(ours)


@contextmanager
def shell_in(home: Path) -> Iterator[Shell]:
    """Commands on a and its peer b, which have reached each other."""
    with daemons_in(home) as daemons:
        a = daemons("a").start("--tag", "zone=north")
        b = daemons("b").start("--seed", a.address)
        wait_until(lambda: reached(a, "b") and reached(b, "a"))
        yield Shell(home, a, b)


def reached(daemon: Daemon, name: str) -> bool:
    with daemon.connect() as client:
        return any(m["name"] == name and m["state"] == "alive" and m["reached"] for m in client.members())
