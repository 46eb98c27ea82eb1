"""Invalidation: word to every node that something in its local cache is stale.

What is stale is named by a key, or by a glob over keys. Nothing is stored and nothing is ordered: to drop a cached
entry once too often is always right. The message goes as bulk, behind the batches of its author: who hears it and
reads the store again finds what the author had written before. It cannot help a node that was cut off
meanwhile: there the TTL is the bound.

The glob language works on bytes: `*` stands for any bytes (also none), `?` for one byte, `\\` takes the next byte
as it is (at the end it means itself), every other byte is itself. There are no sets: `[` is common in keys.
Every pattern is valid, and no `*` is tried in two ways: of several places where the text behind it fits, the
first leaves the most for the rest. So one key costs at most len(key) * len(pattern) steps.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from .limits import KEY_BYTES_MAX
from .types import Payload
from .wire.registry import Route, Stream


class Invalidation(Payload, frozen=True):
    """What is cached under `subject` (a key, or with `is_glob` a pattern of keys) is stale."""

    subject: Annotated[bytes, msgspec.Meta(min_length=1, max_length=KEY_BYTES_MAX)]
    is_glob: bool


ROUTES = (Route(30, Invalidation, Stream.GOSSIP, bulk=True),)

TOKEN = re.compile(rb"(\*+|\?)|\\?(.)", re.DOTALL)
"""Wildcards, or one byte that stands for itself, with or without a backslash in front."""


class Glob:
    """A pattern of keys, ready to be matched. `prefix`: what every matching key begins with."""

    def __init__(self, pattern: bytes) -> None:
        self.pattern = pattern
        self.prefix, expression = _translated(pattern)
        self._match = re.compile(expression, re.DOTALL).fullmatch

    def matches(self, key: bytes) -> bool:
        return self._match(key) is not None

    def may_meet(self, other: Glob) -> bool:
        """False only if no key matches both: judged by their prefixes."""
        return self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix)


def _translated(pattern: bytes) -> tuple[bytes, bytes]:
    """The literal prefix, and a regular expression in which no `*` is gone back to: they are atomic groups."""
    prefix, is_literal = b"", True
    segments = [b""]  # what stands between the `*`
    for wildcard, byte in TOKEN.findall(pattern):
        is_literal = is_literal and not wildcard
        if is_literal:
            prefix += byte
        if wildcard.startswith(b"*"):
            segments.append(b"")
        else:
            segments[-1] += b"." if wildcard else re.escape(byte)
    if len(segments) == 1:
        return prefix, segments[0]
    first, *middle, last = segments
    return prefix, first + b"".join(b"(?>.*?" + segment + b")" for segment in middle) + b".*" + last
