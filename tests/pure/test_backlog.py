"""A disk that is slower than its writers: what waits for it is bounded, and nothing is lost by that."""

from __future__ import annotations

from protocol.errors import Refused
from protocol.inputs import Delete, Put, Written
from protocol.keyspaces import DEFAULT_KEYSPACE, define
from protocol.limits import STAGED_BYTES_MAX, VALUE_BYTES_MAX
from protocol.replica.entry import Row
from protocol.replica.messages import Batch
from protocol.replica.sync import Pull

from .rig import EPOCH_MS, Peer, Rig, outcomes, payloads

VALUE = bytes(VALUE_BYTES_MAX)
HELD = STAGED_BYTES_MAX // VALUE_BYTES_MAX
"""So many values pass the bound: each counts a little more than its bytes."""
KEYSPACE = define(DEFAULT_KEYSPACE).id


def batch(seq: int) -> Batch:
    return Batch(1, seq, seq, [Row(seq, KEYSPACE, b"%d" % seq, EPOCH_MS << 16, VALUE)])


def test_writers_hear_that_the_disk_is_behind() -> None:
    """Beyond the bound a put or a delete is `overloaded`; when the disk has caught up, it is taken again."""
    rig = Rig().start()
    for number in range(HELD):
        rig.handle(Put("held", DEFAULT_KEYSPACE, b"%d" % number, VALUE))

    rig.handle(Put("refused", DEFAULT_KEYSPACE, b"k", b"v"))
    rig.handle(Delete("refused", DEFAULT_KEYSPACE, b"0"))
    assert len(rig.staged) == HELD
    *written, put, delete = outcomes(rig.commit())
    assert [type(outcome) for outcome in written] == [Written] * (HELD)
    for refusal in (put, delete):
        assert isinstance(refusal, Refused) and (refusal.code, refusal.retryable) == ("overloaded", True)

    rig.handle(Put("taken", DEFAULT_KEYSPACE, b"k", b"v"))
    (outcome,) = outcomes(rig.commit())
    assert isinstance(outcome, Written)


def test_a_failed_commit_makes_room() -> None:
    """What was not stored does not wait any more."""
    rig = Rig().start()
    for number in range(HELD):
        rig.handle(Put("held", DEFAULT_KEYSPACE, b"%d" % number, VALUE))
    rig.fail()

    rig.handle(Put("taken", DEFAULT_KEYSPACE, b"k", b"v"))
    (outcome,) = outcomes(rig.commit())
    assert isinstance(outcome, Written)


def test_batches_beyond_the_bound_are_left_to_sync() -> None:
    """A peer that sends faster than the disk takes is not stored in memory: what was left out is pulled."""
    rig, peer = Rig().start(), Peer("b")
    rig.join(peer)
    rig.wait(0.1)
    for seq in range(1, HELD + 11):
        rig.receive(peer, peer.says(batch(seq)))

    assert len(rig.staged) == HELD
    rig.commit()
    assert rig.node.replica.vector[peer.node_id, 1] == HELD
    pulls = payloads(rig.wait(rig.node.config.sync_idle_s + 1), Pull)
    assert (peer.node_id, 1, HELD) in pulls[-1].vector
