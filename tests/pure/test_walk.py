"""A walk reads one consistent cut while writes go on: whoever takes its pieces may take its vector."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.effects import Entry
from protocol.limits import SYNC_CHUNK_BYTES_MAX, VALUE_BYTES_MAX, WALK_REPLACED_MAX
from protocol.replica.store import Origin
from protocol.replica.walk import Piece, Walk
from protocol.types import LinkId, NodeId

from .copies import KEYSPACE, ME, Copy, winners
from .samples import ORIGINS, histories

READER = LinkId(1)
FIRST: Origin = (NodeId(bytes(32)), 1)
"""An origin that a walk comes to before all others; to ME it comes last."""


def heads(entries: list[Entry]) -> dict[Origin, int]:
    return {(e.node, e.lineage): e.seq for e in sorted(entries, key=lambda e: e.seq)}


def holding(entries: list[Entry], me: Origin) -> Copy:
    copy = Copy(me)
    copy.merge(entries, heads(entries))
    copy.commit()
    return copy


writes = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.booleans()), max_size=3)


@given(
    histories(),
    st.integers(0, 12),
    st.integers(1, 3),
    st.lists(writes, min_size=20, max_size=20),
    st.sampled_from([FIRST, ME]),
)
def test_the_vector_of_a_walk_covers_what_its_pieces_brought(
    history: list[Entry],
    known: int,
    rows_max: int,
    meanwhile: list[list[tuple[bytes, bool]]],
    writer: Origin,
) -> None:
    """Keys are overwritten before, between and behind the pieces, stored at once or later: nothing is missing."""
    sender, reader = holding(history, writer), holding(history[:known], ORIGINS[0])
    last = False
    write_some(sender, meanwhile.pop())
    walk = sender.replica.walk(READER, dict(reader.replica.vector))
    while not last:
        entries, last = walk.next_piece(sender.disk, rows_max)
        assert len(entries) <= rows_max
        reader.merge(entries)
        write_some(sender, meanwhile.pop() if meanwhile else [])
    reader.merge([], walk.cut)
    reader.commit()
    written = winners([*history, *sender.disk.entries.values()])
    for entry in (*history, *sender.disk.entries.values()):
        if entry.seq <= walk.cut.get((entry.node, entry.lineage), 0):
            held = reader.newest(entry.key)
            assert held is not None
            assert entry.version <= held.version <= written[KEYSPACE, entry.key].version


def write_some(copy: Copy, keys: list[tuple[bytes, bool]]) -> None:
    for key, is_stored in keys:
        copy.put(key)
        if is_stored:
            copy.commit()


def test_a_walk_sends_only_what_the_reader_lacks() -> None:
    """An exact delta: by origin, behind the reader's vector."""
    sender = Copy()
    first, second = sender.put(b"a"), sender.put(b"b")
    sender.commit()
    walk = sender.replica.walk(READER, {ME: first.seq})
    assert walk.next_piece(sender.disk, 10) == ([second], True)
    assert walk.cut == {ME: 2}


def test_a_key_that_was_being_overwritten_when_the_walk_began_is_not_lost() -> None:
    """Its old entry is gone when the walk comes to it, and its new one lies where the walk has been."""
    node, lineage = ORIGINS[0]
    sender = holding([Entry(KEYSPACE, b"a", 1, node, lineage, 1, b"old")], FIRST)
    kept = sender.put(b"kept")
    sender.commit()
    new = sender.put(b"a", b"new")
    walk = sender.replica.walk(READER, {})
    assert walk.next_piece(sender.disk, 1) == ([kept], False)
    sender.commit()
    assert walk.next_piece(sender.disk, 1) == ([new], True)


def test_a_piece_is_bounded_and_never_empty() -> None:
    """In rows and in bytes; one entry always fits."""
    large = Entry(KEYSPACE, b"k", 1, *ME, 1, bytes(VALUE_BYTES_MAX))
    small = Entry(KEYSPACE, b"k", 1, *ME, 1, bytes(SYNC_CHUNK_BYTES_MAX // 4))
    for entry, rows_max, expected in ((large, 10, 1), (small, 10, 3), (small, 2, 2)):
        piece = Piece(rows_max)
        assert [piece.take(entry) for _ in range(expected + 1)] == [True] * expected + [False]


def test_a_walk_that_would_remember_too_much_breaks() -> None:
    """Then the session begins anew: memory for one slow reader is bounded."""
    walk = Walk({ME: 1}, {}, [ME], [])
    for n in range(WALK_REPLACED_MAX + 1):
        assert not walk.broken
        walk.replaced(Entry(KEYSPACE, b"%d" % n, 1, *ME, n + 1, b""))
    assert walk.broken
