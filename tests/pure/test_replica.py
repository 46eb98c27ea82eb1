"""The replica: merging in any order gives one result, and what was not stored never happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.effects import Entry, HeadRow
from protocol.errors import Fault, Refused, RemoteFault
from protocol.limits import BATCH_BYTES_MAX, ORIGINS_MAX, SCAN_ITEMS_MAX, VALUE_BYTES_MAX
from protocol.replica.entry import from_row, to_row, version_text
from protocol.types import NodeId

from ..sim.swarm.fakes import Disk
from .copies import KEYSPACE, ME, Copy, winners
from .samples import ORIGINS, histories

SLOT = (KEYSPACE, b"k")


@given(histories(), st.data())
def test_merging_is_commutative_associative_and_idempotent(history: list[Entry], data: st.DataObject) -> None:
    """In any order, in any chunks, with repeats, stored meanwhile or not: the greatest version of each key."""
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=5)) if history else []
    shuffled = data.draw(st.permutations(history + repeats))
    copy, at = Copy(), 0
    while at < len(shuffled):
        size = data.draw(st.integers(1, 5))
        copy.merge(shuffled[at : at + size])
        at += size
        if data.draw(st.booleans()):
            copy.commit()
    copy.commit()
    assert copy.disk.entries == winners(history)
    assert copy.merge(history) == 0


@given(histories(), st.data())
def test_a_failed_commit_leaves_no_trace(history: list[Entry], data: st.DataObject) -> None:
    """What was staged is forgotten with all that was decided on top of it; merged again, it is there."""
    cut = data.draw(st.integers(0, len(history)))
    copy = Copy()
    copy.merge(history[:cut])
    copy.commit()
    before = dict(copy.replica.vector), dict(copy.disk.entries), copy.replica.tally.durable
    copy.merge(history[cut:], dict.fromkeys(ORIGINS, 99))
    copy.fail()
    assert (copy.replica.reached, copy.disk.entries, copy.replica.tally.staged) == before
    copy.merge(history[cut:])
    copy.commit()
    assert copy.disk.entries == winners(history)


def test_a_covered_entry_that_is_absent_is_dead() -> None:
    """S3: it was superseded, and what superseded it may be collected: it must not come back."""
    node, lineage = ORIGINS[0]
    old = Entry(KEYSPACE, b"k", 1, node, lineage, 1, b"old")
    copy = Copy()
    copy.merge([], {ORIGINS[0]: 1})
    assert copy.merge([old]) == 0
    assert copy.merge([Entry(KEYSPACE, b"k", 2, node, lineage, 2, b"new")]) == 1


def test_a_write_beats_what_its_writer_had_seen() -> None:
    """Also a version from a clock far ahead of ours."""
    node, lineage = ORIGINS[0]
    ahead = Entry(KEYSPACE, b"k", 10**15, node, lineage, 1, b"theirs")
    copy = Copy()
    copy.merge([ahead])
    assert copy.put(b"k", b"ours").version > ahead.version


def test_readers_see_committed_rows_only() -> None:
    """A staged write is known to later decisions, and to nobody who reads."""
    copy = Copy()
    first = copy.put(b"k", b"1")
    assert (copy.replica.read(SLOT, 0), copy.replica.is_staged(SLOT)) == (None, True)
    copy.commit()
    second = copy.put(b"k", b"2")
    assert (copy.replica.read(SLOT, 0), copy.replica.is_staged(SLOT)) == (first, True)
    copy.commit()
    assert (copy.replica.read(SLOT, 0), copy.replica.is_staged(SLOT)) == (second, False)


@pytest.mark.parametrize("is_committed", [True, False])
def test_conditional_writes_are_judged_by_the_newest_version(is_committed: bool) -> None:
    """Staged or stored, present, deleted, expired or never there."""
    copy = Copy()
    stale = version_text(copy.put(b"k", b"1"))
    current = version_text(copy.put(b"k", b"2", expires_ms=50))
    copy.put(b"gone", None)
    if is_committed:
        copy.commit()

    def code(key: bytes, if_version: str | None, if_absent: bool, time_ms: int = 49) -> str | None:
        refused = copy.replica.refuse((KEYSPACE, key), if_version, if_absent, time_ms)
        return refused.code if isinstance(refused, Refused) else None

    assert code(b"k", None, False) is None
    assert (code(b"k", None, True), code(b"k", None, True, 50)) == ("exists", None)
    assert (code(b"k", current, False), code(b"k", current, False, 50)) == (None, "conflict")
    assert (code(b"k", stale, False), code(b"k", "junk", False)) == ("conflict", "conflict")
    assert (code(b"gone", None, True), code(b"gone", stale, False)) == (None, "conflict")
    assert (code(b"never", None, True), code(b"never", stale, False)) == (None, "conflict")


commits = st.lists(st.tuples(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=4), st.booleans()))


@given(commits)
def test_batches_are_contiguous_and_numbers_are_never_used_again(
    plan: list[tuple[list[bytes], bool]],
) -> None:
    """Whatever fails: ranges follow each other, and a receiver in order ends with the same entries."""
    writer, reader, said, numbers = Copy(), Copy(ORIGINS[0]), 0, set[int]()
    for keys, is_stored in plan:
        for key in keys:
            seq = writer.put(key).seq
            assert seq not in numbers
            numbers.add(seq)
        if not is_stored:
            writer.fail()
            continue
        for batch in writer.replica.batches(writer.commit()):
            assert batch.first == said + 1
            said = batch.last
            with reader.turn() as turn:
                assert reader.replica.merge_batch(turn, ME[0], batch)
    reader.commit()
    writer.fail()
    assert reader.disk.entries == writer.disk.entries
    assert reader.replica.vector.get(ME, 0) == said == writer.replica.own_head


def test_a_commit_of_large_values_makes_several_batches() -> None:
    """Each fits a frame whatever the values are; together they are the commit."""
    copy = Copy()
    entries = [copy.put(b"%d" % n, bytes(VALUE_BYTES_MAX)) for n in range(5)]
    batches = copy.replica.batches(copy.commit())
    assert [(batch.first, batch.last) for batch in batches] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]
    assert [from_row(ME, row) for batch in batches for row in batch.rows] == entries
    small = Copy()
    for n in range(2_000):
        small.put(b"%d" % n, bytes(1_000))
    sizes = [len(batch.rows) * 1_000 for batch in small.replica.batches(small.commit())]
    assert sum(sizes) == 2_000_000
    assert max(sizes) <= BATCH_BYTES_MAX


def test_a_batch_behind_a_gap_does_not_move_the_head() -> None:
    """Its rows are taken, but only the missing numbers may be said to be covered."""
    writer, reader = Copy(), Copy(ORIGINS[0])
    first, second = (writer.replica.batches((writer.put(key), writer.commit())[1]) for key in (b"a", b"b"))
    with reader.turn() as turn:
        assert not reader.replica.merge_batch(turn, ME[0], second[0])
    reader.commit()
    assert (reader.replica.vector, len(reader.disk.entries)) == ({ME: 0}, 1)
    with reader.turn() as turn:
        assert reader.replica.merge_batch(turn, ME[0], first[0])
    reader.commit()
    assert (reader.replica.vector, len(reader.disk.entries)) == ({ME: 1}, 2)


def test_own_numbers_that_others_know_are_not_used_again() -> None:
    """A node whose own entries come back to it by sync goes on behind them."""
    copy = Copy()
    copy.merge([Entry(KEYSPACE, b"k", 1, *ME, 7, b"")], {ME: 9})
    assert copy.put(b"k").seq == 10


def full_of_origins() -> Copy:
    """A replica that knows as many origins as it may."""
    disk = Disk()
    disk.apply(tuple(HeadRow(NodeId(n.to_bytes(32, "big")), 1, 1) for n in range(ORIGINS_MAX)))
    return Copy(ME, disk)


def test_an_origin_too_many_is_refused_and_nothing_of_it_staged() -> None:
    """By its rows, and by a vector alone: else our own vector would outgrow what peers accept."""
    copy = full_of_origins()
    with pytest.raises(RemoteFault) as refused, copy.turn() as turn:
        try:
            copy.replica.merge(turn, ORIGINS[0], [to_row(Entry(KEYSPACE, b"k", 1, *ORIGINS[0], 1, b""))])
        finally:
            assert turn.rows == []
    assert refused.value.fault == Fault.QUOTA
    with pytest.raises(RemoteFault, match="quota"):
        copy.merge([], {ORIGINS[0]: 1})
    copy.merge([], {(NodeId(bytes(32)), 1): 2})
    copy.commit()
    assert len(copy.replica.vector) == ORIGINS_MAX


@given(histories(), st.sampled_from([b"", b"a", b"b"]), st.integers(-1, 4))
def test_pages_of_a_scan_are_all_live_entries_in_order(
    history: list[Entry], prefix: bytes, limit: int
) -> None:
    """However small the pages are; deletes are left out."""
    copy = Copy()
    copy.merge(history)
    copy.commit()
    found, after = [], None
    while (page := copy.replica.scan(KEYSPACE, prefix, after, limit, 0)).next is not None:
        found, after = found + page.items, page.next
    live = sorted(e.key for e in winners(history).values() if e.live_at(0) and e.key.startswith(prefix))
    assert [entry.key for entry in found + page.items] == live


def test_a_page_is_bounded() -> None:
    """In items, whatever is asked for."""
    copy = Copy()
    for n in range(SCAN_ITEMS_MAX + 1):
        copy.put(b"%d" % n)
    copy.commit()
    assert len(copy.replica.scan(KEYSPACE, b"", None, 10**9, 0).items) == SCAN_ITEMS_MAX
