"""Finishing what somebody else began: one proposer, for all shards of one transaction.

Anybody may do it at any time, also while the coordinator is alive: it is the ordinary second half of Paxos (Lamport,
"Paxos Made Simple", 2001). A ballot is asked for at each shard's voters; of a majority's promises

- the answer accepted at the highest ballot stands, if there is one;
- else, if *all* who promised voted YES, the shard may have been prepared at ballot 0: it is prepared;
- else it cannot have been, and is not.

Each participant has ballots of its own, so that no two ever propose at the same one. Nor does one of them twice: who
is a voter proposes nothing before its own promise is durable, and begins above it after a restart. (Who only
coordinates has forgotten the transaction by then.)

Where other voters have taken over, they are asked, too: they know what has committed before them (succession.py), and
what they do not know as committed never will be. Of the voters before them a majority may be gone by then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..config import Config
from ..turn import Turn
from ..types import NodeId
from .messages import Accept, Accepted, Ask, Lapsed, Outrun, Promise
from .ports import Electorate, Timers
from .post import Post
from .transaction import Header, Shard, TxnId, coordinator_of, majority

if TYPE_CHECKING:
    from random import Random

FIRST_BALLOT = 2
"""0 is the vote, 1 the coordinator's."""


class Proposal:
    """Where the proposer is with one shard."""

    def __init__(self, voters: tuple[NodeId, ...], heirs: set[NodeId], step: Ask | Accept) -> None:
        self.voters, self.heirs = voters, heirs
        self.step = step
        """What the voters are asked now."""
        self.promises: dict[NodeId, Promise] = {}
        self.accepted: set[NodeId] = set()
        self.prepared: bool | None = None
        """What is proposed; None: promises are being collected."""
        self.chosen: bool | None = None

    @property
    def asked(self) -> list[NodeId]:
        """Heirs only know whether it is over; they take part in no ballot."""
        return [*self.voters, *sorted(self.heirs)] if self.prepared is None else [*self.voters]


class Recovery:
    """One transaction that this node finishes."""

    def __init__(self, header: Header, round: int, ballot: int, proposals: list[Proposal]) -> None:
        self.header, self.round, self.ballot, self.proposals = header, round, ballot, proposals
        self.is_own_ballot = False
        """Whether this ballot is surely used by this run of the proposer alone: nothing is proposed before."""

    @property
    def outcome(self) -> bool | None:
        """Whether it commits; None: not known yet."""
        chosen = [proposal.chosen for proposal in self.proposals]
        if False in chosen:
            return False
        return None if None in chosen else True


