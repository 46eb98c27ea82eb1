"""Keys and values as JSON lines: one object a line, the same that `kv export` writes and `kv import` reads.

    {"key": "greeting", "value": "hello"}
    {"key_b64": "/w==", "value_b64": "/wA=", "expires_in_ms": 2500}

Bytes that are no UTF-8 are in base64. What other commands print of a key (version, modified, origin) may be there and
means nothing; any other name is refused, so that a misspelt one is not lost.
"""

from __future__ import annotations

import binascii
import json
import os
import secrets
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..client import Item, NewItem
from .output import as_json

LINE_BYTES_MAX = 4 << 20
"""The largest value, each of its bytes escaped (\\u0000), twice over."""
KNOWN = {"key", "key_b64", "value", "value_b64", "expires_in_ms", "version", "modified", "origin"}


class Line(NamedTuple):
    """One line of a file, with its number and size, read or with the reason why not."""

    number: int
    size: int
    item: NewItem | None
    reason: str = ""


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """All lines that are not empty."""
    number = 0
    while text := file.readline(LINE_BYTES_MAX):
        number += 1
        size = len(text)
        if size == LINE_BYTES_MAX and not text.endswith(b"\n"):
            size += skip_line(file)
            yield Line(number, size, None, f"a line of {size} bytes; the limit is {LINE_BYTES_MAX}")
        elif text.strip():
            yield read_line(number, text)


def skip_line(file: BinaryIO) -> int:
    """Read up to the end of the line; how many bytes that were."""
    size = 0
    while text := file.readline(LINE_BYTES_MAX):
        size += len(text)
        if text.endswith(b"\n"):
            break
    return size


def read_line(number: int, text: bytes) -> Line:
    try:
        return Line(number, len(text), item_of(json.loads(text)))
    except json.JSONDecodeError as error:
        return Line(number, len(text), None, f"no JSON: {error.msg} at character {error.pos + 1}")
    except UnicodeDecodeError:
        return Line(number, len(text), None, "no UTF-8")
    except RecursionError:
        return Line(number, len(text), None, "nested too deeply")
    except ValueError as error:
        return Line(number, len(text), None, str(error))


def item_of(given: object) -> NewItem:
    """Raises ValueError, which says what is wrong."""
    if not isinstance(given, dict):
        raise ValueError("no JSON object")
    if unknown := sorted(given.keys() - KNOWN):
        raise ValueError(f"unknown name {unknown[0]!r}")
    ttl_ms = given.get("expires_in_ms")
    if ttl_ms is not None and (not isinstance(ttl_ms, int) or isinstance(ttl_ms, bool)):
        raise ValueError(f"expires_in_ms is {ttl_ms!r}, not a number of milliseconds")
    return NewItem(bytes_of(given, "key"), bytes_of(given, "value"), ttl_ms)


def bytes_of(given: dict[str, object], name: str) -> bytes:
    text, in_base64 = given.get(name), given.get(f"{name}_b64")
    match text, in_base64:
        case str(), None:
            return encoded(name, text)
        case None, str():
            try:
                return b64decode(in_base64, validate=True)
            except binascii.Error as error:
                raise ValueError(f"{name}_b64 is no base64: {error}") from None
    raise ValueError(f"one of {name} and {name}_b64 has to be there, and be a string")


def encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has half of a surrogate pair, which has no UTF-8; use {name}_b64") from None


def line_of(item: Item) -> bytes:
    """The line of one item."""
    expiry = {} if item.expires_in_ms is None else {"expires_in_ms": max(1, item.expires_in_ms)}
    named = {**as_json("key", item.key), **as_json("value", item.value), **expiry}
    return json.dumps(named, ensure_ascii=False).encode() + b"\n"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when it is complete and on the disk."""
    temporary = path.with_name(f".peernode-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
