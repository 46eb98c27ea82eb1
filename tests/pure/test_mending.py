"""After a wrong clock: what it stamped is taken back and written again, and the same wins everywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.clock import AHEAD_MAX_MS, COUNTER_BITS, stamp_ms
from protocol.effects import Effect, Entry, Stage
from protocol.inputs import Delete, Put, Tick
from protocol.keyspaces import define
from protocol.membership.record import MemberRecord
from protocol.replica.entry import Row
from protocol.replica.messages import Batch, Chunk, Group, Pull, as_heads
from protocol.replica.settling import Identity
from protocol.replica.store import Origin
from protocol.replica.sync import RESUME_MARK

from .copies import Copy
from .rig import EPOCH_MS, Peer, Rig, of, payloads, said
from .samples import ORIGINS, histories

B, C = Peer("b"), Peer("c")
AHEAD_MS = 600_000
LINEAGE, OTHER_LINEAGE = 7, 8
KEYSPACE = define("default").id


def put(key: bytes = b"k", value: bytes = b"v", ttl_ms: int | None = None) -> Put:
    return Put(key, "default", key, value, ttl_ms)


def meet(rig: Rig, *peers: Peer) -> Rig:
    """They have nothing that we lack."""
    for session, peer in enumerate(peers, start=1):
        rig.join(peer)
        rig.receive(peer, peer.says(Chunk(session, 0, 1, [], [], None, True)))
    return rig


def alone() -> Rig:
    """A node that wrote with a clock that was ten minutes ahead, and then met two others."""
    rig = Rig().start()
    for write in (put(b"k"), put(b"dated", ttl_ms=60_000), put(b"gone"), Delete(None, "default", b"gone")):
        rig.handle(write)
    rig.commit()
    return meet(rig, B, C)


def corrected(rig: Rig) -> list[Effect]:
    """Both tell their clocks."""
    rig.measure(B, ahead_ms=-AHEAD_MS)
    rig.measure(C, ahead_ms=-AHEAD_MS)
    rig.now_s += 0.25
    return rig.handle(Tick())


def staged(effects: list[Effect]) -> list[Entry]:
    return [row for stage in of(effects, Stage) for row in stage.rows if isinstance(row, Entry)]


def time_ms(rig: Rig) -> int:
    return rig.node.time.time_ms(rig.now)


# The node whose clock was wrong


def test_entries_from_the_future_are_written_again() -> None:
    """In one commit, in their order, under a new lineage and with true stamps; deletes too, a TTL from its start."""
    rig = alone()
    effects = corrected(rig)
    entries = staged(effects)
    assert [(entry.key, entry.value) for entry in entries] == [
        (b"k", b"v"),
        (b"dated", b"v"),
        (b"gone", None),
    ]
    assert {entry.lineage for entry in entries} == {rig.node.origin[1]} != {1}
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert {stamp_ms(entry.hlc) for entry in entries} == {time_ms(rig)}
    assert [entry.expires_ms for entry in entries] == [0, time_ms(rig) + 60_000, 0]


def test_a_declaration_is_told_when_it_is_durable() -> None:
    """In the node's record, in front of what it wrote again; and all peers are asked for what is that late."""
    rig = alone()
    effects = corrected(rig)
    bound = time_ms(rig) << COUNTER_BITS
    assert not {MemberRecord, Batch, Pull} & {type(payload) for _, payload in said(effects)}

    told = [payload for _, payload in said(rig.commit())]
    assert [type(payload) for payload in told] == [MemberRecord, Pull, Batch]
    record, pull, batch = told
    assert isinstance(record, MemberRecord) and isinstance(pull, Pull) and isinstance(batch, Batch)
    assert (record.voided, pull.above) == ([(1, bound)], bound)
    assert (batch.lineage, batch.first, batch.last) == (rig.node.origin[1], 1, 3)


