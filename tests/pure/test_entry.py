"""Entries: the order of versions, their form on the wire, and what enters the digest."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.effects import Entry
from protocol.replica.entry import (
    from_row,
    item_hash,
    origin_of,
    row_bytes,
    to_row,
    version_text,
)
from protocol.types import NodeId

from .samples import counters, stamps

node_ids = st.binary(min_size=32, max_size=32).map(NodeId)
entries = st.builds(
    Entry,
    counters,
    st.binary(max_size=6),
    stamps,
    node_ids,
    counters,
    counters,
    st.none() | st.binary(max_size=6),
    counters,
)
A, B = NodeId(b"a" * 32), NodeId(b"b" * 32)
BASE = Entry(1, b"k", 5, A, 6, 7, b"v", 8)


def test_versions_are_ordered_by_stamp_then_node_then_lineage_then_seq() -> None:
    """Each position decides only where all before it are equal."""
    rising = [(1, A, 1, 1), (1, A, 1, 2), (1, A, 2, 1), (1, B, 1, 1), (2, A, 1, 1)]
    for order in permutations(rising):
        found = sorted((Entry(1, b"k", *version, b"") for version in order), key=lambda e: e.version)
        assert [entry.version for entry in found] == rising


@given(entries, entries)
def test_equal_version_texts_mean_the_same_write(one: Entry, other: Entry) -> None:
    """The text is opaque to clients: it may serve as a condition and nothing else."""
    other = msgspec.structs.replace(other, node=one.node)
    assert (version_text(one) == version_text(other)) == (one.version == other.version)
    assert version_text(one).isascii() and " " not in version_text(one)


@given(entries)
def test_an_entry_survives_the_wire(entry: Entry) -> None:
    """As a row beside its origin, and never larger there than what is reckoned for it."""
    row = to_row(entry)
    assert from_row(origin_of(entry), row) == entry
    assert len(msgspec.msgpack.encode(row)) <= row_bytes(entry)


CHANGES = {"keyspace": 2, "key": b"l", "hlc": 6, "node": B, "lineage": 7, "seq": 8, "value": b"w"}


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_of_a_version_enters_the_digest(field: str) -> None:
    """Two nodes with equal digests hold the same versions with the same values."""
    assert item_hash(msgspec.structs.replace(BASE, **{field: CHANGES[field]})) != item_hash(BASE)


def test_key_and_value_do_not_run_into_each_other() -> None:
    """A byte moved from the value to the key is another entry."""
    moved = msgspec.structs.replace(BASE, key=b"kv", value=b"")
    assert item_hash(moved) != item_hash(BASE)


def test_an_entry_lives_until_its_expiry() -> None:
    """At the very millisecond it is gone; without one it stays; a delete never lives."""
    assert [BASE.live_at(ms) for ms in (0, 7, 8, 9)] == [True, True, False, False]
    assert msgspec.structs.replace(BASE, expires_ms=0).live_at(2**62)
    assert not msgspec.structs.replace(BASE, value=None).live_at(0)


def test_hashes_are_the_same_in_every_build() -> None:
    """A digest is compared between nodes: it may never change."""
    assert item_hash(BASE) == 0xC609CD98E4BBA5AE2A59F17262ECE4CC
