"""How transactions and reads end where something was missed: one node's `Commit`, told what others say."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from random import Random

from protocol.clock import COUNTER_BITS, ClusterTime, HybridClock
from protocol.commit.commit import Commit
from protocol.commit.messages import (
    Abstain,
    Accept,
    Ask,
    Forget,
    Known,
    Outcome,
    Prepare,
    Promise,
    Read,
    Step,
    Steps,
    Values,
    Vote,
)
from protocol.commit.ports import Unreadable
from protocol.commit.stragglers import QUESTION
from protocol.commit.task import Change, ReadTask, Task
from protocol.commit.transaction import Header, Op, Shard, Slot, TxnId
from protocol.config import Config
from protocol.effects import Entry
from protocol.limits import OUTCOME_SEEN_S, REQUESTS_KEPT_MS
from protocol.turn import Say, Turn
from protocol.types import CommitNumber, Instant, LinkId, NodeId

A, B, C = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
SHARD: Shard = (1, 1)
WALL_MS = 1_700_000_000_000


class Board:
    """A ledger that is never written to, and an electorate: all three vote on everything."""

    damaged: AbstractSet[Slot] = frozenset()

    def newest(self, slot: Slot) -> Entry | None:
        if slot in self.damaged:
            raise Unreadable
        return None

    def record(self, turn: Turn, slot: Slot, value: bytes | None, stamp: int) -> None:
        pass

    def epoch(self, keyspace: int) -> int:
        return 1

    def voters(self, shard: Shard) -> tuple[NodeId, ...]:
        return (A, B, C)

    def is_voter(self, shard: Shard) -> bool:
        return True

    is_named = is_voter
    has_given_up = False

    def to_install(self) -> list[Shard]:
        return []

    def is_succeeded_here(self, shard: Shard) -> bool:
        return False

    def heirs(self, shard: Shard) -> tuple[NodeId, ...]:
        return ()


class Bench:
    """Node A. `sent`: the steps that it said to others, with whom to, since the last look."""

    def __init__(self, near: tuple[NodeId, ...] = (B, C), chance: int = 1) -> None:
        self.now_s, self._number = 0.0, CommitNumber(0)
        self.sent: list[tuple[NodeId, Step]] = []
        self.board = board = Board()
        self.commit = Commit(
            Config("n", "n:1"),
            A,
            1,
            HybridClock(ClusterTime(self._now())),
            board,
            board,
            Random(chance),
            lambda node: LinkId(node[0]),
            lambda node, _: node in near,
            lambda _: False,
            [],
        )
        self.turn(self.commit.start)

    def turn(self, decide: Callable[[Turn], None]) -> None:
        """One turn, and then its rows are durable, if there are any."""
        turn = Turn(self._now(), CommitNumber(self._number + 1))
        decide(turn)
        self.commit.seal(turn)
        for effect in turn.effects:
            if isinstance(effect, Say):
                assert isinstance(effect.payload, Steps)
                nodes = [NodeId(bytes([link]) * 32) for link in effect.links]
                self.sent += [(node, step) for node in nodes for step in effect.payload.steps]
        if turn.rows:
            self._number = number = turn.number
            self.turn(lambda turn: self.commit.committed(turn, number))

    def hear(self, sender: NodeId, *steps: Step) -> None:
        self.turn(lambda turn: self.commit.receive(turn, sender, Steps(list(steps))))

    def pass_time(self, seconds: float) -> None:
        """Timers fire when they are due, not all at once."""
        until_s = self.now_s + seconds
        while self.commit.deadline_s <= until_s:
            self.now_s = self.commit.deadline_s
            self.turn(self.commit.tick)
        self.now_s = until_s

    def told(self, kind: type[Step]) -> list[NodeId]:
        """Who was told such a step, each once."""
        return sorted({node for node, step in self.sent if isinstance(step, kind)})

    def _now(self) -> Instant:
        return Instant(self.now_s, WALL_MS + int(self.now_s * 1000))


def header_of(counter: int, *, ahead_ms: int = 0, request: bytes | None = None) -> Header:
    """A transaction of B."""
    return Header(TxnId(B, 1, counter), (WALL_MS + ahead_ms) << COUNTER_BITS, request, [SHARD])


def test_forgetting_twice_keeps_a_request_once() -> None:
    """Two nodes that both finished a transaction may both say FORGET; later it is dropped once, without a crash."""
    bench = Bench()
    first = header_of(1, request=b"r" * 16)
    second = header_of(2, ahead_ms=2 * REQUESTS_KEPT_MS, request=b"s" * 16)
    bench.hear(B, Outcome(first, True))
    bench.hear(B, Forget([first.txid]))
    bench.hear(C, Forget([first.txid]))

    bench.pass_time(REQUESTS_KEPT_MS / 1000 + 1)
    bench.hear(B, Outcome(second, True), Forget([second.txid]))

    assert [second.txid] == list(bench.commit.voter.records)


def test_only_those_who_hear_the_outcome_are_asked_to_accept() -> None:
    """A voter that was not asked to prepare is not drawn in later: nobody would wait for it before forgetting."""
    bench = Bench(near=(B,))
    bench.turn(lambda turn: bench.commit.begin(turn, Task("r", (), (Change((1, b"k"), b"v"),), 2.0)))
    (txid,) = [header.txid for header in bench.commit.coordinator.attempts]

    bench.hear(B, Vote(txid, 0, True))
    bench.pass_time(0.1)

    assert bench.told(Accept) == [B]


def test_a_stamp_from_the_future_holds_up_no_take_over() -> None:
    """A transaction whose coordinator's clock was ahead is refused, and must still be forgotten in time."""
    bench = Bench()
    bench.hear(B, Outcome(header_of(1, ahead_ms=600_000), False), Outcome(header_of(2), True))
    bench.sent.clear()

    bench.pass_time(2 * OUTCOME_SEEN_S + 1)

    taken_over = {step.header.txid.counter for _, step in bench.sent if isinstance(step, Outcome)}
    assert {1, 2} == taken_over


