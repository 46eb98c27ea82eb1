"""Broken variants of the protocol that the model must catch: a check without a mutant proves nothing.

Each changes one decision of the product, by putting a function in the place of another while it is planted. The
seeds that catch it stand in test_mutants.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from protocol.commit import commit, coordinator, reading, recovery, succession
from protocol.commit.commit import Commit
from protocol.commit.coordinator import Attempt, Coordinator, Tally
from protocol.commit.locks import Locks
from protocol.commit.messages import Accept, Ask, Known, Promise
from protocol.commit.post import Post
from protocol.commit.records import Records
from protocol.commit.recovery import Recoveries
from protocol.commit.spreading import Spreading
from protocol.commit.succession import Succession
from protocol.commit.task import Task
from protocol.commit.transaction import Header, Instance, Op, Slot, TxnId
from protocol.commit.voter import Voter
from protocol.effects import Reply
from protocol.errors import Refused
from protocol.seats import Seats
from protocol.turn import Turn
from protocol.types import NodeId


class Patch(msgspec.Struct, frozen=True):
    """What stands there while it lasts."""

    owner: object
    name: str
    replacement: Any


class Mutant(msgspec.Struct, frozen=True):
    """`check`: what must catch it."""

    says: str
    check: str
    patches: tuple[Patch, ...]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """While this lasts, every node has the fault."""
        with ExitStack() as stack:
            for one in self.patches:
                stack.enter_context(patch.object(one.owner, one.name, one.replacement))
            yield


# The coordinator


def abort_on_silence(self: Coordinator, turn: Turn, attempt: Attempt) -> None:
    """In the place of `_look_after`: puts to the vote that it is not prepared, though nobody said NO."""
    if attempt.header.txid in self._attempts:
        for index, tally in enumerate(attempt.tallies):
            if tally.proposed is None and tally.chosen is None:
                tally.proposed = False
                for node in tally.voters:
                    self._post.send(node, Accept(attempt.header, index, 1, False))


def count_majority(self: Tally) -> None:
    """In the place of `count`: a majority of YES is enough, without ballot 1."""
    if len(self.yes) >= self.needed:
        self.chosen = True
    elif len(self.no) >= self.needed:
        self.chosen = False


def name_without_run(node: bytes, run: int, counter: int) -> TxnId:
    """In the place of `TxnId`: each run of a node counts from 1 again."""
    return TxnId(node, 1, counter)


def name_without_node(node: bytes, run: int, counter: int) -> TxnId:
    """In the place of `TxnId`: all coordinators draw from the same names."""
    return TxnId(bytes([1]) * 32, 1, counter)


def chain_attempts(self: Coordinator, turn: Turn, attempt: Attempt) -> None:
    """In the place of `_look_after`: has lost patience, and tries again beside the attempt that hangs."""
    if attempt.header.txid in self._attempts:
        self._hangs(turn, attempt.header)
        self._try(turn, attempt.running)


# The voter


_standing = Voter._standing


def accept_regardless(self: Voter, sender: NodeId, step: Accept | Ask) -> Instance | None:
    """In the place of `_standing`: has promised nothing when asked to accept."""
    instance = _standing(self, sender, step)
    if instance is not None and isinstance(step, Accept):
        return msgspec.structs.replace(instance, promised=0)
    return instance


def take_writes_only(self: Locks, txid: TxnId, wanted: Iterable[tuple[Slot, Op]]) -> None:
    """In the place of `take`: what is only checked is not locked."""
    for slot, op in wanted:
        if op.writes:
            self._holders.setdefault(slot, {})[txid] = True


# The rest


def prepared_if_anybody_voted(promises: list[Promise]) -> bool:
    """In the place of `answer_of`: one YES looks like a chance."""
    accepted = [promise.accepted for promise in promises if promise.accepted is not None]
    return max(accepted)[1] if accepted else any(promise.vote for promise in promises)


def forget_at_once(self: Spreading, turn: Turn, sender: NodeId, step: Known) -> None:
    """In the place of `on_known`: the first who knows is enough."""
    for txid in step.txids:
        owed = self._owed.pop(txid, None)
        if owed is not None:
            for node in owed.all:
                self._forget.setdefault(node, []).append(txid)
            self._flush_later(turn)


def is_any_voter(self: Seats, shard: tuple[int, int]) -> bool:
    """In the place of `is_voter`: a store that was set back votes like the one it was."""
    return self._me in self.voters(shard)


def nothing(*_: object, **__: object) -> None:
    """In the place of what should be done."""


def refuse(self: Coordinator, turn: Turn, task: Task) -> None:
    """In the place of `begin`: never does anything wrong."""
    turn.do(Reply(task.ref, Refused("overloaded", "no")))


def first_round(*_: object) -> int:
    return 0


def is_replaced(self: Seats, shard: tuple[int, int]) -> bool:
    """In the place of `is_succeeded_here`: whoever knows the successor speaks for it."""
    return self.epoch(shard[0]) > shard[1]


_commits_of = Records.commits_of


def requested_commits_of(self: Records, keyspace: int) -> list[tuple[Header, bool]]:
    """In the place of `commits_of`: as if nobody could be in doubt about them any more."""
    return [(header, True) for header, _ in _commits_of(self, keyspace) if header.request is not None]


def always(*_: object) -> bool:
    return True


def one(voters: int) -> int:
    """In the place of `majority`."""
    return 1


MUTANTS = {
    "aborts-without-evidence": Mutant(
        "the coordinator proposes ABORT on mere silence",
        "C1",
        (Patch(Coordinator, "_look_after", abort_on_silence),),
    ),
    "fast-with-a-majority": Mutant(
        "chosen by a bare majority of YES, without ballot 1", "C4", (Patch(Tally, "count", count_majority),)
    ),
    "reuses-ids": Mutant(
        "a restarted coordinator uses its ids, and their ballot 1, again",
        "C5",
        (Patch(coordinator, "TxnId", name_without_run),),
    ),
    "shares-ids": Mutant(
        "two coordinators use one id",
        "C5",
        (Patch(coordinator, "TxnId", name_without_node), Patch(commit, "check", nothing)),
    ),
    "chains-attempts": Mutant(
        "a new attempt begins before the earlier is known to be aborted",
        "C7",
        (Patch(Coordinator, "_look_after", chain_attempts),),
    ),
    "refuses-all": Mutant("a coordinator does nothing", "C9", (Patch(Coordinator, "begin", refuse),)),
    "forgets-promises": Mutant(
        "a promise binds to nothing", "C1", (Patch(Voter, "_standing", accept_regardless),)
    ),
    "speaks-before-durable": Mutant(
        "votes and promises leave before they are durable", "C4", (Patch(Post, "send_durably", Post.send),)
    ),
    "recovery-always-aborts": Mutant(
        "recovery always proposes ABORT", "C1", (Patch(recovery, "answer_of", lambda promises: False),)
    ),
    "recovery-hopes": Mutant(
        "recovery proposes COMMIT if any voter said YES",
        "C1",
        (Patch(recovery, "answer_of", prepared_if_anybody_voted),),
    ),
    "reuses-ballots": Mutant(
        "who finishes a transaction begins with its first ballot again after a restart",
        "C1",
        (Patch(Recoveries, "_first_round", first_round),),
    ),
    "never-recovers": Mutant(
        "nobody finishes what is in doubt", "C8", (Patch(Recoveries, "begin", nothing),)
    ),
    "reads-through-locks": Mutant(
        "a voter answers reads although a transaction in doubt writes there",
        "C5",
        (Patch(Voter, "_writer_of", nothing),),
    ),
    "reads-one-voter": Mutant(
        "one voter's answer is enough to read", "C5", (Patch(reading, "majority", one),)
    ),
    "ignores-shared-locks": Mutant(
        "keys that are only checked are not locked", "C5", (Patch(Locks, "take", take_writes_only),)
    ),
    "forgets-requests": Mutant(
        "a voter does not know which transaction a request belongs to",
        "C7",
        (Patch(Voter, "_earlier", nothing),),
    ),
    "forgets-early": Mutant(
        "FORGET before all know the outcome", "C1", (Patch(Spreading, "on_known", forget_at_once),)
    ),
    "never-forgets": Mutant("outcomes are kept for ever", "C6", (Patch(Records, "forget", nothing),)),
    "votes-on": Mutant(
        "a voter goes on although others have taken over", "C5", (Patch(Voter, "_is_sealed", nothing),)
    ),
    "takes-over-blindly": Mutant(
        "a store votes before it knows what it has to know", "C5", (Patch(Succession, "_is_enough", always),)
    ),
    "takes-one-word": Mutant(
        "a store believes a single voter before it", "C5", (Patch(succession, "majority", one),)
    ),
    "answers-in-doubt": Mutant(
        "a voter answers a survey while it is in doubt",
        "C2",
        (Patch(Succession, "_doubtful", lambda self, shard: []),),
    ),
    "lapses-early": Mutant(
        "a store that does not know what has committed says that something has not",
        "C2",
        (Patch(Seats, "is_succeeded_here", is_replaced),),
    ),
    "drops-open-ends": Mutant(
        "commits that somebody may be in doubt about are taken over for their requests only",
        "C2",
        (Patch(Records, "commits_of", requested_commits_of),),
    ),
    "drops-requests": Mutant("requests are not taken over", "C7", (Patch(Records, "adopt", nothing),)),
    "votes-from-a-backup": Mutant(
        "a voter whose disk was lost or set back goes on voting",
        "C1",
        (Patch(Seats, "is_voter", is_any_voter), Patch(Commit, "disown", nothing)),
    ),
}
