"""The core's order of duties: what may leave when, what a failed commit takes with it, who is cut off."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec
import pytest

from protocol.effects import Disconnect, Reply, Send, Stage
from protocol.errors import Fault, Refused
from protocol.identity.tickets import JoinChallenge, JoinGranted, Ticket, challenge_answer
from protocol.inputs import (
    Barrier,
    CreateTicket,
    Delete,
    Nothing,
    Put,
    Redeem,
    RevokeTicket,
    Settled,
    Tick,
    Written,
)
from protocol.limits import (
    KEY_BYTES_MAX,
    LINK_FRAMES_BURST_MAX,
    LINK_FRAMES_PER_S_MAX,
    TTL_MS_MAX,
    VALUE_BYTES_MAX,
)
from protocol.membership.record import Heartbeat
from protocol.replica.entry import Row, version_text
from protocol.replica.replica import Batch
from protocol.wire.hello import Confirm

from ..sim.swarm.fakes import Authority
from .rig import Peer, Rig, of, outcomes, payloads
from .samples import ALICE, ALICE_GRANT, CLUSTER_KEY, key

B, C = Peer("b"), Peer("c")
FULL = Refused(
    "storage_full",
    "nothing was written: disk full",
    "free space on the daemon's disk, then try again; reads and membership go on",
    retryable=True,
)


def linked(*peers: Peer) -> Rig:
    rig = Rig().start()
    for peer in peers:
        rig.join(peer)
    return rig


def put(name: bytes = b"k", value: bytes = b"v", **how: object) -> Put:
    return Put(name, "default", name, value, **how)  # type: ignore[arg-type]


def value(rig: Rig, name: bytes = b"k") -> object:
    found = rig.node.get("default", name, rig.now)
    return found if found is None or isinstance(found, Refused) else found.value


# Durable first


def test_a_write_is_told_to_nobody_before_it_is_durable() -> None:
    """One Stage; then, in this order, one signed batch for all links and the reply."""
    rig = linked(B, C)
    effects = rig.handle(put())
    assert [type(effect) for effect in effects] == [Stage]
    assert (value(rig), rig.node.replica.own_head) == (None, 0)

    effects = rig.commit()
    assert [type(effect) for effect in effects] == [Send, Reply]
    assert of(effects, Send)[0].links == tuple(rig.links[name] for name in sorted(rig.links, key=node_id_of))
    (batch,) = payloads(effects, Batch)
    assert isinstance(batch, Batch)
    assert (batch.lineage, batch.first, batch.last, len(batch.rows)) == (1, 1, 1, 1)
    (written,) = outcomes(effects)
    assert isinstance(written, Written)
    assert (value(rig), rig.node.replica.own_head) == (b"v", written.entry.seq)


def node_id_of(name: str) -> bytes:
    return {"b": B, "c": C}[name].node_id


def test_heartbeats_and_vectors_speak_of_durable_entries_only() -> None:
    """While a commit is under way the heads announced are those before it; a second after it no more."""
    rig = linked(B)
    rig.handle(put())
    rig.now_s += 0.3
    (beat,) = payloads(rig.handle(Tick()), Heartbeat)
    assert isinstance(beat, Heartbeat) and beat.heads == []
    rig.commit()
    announced = [beat.heads for beat in payloads(rig.wait(1.5), Heartbeat) if isinstance(beat, Heartbeat)]
    assert announced == [[(rig.keys.node_id, 1, 1)]] * 4 + [[]] * 2


def test_one_signature_a_commit() -> None:
    """Three writes in one group make one batch."""
    rig = linked(B, C)
    for name in (b"1", b"2", b"3"):
        rig.handle(put(name))
    before = rig.keys.signatures
    effects = rig.commit()
    assert [len(batch.rows) for batch in payloads(effects, Batch) if isinstance(batch, Batch)] == [3]
    assert rig.keys.signatures == before + 1


def test_replies_come_with_their_own_commit() -> None:
    """Of two commits the first alone releases its reply; the second waits for its own."""
    rig = linked()
    rig.handle(put(b"1"))
    rig.handle(put(b"2"))
    assert [reply.ref for reply in of(rig.commit(1), Reply)] == [b"1"]
    assert [reply.ref for reply in of(rig.commit(1), Reply)] == [b"2"]


def test_an_answer_that_stages_nothing_waits_for_what_it_was_judged_by() -> None:
    """`exists` speaks of a write that may yet fail, and so does a delete that finds nothing."""
    rig = linked()
    rig.handle(put())
    assert rig.handle(put(if_absent=True)) == []
    assert rig.handle(Delete(b"d", "default", b"other")) == []
    written, exists, nothing = outcomes(rig.commit())
    assert isinstance(written, Written) and isinstance(exists, Refused)
    assert (exists.code, nothing) == ("exists", Nothing())
    assert outcomes(rig.handle(Delete(b"d", "default", b"other"))) == [Nothing()]


def test_a_barrier_waits_for_what_is_staged() -> None:
    """And for no more; where nothing is staged it is passed at once, and a failure ends the waiting too."""
    rig = linked()
    assert outcomes(rig.handle(Barrier("at once"))) == [Settled()]
    rig.handle(put(b"1"))
    assert rig.node.is_staged("default", b"1")
    assert rig.handle(Barrier("behind 1")) == []
    rig.handle(put(b"2"))
    assert [reply.ref for reply in of(rig.commit(1), Reply)] == [b"1", "behind 1"]
    rig.handle(Barrier("behind 2"))
    assert of(rig.fail(), Reply) == [Reply(b"2", FULL), Reply("behind 2", Settled())]


# What a failed commit takes with it


def test_a_full_disk_is_an_answer() -> None:
    """The write never happened; reads go on; the next one is stored and said, with a number of its own."""
    rig = linked(B)
    rig.handle(put(b"kept", b"old"))
    rig.commit()
    rig.handle(put(b"kept", b"new"))
    rig.handle(put(b"lost"))
    effects = rig.fail()
    assert outcomes(effects) == [FULL, FULL]
    assert of(effects, Send) == []
    assert (value(rig, b"kept"), value(rig, b"lost"), rig.node.store_failed) == (b"old", None, "disk full")
    assert not rig.node.is_staged("default", b"lost")

    rig.handle(put(b"lost"))
    (batch,) = payloads(rig.commit(), Batch)
    assert isinstance(batch, Batch)
    assert (batch.first, batch.last, [row.seq for row in batch.rows]) == (2, 4, [4])
    assert rig.node.store_failed == ""


def test_a_write_judged_by_a_lost_one_is_lost_with_it() -> None:
    """Its condition was a version that never came to be."""
    rig = linked()
    (stage,) = of(rig.handle(put()), Stage)
    staged = version_text(stage.rows[0])  # type: ignore[arg-type]
    rig.handle(put(if_version=staged))
    assert outcomes(rig.fail()) == [FULL, FULL]
    (refused,) = outcomes(rig.handle(put(if_version=staged)))
    assert isinstance(refused, Refused)
    assert refused.code == "conflict"


def test_rows_of_a_peer_are_lost_with_a_failed_commit() -> None:
    """The head does not move, so sync brings them again; a batch that comes again is taken."""
    rig = linked(B)
    batch = Batch(7, 1, 1, [Row(1, 5, b"k", 5, b"v")])
    rig.receive(B, B.says(batch))
    rig.fail()
    assert rig.node.replica.vector.get((B.node_id, 7), 0) == 0
    rig.receive(B, B.says(batch))
    rig.commit()
    assert rig.node.replica.vector[B.node_id, 7] == 1


# Tickets


TICKET_ID, SECRET = b"8 bytes.", b"sixteen  bytes.."
MAKE = CreateTicket("made", TICKET_ID, SECRET, ttl_ms=60_000, uses=1)


def redeem(rig: Rig) -> Redeem:
    """What node 5 asks for when it joins through this node."""
    ticket = Ticket(TICKET_ID, SECRET, CLUSTER_KEY.node_id, ())
    rig.keys.credential = ALICE.credential
    challenge = JoinChallenge(1, 1, ALICE_GRANT.chain, bytes(16))
    return Redeem(
        "used", challenge_answer(ticket, key(5), challenge, ALICE.credential[0], bytes(16)), bytes(16)
    )


def test_a_ticket_is_made_when_it_is_stored() -> None:
    """Its secret is not: only the hash."""
    rig = linked()
    (stage,) = of(effects := rig.handle(MAKE), Stage)
    assert (len(effects), SECRET in repr(stage.rows).encode()) == (1, False)
    assert sha256(SECRET).digest() in msgspec.msgpack.encode(stage.rows)
    ((ticket, _),) = outcomes(rig.commit())  # type: ignore[misc]
    assert (ticket.secret, ticket.addresses) == (SECRET, ("me:1",))


def test_a_repeated_request_waits_like_the_first() -> None:
    """Both answers are the same grant, and neither leaves before the use is durable."""
    rig = linked()
    rig.handle(MAKE)
    rig.commit()
    assert outcomes(rig.handle(redeem(rig))) == outcomes(rig.handle(redeem(rig))) == []
    first, second = outcomes(rig.commit())
    assert isinstance(first, JoinGranted)
    assert first == second


def test_tickets_are_what_the_disk_says_after_a_failed_commit() -> None:
    """A revoked one that could not be struck out lives on, and can be revoked again; a lost one is unknown."""
    rig = linked()
    rig.handle(MAKE)
    assert outcomes(rig.fail()) == [FULL]
    assert not rig.node.invitations.has_live(rig.now.wall_ms)

    rig.handle(MAKE)
    rig.commit()
    rig.handle(RevokeTicket("revoked", TICKET_ID))
    assert outcomes(rig.fail()) == [FULL]
    assert rig.node.invitations.has_live(rig.now.wall_ms)
    rig.handle(RevokeTicket("revoked", TICKET_ID))
    assert outcomes(rig.commit()) == [TICKET_ID]
    (refused,) = outcomes(rig.handle(redeem(rig)))
    assert isinstance(refused, Refused) and refused.code == "not_allowed"


# Who is cut off


FOREIGN = Peer("b", authority=Authority(b"another cluster"))
IMPOSTOR = Peer("b", authority=Authority(b"another cluster"))
IMPOSTOR.keys.node_id, IMPOSTOR.keys.cluster_id = B.node_id, B.keys.cluster_id
BEAT, BATCH = Heartbeat(0, 1, 1, 0, b"", [], [], []), Batch(7, 1, 1, [])
FAULTS: dict[str, tuple[Fault, Callable[[], list[bytes]]]] = {
    "noise": (Fault.MALFORMED, lambda: [b"noise"]),
    "a message of the handshake": (Fault.MALFORMED, lambda: [B.says(Confirm(bytes(32)))]),
    "a batch with a row outside": (
        Fault.MALFORMED,
        lambda: [B.says(Batch(7, 1, 1, [Row(2, 5, b"k", 5, b"")]))],
    ),
    "a batch that ends before it begins": (Fault.MALFORMED, lambda: [B.says(Batch(7, 2, 1, []))]),
    "another version": (Fault.UNSUPPORTED_VERSION, lambda: [B.says(BEAT, version=2)]),
    "another cluster": (Fault.WRONG_CLUSTER, lambda: [FOREIGN.says(BEAT)]),
    "a forged signature": (Fault.BAD_SIGNATURE, lambda: [IMPOSTOR.says(BEAT)]),
    "a message of another member": (Fault.NOT_A_MEMBER, lambda: [C.says(BEAT)]),
    "a message of another run": (Fault.NOT_A_MEMBER, lambda: [Peer("b", run=5).says(BEAT)]),
    "gossip of another member": (Fault.NOT_A_MEMBER, lambda: [C.says(BATCH)]),
    "a replay": (Fault.REPLAYED, lambda: [B.says(BEAT)] * 2),
    "a number that goes back": (
        Fault.REPLAYED,
        lambda: [B.says(BEAT, seq=10**6), B.says(BEAT, seq=10**6 - 1)],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_peer_that_breaks_the_protocol_is_cut_off(case: str) -> None:
    """By name, counted, and what it sends afterwards is void; the other peer does not notice."""
    fault, envelopes = FAULTS[case]
    rig = linked(B, C)
    link = rig.links["b"]
    (cut,) = of(rig.receive(B, *envelopes(), B.says(BEAT)), Disconnect)
    assert (cut.link, cut.fault) == (link, fault)
    assert rig.node.refused == {fault: 1}
    assert rig.receive(B, B.says(BEAT)) == []
    assert rig.state(B)[0] == "suspect"
    assert of(rig.receive(C, C.says(BEAT)), Disconnect) == []
    assert rig.state(C)[0] == "alive"


def test_a_message_of_another_version_names_both_ranges() -> None:
    """The detail goes to the peer, so both logs have it."""
    (cut,) = of(linked(B).receive(B, B.says(BEAT, version=9)), Disconnect)
    assert cut.detail == (
        "a message of version 9: we speak protocol versions 1 to 1, the peer said it speaks 1 to 1"
    )


def test_a_link_has_a_quota() -> None:
    """A burst, and then so many a second; more ends the link before anything is verified."""
    rig = linked(B)
    known = B.announces()
    rig.wait(0.1)
    assert of(rig.receive(B, *[known] * LINK_FRAMES_BURST_MAX), Disconnect) == []
    rig.now_s += 0.5
    assert of(rig.receive(B, *[known] * (LINK_FRAMES_PER_S_MAX // 2)), Disconnect) == []
    (cut,) = of(rig.receive(B, known), Disconnect)
    assert cut.fault == Fault.QUOTA


# The bounds of a write


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (put(b""), "invalid"),
        (put(bytes(KEY_BYTES_MAX + 1)), "too_large"),
        (put(value=bytes(VALUE_BYTES_MAX + 1)), "too_large"),
        (put(ttl_ms=0), "invalid"),
        (put(ttl_ms=-1), "invalid"),
        (put(ttl_ms=TTL_MS_MAX + 1), "invalid"),
    ],
)
def test_a_write_out_of_bounds_is_refused(write: Put, code: str) -> None:
    """At once, with nothing staged."""
    (reply,) = linked().handle(write)
    assert isinstance(reply, Reply) and isinstance(reply.outcome, Refused)
    assert reply.outcome.code == code


def test_a_write_at_its_bounds_is_taken() -> None:
    """The limits themselves are allowed, and expire when they say."""
    rig = linked()
    name = bytes(KEY_BYTES_MAX)
    rig.handle(put(name, bytes(VALUE_BYTES_MAX), ttl_ms=1_000))
    rig.commit()
    assert value(rig, name) == bytes(VALUE_BYTES_MAX)
    rig.now_s += 1
    assert value(rig, name) is None