def test_what_is_written_again_is_readable_all_the_while() -> None:
    """And written over at once."""
    rig = alone()
    corrected(rig)
    assert value(rig) == b"v"
    rig.commit()
    assert value(rig) == b"v"
    rig.handle(put(b"k", b"newer"))
    rig.commit()
    found = rig.node.get("default", b"k", rig.now)
    assert isinstance(found, Entry) and found.value == b"newer"
    assert abs(stamp_ms(found.hlc) - time_ms(rig)) < 10


def test_most_clocks_must_say_so() -> None:
    """One of two members is not enough."""
    rig = alone()
    rig.measure(B, ahead_ms=-2 * AHEAD_MS)
    assert (staged(rig.wait(0.5)), rig.node.origin[1]) == ([], 1)


def test_what_others_would_merge_stays() -> None:
    """Within the bound of the quarantine nothing is wrong enough."""
    rig = alone()
    for peer in (B, C):
        rig.measure(peer, ahead_ms=1_000 - AHEAD_MAX_MS)
    assert (staged(rig.wait(0.5)), rig.node.origin[1]) == ([], 1)


def test_a_declaration_that_could_not_be_stored_is_made_again() -> None:
    """Nothing of the first was told, and what it would have taken back is still to be."""
    rig = alone()
    corrected(rig)
    assert payloads(rig.fail(), MemberRecord) == []
    rig.now_s += 0.25
    assert [entry.key for entry in staged(rig.handle(Tick()))] == [b"k", b"dated", b"gone"]


def test_a_declaration_is_made_in_later_runs_too() -> None:
    """Its record tells it, and entries that come back from others stay void."""
    rig = alone()
    corrected(rig)
    rig.commit()
    voided = rig.node.mending.voided
    again = Rig(disk=rig.disk, identity=Identity(2, 1, rig.node.origin[1], bytes(16))).start()
    (record, *_) = payloads(again.link(B), MemberRecord)
    assert isinstance(record, MemberRecord)
    assert record.voided == voided == [(1, voided[0][1])]
    late = Entry(KEYSPACE, b"k", voided[0][1] + 1, again.keys.node_id, 1, 1, b"v")
    assert again.node.replica.is_void(late)


# Everybody else


def ordered(voids: dict[Origin, int], entries: list[Entry]) -> dict[bytes, Entry]:
    """What is not taken back before what is; the latest of them."""

    def order(entry: Entry) -> tuple[bool, tuple[int, bytes, int, int]]:
        return (entry.hlc <= voids.get((entry.node, entry.lineage), entry.hlc), entry.version)

    return {entry.key: entry for entry in sorted(entries, key=order)}


@given(histories(), st.dictionaries(st.sampled_from(ORIGINS), st.integers(0, 4)), st.data())
def test_the_same_wins_everywhere(
    history: list[Entry], voids: dict[Origin, int], data: st.DataObject
) -> None:
    """Whoever knows the same declarations, in whatever order entries come: nothing void wins over what is not."""
    copy = Copy()
    for (node, lineage), hlc in voids.items():
        copy.replica.void(node, [(lineage, hlc)])
    copy.merge(data.draw(st.permutations(history)))
    copy.commit()
    assert {entry.key: entry for entry in copy.disk.entries.values()} == ordered(voids, history)


def test_the_earlier_of_two_bounds_counts() -> None:
    """A declaration is never taken back; only another one is news."""
    copy, (node, lineage) = Copy(), ORIGINS[0]
    assert [copy.replica.void(node, [(lineage, hlc)]) for hlc in (5, 5, 9, 4)] == [True, False, False, True]
    assert copy.replica.void_above == 4


