"""Sync sessions of one node with peers that tests speak for: when they begin, and what a lost commit costs."""

from __future__ import annotations

from protocol.effects import Disconnect, Effect, Synced
from protocol.errors import Fault
from protocol.inputs import Put, Tick
from protocol.membership.record import Heartbeat
from protocol.replica.entry import Row
from protocol.replica.replica import Batch
from protocol.replica.sync import Chunk, Group, More, Pull

from .rig import Peer, Rig, of, payloads, said

B, C = Peer("b"), Peer("c")
LINEAGE = 7
ROW = Row(1, 1, b"k", 5, b"v")


def linked(*peers: Peer) -> Rig:
    """A node with members, all sessions over."""
    rig = Rig().start()
    for number, peer in enumerate(peers, start=1):
        rig.join(peer)
        rig.receive(peer, peer.says(Chunk(number, 0, [], [])))
    rig.commit()
    return rig


def beat(peer: Peer, *heads: tuple[bytes, int, int]) -> bytes:
    return peer.says(Heartbeat(0, 1, 1, 0, b"", list(heads), [], []))


def pulls(effects: list[Effect]) -> list[object]:
    return payloads(effects, Pull)


def test_a_session_begins_when_a_link_comes_up() -> None:
    """With the node's vector; its rows and the vector count when they are durable, chunk by chunk."""
    rig = Rig().start()
    assert pulls(rig.link(B)) == [Pull(1, [])]
    group = Group(B.node_id, LINEAGE, [ROW])

    assert said(rig.receive(B, B.says(Chunk(1, 0, [group], None)))) == []
    assert payloads(rig.commit(), More) == [More(1, 1)]
    effects = rig.receive(B, B.says(Chunk(1, 1, [], [(B.node_id, LINEAGE, 1)])))
    assert (of(effects, Synced), rig.node.replica.vector) == ([], {(B.node_id, LINEAGE): 0})
    assert of(rig.commit(), Synced) == [Synced(B.node_id, 1)]
    assert rig.node.replica.vector == {(B.node_id, LINEAGE): 1}


def test_one_session_is_pulled_at_a_time() -> None:
    """The next begins when the last is over, or its link is gone."""
    rig = Rig().start()
    assert len(pulls(rig.link(B))) == 1
    assert pulls(rig.link(C)) == []
    assert pulls(rig.lose(B)) == [Pull(2, [])]


def test_a_reader_gets_the_cut_in_chunks_it_asks_for() -> None:
    """The vector comes with the last chunk only; a `More` out of turn is passed over."""
    rig = Rig(sync_rows_max=2).start()
    rig.join(B)
    for n in range(3):
        rig.handle(Put(None, "default", b"%d" % n, b""))
    rig.commit()
    (first,) = payloads(rig.receive(B, B.says(Pull(9, []))), Chunk)
    assert payloads(rig.receive(B, B.says(More(9, 0)), B.says(More(9, 2)), B.says(More(8, 1))), Chunk) == []
    (last,) = payloads(rig.receive(B, B.says(More(9, 1))), Chunk)
    assert isinstance(first, Chunk) and isinstance(last, Chunk)
    assert [[row.key for group in chunk.groups for row in group.rows] for chunk in (first, last)] == [
        [b"0", b"1"],
        [b"2"],
    ]
    assert (first.vector, last.vector) == (None, [(rig.keys.node_id, 1, 3)])


def test_an_announced_head_is_pulled_when_gossip_does_not_bring_it() -> None:
    """After half a second, and not before; never if the batch came meanwhile."""
    rig = linked(B)
    rig.receive(B, beat(B, (B.node_id, LINEAGE, 1)))
    assert pulls(rig.wait(0.4)) == []
    assert pulls(rig.wait(0.2)) == [Pull(2, [])]

    rig = linked(B)
    rig.receive(B, beat(B, (B.node_id, LINEAGE, 1)), B.says(Batch(LINEAGE, 1, 1, [ROW])))
    rig.commit()
    assert pulls(rig.wait(1.0)) == []


def test_a_batch_whose_commit_failed_is_pulled() -> None:
    """Also when its head was announced while it was staged, and never again."""
    rig = linked(B)
    rig.receive(B, B.says(Batch(LINEAGE, 1, 1, [ROW])), beat(B, (B.node_id, LINEAGE, 1)))
    rig.fail()
    assert pulls(rig.wait(1.0)) == [Pull(2, [])]


def test_a_session_whose_commit_failed_begins_anew() -> None:
    """A tick between staging and failing must not take the staged head for a held one."""
    rig = linked(B)
    rig.receive(B, beat(B, (B.node_id, LINEAGE, 1)))
    assert pulls(rig.wait(0.6)) == [Pull(2, [])]
    group = Group(B.node_id, LINEAGE, [ROW])
    rig.receive(B, B.says(Chunk(2, 0, [group], [(B.node_id, LINEAGE, 1)])))
    rig.now_s += 0.1
    rig.handle(Tick())
    rig.fail()
    assert pulls(rig.wait(6.0)) == [Pull(3, [])]


def test_a_chunk_out_of_order_ends_the_link() -> None:
    """Its rows are not taken; a chunk of a session that was given up is passed over."""
    rig = Rig().start()
    rig.link(B)
    assert rig.receive(B, B.says(Chunk(99, 5, [], []))) == []
    (cut,) = of(rig.receive(B, B.says(Chunk(1, 1, [Group(B.node_id, LINEAGE, [ROW])], None))), Disconnect)
    assert cut.fault == Fault.MALFORMED
    assert rig.node.replica.reached == {}


def test_a_silent_session_is_given_up() -> None:
    """And begun anew, so that one peer that stopped does not keep the others waiting."""
    rig = Rig().start()
    rig.link(B)
    rig.wait(4.0)
    rig.receive(B, beat(B))
    assert pulls(rig.wait(1.5)) == [Pull(2, [])]
