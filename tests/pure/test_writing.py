"""What clients write: answered when it is held as far as they asked, all of it or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.effects import Effect, Entry, Reply, Send, Stage
from protocol.errors import Refused
from protocol.inputs import Delete, Put, PutMany, Written
from protocol.limits import (
    KEY_BYTES_MAX,
    REQUEST_ID_BYTES_MIN,
    TTL_MS_MAX,
    VALUE_BYTES_MAX,
)
from protocol.replica.entry import Row, version_text
from protocol.replica.messages import Batch, Holding
from protocol.wire.fields import Head

from .rig import Peer, Rig, heartbeat, of, outcomes, payloads, said

B, C = Peer("b"), Peer("c")
REQUEST = bytes(REQUEST_ID_BYTES_MIN)


def linked(*peers: Peer) -> Rig:
    rig = Rig().start()
    for peer in peers:
        rig.join(peer)
    return rig


def put(key: bytes = b"k", value: bytes = b"v", **how: Any) -> Put:
    return Put(key, "default", key, value, **how)


def many(*keys: bytes, **how: Any) -> PutMany:
    return PutMany("many", "default", tuple((key, b"v", None) for key in keys), **how)


def staged(effects: list[Effect]) -> list[Entry]:
    return [row for stage in of(effects, Stage) for row in stage.rows if isinstance(row, Entry)]


def codes(effects: list[Effect]) -> list[str]:
    return [outcome.code for outcome in outcomes(effects) if isinstance(outcome, Refused)]


def versions(effects: list[Effect]) -> list[list[str]]:
    return [
        [version_text(entry) for entry in written.entries]
        for written in outcomes(effects)
        if isinstance(written, Written)
    ]


def head(rig: Rig, seq: int = 1) -> Head:
    return (rig.keys.node_id, rig.node.origin[1], seq)


# Acknowledgements


def test_a_write_is_answered_when_enough_others_hold_it() -> None:
    """Each counts once; those who hold it are asked to say so at once."""
    rig = linked(B, C)
    rig.handle(put(acks=2))
    effects = rig.commit()
    assert outcomes(effects) == []
    assert [batch.confirm for batch in payloads(effects, Batch) if isinstance(batch, Batch)] == [True]

    holding = Holding([head(rig)])
    assert outcomes(rig.receive(B, B.says(holding), B.says(holding))) == []
    (written,) = outcomes(rig.receive(C, C.says(holding)))
    assert isinstance(written, Written)
    assert written.entry.seq == 1
    assert outcomes(rig.receive(C, C.says(holding))) == []


def test_nobody_confirms_unasked() -> None:
    """A write that waits for nobody costs no answer of its peers."""
    rig = linked(B)
    rig.handle(put())
    (batch,) = payloads(rig.commit(), Batch)
    assert isinstance(batch, Batch) and not batch.confirm


def test_only_all_up_to_the_write_counts() -> None:
    """Who holds an earlier entry does not hold this one; who holds a later one does."""
    rig = linked(B)
    rig.handle(put(b"1"))
    rig.handle(put(b"2", acks=1))
    rig.handle(put(b"3"))
    rig.commit()
    assert outcomes(rig.receive(B, B.says(Holding([head(rig, 1)])))) == []
    assert len(outcomes(rig.receive(B, B.says(Holding([head(rig, 3)]))))) == 1


def test_any_word_of_a_peer_counts() -> None:
    """Also the heads in its heartbeats."""
    rig = linked(B)
    rig.handle(put(acks=1))
    rig.commit()
    assert len(outcomes(rig.receive(B, B.says(heartbeat(head(rig)))))) == 1


def test_a_write_is_not_answered_before_it_is_durable_here() -> None:
    """Whatever others say."""
    rig = linked(B)
    rig.handle(put(acks=1))
    assert outcomes(rig.receive(B, B.says(Holding([head(rig)])))) == []
    assert len(outcomes(rig.commit())) == 1


def test_a_peer_says_that_it_holds_a_batch_when_it_is_durable() -> None:
    """To its author, if it asked; not over another node, where nobody waits for it."""

    def batch(seq: int, *, confirm: bool) -> bytes:
        return B.says(Batch(7, seq, seq, [Row(seq, 5, b"k", seq, b"v")], confirm), seq=seq)

    rig = linked(B, C)
    assert of(rig.receive(B, batch(1, confirm=True)), Send) == []
    holding = Holding([(B.node_id, 7, 1)])
    assert said(rig.commit()) == [((rig.links["b"],), holding)]

    rig.receive(C, batch(2, confirm=True))
    rig.receive(B, batch(3, confirm=False))
    rig.receive(B, batch(5, confirm=True))  # there is a gap before it: it is not held yet
    assert payloads(rig.commit(), Holding) == []

    rig.receive(B, batch(4, confirm=True))
    rig.fail()
    rig.handle(put())
    assert payloads(rig.commit(), Holding) == []


def test_a_write_that_too_few_hold_in_time_is_told_so() -> None:
    """It stays written: the answer says how many hold it."""
    rig = linked(B, C)
    rig.handle(put(acks=2, acks_wait_ms=600))
    rig.commit()
    rig.receive(B, B.says(Holding([head(rig)])))
    assert outcomes(rig.wait(0.59)) == []
    assert rig.node.deadline_s <= rig.now_s + 0.01
    (refused,) = outcomes(rig.wait(0.01))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.message) == ("timeout", "written here and on 1 other members, not on 2")
    assert isinstance(rig.node.get("default", b"k", rig.now), Entry)


@pytest.mark.parametrize(
    "write", [put(acks=2), many(b"1", b"2", acks=2), Delete("d", "default", b"k", acks=2)]
)
def test_a_write_for_more_members_than_there_are_is_refused(write: Put | PutMany | Delete) -> None:
    """At once, and before anything is written."""
    rig = linked(B)
    effects = rig.handle(write)
    assert (codes(effects), staged(effects)) == (["unavailable"], [])


def test_a_write_that_waits_is_lost_with_its_commit() -> None:
    """It is told so; one that is stored already goes on waiting."""
    rig = linked(B)
    rig.handle(put(b"stored", acks=1))
    rig.commit()
    rig.handle(put(b"lost", acks=1))
    effects = rig.fail()
    assert [
        (reply.ref, reply.outcome.code) for reply in of(effects, Reply) if isinstance(reply.outcome, Refused)
    ] == [(b"lost", "storage_full")]
    (reply,) = of(rig.receive(B, B.says(Holding([head(rig)]))), Reply)
    assert reply.ref == b"stored"


# All or nothing


def test_a_batch_is_one_commit() -> None:
    """One entry for each key, in their order; of a key that comes twice the last."""
    rig = linked()
    items = ((b"1", b"one", None), (b"2", b"two", 1_000), (b"1", b"three", None))
    (stage,) = of(rig.handle(PutMany("many", "default", items)), Stage)
    assert [row.key for row in stage.rows if isinstance(row, Entry)] == [b"1", b"2", b"1"]
    (written,) = outcomes(rig.commit())
    assert isinstance(written, Written)
    assert [(entry.key, entry.seq, entry.expires_ms) for entry in written.entries] == [
        (b"1", 1, 0),
        (b"2", 2, rig.now.wall_ms + 1_000),
        (b"1", 3, 0),
    ]
    found = rig.node.get("default", b"1", rig.now)
    assert isinstance(found, Entry) and found.value == b"three"


def test_a_batch_is_lost_with_its_commit() -> None:
    """All of it, with one answer."""
    rig = linked()
    rig.handle(many(b"1", b"2"))
    assert codes(rig.fail()) == ["storage_full"]
    assert [rig.node.get("default", key, rig.now) for key in (b"1", b"2")] == [None, None]


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ((b"", b"v", None), "invalid"),
        ((bytes(KEY_BYTES_MAX + 1), b"v", None), "too_large"),
        ((b"k", bytes(VALUE_BYTES_MAX + 1), None), "too_large"),
        ((b"k", b"v", 0), "invalid"),
        ((b"k", b"v", TTL_MS_MAX + 1), "invalid"),
    ],
)
def test_one_bad_item_is_the_end_of_a_batch(item: tuple[bytes, bytes, int | None], code: str) -> None:
    """Whichever it is: nothing is staged."""
    for items in ((item, (b"good", b"v", None)), ((b"good", b"v", None), item)):
        effects = linked().handle(PutMany("many", "default", items))
        assert (codes(effects), of(effects, Stage)) == ([code], [])


def test_a_batch_is_answered_when_enough_others_hold_the_last_of_it() -> None:
    """Half of it is not enough."""
    rig = linked(B)
    rig.handle(many(b"1", b"2", acks=1))
    rig.commit()
    assert outcomes(rig.receive(B, B.says(Holding([head(rig, 1)])))) == []
    assert len(versions(rig.receive(B, B.says(Holding([head(rig, 2)]))))) == 1


# In memory


def test_a_write_in_memory_is_answered_before_it_is_durable() -> None:
    """Once its number and stamp were reserved: the first one waits for that."""
    rig = linked(B)
    assert outcomes(rig.handle(put(b"1", in_memory=True))) == []
    assert [reply.ref for reply in of(rig.commit(), Reply)] == [b"1"]

    effects = rig.handle(put(b"2", in_memory=True))
    assert [type(effect) for effect in effects] == [Reply, Stage]
    assert of(effects, Send) == []
    assert outcomes(rig.commit()) == []


def test_a_write_in_memory_that_others_must_hold_waits_for_them() -> None:
    """And so for the disk: others are told of durable entries only."""
    rig = linked(B)
    rig.handle(put(b"1", in_memory=True))
    rig.commit()
    assert outcomes(rig.handle(put(b"2", in_memory=True, acks=1))) == []
    rig.commit()
    assert len(outcomes(rig.receive(B, B.says(Holding([head(rig, 2)]))))) == 1


def test_what_comes_together_is_one_commit_and_one_message() -> None:
    """Three clients that write at once, the third what the first has written: three answers, one batch."""
    rig = linked(B)
    effects = rig.handle(put(b"a", if_absent=True), put(b"b"), put(b"a", if_absent=True))
    assert [entry.key for entry in staged(effects)] == [b"a", b"b"]
    assert len(of(effects, Stage)) == 1

    effects = rig.commit()
    assert codes(effects) == ["exists"]
    assert len(outcomes(effects)) == 3
    (batch,) = payloads(effects, Batch)
    assert [row.key for row in batch.rows] == [b"a", b"b"]
