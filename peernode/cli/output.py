"""The one output layer: tables for people, JSON for programs, bytes as they are.

Values that are valid UTF-8 are strings in JSON, others go under `NAME_b64`.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

FORMATS = ("table", "json", "jsonl", "raw")


@dataclass(frozen=True, slots=True)
class Output:
    """How to print: `form` is one of FORMATS, `is_default` when nobody asked for it."""

    form: str = "table"
    quiet: bool = False
    is_default: bool = False

    @classmethod
    def guess(cls, arguments: Sequence[str]) -> Output:
        """The form that these arguments ask for, before they are parsed: errors obey it too."""
        form = "table"
        for index, argument in enumerate(arguments):
            if argument == "--":
                break
            if argument == "--json":
                form = "json"
            elif argument.startswith("--output="):
                form = argument.partition("=")[2]
            elif argument.startswith("-o") and argument != "-o":
                form = argument[2:]
            elif argument in ("-o", "--output") and index + 1 < len(arguments):
                form = arguments[index + 1]
        return cls(form if form in FORMATS else "table", "--quiet" in arguments or "-q" in arguments)

    @property
    def is_json(self) -> bool:
        return self.form in ("json", "jsonl")

    def document(self, value: object, stream: TextIO | None = None) -> None:
        """One JSON document, on stdout if not told."""
        stream = stream or sys.stdout
        indent = 2 if self.form == "json" and stream.isatty() else None
        print(json.dumps(value, ensure_ascii=False, indent=indent), file=stream)

    def lines(self, values: Iterable[object]) -> None:
        """JSON lines, each as soon as it is there."""
        for value in values:
            print(json.dumps(value, ensure_ascii=False), flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Columns for people."""
        texts = [[one_line(str(cell)) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
        for row in [list(header), *texts]:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            print("  ".join(cells).rstrip())

    def fields(self, values: dict[str, object]) -> None:
        """One thing for people, a line a field."""
        width = max(map(len, values))
        for name, value in values.items():
            print(f"{name:<{width}}  {one_line(str(value))}")

    def say(self, text: str) -> None:
        """Talk: never in the way of data."""
        if not self.quiet:
            print(text, file=sys.stderr)


def tell_error(
    output: Output, code: str, message: str, hint: str, details: Mapping[str, object] | None = None
) -> None:
    """One error, on stderr, in the chosen format."""
    if output.is_json:
        error = {"code": code, "message": message, "hint": hint, **jsonable(details or {})}
        print(json.dumps({"error": error}, ensure_ascii=False), file=sys.stderr)
        return
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


def as_json(name: str, value: bytes) -> dict[str, str]:
    """`{name: text}`, or `{name_b64: base64}` where it is no UTF-8."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_b64": b64encode(value).decode()}


def jsonable(values: Mapping[str, object]) -> dict[str, Any]:
    """The same with all bytes in it as text, see `as_json`."""
    shown: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            shown |= as_json(name, value)
        elif isinstance(value, list):
            shown[name] = [jsonable(one) if isinstance(one, dict) else one for one in value]
        else:
            shown[name] = value
    return shown


def printable(value: bytes) -> str:
    """Bytes for people."""
    return one_line(value.decode(errors="backslashreplace"))


def one_line(text: str) -> str:
    """Nothing that moves the cursor: names, addresses and reasons may be what a peer said."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def iso(ms: int | None) -> str | None:
    """A time for people and for JSON."""
    if ms is None:
        return None
    when = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    return when.removesuffix("+00:00") + "Z"


def ago(ms: int) -> str:
    """How long that is, roughly: `3m`."""
    seconds = max(0, ms) / 1000
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
