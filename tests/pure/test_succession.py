"""What a voter tells those that vote after it, and when those begin: one whole node, told what others say."""

from __future__ import annotations

from typing import TypeVar

from protocol.clock import COUNTER_BITS
from protocol.commit.messages import (
    Abstain,
    Ask,
    Lapsed,
    Outcome,
    Prepare,
    Read,
    Step,
    Steps,
    Survey,
    Surveyed,
    Values,
    Vote,
)
from protocol.commit.stragglers import QUESTION
from protocol.commit.transaction import Header, Op, TxnId
from protocol.effects import Effect, Entry
from protocol.epochs import Forced, Successor, encode, successor_key
from protocol.errors import Refused
from protocol.inputs import Elected, SetVoters
from protocol.keyspaces import COORDINATED, SYSTEM_KEYSPACE, define
from protocol.keyspaces import encode as encode_definition
from protocol.replica.entry import to_row
from protocol.replica.messages import Batch, Chunk, Group, Pull
from protocol.types import NodeId
from protocol.voters import Voter

from ..sim.swarm.fakes import Disk, FakeKeys
from .rig import AUTHORITY, EPOCH_MS, Peer, Rig, heartbeat, outcomes, payloads, said, store_id

S = TypeVar("S", bound=Step)

PEERS = B, C, D = Peer("b"), Peer("c"), Peer("d")
LINEAGE = 7
STAMP = (EPOCH_MS + 100_000) << COUNTER_BITS
ME = FakeKeys(AUTHORITY, "me").node_id
VOTERS = {"me": Voter(ME, store_id("me"))} | {p.name: Voter(p.node_id, store_id(p.name)) for p in PEERS}
BANK = define("bank", COORDINATED, [VOTERS[name] for name in ("me", "b", "c")])
DEFINITION = Entry(SYSTEM_KEYSPACE, BANK.key, 1, B.node_id, LINEAGE, 1, encode_definition(BANK))
SECOND = (BANK.id, 2)


def successor(*names: str, lost: tuple[str, ...] = ()) -> Entry:
    """In the place of the first voters; by force, where some are lost."""
    voters = tuple(sorted(VOTERS[name] for name in names))
    forced = Forced(1, "b", tuple(VOTERS[name] for name in lost)) if lost else None
    value = encode(Successor(voters, forced))
    return Entry(SYSTEM_KEYSPACE, successor_key(*SECOND), STAMP, B.node_id, LINEAGE, 20, value)


def linked(*stored: Entry) -> Rig:
    """A node that has the keyspace's definition, and links to all others; their sessions are over."""
    disk = Disk()
    disk.apply((DEFINITION, *stored))
    rig = Rig(disk=disk).start()
    for number, peer in enumerate(PEERS, start=1):
        rig.join(peer)
        rig.receive(peer, peer.says(Chunk(number, 0, LINEAGE, [], [], None, True)))
    rig.commit()
    return rig


def hear(rig: Rig, peer: Peer, *steps: Step) -> list[Effect]:
    return rig.receive(peer, peer.says(Steps(list(steps)))) + rig.commit()


def stay_alive(rig: Rig, seconds: float) -> list[Effect]:
    """Let time pass; all linked peers are heard."""
    effects = []
    for _ in range(round(seconds / 0.25)):
        for peer in PEERS:
            if peer.name in rig.links:
                rig.receive(peer, peer.says(heartbeat()))
        effects += rig.wait(0.25)
    return effects


def told(effects: list[Effect], kind: type[S]) -> list[tuple[NodeId, S]]:
    """To whom, and what."""
    steps = [(links, step) for links, it in said(effects) if isinstance(it, Steps) for step in it.steps]
    return [
        (PEERS[link - 1].node_id, step) for links, step in steps if isinstance(step, kind) for link in links
    ]


def votes(rig: Rig) -> bool:
    return rig.node.transactions.seats.is_voter(SECOND)


def surveyed(
    *values: tuple[bytes, int, bytes],
    head: int = 0,
    commits: tuple[tuple[Header, bool], ...] = (),
    seated: bool = False,
) -> Surveyed:
    return Surveyed(SECOND, list(commits), None, [(B.node_id, LINEAGE, head)], list(values), seated)


# Who is replaced


def begin_session(rig: Rig, entry: Entry) -> None:
    """A session with B brings this, and is not over."""
    rig.receive(B, B.says(heartbeat((B.node_id, LINEAGE, entry.seq))))
    (pull,) = payloads(rig.wait(0.7), Pull)
    assert isinstance(pull, Pull)
    group, cut = Group(B.node_id, LINEAGE, [to_row(entry)]), (B.node_id, LINEAGE, entry.seq)
    rig.receive(B, B.says(Chunk(pull.session, 0, LINEAGE, [group], [cut], cut, False)))
    rig.commit()


