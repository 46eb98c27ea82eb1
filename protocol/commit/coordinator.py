"""The coordinator: takes a client's task through prepare and commit. It keeps nothing durable.

An *attempt* is one transaction id. It commits when every shard is prepared: when all voters of a shard voted YES,
or when a majority did and a majority then accepted that at ballot 1, which is this run's alone. It is aborted only
on evidence: a majority of NO, or one NO and a majority that accepted "not prepared". Silence is never evidence; an
attempt that hangs is finished like one of a dead coordinator (recovery.py). Only when an attempt is known to be
aborted does the next one begin, under the same request.

Checks are tried on what this node has itself, which saves asking: a vote tells if that was out of date. A check
counts as failed only when a majority was read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..clock import HybridClock
from ..config import Config
from ..effects import Reply
from ..errors import Refused
from ..limits import TXN_TASKS_MAX
from ..turn import Turn
from ..types import NodeId
from .messages import Abstain, Accept, Accepted, Prepare, Vote, Waiting
from .ports import Electorate, Ledger, Timers, Unreadable
from .post import Post
from .queueing import Queue
from .reading import Answer, Reads
from .task import Committed, Conflicted, Found, Task, Undecided
from .transaction import Header, Op, Shard, Slot, TxnId, majority

if TYPE_CHECKING:
    from random import Random

BALLOT = 1
"""Of the run that made the transaction id."""

SOON_S = 1.0
"""A vote that comes within it and calls the transaction old speaks of clocks, not of time that has passed."""

WOKEN_MAX = 8
"""Tasks that may go on at a time for one key: one takes it, unless it only finds that its checks do not hold."""

BACK_OFF_MIN_S = 0.01
BACK_OFF_MAX_S = 0.5


class Tally:
    """The votes of one shard."""

    def __init__(self, voters: tuple[NodeId, ...], asked: set[NodeId]) -> None:
        self.voters, self.needed = voters, majority(len(voters))
        self.out = set(voters) - asked
        """Who cannot be expected to vote now: not linked, no voter, or waiting for a lock."""
        self.yes: set[NodeId] = set()
        self.no: dict[NodeId, Vote] = {}
        self.accepted: set[NodeId] = set()
        self.proposed: bool | None = None
        self.chosen: bool | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether everybody has voted who can."""
        return len(self.yes | self.no.keys() | self.out) == len(self.voters)

    def count(self) -> None:
        """What follows from the votes alone."""
        if len(self.yes) == len(self.voters):
            self.chosen = True
        elif len(self.no) >= self.needed:
            self.chosen = False  # a majority of YES, without which it is never prepared, cannot be any more

    def to_propose(self, *, patient: bool) -> bool | None:
        """What to put to the vote at ballot 1, if anything. `patient`: wait for those who may still vote."""
        if patient and not self.is_quiet:
            return None
        if len(self.yes) >= self.needed:
            return True
        return False if self.no else None


class Running:
    """A task that is being worked on."""

    def __init__(self, task: Task, until_s: float) -> None:
        self.task, self.until_s = task, until_s
        self.is_answered = False
        self.has_waited = False
        """For others here that want the same keys."""
        self.must_read = False
        """What this node has itself was out of date."""
        self.tries = 0


class Attempt:
    """One transaction id. `asked`: who was sent PREPARE, and must hear how it ends."""

    def __init__(
        self, running: Running, header: Header, asked: set[NodeId], tallies: list[Tally], began_s: float
    ) -> None:
        self.running, self.header, self.asked, self.tallies = running, header, asked, tallies
        self.began_s = began_s

    @property
    def outcome(self) -> bool | None:
        chosen = [tally.chosen for tally in self.tallies]
        if False in chosen:
            return False
        return None if None in chosen else True


