"""Entries on the wire, in digests and as text for people."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import msgspec

from ..effects import Entry
from ..limits import MEMBERS_MAX
from ..types import NodeId, Payload, node_text
from ..wire.fields import Counter, KeyBytes, Stamp, ValueBytes
from .store import Origin

DIGEST_MODULUS = 1 << 128


class Row(Payload, frozen=True, gc=False):
    """An entry whose origin is told once for many rows."""

    seq: Counter
    keyspace: Counter
    key: KeyBytes
    hlc: Stamp
    value: ValueBytes | None
    expires_ms: Counter = 0


def to_row(entry: Entry) -> Row:
    return Row(entry.seq, entry.keyspace, entry.key, entry.hlc, entry.value, entry.expires_ms)


def from_row(origin: Origin, row: Row) -> Entry:
    node, lineage = origin
    return Entry(row.keyspace, row.key, row.hlc, node, lineage, row.seq, row.value, row.expires_ms)


def row_bytes(entry: Entry) -> int:
    """Room that an entry takes in a batch, generously."""
    return len(entry.key) + len(entry.value or b"") + 48


def item_hash(entry: Entry) -> int:
    """What a live entry adds to the content digest: 128 bits over keyspace, key, value and version."""
    head = msgspec.msgpack.encode((entry.keyspace, entry.key, *entry.version))
    hashed = blake2b(head, digest_size=16, person=b"pn/item")
    hashed.update(entry.value or b"")
    return int.from_bytes(hashed.digest(), "big")


def version_text(entry: Entry) -> str:
    """The version as an opaque printable string: equal strings mean the same write."""
    return f"{entry.hlc:x}-{_short(entry.node)}-{entry.lineage:x}-{entry.seq:x}"


@lru_cache(MEMBERS_MAX)
def _short(node: NodeId) -> str:
    return node_text(node)[:16]


def origin_of(entry: Entry) -> tuple[NodeId, int]:
    return (entry.node, entry.lineage)