def test_a_survey_tells_of_what_no_head_covers() -> None:
    """A sync session that is not over brought a value before the word of its commit, so it is stored once only."""
    rig = linked()
    header = Header(TxnId(B.node_id, B.run, 1), STAMP, None, [(BANK.id, 1)])
    assert len(told(hear(rig, B, Prepare(header, [[Op(b"k", 0, True, b"v")]])), Vote)) == 1
    begin_session(rig, Entry(BANK.id, b"k", STAMP, B.node_id, LINEAGE, 9, b"v"))
    hear(rig, B, Outcome(header, True))
    rig.receive(B, B.says(Batch(LINEAGE, 20, 20, [to_row(successor("d"))])))
    rig.commit()

    ((to, answer),) = told(hear(rig, D, Survey(SECOND, None)), Surveyed)
    assert (to, answer.values) == (D.node_id, [(b"k", STAMP, b"v")])
    assert (B.node_id, LINEAGE, 0) in answer.heads


def test_a_survey_is_not_answered_in_doubt() -> None:
    """What a voter said YES to may be committed, and it has not got the value yet."""
    rig = linked()
    header = Header(TxnId(B.node_id, B.run, 1), STAMP, None, [(BANK.id, 1)])
    hear(rig, B, Prepare(header, [[Op(b"k", 0, True, b"v")]]))
    rig.receive(B, B.says(Batch(LINEAGE, 20, 20, [to_row(successor("d"))])))
    rig.commit()
    assert told(hear(rig, D, Survey(SECOND, None)), Surveyed) == []

    hear(rig, B, Outcome(header, False))
    assert len(told(hear(rig, D, Survey(SECOND, None)), Surveyed)) == 1


def test_a_voter_abstains_where_it_does_not_know_who_else_votes() -> None:
    """A second shard's voters were exchanged and it has not heard of that: it could not finish what hangs."""
    rig = linked()
    header = Header(TxnId(B.node_id, B.run, 1), STAMP, None, [(BANK.id, 1), (BANK.id + 1, 2)])
    effects = hear(rig, B, Prepare(header, [[Op(b"k", 0, True, b"v")], []]))
    assert [(to, step.shard) for to, step in told(effects, Abstain)] == [(B.node_id, 0), (B.node_id, 1)]
    assert told(effects, Vote) == []


def in_doubt(rig: Rig) -> Header:
    """B has asked this voter to prepare, and died."""
    header = Header(TxnId(B.node_id, B.run, 1), STAMP, None, [(BANK.id, 1)])
    hear(rig, B, Prepare(header, [[Op(b"k", 0, True, b"v")]]))
    return header


def take_over(rig: Rig, *commits: tuple[Header, bool]) -> list[Effect]:
    """D has replaced B, and tells this node all."""
    rig.receive(B, B.says(Batch(LINEAGE, 20, 20, [to_row(successor("me", "c", "d"))])))
    rig.commit()
    effects = (
        stay_alive(rig, 0.5) + hear(rig, D, surveyed(commits=commits, seated=True)) + stay_alive(rig, 0.5)
    )
    assert votes(rig)
    return effects


def test_what_was_in_doubt_has_lapsed_when_others_have_taken_over() -> None:
    """Unless it is among what has committed: the old voters, of which a majority may be gone, need not be asked."""
    for is_committed in (False, True):
        rig = linked()
        header = in_doubt(rig)
        effects = take_over(rig, *([(header, False)] if is_committed else []))
        assert {step.committed for _, step in told(effects, Outcome)} == {is_committed}
        voter = rig.node.transactions.commit.voter
        assert len(voter.locks) == 0
        stored = rig.disk.get(BANK.id, b"k")
        assert (stored.value if stored is not None else None) == (b"v" if is_committed else None)


def test_whoever_finishes_something_old_is_told_that_it_has_lapsed() -> None:
    """By one that votes now, which is no voter of that epoch; by its outcome, if it has committed."""
    rig = linked()
    known = Header(TxnId(C.node_id, C.run, 1), STAMP, None, [(BANK.id, 1)])
    take_over(rig, (known, False))
    other = Header(TxnId(C.node_id, C.run, 2), STAMP, None, [(BANK.id, 1)])
    assert told(hear(rig, C, Ask(other, 0, 7)), Lapsed) == [(C.node_id, Lapsed(other.txid, 0))]
    assert told(hear(rig, C, Ask(other, 0, QUESTION)), Lapsed) == []
    effects = hear(rig, C, Ask(known, 0, 7))
    assert (told(effects, Lapsed), [step.committed for _, step in told(effects, Outcome)]) == ([], [True])


def test_those_that_took_over_are_asked_how_something_old_ended() -> None:
    """A voter that is not named any more is in doubt: one word ends it."""
    rig = linked()
    header = in_doubt(rig)
    rig.receive(B, B.says(Batch(LINEAGE, 20, 20, [to_row(successor("b", "c", "d"))])))
    rig.commit()
    assert D.node_id in {to for to, _ in told(stay_alive(rig, 1.0), Ask)}

    effects = hear(rig, D, Lapsed(header.txid, 0))
    assert {step.committed for _, step in told(effects, Outcome)} == {False}