def test_what_was_held_back_may_come_when_it_is_taken_back() -> None:
    """It no longer drags the clock along, and the true entry wins over it."""
    rig = meet(Rig().start(), B)
    hlc = EPOCH_MS + int(rig.now_s * 1000) + AHEAD_MS << COUNTER_BITS
    true = Row(1, KEYSPACE, b"k", EPOCH_MS << COUNTER_BITS, b"true")
    held = Batch(LINEAGE, 1, 1, [Row(1, KEYSPACE, b"k", hlc, b"future")])
    rig.receive(B, B.says(held, seq=1))
    assert rig.node.replica.held_back != {}

    rig.receive(B, B.announces(1, voided=[(LINEAGE, hlc - 1)]))
    rig.receive(B, B.says(Batch(OTHER_LINEAGE, 1, 1, [true]), seq=2))
    rig.wait(0.3)
    assert rig.node.replica.held_back == {}
    rig.receive(B, B.says(held, seq=3))
    rig.commit()
    assert rig.node.replica.vector == {(B.node_id, LINEAGE): 1, (B.node_id, OTHER_LINEAGE): 1}
    assert value(rig) == b"true"
    assert rig.node.clock.last < hlc


def test_what_a_void_entry_superseded_comes_back_from_those_who_hold_it() -> None:
    """All peers are asked once for whatever is that late, covered or not; nothing counts as covered by it."""
    rig = meet(Rig().start(), B, C)
    now = EPOCH_MS + int(rig.now_s * 1000) << COUNTER_BITS
    older, void = (Row(1, KEYSPACE, b"k", now + later, b"%d" % later) for later in (1, 2))
    rig.receive(C, C.says(Batch(OTHER_LINEAGE, 1, 1, [older]), seq=1))
    rig.receive(B, B.says(Batch(LINEAGE, 1, 1, [void]), seq=1))
    rig.commit()
    assert value(rig) == b"2"

    vector, links = as_heads(rig.node.replica.vector), []
    effects = rig.receive(B, B.announces(1, voided=[(LINEAGE, now)]))
    for peer, group in ((B, []), (C, [Group(C.node_id, OTHER_LINEAGE, [older])])):
        ((link, pull),) = [(link, pull) for (link,), pull in said(effects) if isinstance(pull, Pull)]
        assert (pull.above, pull.vector) == (now, vector)
        links.append(link)
        cut, position = [(peer.node_id, 99, 5)], (peer.node_id, 99, 1)
        rig.receive(peer, peer.says(Chunk(pull.session, 0, 1, group, cut, position, False)))
        rig.commit()
        assert rig.disk.mark(RESUME_MARK) is None
        effects = rig.receive(peer, peer.says(Chunk(pull.session, 1, 1, [], None, None, True)))
        effects += rig.commit()
    assert links == [rig.links["b"], rig.links["c"]]
    assert payloads(rig.wait(0.4), Pull) == []
    assert value(rig) == b"1"
    assert as_heads(rig.node.replica.vector) == vector


def test_an_audit_whose_commit_failed_is_repeated() -> None:
    """Nobody announces what it should have brought."""
    rig = meet(Rig().start(), B)
    now = EPOCH_MS + int(rig.now_s * 1000) << COUNTER_BITS
    effects = rig.receive(B, B.announces(1, voided=[(LINEAGE, now)]))
    rig.commit()
    (pull,) = payloads(effects, Pull)
    assert isinstance(pull, Pull)
    group = Group(C.node_id, OTHER_LINEAGE, [Row(1, KEYSPACE, b"k", now + 1, b"v")])
    rig.receive(B, B.says(Chunk(pull.session, 0, 1, [group], [], None, True)))
    rig.fail()
    (pull,) = payloads(rig.wait(5.1), Pull)
    assert isinstance(pull, Pull) and pull.above == 0
    effects = rig.receive(B, B.says(Chunk(pull.session, 0, 1, [], [], None, True)))
    (pull,) = payloads(effects + rig.commit(), Pull)
    assert isinstance(pull, Pull) and pull.above == now


def value(rig: Rig) -> bytes | None:
    found = rig.node.get("default", b"k", rig.now)
    return found.value if isinstance(found, Entry) else None
