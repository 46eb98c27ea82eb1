"""Coordinated writes of one node, joined: voter, coordinator, recoveries, reads, and how outcomes spread.

Straight on: `begin(task)` -> PREPARE -> each voter stages its vote -> durable -> VOTE -> the coordinator counts ->
committed: the client is answered, the values are staged as entries of this node -> durable -> they spread like any
entry, and behind them the OUTCOME, at which voters unlock -> KNOWN -> FORGET.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..clock import HybridClock
from ..config import Config
from ..effects import Reply
from ..epochs import decode as decode_successor
from ..epochs import successor_key
from ..errors import Fault, Refused, RemoteFault
from ..limits import OUTCOME_SEEN_S
from ..turn import Turn
from ..types import CommitNumber, LinkId, NodeId
from .coordinator import BALLOT, Attempt, Coordinator
from .inquiry import Inquiries
from .messages import (
    Abstain,
    Accept,
    Accepted,
    Ask,
    Forget,
    Inquire,
    Known,
    Lapsed,
    Outcome,
    Outrun,
    Prepare,
    Promise,
    Read,
    Report,
    State,
    Step,
    Steps,
    Survey,
    Surveyed,
    Values,
    Vote,
    Waiting,
)
from .ports import Electorate, Ledger, Timers
from .post import Post
from .reading import Answer, Reads
from .recovery import Recoveries
from .spreading import Spreading
from .stragglers import Stragglers
from .succession import Succession
from .task import Found, InquiryTask, ReadTask, Task
from .transaction import Header, Shard, Slot, TxnId, coordinator_of
from .voter import Voter

if TYPE_CHECKING:
    from random import Random


class Commit:
    """`stored`: the records of kind `TXN_RECORD`. `link_to`: the link to a member; `is_near`: whether it is heard.

    `has_ended`: whether the run that made a transaction id is known to be over.
    """

    def __init__(
        self,
        config: Config,
        me: NodeId,
        run: int,
        clock: HybridClock,
        ledger: Ledger,
        electorate: Electorate,
        random: Random,
        link_to: Callable[[NodeId], LinkId | None],
        is_near: Callable[[NodeId, float], bool],
        has_ended: Callable[[TxnId], bool],
        stored: Iterable[bytes],
    ) -> None:
        self._config, self._electorate = config, electorate
        self.post = Post(me, link_to)
        self._timers = Timers()
        self.recoveries = Recoveries(
            config, electorate, self.post, self._timers, random, self._promised, self._recovered
        )
        self.voter = Voter(
            config, clock, ledger, electorate, self.post, self._timers, self.recoveries.begin, self._rank
        )
        self.voter.load(stored)
        self.spreading = Spreading(config, self.post, self._timers, has_ended)
        self._stragglers = Stragglers(electorate, self.post, self.voter.records.drop_unvoted)
        self.reads = Reads(config, electorate, self.post, self._timers, random)
        self.coordinator = Coordinator(
            config,
            run,
            clock,
            ledger,
            electorate,
            self.post,
            self._timers,
            self.reads,
            random,
            is_near,
            self.recoveries.begin,
            self.spreading.hurry,
            self._ended,
        )
        self.succession = Succession(
            config,
            ledger,
            electorate,
            self.post,
            self._timers,
            self.voter.records,
            self.recoveries.begin,
            self._abandon,
            self._recovered,
        )
        self.inquiries = Inquiries(self.post, self._timers, self._states)
        self._unsaid: list[tuple[CommitNumber, Header, set[NodeId], set[Slot]]] = []
        """Committed by this node, and not told to the voters before its own entries are on their way."""
        self._receive: dict[type[Step], Callable[[Turn, NodeId, Any], None]] = {
            Prepare: self.voter.on_prepare,
            Vote: self.coordinator.on_vote,
            Waiting: self.coordinator.on_no_vote,
            Abstain: self.coordinator.on_no_vote,
            Accept: self.voter.on_accept,
            Accepted: self._on_accepted,
            Ask: self.voter.on_ask,
            Promise: self._on_promise,
            Outrun: lambda turn, _, step: self.recoveries.on_outrun(turn, step),
            Outcome: self._on_outcome,
            Known: self.spreading.on_known,
            Forget: self._on_forget,
            Read: self.voter.on_read,
            Values: self.reads.on_values,
            Inquire: self.inquiries.on_inquire,
            Report: self.inquiries.on_report,
            Survey: self.succession.on_survey,
            Surveyed: self.succession.on_surveyed,
            Lapsed: lambda turn, _, step: self.recoveries.on_lapsed(turn, step),
        }

    @property
    def deadline_s(self) -> float:
        return self._timers.deadline_s

    def start(self, turn: Turn) -> None:
        self.voter.start(turn)
        self._take_over(turn)
        self.succession.look(turn)

    def begin(self, turn: Turn, task: Task) -> None:
        self.coordinator.begin(turn, task)

    def read(self, turn: Turn, task: ReadTask) -> None:
        """One key: as a majority has it. Several: read again until nothing moved, so that it is one moment."""
        until_s = turn.now.mono_s + task.timeout_s
        last: dict[Slot, Found] | None = None

        def done(turn: Turn, answer: Answer | None) -> None:
            nonlocal last
            if answer is None:
                text = "no majority of the voters of the keyspace answered in time"
                turn.do(Reply(task.ref, Refused("unavailable", text, "see peernode members", retryable=True)))
            elif len(task.slots) == 1 or answer.found == last:
                turn.do(Reply(task.ref, answer.found))
            else:
                last = answer.found
                ask(turn)

        def ask(turn: Turn) -> None:
            wanted: dict[Shard, list[bytes]] = {}
            for keyspace, key in task.slots:
                wanted.setdefault((keyspace, self._electorate.epoch(keyspace)), []).append(key)
            self.reads.ask(turn, wanted, until_s, done)

        ask(turn)

    def inquire(self, turn: Turn, task: InquiryTask, members: Iterable[NodeId]) -> None:
        self.inquiries.ask(turn, task, members)

    def receive(self, turn: Turn, sender: NodeId, steps: Steps) -> None:
        """Raises RemoteFault MALFORMED."""
        for step in steps.steps:
            check(sender, step)
            self._take(turn, sender, step)

    def tick(self, turn: Turn) -> None:
        self._timers.fire(turn)

    def seal(self, turn: Turn) -> None:
        """The end of a turn: what was gathered leaves."""
        self.post.dispatch(turn, self._take)

    def committed(self, turn: Turn, number: CommitNumber) -> None:
        """All staged up to `number` is durable; called when this node's entries have been sent."""
        self.post.committed(number)
        while self._unsaid and self._unsaid[0][0] <= number:
            _, header, to, slots = self._unsaid.pop(0)
            if self.coordinator.wants(slots):
                self.spreading.spread(turn, header, True, to)
            else:
                self.spreading.spread_later(turn, header, to, slots)
            self.coordinator.release(turn, slots)

    def failed(self, turn: Turn, stored: Iterable[bytes]) -> None:
        """Nothing of what is staged was stored. What was decided stays so: the voters have it."""
        self.post.failed()
        self.spreading.failed()
        self.succession.failed()
        self.voter.load(stored)
        self.voter.start(turn)
        unsaid, self._unsaid = self._unsaid, []
        for _, header, to, slots in unsaid:
            self.spreading.spread(turn, header, True, to)
            self.coordinator.release(turn, slots)

    def disown(self, turn: Turn) -> None:
        """This store turned out to be another one than the voters were named with: what it remembers of votes and
        promises is not what the others count on. It must not take part in finishing anything."""
        self.voter.disown(turn)

    def link_up(self, node: NodeId) -> None:
        self.spreading.linked(node)
        self.recoveries.linked(node)

    def link_down(self, turn: Turn, node: NodeId) -> None:
        self.coordinator.lost(turn, node)
        self.voter.coordinator_lost(turn, node)

    def _states(self, txid: TxnId | None) -> Iterable[State]:
        known = list(self.voter.records.states(txid))
        voted = {state.header.txid for state in known}
        for header in self.coordinator.attempts:
            if header.txid not in voted and txid in (None, header.txid):
                known.append(State(header, [], None, []))
        return known

    def _take_over(self, turn: Turn) -> None:
        """See to it that outcomes get around that nobody else spreads any more."""
        for record in self.voter.records.overdue(turn):
            if record.outcome is not None and not self.spreading.spreads(record.header.txid):
                self._spread(turn, record.header, record.outcome)
        self._stragglers.look(turn, self.voter.records.unvoted)
        self._timers.after(turn.now, OUTCOME_SEEN_S, self._take_over, coarse=True)

    def _spread(self, turn: Turn, header: Header, committed: bool) -> None:
        """Also to this node, which may know of it without being one of its voters: it has to forget it, too."""
        knowing = self._voters(header) | {self.post.me}
        self.spreading.spread(turn, header, committed, knowing, {coordinator_of(header)})

    def _voters(self, header: Header) -> set[NodeId]:
        return {voter for shard in header.shards for voter in self._electorate.voters(shard)}

    def _take(self, turn: Turn, sender: NodeId, step: Step) -> None:
        self._receive[type(step)](turn, sender, step)

    def _on_promise(self, turn: Turn, sender: NodeId, step: Promise) -> None:
        self.recoveries.on_promise(turn, sender, step)
        self._stragglers.on_promise(turn, sender, step)

    def _on_accepted(self, turn: Turn, sender: NodeId, step: Accepted) -> None:
        self.coordinator.on_accepted(turn, sender, step)
        self.recoveries.on_accepted(turn, sender, step)

    def _on_outcome(self, turn: Turn, sender: NodeId, step: Outcome) -> None:
        header, txid = step.header, step.header.txid
        self._learn(turn, header, step.committed)
        self.coordinator.on_outcome(turn, header, step.committed)
        self.spreading.acknowledge(turn, sender, txid)
        is_partial = sender == coordinator_of(header) != self.post.me and self.voter.records.is_contested(
            txid
        )
        if is_partial and not self.spreading.spreads(txid):
            self._spread(turn, header, step.committed)  # its coordinator tells only those that it had asked

    def _on_forget(self, turn: Turn, _: NodeId, step: Forget) -> None:
        for txid in step.txids:
            if not self.spreading.spreads(txid):
                self.voter.records.forget(turn, txid)

    def _learn(self, turn: Turn, header: Header, committed: bool) -> None:
        self.recoveries.end(header.txid)
        self.voter.learn(turn, header, committed)

    def _ended(self, turn: Turn, attempt: Attempt, committed: bool) -> None:
        """The coordinator of this node has decided."""
        header, asked = attempt.header, attempt.asked
        if self.recoveries.runs(header.txid) or self.voter.records.is_contested(header.txid):
            asked = asked | self._voters(header)
        self._learn(turn, header, committed)
        if committed:
            self._unsaid.append((turn.number, header, asked, attempt.running.task.slots))
        else:
            self.spreading.spread(turn, header, committed, asked)

    def _recovered(self, turn: Turn, header: Header, committed: bool) -> None:
        """This node has finished what somebody else (or itself, in vain) began."""
        self._learn(turn, header, committed)
        self.coordinator.on_outcome(turn, header, committed)
        self._spread(turn, header, committed)

    def _abandon(self, turn: Turn, header: Header) -> None:
        self.recoveries.end(header.txid)
        self.coordinator.abandon(turn, header.txid)
        self.voter.abandon(turn, header)

    def _promised(self, txid: TxnId) -> int:
        """The highest ballot that this store has promised, for any shard."""
        record = self.voter.records.get(txid)
        return max((one.promised for one in record.instances), default=0) if record is not None else 0

    def _rank(self, header: Header) -> int:
        """Voters look after a transaction one after the other, so that mostly one does."""
        voters = self._electorate.voters(header.shards[0])
        return voters.index(self.post.me) if self.post.me in voters else len(voters)


def check(sender: NodeId, step: Step) -> None:
    """What the shapes of the messages do not say. Raises RemoteFault MALFORMED."""
    if isinstance(step, Prepare):
        is_sound = step.header.txid.node == sender and len(step.ops) == len(step.header.shards)
        is_sound = is_sound and (not step.header.succession or is_succession(step))
    elif isinstance(step, Accept) and step.ballot == BALLOT:
        is_sound = step.header.txid.node == sender
    else:
        is_sound = True
    if not is_sound:
        raise RemoteFault(Fault.MALFORMED, f"{type(step).__name__} that its sender may not make")


def is_succession(step: Prepare) -> bool:
    """Whether it names sound successors, in the place where the next ones of its only shard belong."""
    (keyspace, epoch), *more = step.header.shards
    if more or len(step.ops[0]) != 1:
        return False
    (op,) = step.ops[0]
    successor = decode_successor(op.value)
    is_next = op.key == successor_key(keyspace, epoch + 1) and op.base == 0 and op.writes
    return is_next and successor is not None and successor.forced is None
