"""Sync sessions of one node with peers that tests speak for: when they begin, and what a lost commit costs."""

from __future__ import annotations

from protocol.clock import AHEAD_MAX_MS, COUNTER_BITS
from protocol.effects import Disconnect, Effect, Entry, Said, Synced
from protocol.errors import Fault
from protocol.inputs import Put, Tick
from protocol.replica.entry import Row
from protocol.replica.messages import Batch, Chunk, Group, Heads, More, Pull
from protocol.replica.sync import Lag
from protocol.wire.fields import Head

from .rig import EPOCH_MS, Peer, Rig, heartbeat, of, payloads, said

B, C = Peer("b"), Peer("c")
LINEAGE = 7
ROW = Row(1, 1, b"k", 5, b"v")
GROUP = Group(B.node_id, LINEAGE, [ROW])
HEAD = (B.node_id, LINEAGE, 1)


def linked(*peers: Peer) -> Rig:
    """A node with members, all sessions over."""
    rig = Rig().start()
    for number, peer in enumerate(peers, start=1):
        rig.join(peer)
        rig.receive(peer, last(peer, number))
    rig.commit()
    return rig


def first(peer: Peer, session: int, *groups: Group, cut: Heads | None = None) -> bytes:
    """The first chunk of a session that has more."""
    return peer.says(Chunk(session, 0, LINEAGE, list(groups), cut or [], None, False))


def last(peer: Peer, session: int, *groups: Group, cut: Heads | None = None) -> bytes:
    """A session of one chunk."""
    return peer.says(Chunk(session, 0, LINEAGE, list(groups), cut or [], None, True))


def beat(peer: Peer, *heads: Head) -> bytes:
    return peer.says(heartbeat(*heads))


def pulls(effects: list[Effect]) -> list[object]:
    return payloads(effects, Pull)


def pull(session: int, *vector: Head, known_run: int = 0, known: list[tuple[int, int]] | None = None) -> Pull:
    return Pull(session, list(vector), known_run, known or [], None)


def test_a_session_begins_when_a_link_comes_up() -> None:
    """With the node's vector; rows are asked on when they are durable, and the cut counts with the last chunk."""
    rig = Rig().start()
    assert pulls(rig.link(B)) == [pull(1)]

    assert said(rig.receive(B, first(B, 1, GROUP, cut=[HEAD]))) == []
    assert payloads(rig.commit(), More) == [More(1, 1)]
    assert rig.node.replica.vector == {(B.node_id, LINEAGE): 0}
    effects = rig.receive(B, B.says(Chunk(1, 1, LINEAGE, [], None, None, True)))
    assert (of(effects, Synced), rig.node.replica.vector) == ([], {(B.node_id, LINEAGE): 0})
    assert of(rig.commit(), Synced) == [Synced(B.node_id, 1)]
    assert rig.node.replica.vector == {(B.node_id, LINEAGE): 1}


def test_a_pull_tells_what_is_known_of_the_peer() -> None:
    """Its latest run, and its highest entries: also beyond a gap, and what a broken session brought."""
    rig = linked(B)
    rig.receive(B, B.says(Batch(3, 5, 5, [Row(5, 1, b"beyond a gap", 5, b"v")])))
    rig.commit()
    assert pulls(rig.wait(0.6)) == [pull(2, (B.node_id, 3, 0), known=[(3, 5)])]
    rig.receive(B, first(B, 2, Group(B.node_id, LINEAGE, [Row(4, 1, b"not covered", 5, b"v")]), cut=[HEAD]))
    rig.commit()
    rig.lose(B)

    vector = ((B.node_id, 3, 0), (B.node_id, LINEAGE, 0))
    again = Peer("b", run=B.run + 1)
    assert pulls(rig.link(again)) == [pull(3, *vector, known_run=B.run, known=[(3, 5), (LINEAGE, 4)])]


def test_one_session_is_pulled_at_a_time() -> None:
    """The next begins when the last is over, or its link is gone."""
    rig = Rig().start()
    assert len(pulls(rig.link(B))) == 1
    assert pulls(rig.link(C)) == []
    assert pulls(rig.lose(B)) == [pull(2)]


