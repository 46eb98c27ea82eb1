"""When the store fails in a way that leaves its state unknown, nothing is acknowledged any more."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from typing import Any, cast

import pytest

from peernode.client import PeernodeError
from peernode.store.committer import Broken, Outcome, ThreadCommitter
from peernode.store.writer import Writer
from protocol.effects import MarkRow, Stage
from protocol.types import CommitNumber

from ..e2e.daemons import Daemons

FAILED_SYNC = sqlite3.OperationalError("disk I/O error")


class FailsOnce:
    """A writer whose first sync fails and whose later ones seem to work, as a kernel's may."""

    def __init__(self) -> None:
        self.groups: list[list[Stage]] = []

    def apply(self, stages: Iterable[Stage]) -> None:
        self.groups.append(list(stages))
        if len(self.groups) == 1:
            raise FAILED_SYNC

    def close(self) -> None:
        pass


def test_nothing_is_acknowledged_behind_a_failed_sync() -> None:
    """A later group that seems to be stored would acknowledge the one that was not."""
    writer, outcomes = FailsOnce(), list[Outcome]()
    committer = ThreadCommitter(cast(Writer, writer), outcomes.append)
    rows = (MarkRow("name", b"value"),) * 400  # two fill a group
    for number in range(1, 9):
        committer.submit(Stage(CommitNumber(number), rows))
    committer.close()

    assert outcomes == [Broken(FAILED_SYNC)]
    assert len(writer.groups) == 1


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes the sync fail")
def test_a_failed_sync_ends_the_daemon_with_a_word(daemons: Daemons) -> None:
    """The write is not acknowledged, the daemon says why it stops, exits 1, and its restart works."""
    a = daemons("a")
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync")
    a.start(prefix=(*inject, "-e", "inject=fdatasync:error=EIO:when=12+"))
    acknowledged: dict[str, Any] = {}
    with a.connect() as node, pytest.raises(PeernodeError):
        for number in range(100):
            acknowledged[f"{number}"] = node.put(f"{number}", "x")

    assert a.wait() == 1
    assert "peernode: error: the daemon had to stop: disk I/O error" in a.log.read_text()
    a.start()
    with a.connect() as node:
        assert {item.key.decode() for item in node.scan()} >= set(acknowledged)
