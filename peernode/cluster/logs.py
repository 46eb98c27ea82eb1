"""Reading the logs of several nodes, once or as they grow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

FOLLOW_S = 0.1


class Line(NamedTuple):
    node: str
    text: str


def read(logs: Mapping[str, Path], *, follow: bool = False) -> Iterator[Line]:
    """All lines, node by node; `follow`: then for ever what is added, as it comes."""
    tails = [Tail(node, log) for node, log in logs.items()]
    while True:
        for tail in tails:
            yield from tail.lines()
        if not follow:
            return
        time.sleep(FOLLOW_S)


class Tail:
    """One log and how far it is read. A line counts when it is complete."""

    def __init__(self, node: str, log: Path) -> None:
        self._node, self._log = node, log
        self._at = 0

    def lines(self) -> Iterator[Line]:
        if not self._log.exists():
            return
        if self._log.stat().st_size < self._at:
            self._at = 0  # put aside for a new one
        with self._log.open("rb") as log:
            log.seek(self._at)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                yield Line(self._node, line.decode(errors="replace").rstrip("\n"))