class Recoveries:
    """All that this node finishes. `decided(turn, header, committed)` is called when one is."""

    def __init__(
        self,
        config: Config,
        electorate: Electorate,
        post: Post,
        timers: Timers,
        random: Random,
        promised: Callable[[TxnId], int],
        decided: Callable[[Turn, Header, bool], None],
    ) -> None:
        self._config, self._electorate, self._post, self._timers = config, electorate, post, timers
        self._random, self._promised, self._decided = random, promised, decided
        self._running: dict[TxnId, Recovery] = {}

    def __len__(self) -> int:
        return len(self._running)

    def runs(self, txid: TxnId) -> bool:
        return txid in self._running

    def begin(self, turn: Turn, header: Header) -> None:
        """Start, unless it is under way, or not all who vote are known."""
        is_known = all(self._electorate.voters(shard) for shard in header.shards)
        if header.txid not in self._running and is_known:
            self._run(turn, header, self._first_round(header))

    def _first_round(self, header: Header) -> int:
        """Above all that this store has promised, its own ballots of an earlier run of this node among it."""
        promised = self._promised(header.txid)
        slots = len(self._participants(header))
        return (promised - FIRST_BALLOT) // slots + 1 if promised >= FIRST_BALLOT else 0

    def end(self, txid: TxnId) -> None:
        """Its outcome is known."""
        self._running.pop(txid, None)

    def linked(self, node: NodeId) -> None:
        """A voter is back: it may be the one that was missing, and the next ballot may be seconds away."""
        for recovery in self._running.values():
            for proposal in recovery.proposals:
                if node in proposal.asked and proposal.chosen is None:
                    self._post.send(node, proposal.step)

    def on_promise(self, turn: Turn, sender: NodeId, step: Promise) -> None:
        found = self._find(step)
        if found is None:
            return
        recovery, proposal = found
        if proposal.prepared is None:
            proposal.promises[sender] = step
        recovery.is_own_ballot |= sender == self._post.me
        if recovery.is_own_ballot:
            for index, one in enumerate(recovery.proposals):
                self._propose(recovery, index, one)

    def _propose(self, recovery: Recovery, index: int, proposal: Proposal) -> None:
        if proposal.prepared is None and len(proposal.promises) >= majority(len(proposal.voters)):
            proposal.prepared = answer_of(list(proposal.promises.values()))
            proposal.step = Accept(recovery.header, index, recovery.ballot, proposal.prepared)
            for voter in proposal.voters:
                self._post.send(voter, proposal.step)

    def on_accepted(self, turn: Turn, sender: NodeId, step: Accepted) -> None:
        found = self._find(step)
        if found is None:
            return
        recovery, proposal = found
        proposal.accepted.add(sender)
        if len(proposal.accepted) >= majority(len(proposal.voters)):
            proposal.chosen = proposal.prepared
            if recovery.outcome is not None:
                self.end(step.txid)
                self._decided(turn, recovery.header, recovery.outcome)

    def on_lapsed(self, turn: Turn, step: Lapsed) -> None:
        """Somebody who has taken over from the voters of a shard does not know it as committed."""
        recovery = self._running.get(step.txid)
        if recovery is not None:
            self.end(step.txid)
            self._decided(turn, recovery.header, False)

    def on_outrun(self, turn: Turn, step: Outrun) -> None:
        """Somebody else is ahead: let him, and try again above him later."""
        recovery = self._running.get(step.txid)
        if recovery is not None and step.promised > recovery.ballot:
            slots = len(self._participants(recovery.header))
            recovery.round = max(recovery.round, (step.promised - FIRST_BALLOT) // slots)

    def _find(self, step: Promise | Accepted) -> tuple[Recovery, Proposal] | None:
        recovery = self._running.get(step.txid)
        if recovery is None or step.ballot != recovery.ballot or step.shard >= len(recovery.proposals):
            return None
        return recovery, recovery.proposals[step.shard]

    def _run(self, turn: Turn, header: Header, round: int) -> None:
        participants = self._participants(header)
        ballot = FIRST_BALLOT + round * len(participants) + participants.index(self._post.me)
        proposals = [
            self._proposal(shard, Ask(header, index, ballot)) for index, shard in enumerate(header.shards)
        ]
        recovery = self._running[header.txid] = Recovery(header, round, ballot, proposals)
        recovery.is_own_ballot = not any(map(self._electorate.is_named, header.shards))
        for proposal in proposals:
            for node in proposal.asked:
                self._post.send(node, proposal.step)
        back_off_s = min(self._config.recover_s * 2**round, self._config.recover_max_s)
        delay_s = back_off_s * (1 + self._random.random())
        self._timers.after(turn.now, delay_s, lambda turn: self._again(turn, recovery))

    def _proposal(self, shard: Shard, step: Ask) -> Proposal:
        voters = self._electorate.voters(shard)
        return Proposal(voters, set(self._electorate.heirs(shard)) - set(voters), step)

    def _again(self, turn: Turn, recovery: Recovery) -> None:
        if self._running.get(recovery.header.txid) is recovery:
            self._run(turn, recovery.header, recovery.round + 1)

    def _participants(self, header: Header) -> list[NodeId]:
        """Who may propose: the voters of all shards, and the coordinator."""
        voters = {voter for shard in header.shards for voter in self._electorate.voters(shard)}
        return sorted(voters | {coordinator_of(header)})


def answer_of(promises: list[Promise]) -> bool:
    """What a majority's promises leave to propose: whether the shard is prepared."""
    accepted = [promise.accepted for promise in promises if promise.accepted is not None]
    if accepted:
        return max(accepted)[1]
    return all(promise.vote is True for promise in promises)
