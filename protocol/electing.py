"""Exchanging the voters of a coordinated keyspace: what a person asks for becomes a task of `protocol.commit`.

Mostly they agree on their successors themselves (see commit/succession.py). Only when a majority of them is lost for
good somebody may put others in their place; what they alone had may be gone then, and a record of that stays.
"""

from __future__ import annotations

from .clock import ClusterTime
from .commit.commit import Commit
from .commit.task import Change, Task
from .commit.transaction import majority
from .config import Config
from .epochs import Forced, Successor, encode, successor_key
from .errors import Refused
from .inputs import Elected, SetVoters
from .keyspaces import COORDINATED, SYSTEM_KEYSPACE, Candidate, Definition
from .membership.membership import Membership
from .replica.defining import find_all
from .replica.replica import Replica
from .seats import Seats
from .turn import Turn
from .voters import Voter, check_voters


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
        elif voters == current:
            turn.reply_after_commit(wanted.ref, Elected(is_new=False))
        elif wanted.force:
            self._force(turn, wanted, meant, epoch, voters)
        else:
            slot = (SYSTEM_KEYSPACE, successor_key(meant.id, epoch + 1))
            change = Change(slot, encode(Successor(voters)))
            shard = (meant.id, epoch)
            task = Task(wanted.ref, (), (change,), wanted.timeout_ms / 1000, succession=shard)
            self._commit.begin(turn, task)

    def _voters(self, texts: tuple[str, ...], current: tuple[Voter, ...]) -> tuple[Voter, ...] | Refused:
        found = find_all(self._membership.candidates(), texts)
        if isinstance(found, Refused):
            return found
        for candidate in found:
            if candidate.trouble and candidate.voter not in current:
                text = f"{candidate.name} cannot be made a voter: {candidate.trouble}"
                return Refused("unavailable", text, "peernode members shows who is there", retryable=True)
        voters = tuple(sorted(candidate.voter for candidate in found))
        return check_voters(voters) or voters

    def _force(
        self, turn: Turn, wanted: SetVoters, meant: Definition, epoch: int, voters: tuple[Voter, ...]
    ) -> None:
        candidates = self._membership.candidates()
        here = {candidate.voter for candidate in candidates if self._is_here(turn, candidate)}
        current = self._seats.named((meant.id, epoch))
        lost = tuple(voter for voter in current if voter not in here)
        if len(current) - len(lost) >= majority(len(current)):
            text = f"{len(current) - len(lost)} of the {len(current)} voters answer: that is a majority"
            turn.reply_after_commit(
                wanted.ref, Refused("conflict", text, "leave out --force: nothing is lost then")
            )
            return
        if not all(voter in here for voter in voters):
            text = "not all of these members can be reached from here"
            turn.reply_after_commit(
                wanted.ref, Refused("unavailable", text, "see peernode members", retryable=True)
            )
            return
        forced = Forced(self._time.time_ms(turn.now), self._config.name, lost)
        slot = (SYSTEM_KEYSPACE, successor_key(meant.id, epoch + 1))
        self._replica.put(turn, slot, encode(Successor(voters, forced)), 0)
        turn.reply_after_commit(wanted.ref, Elected(is_new=True))

    def _is_here(self, turn: Turn, candidate: Candidate) -> bool:
        node = candidate.voter.node
        return node == self._replica.me[0] or self._membership.is_heard(node, turn.now.mono_s)