def test_a_reader_gets_the_cut_in_chunks_it_asks_for() -> None:
    """It comes with the first, and each says how far it is; a `More` out of turn is passed over."""
    rig = Rig(sync_rows_max=2).start()
    rig.join(B)
    for n in range(3):
        rig.handle(Put(None, "default", b"%d" % n, b""))
    rig.commit()
    me = rig.keys.node_id
    (one,) = payloads(rig.receive(B, B.says(pull(9))), Chunk)
    rig.handle(Put(None, "default", b"later", b""))
    rig.commit()
    assert payloads(rig.receive(B, B.says(More(9, 0)), B.says(More(9, 2)), B.says(More(8, 1))), Chunk) == []
    (two,) = payloads(rig.receive(B, B.says(More(9, 1))), Chunk)
    assert isinstance(one, Chunk) and isinstance(two, Chunk)
    keys = [[row.key for group in chunk.groups for row in group.rows] for chunk in (one, two)]
    assert keys == [[b"0", b"1"], [b"2", b"later"]]
    assert (one.index, one.lineage, one.cut, one.position, one.last) == (
        0,
        1,
        [(me, 1, 3)],
        (me, 1, 2),
        False,
    )
    assert (two.index, two.lineage, two.cut, two.position, two.last) == (1, 1, None, None, True)


def test_a_peer_that_asks_for_late_stamps_gets_them_again() -> None:
    """Whatever it covers; nothing that is not later."""
    rig = linked(B)
    for key in (b"early", b"late"):
        rig.handle(Put(None, "default", key, b""))
    rig.commit()
    me = rig.keys.node_id
    early = rig.node.get("default", b"early", rig.now)
    assert isinstance(early, Entry)
    ask = Pull(9, [(me, 1, 2)], 0, [], None, above=early.hlc)
    (chunk,) = payloads(rig.receive(B, B.says(ask)), Chunk)
    assert isinstance(chunk, Chunk)
    assert [row.key for group in chunk.groups for row in group.rows] == [b"late"]


def test_how_far_two_nodes_are_apart_is_known() -> None:
    """In entries of all origins, by what the peer said it holds; of a session that runs, how much has come."""
    rig = linked(B, C)
    synced_ms = rig.now.wall_ms
    assert rig.node.sync.lag(B.node_id) == Lag(0, 0, synced_ms, None)
    for number in range(3):
        rig.handle(Put(None, "default", b"%d" % number, b""))
    rig.commit()
    rig.receive(B, beat(B, (rig.keys.node_id, 1, 1), (B.node_id, LINEAGE, 4)))
    assert rig.node.sync.lag(B.node_id) == Lag(4, 2, synced_ms, None)

    assert pulls(rig.wait(0.6)) != []
    cut, position = [(B.node_id, LINEAGE, 4)], (B.node_id, LINEAGE, 1)
    rig.receive(B, B.says(Chunk(3, 0, LINEAGE, [GROUP], cut, position, False)))
    rig.commit()
    assert rig.node.sync.lag(B.node_id) == Lag(4, 2, synced_ms, 25)
    assert rig.node.sync.lag(C.node_id).percent is None
    rig.receive(B, B.says(Chunk(3, 1, LINEAGE, [], None, None, True)))
    rig.commit()
    assert rig.node.sync.lag(B.node_id) == Lag(0, 2, rig.now.wall_ms, None)


def test_an_announced_head_is_pulled_when_gossip_does_not_bring_it() -> None:
    """After half a second, and not before; never if the batch came meanwhile."""
    rig = linked(B)
    rig.receive(B, beat(B, HEAD))
    assert pulls(rig.wait(0.4)) == []
    assert pulls(rig.wait(0.2)) == [pull(2)]

    rig = linked(B)
    rig.receive(B, beat(B, HEAD), B.says(Batch(LINEAGE, 1, 1, [ROW])))
    rig.commit()
    assert pulls(rig.wait(1.0)) == []


def test_a_batch_whose_commit_failed_is_pulled() -> None:
    """Also when its head was announced while it was staged, and never again: a tick does not take it for held."""
    rig = linked(B)
    rig.receive(B, B.says(Batch(LINEAGE, 1, 1, [ROW])), beat(B, HEAD))
    rig.now_s += 0.1
    rig.handle(Tick())
    rig.fail()
    assert pulls(rig.wait(1.0)) == [pull(2)]


def test_a_session_whose_commit_failed_begins_anew() -> None:
    """Soon for a head that it had brought; else when all peers are asked once more, a little later."""
    for chunk, wait_s in ((last, 0.6), (first, 5.1)):
        rig = Rig().start()
        rig.join(B)
        rig.receive(B, chunk(B, 1, GROUP, cut=[HEAD]))
        rig.fail()
        assert pulls(rig.wait(wait_s)) == [pull(2)]