def test_a_voter_that_comes_back_is_asked_at_once() -> None:
    """A recovery that lacked a majority does not wait for its next ballot, seconds away, when a voter is linked."""
    bench = Bench()
    bench.turn(lambda turn: bench.commit.recoveries.begin(turn, header_of(1)))
    bench.sent.clear()

    bench.turn(lambda _: bench.commit.link_up(C))

    assert bench.told(Ask) == [C]


def test_an_answer_to_a_former_run_answers_nothing() -> None:
    """A voter that held a read back may answer when the reader was started anew, and asks for another key by then."""
    former, bench = Bench(chance=1), Bench(chance=2)
    former.turn(lambda turn: former.commit.read(turn, ReadTask("r", ((1, b"k"),), 2.0)))
    ((number, *_), *_) = [(step.number, to) for to, step in former.sent if isinstance(step, Read)]
    bench.turn(lambda turn: bench.commit.read(turn, ReadTask("r", ((1, b"other"),), 2.0)))

    for voter in (B, C):
        bench.hear(voter, Values(number, [(7, b"of k")]))

    assert len(bench.commit.reads) == 1


def test_a_store_without_records_is_disowned_without_a_trace() -> None:
    """Nothing is stored by that, and so nothing that is said afterwards waits for it."""
    bench = Bench()
    bench.turn(bench.commit.disown)

    bench.hear(B, Read(1, SHARD, [b"k"]))

    assert bench.told(Values) == [B]


def test_a_voter_that_never_voted_decides_nothing() -> None:
    """It was drawn in by somebody who finishes a transaction; when all others have forgotten it, it drops it."""
    bench = Bench()
    header = header_of(1)
    bench.hear(C, Ask(header, 0, 4))
    bench.sent.clear()

    bench.pass_time(3 * OUTCOME_SEEN_S)
    asked = {(to, step.ballot) for to, step in bench.sent if isinstance(step, Ask)}
    for voter in (B, C):
        bench.hear(voter, Promise(header.txid, 0, QUESTION, None, None))

    assert asked == {(B, QUESTION), (C, QUESTION)}
    assert bench.commit.voter.records == {}


def test_a_voter_that_never_voted_waits_for_one_that_did() -> None:
    """As long as somebody has a vote, a promise may count."""
    bench = Bench()
    header = header_of(1)
    bench.hear(C, Ask(header, 0, 4))

    bench.pass_time(3 * OUTCOME_SEEN_S)
    bench.hear(B, Promise(header.txid, 0, QUESTION, True, None))
    bench.hear(C, Promise(header.txid, 0, QUESTION, None, None))

    assert [header.txid] == list(bench.commit.voter.records)


def test_a_late_vote_is_looked_after() -> None:
    """A PREPARE may come after others set out to finish it: who has said NO by then sees to it like all who voted."""
    bench = Bench()
    header = header_of(1)
    bench.hear(C, Ask(header, 0, 4))
    bench.pass_time(2.0)
    bench.sent.clear()

    bench.hear(B, Prepare(header, [[Op(b"k", None, True, b"v")]]))
    bench.pass_time(2.0)

    assert bench.told(Vote) == [B]
    assert bench.told(Ask) == [B, C]


def test_a_question_makes_no_promise() -> None:
    """Asking whether anybody voted leaves no record behind."""
    bench = Bench()
    bench.hear(C, Ask(header_of(1), 0, QUESTION))

    assert bench.told(Promise) == [C]
    assert bench.commit.voter.records == {}


def test_a_contested_outcome_is_told_to_all_voters() -> None:
    """A coordinator tells those that it asked to prepare; one that others have asked tells it to the rest."""
    bench = Bench()
    header = header_of(1)
    bench.hear(C, Ask(header, 0, 4))
    bench.sent.clear()

    bench.hear(B, Outcome(header, True))

    assert bench.told(Outcome) == [B, C]


def test_what_is_still_being_told_is_not_forgotten() -> None:
    """Another's FORGET does not know of the voters that this node is waiting for."""
    bench = Bench()
    header = header_of(1)
    bench.hear(C, Ask(header, 0, 4))

    bench.hear(B, Outcome(header, True), Forget([header.txid]))

    assert [header.txid] == list(bench.commit.voter.records)


def test_what_was_not_stored_is_not_said_to_be_known() -> None:
    """That an outcome is known is said a little later, with others; if it could not be stored meanwhile, never."""
    bench = Bench()
    header = header_of(1)
    bench.hear(B, Prepare(header, [[Op(b"k", None, True, b"v")]]))

    bench.hear(B, Outcome(header, True))
    bench.turn(lambda turn: bench.commit.failed(turn, []))
    bench.pass_time(1.0)

    assert bench.told(Known) == []


def test_a_damaged_value_is_not_voted_on() -> None:
    """It would pass for a key that never was: this voter abstains, answers no read, and takes what is decided."""
    bench = Bench()
    bench.board.damaged = {(1, b"k")}
    header = header_of(1)

    bench.hear(B, Prepare(header, [[Op(b"k", 0, True, b"v")]]), Read(1, SHARD, [b"k"]))
    assert (bench.told(Abstain), bench.told(Vote), bench.told(Values)) == ([B], [], [])

    bench.hear(B, Prepare(header_of(2), [[Op(b"other", 0, True, b"v")]]))
    assert bench.told(Vote) == [B]