class Coordinator:
    """All tasks of this node's clients."""

    def __init__(
        self,
        config: Config,
        run: int,
        clock: HybridClock,
        ledger: Ledger,
        electorate: Electorate,
        post: Post,
        timers: Timers,
        reads: Reads,
        random: Random,
        is_near: Callable[[NodeId, float], bool],
        hangs: Callable[[Turn, Header], None],
        wanted: Callable[[set[Slot]], None],
        ended: Callable[[Turn, Attempt, bool], None],
    ) -> None:
        self._config, self._run, self._clock, self._ledger = config, run, clock, ledger
        self._electorate, self._post, self._timers, self._reads = electorate, post, timers, reads
        self._random, self._is_near, self._hangs = random, is_near, hangs
        self._wanted, self._ended = wanted, ended
        self._counter = 0
        self._running: dict[Running, None] = {}
        self._attempts: dict[TxnId, Attempt] = {}
        self._queue: Queue[Running] = Queue()

    @property
    def attempts(self) -> list[Header]:
        """What is not decided yet."""
        return [attempt.header for attempt in self._attempts.values()]

    def wants(self, slots: set[Slot]) -> bool:
        """Whether somebody here waits for one of them."""
        return self._queue.has_waiting(slots)

    def release(self, turn: Turn, slots: set[Slot]) -> None:
        """A commit to these keys is on its way to the voters: the next may follow."""
        self._queue.free(slots)
        self._try_next(turn, slots)

    def begin(self, turn: Turn, task: Task) -> None:
        if len(self._running) >= TXN_TASKS_MAX:
            turn.do(Reply(task.ref, Refused("overloaded", "too many transactions run here", retryable=True)))
            return
        running = Running(task, turn.now.mono_s + task.timeout_s)
        self._running[running] = None
        self._timers.after(turn.now, task.timeout_s, lambda turn: self._time_out(turn, running), coarse=True)
        self._try(turn, running)

    # Before an attempt: is there a majority, and do the checks hold?

    def _try(self, turn: Turn, running: Running) -> None:
        if running.is_answered:
            return
        if self._queue.has_to_wait(running, running.task.slots):
            running.has_waited = True
            return
        if self._is_succeeded(running.task):
            self._answer(turn, running, Conflicted(()))
            return
        shards = self._shards_of(running.task)
        if not self._has_quorums(turn, running.task):
            self._timers.after(
                turn.now, BACK_OFF_MAX_S / 10, lambda turn: self._try(turn, running), coarse=True
            )
        elif running.must_read and running.task.checks:
            self._read_then_try(turn, running)
        else:
            local = {check.slot: self._found(check.slot) for check in running.task.checks}
            if all(check.holds(local[check.slot]) for check in running.task.checks):
                self._prepare(turn, running, shards, local)
            else:
                self._read_then_try(turn, running)

    def _try_next(self, turn: Turn, slots: set[Slot]) -> None:
        """Those that waited for one of these, until one has taken it."""
        for slot in sorted(slots):
            woken = 0
            while woken < WOKEN_MAX and (running := self._queue.next(slot)) is not None:
                woken += not running.is_answered
                self._try(turn, running)

    def _read_then_try(self, turn: Turn, running: Running) -> None:
        wanted: dict[Shard, list[bytes]] = {}
        for slot in sorted({check.slot for check in running.task.checks}):
            wanted.setdefault((slot[0], self._electorate.epoch(slot[0])), []).append(slot[1])

        def done(turn: Turn, answer: Answer | None) -> None:
            if running.is_answered or answer is None:
                return  # it has timed out
            found = answer.found
            failed = [check.slot for check in running.task.checks if not check.holds(found[check.slot])]
            if failed and answer.repeated:
                self._try_later(turn, running)  # its own earlier attempt may be what it finds
            elif failed:
                self._answer(turn, running, Conflicted(tuple((slot, found[slot]) for slot in failed)))
            else:
                self._prepare(turn, running, self._shards_of(running.task), found)

        self._reads.ask(turn, wanted, running.until_s, done, running.task.request)

    def _shards_of(self, task: Task) -> list[Shard]:
        if task.succession is not None:
            return [task.succession]
        keyspaces = {slot[0] for slot in task.slots}
        return [(keyspace, self._electorate.epoch(keyspace)) for keyspace in sorted(keyspaces)]

    def _is_succeeded(self, task: Task) -> bool:
        """Whether somebody else has replaced the voters that this was to replace."""
        return task.succession is not None and self._electorate.epoch(task.succession[0]) > task.succession[1]

    def _has_quorums(self, turn: Turn, task: Task) -> bool:
        return all(self._has_quorum(turn, shard) for shard in self._shards_of(task))

    def _has_quorum(self, turn: Turn, shard: Shard) -> bool:
        voters = self._electorate.voters(shard)
        reachable = sum(self._is_reachable(turn, voter) for voter in voters)
        return len(voters) > 0 and reachable >= majority(len(voters))

    def _is_reachable(self, turn: Turn, node: NodeId) -> bool:
        return node == self._post.me or self._is_near(node, turn.now.mono_s)

    def _found(self, slot: Slot) -> Found:
        """As far as this node knows; the voters know it better."""
        try:
            newest = self._ledger.newest(slot)
        except Unreadable:
            newest = None
        return Found(newest.hlc, newest.value) if newest is not None else Found(0, None)

    # An attempt

    def _prepare(self, turn: Turn, running: Running, shards: list[Shard], found: dict[Slot, Found]) -> None:
        task = running.task
        self._wanted(task.slots)
        self._exceed(turn, [self._found(change.slot).stamp for change in task.changes])
        self._exceed(turn, [seen.stamp for seen in found.values()])
        self._counter += 1
        txid = TxnId(self._post.me, self._run, self._counter)
        header = Header(txid, self._clock.tick(turn.now), task.request, shards, task.succession is not None)
        voters = [self._electorate.voters(shard) for shard in shards]
        asked = {node for some in voters for node in some if self._is_reachable(turn, node)}
        tallies = [Tally(some, asked) for some in voters]
        attempt = Attempt(running, header, asked, tallies, turn.now.mono_s)
        self._attempts[txid] = attempt
        self._queue.take(task.slots)
        running.tries += 1
        prepare = Prepare(header, ops_of(task, shards, found))
        for node in sorted(asked):
            self._post.send(node, prepare)
        self._timers.after(
            turn.now, self._config.vote_s, lambda turn: self._look_after(turn, attempt), coarse=True
        )

    def _exceed(self, turn: Turn, stamps: list[int]) -> bool:
        """Draw the next stamp above these; False: one is from the future, which would drag the clock along."""
        sane = [stamp for stamp in stamps if not self._clock.is_ahead(stamp, turn.now)]
        for stamp in sane:
            self._clock.observe(stamp)
        return len(sane) == len(stamps)

    def on_vote(self, turn: Turn, sender: NodeId, step: Vote) -> None:
        found = self._find(sender, step)
        if found is None:
            return
        attempt, tally = found
        if step.yes:
            tally.yes.add(sender)
        else:
            tally.no[sender] = step
        tally.out.discard(sender)
        self._judge(turn, attempt, step.shard)

    def on_no_vote(self, turn: Turn, sender: NodeId, step: Waiting | Abstain) -> None:
        found = self._find(sender, step)
        if found is not None and sender not in found[1].yes and sender not in found[1].no:
            found[1].out.add(sender)
            self._judge(turn, found[0], step.shard)

    def on_accepted(self, turn: Turn, sender: NodeId, step: Accepted) -> None:
        found = self._find(sender, step)
        if found is None or step.ballot != BALLOT:
            return
        attempt, tally = found
        tally.accepted.add(sender)
        if len(tally.accepted) >= tally.needed:
            tally.chosen = tally.proposed
            self._conclude(turn, attempt)

    def lost(self, turn: Turn, node: NodeId) -> None:
        """A voter is gone: nobody waits for its vote."""
        for attempt in list(self._attempts.values()):
            for index, tally in enumerate(attempt.tallies):
                if node in tally.voters and node not in tally.yes and node not in tally.no:
                    tally.out.add(node)
                    self._judge(turn, attempt, index)

    def on_outcome(self, turn: Turn, header: Header, committed: bool) -> None:
        """Somebody else finished an attempt of ours, or of another coordinator for the same request."""
        attempt = self._attempts.get(header.txid)
        if attempt is not None:
            self._end(turn, attempt, committed)
            self.release(turn, attempt.running.task.slots)
        elif committed and header.request is not None:
            for running in list(self._running):
                if running.task.request == header.request:
                    self._answer(turn, running, Committed(header.txid, header.stamp))

    def _find(
        self, sender: NodeId, step: Vote | Waiting | Abstain | Accepted
    ) -> tuple[Attempt, Tally] | None:
        attempt = self._attempts.get(step.txid)
        if attempt is None or step.shard >= len(attempt.tallies):
            return None
        tally = attempt.tallies[step.shard]
        return (attempt, tally) if sender in tally.voters else None

    def _judge(self, turn: Turn, attempt: Attempt, index: int) -> None:
        tally = attempt.tallies[index]
        if tally.chosen is None and tally.proposed is None:
            tally.count()
        if tally.chosen is not None:
            self._conclude(turn, attempt)
        elif tally.proposed is None:
            self._propose(turn, attempt, index, patient=True)
            if tally.proposed is None and (tally.no or len(tally.yes) >= tally.needed):
                self._timers.after(
                    turn.now,
                    self._config.fast_s,
                    lambda turn: self._propose(turn, attempt, index, patient=False),
                )

    def _propose(self, turn: Turn, attempt: Attempt, index: int, *, patient: bool) -> None:
        """The second phase, where the votes alone do not decide."""
        tally = attempt.tallies[index]
        if attempt.header.txid not in self._attempts or tally.proposed is not None:
            return
        tally.proposed = tally.to_propose(patient=patient)
        if tally.proposed is not None:
            accept = Accept(attempt.header, index, BALLOT, tally.proposed)
            for node in tally.voters:
                if node in attempt.asked:  # nobody else will hear the outcome before it is forgotten
                    self._post.send(node, accept)

    def _look_after(self, turn: Turn, attempt: Attempt) -> None:
        if attempt.header.txid in self._attempts:
            self._hangs(turn, attempt.header)
            self._timers.after(
                turn.now, self._config.doubt_s, lambda turn: self._look_after(turn, attempt), coarse=True
            )

    # The end of an attempt

    def abandon(self, turn: Turn, txid: TxnId) -> None:
        """Nobody will ever say how it ends; its client is told so in time."""
        attempt = self._attempts.pop(txid, None)
        if attempt is not None:
            self.release(turn, attempt.running.task.slots)

    def _conclude(self, turn: Turn, attempt: Attempt) -> None:
        if attempt.outcome is not None and attempt.header.txid in self._attempts:
            self._end(turn, attempt, attempt.outcome)
            self._ended(turn, attempt, attempt.outcome)
            if not attempt.outcome:
                self._try_next(turn, attempt.running.task.slots)

    def _end(self, turn: Turn, attempt: Attempt, committed: bool) -> None:
        del self._attempts[attempt.header.txid]
        running, header = attempt.running, attempt.header
        if committed:
            for change in running.task.changes:
                if self._found(change.slot).stamp < header.stamp:
                    self._ledger.record(turn, change.slot, change.value, header.stamp)
            self._answer(turn, running, Committed(header.txid, header.stamp))
            return
        self._queue.free(running.task.slots)
        if not running.is_answered:
            self._retry(turn, attempt)

    def _retry(self, turn: Turn, attempt: Attempt) -> None:
        running = attempt.running
        noes = [no for tally in attempt.tallies for no in tally.no.values()]
        whys = {no.why for no in noes}
        is_behind = "late" in whys and turn.now.mono_s - attempt.began_s < SOON_S
        for no in noes:
            if no.why == "stale":
                is_behind = is_behind or not self._exceed(turn, [stamp for _, stamp in no.seen])
        if "clock" in whys or is_behind:
            text = f"the clock of this node is {'behind' if is_behind else 'ahead of'} the voters'"
            self._answer(turn, running, Refused("clock_skew", text, "see peernode status", retryable=True))
            return
        running.must_read = running.must_read or "conflict" in whys
        if whys and whys <= {"conflict", "stale"}:
            self._try(turn, running)
        else:
            self._try_later(turn, running)

    def _try_later(self, turn: Turn, running: Running) -> None:
        ceiling_s = min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2**running.tries)
        delay_s = self._random.uniform(BACK_OFF_MIN_S, max(BACK_OFF_MIN_S, ceiling_s))
        self._try_next(turn, running.task.slots)
        self._timers.after(turn.now, delay_s, lambda turn: self._try(turn, running))

    def _answer(self, turn: Turn, running: Running, outcome: object) -> None:
        if not running.is_answered:
            running.is_answered = True
            del self._running[running]
            turn.do(Reply(running.task.ref, outcome))
            self._try_next(turn, running.task.slots)

    def _time_out(self, turn: Turn, running: Running) -> None:
        if running.is_answered:
            return
        under_way = [a.header.txid for a in self._attempts.values() if a.running is running]
        if under_way:
            self._answer(turn, running, Undecided(under_way[0]))
        elif running.tries or (running.has_waited and self._has_quorums(turn, running.task)):
            text = "other transactions held these keys all the time"
            self._answer(turn, running, Refused("timeout", text, "try again", retryable=True))
        else:
            text = "no majority of the voters of the keyspace can be reached from here"
            self._answer(turn, running, Refused("unavailable", text, "see peernode members", retryable=True))


def ops_of(task: Task, shards: list[Shard], found: dict[Slot, Found]) -> list[list[Op]]:
    """One operation for each key, in the order of the shards."""
    if task.succession is not None:
        return [[Op(change.slot[1], 0, True, change.value) for change in task.changes]]
    changes = {change.slot: change for change in task.changes}
    slots = sorted(changes.keys() | {check.slot for check in task.checks})
    ops: dict[int, list[Op]] = {keyspace: [] for keyspace, _ in shards}
    for slot in slots:
        base = found[slot].stamp if slot in found else None
        change = changes.get(slot)
        ops[slot[0]].append(Op(slot[1], base, change is not None, change.value if change else None))
    return list(ops.values())