def test_a_session_that_is_not_durable_yet_keeps_the_next_one_waiting() -> None:
    """Else that would ask for everything once more."""
    rig = Rig().start()
    rig.join(B)
    assert pulls(rig.join(C)) == []
    assert pulls(rig.receive(B, last(B, 1, GROUP, cut=[HEAD]))) == []
    assert pulls(rig.commit()) == [pull(2, HEAD)]


def test_a_chunk_out_of_order_ends_the_link() -> None:
    """Or with a cut in the wrong place: its rows are not taken; one of a session that was given up is passed over."""
    rig = Rig().start()
    rig.link(B)
    assert rig.receive(B, last(B, 99, GROUP)) == []
    for index, cut in ((1, None), (1, [HEAD]), (0, None)):
        rig = Rig().start()
        rig.link(B)
        (end,) = of(rig.receive(B, B.says(Chunk(1, index, LINEAGE, [GROUP], cut, None, False))), Disconnect)
        assert end.fault == Fault.MALFORMED
        assert rig.node.replica.reached == {}


def test_a_silent_session_is_given_up() -> None:
    """And begun anew, so that one peer that stopped does not keep the others waiting."""
    rig = Rig().start()
    rig.link(B)
    rig.wait(4.0)
    rig.receive(B, beat(B))
    assert pulls(rig.wait(1.5)) == [pull(2)]


def test_a_session_that_brings_the_future_covers_nothing() -> None:
    """What the held entry has superseded at the sender did not come: all is pulled again when its time has come."""
    rig = linked(B)
    hlc = (EPOCH_MS + int(rig.now_s * 1000) + AHEAD_MAX_MS + 1500) << COUNTER_BITS
    group = Group(B.node_id, LINEAGE, [Row(1, 1, b"k", hlc, b"future")])
    cut = [(B.node_id, LINEAGE, 2), (C.node_id, 1, 9)]
    rig.receive(B, beat(B, cut[1]))
    assert pulls(rig.wait(0.6)) == [pull(2)]
    effects = rig.receive(B, last(B, 2, group, cut=cut))
    assert [line.event for line in of(effects, Said)] == ["entry.held_back", "sync.held_back"]
    rig.commit()
    assert rig.node.replica.vector == {(B.node_id, LINEAGE): 0}

    assert pulls(rig.wait(0.8)) == []
    assert pulls(rig.wait(0.4)) == [pull(3, (B.node_id, LINEAGE, 0), known=[(LINEAGE, 0)])]
    rig.receive(B, last(B, 3, group, cut=cut))
    rig.commit()
    assert rig.node.replica.vector == {(B.node_id, LINEAGE): 2, (C.node_id, 1): 9}


def test_a_broken_session_does_not_go_on_behind_what_it_held_back() -> None:
    """It begins where it stood before: its end would cover the held entry, whose time may have come by then."""
    rig = linked(B)
    hlc = (EPOCH_MS + int(rig.now_s * 1000) + AHEAD_MAX_MS + 1500) << COUNTER_BITS
    future = Group(B.node_id, LINEAGE, [Row(2, 1, b"l", hlc, b"future")])
    cut = [(B.node_id, LINEAGE, 9)]
    rig.receive(B, beat(B, *cut))
    assert pulls(rig.wait(0.6)) == [pull(2)]
    rig.receive(B, B.says(Chunk(2, 0, LINEAGE, [GROUP], cut, (B.node_id, LINEAGE, 1), False)))
    rig.commit()
    rig.receive(B, B.says(Chunk(2, 1, LINEAGE, [future], None, (B.node_id, LINEAGE, 5), False)))
    rig.commit()
    ((again, *_),) = [pulls(rig.wait(6.0))]
    assert isinstance(again, Pull)
    assert again.floor is not None
    assert again.floor.heads == [(B.node_id, LINEAGE, 1)]


def test_a_pull_tells_of_the_peer_what_is_only_staged() -> None:
    """Its author has it durably, or had it: one that was restored must not give that number to something else."""
    rig = linked(B)
    rig.receive(B, B.says(Batch(LINEAGE, 1, 3, [Row(3, 1, b"k", 5, b"v")])))
    rig.lose(B)
    (told,) = pulls(rig.link(B))
    assert isinstance(told, Pull)
    assert (told.vector, told.known) == ([], [(LINEAGE, 3)])
