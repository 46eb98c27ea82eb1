"""The daemon's log: one line an event on stderr, with a stable name and fields, for people and for grep.

`2026-11-24T12:00:00.123Z info member.dead name=b why="the link closed ..."`. Values of keys are never logged.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/[]")


class Log:
    """`wall_ms` tells the time, so that a simulated daemon logs simulated time."""

    def __init__(self, level: str, wall_ms: Callable[[], int], out: TextIO | None = None) -> None:
        self._least, self._wall_ms, self._out = LEVELS.index(level), wall_ms, out or sys.stderr

    def event(self, name: str, **fields: str) -> None:
        self._write("info", name, fields)

    def warning(self, name: str, **fields: str) -> None:
        self._write("warning", name, fields)

    def debug(self, name: str, **fields: str) -> None:
        self._write("debug", name, fields)

    def _write(self, level: str, name: str, fields: dict[str, str]) -> None:
        if LEVELS.index(level) < self._least:
            return
        when = datetime.fromtimestamp(self._wall_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        text = " ".join(f"{field}={_quoted(value)}" for field, value in fields.items())
        try:
            print(
                f"{when.removesuffix('+00:00')}Z {level} {name} {text}".rstrip(), file=self._out, flush=True
            )
        except (BrokenPipeError, OSError):
            pass  # nobody reads the log any more: no reason to stop serving


def _quoted(value: str) -> str:
    return value if value and set(value) <= PLAIN else json.dumps(value, ensure_ascii=True)