# Who takes over


def test_a_store_votes_when_it_has_what_a_majority_has() -> None:
    """What a head covers comes by sync; what none covers came with the answers, and is stored as its own."""
    rig = linked(successor("me", "b", "d"))
    assert {to for to, _ in told(stay_alive(rig, 0.5), Survey)} >= {B.node_id, C.node_id}
    hear(rig, B, surveyed((b"k", STAMP, b"v"), head=9))
    hear(rig, C, surveyed(head=9))
    stay_alive(rig, 0.5)
    assert not votes(rig)

    rig.receive(B, B.says(Batch(LINEAGE, 1, 9, [])))
    rig.commit()
    stay_alive(rig, 0.5)
    assert votes(rig)
    stored = rig.disk.get(BANK.id, b"k")
    assert stored is not None
    assert (stored.node, stored.hlc, stored.value) == (rig.keys.node_id, STAMP, b"v")


def test_the_word_of_one_that_votes_already_is_enough() -> None:
    """It has learned all there is: whoever comes late does not need the old voters, who may be gone by now."""
    rig = linked(successor("me", "c", "d"))
    stay_alive(rig, 0.5)
    hear(rig, D, surveyed(seated=False))
    stay_alive(rig, 0.5)
    assert not votes(rig)

    rig = linked(successor("me", "c", "d"))
    assert D.node_id in {to for to, _ in told(stay_alive(rig, 0.5), Survey)}
    hear(rig, D, surveyed((b"k", STAMP, b"v"), seated=True))
    stay_alive(rig, 0.5)
    assert votes(rig)


def test_one_that_votes_already_answers_surveys() -> None:
    """Also while it is in doubt about something in its own epoch."""
    rig = linked()
    take_over(rig)
    header = Header(TxnId(B.node_id, B.run, 2), rig.now.wall_ms << COUNTER_BITS, None, [SECOND])
    assert len(told(hear(rig, B, Prepare(header, [[Op(b"l", 0, True, b"v")]])), Vote)) == 1

    ((_, answer),) = told(hear(rig, C, Survey(SECOND, None)), Surveyed)
    assert answer.is_seated


def test_what_a_full_disk_did_not_take_is_asked_for_again() -> None:
    """Requests and values that were taken over, and not stored, do not count as known."""
    rig = linked(successor("me", "c", "d"))
    stay_alive(rig, 0.5)
    header = Header(TxnId(B.node_id, B.run, 1), STAMP, b"sixteen random b", [(BANK.id, 1)])
    rig.receive(D, D.says(Steps([surveyed((b"k", STAMP, b"v"), commits=((header, True),), seated=True)])))
    rig.fail()
    assert D.node_id in {to for to, _ in told(stay_alive(rig, 0.5), Survey)}
    assert not votes(rig)


def test_forced_voters_wait_for_all_that_can_be_reached() -> None:
    """What a surviving voter has is not lost, however slow it is; one that is gone, too, is not waited for."""
    rig = linked(successor("me", lost=("b",)))
    stay_alive(rig, 5.0)
    hear(rig, B, surveyed())
    stay_alive(rig, 0.5)
    assert not votes(rig)  # C has not answered

    hear(rig, C, surveyed((b"k", STAMP, b"v")))
    stay_alive(rig, 0.5)
    assert votes(rig)

    rig = linked(successor("me", lost=("b",)))
    stay_alive(rig, 2.0)
    rig.lose(C)
    stay_alive(rig, 0.5)
    assert votes(rig)


# By force


def force(rig: Rig, *names: str) -> list[Effect]:
    return rig.handle(SetVoters(None, "bank", names, force=True)) + rig.commit()


def test_force_is_refused_while_a_majority_answers() -> None:
    """It answers a read, so it can agree on its successors itself; to name those who vote already is no error."""
    for names, outcome in ((("me",), "conflict"), (("me", "b", "c"), Elected(is_new=False))):
        rig = linked()
        stay_alive(rig, 0.5)
        reads = dict(told(force(rig, *names), Read))
        effects = hear(rig, B, Values(reads[B.node_id].number, [(0, None)]))
        (found,) = outcomes(effects)
        assert outcome == (found.code if isinstance(found, Refused) else found)


def test_voters_that_cannot_take_over_are_replaced_by_force() -> None:
    """All of them are there, but a majority of those before is lost, and nobody had caught up by then."""
    rig = linked(successor("me", "c", "d"))
    rig.lose(B)
    stay_alive(rig, 0.5)
    force(rig, "me")
    assert [Elected(is_new=True)] == outcomes(stay_alive(rig, 4.0))

    seats = rig.node.transactions.seats
    latest = seats.successor(BANK.id)
    assert latest is not None and latest.forced is not None
    assert (seats.epoch(BANK.id), latest.voters, latest.forced.lost) == (3, (VOTERS["me"],), (VOTERS["b"],))
