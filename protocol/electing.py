"""Exchanging the voters of a coordinated keyspace: what a person asks for becomes a task of `protocol.commit`.

Mostly they agree on their successors themselves (see commit/succession.py). Only when a majority of them is lost for
good somebody may put others in their place; what they alone had may be gone then, and a record of that stays. So may
those be replaced that can be reached and are no use: they were to take over, and a majority of those before them was
lost before any of them had. They are told from good ones by a read, which those answer and these do not.
"""

from __future__ import annotations

from .clock import ClusterTime
from .commit.commit import Commit
from .commit.reading import Answer
from .commit.succession import before
from .commit.task import Change, Conflicted, Task
from .commit.transaction import Shard, majority
from .config import Config
from .epochs import Forced, Successor, encode, successor_key
from .errors import Refused
from .inputs import Elected, SetVoters
from .keyspaces import COORDINATED, SYSTEM_KEYSPACE, Candidate
from .membership.membership import Membership
from .replica.defining import find_all
from .replica.replica import Replica
from .seats import Seats
from .turn import Turn
from .voters import Voter, check_voters

Voters = tuple[Voter, ...]

NO_KEY = b""
"""Nobody can write to it, so no transaction is ever in the way of who reads it."""


class Electing:
    def __init__(
        self,
        config: Config,
        replica: Replica,
        membership: Membership,
        time: ClusterTime,
        seats: Seats,
        commit: Commit,
    ) -> None:
        self._config, self._replica, self._membership, self._time = config, replica, membership, time
        self._seats, self._commit = seats, commit

    def set_voters(self, turn: Turn, wanted: SetVoters) -> None:
        """Answered by `Elected` or `Refused`, or as any transaction is."""
        meant = self._replica.keyspaces.resolve(wanted.name)
        if isinstance(meant, Refused):
            turn.reply_after_commit(wanted.ref, meant)
            return
        if not meant.voters:
            text = f"the keyspace {wanted.name!r} is {meant.policy}: it has no voters"
            hint = f"peernode keyspace create NAME --policy {COORDINATED} makes one that has"
            turn.reply_after_commit(wanted.ref, Refused("invalid", text, hint))
            return
        epoch = self._seats.epoch(meant.id)
        current = self._seats.named((meant.id, epoch))
        voters = self._voters(wanted.voters, current)
        if isinstance(voters, Refused):
            turn.reply_after_commit(wanted.ref, voters)
        elif wanted.force:
            self._force_if_useless(turn, wanted, (meant.id, epoch), voters)
        elif voters == current:
            turn.reply_after_commit(wanted.ref, Elected(is_new=False))
        else:
            slot = (SYSTEM_KEYSPACE, successor_key(meant.id, epoch + 1))
            change = Change(slot, encode(Successor(voters)))
            shard = (meant.id, epoch)
            task = Task(wanted.ref, (), (change,), wanted.timeout_ms / 1000, succession=shard)
            self._commit.begin(turn, task)

    def _voters(self, texts: tuple[str, ...], current: Voters) -> Voters | Refused:
        found = find_all(self._membership.candidates(), texts)
        if isinstance(found, Refused):
            return found
        for candidate in found:
            if candidate.trouble and candidate.voter not in current:
                text = f"{candidate.name} cannot be made a voter: {candidate.trouble}"
                return Refused("unavailable", text, "peernode members shows who is there", retryable=True)
        voters = tuple(sorted(candidate.voter for candidate in found))
        return check_voters(voters) or voters

    def _force_if_useless(self, turn: Turn, wanted: SetVoters, shard: Shard, voters: Voters) -> None:
        current = self._seats.named(shard)
        if len(self._here(turn).intersection(current)) < majority(len(current)):
            self._force(turn, wanted, shard, voters, current)
            return

        def done(turn: Turn, answer: Answer | None) -> None:
            if answer is None:
                self._force(turn, wanted, shard, voters, (*current, *self._seats.named(before(shard))))
            elif voters == current:
                turn.reply_after_commit(wanted.ref, Elected(is_new=False))
            else:
                text = "a majority of the voters answers"
                hint = "leave out --force: nothing is lost then"
                turn.reply_after_commit(wanted.ref, Refused("conflict", text, hint))

        self._commit.reads.ask(turn, {shard: [NO_KEY]}, turn.now.mono_s + self._config.useless_s, done)

    def _force(self, turn: Turn, wanted: SetVoters, shard: Shard, voters: Voters, knowing: Voters) -> None:
        """`knowing`: whoever may have what is lost."""
        keyspace, epoch = shard
        here = self._here(turn)
        if self._seats.epoch(keyspace) != epoch:
            turn.reply_after_commit(wanted.ref, Conflicted(()))
        elif not here.issuperset(voters):
            text = "not all of these members can be reached from here"
            turn.reply_after_commit(
                wanted.ref, Refused("unavailable", text, "see peernode members", retryable=True)
            )
        else:
            lost = tuple(sorted(set(knowing) - here))
            forced = Forced(self._time.time_ms(turn.now), self._config.name, lost)
            slot = (SYSTEM_KEYSPACE, successor_key(keyspace, epoch + 1))
            self._replica.put(turn, slot, encode(Successor(voters, forced)), 0)
            turn.reply_after_commit(wanted.ref, Elected(is_new=True))

    def _here(self, turn: Turn) -> set[Voter]:
        """Who can be reached, with the stores that they have now."""
        candidates = self._membership.candidates()
        return {candidate.voter for candidate in candidates if self._is_here(turn, candidate)}

    def _is_here(self, turn: Turn, candidate: Candidate) -> bool:
        node = candidate.voter.node
        return node == self._replica.me[0] or self._membership.is_heard(node, turn.now.mono_s)
