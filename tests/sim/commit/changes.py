"""Voters that are exchanged, one or all of them, through any node, while everything else goes on."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

from protocol.commit.task import Change, Committed, Task
from protocol.epochs import Successor, encode, successor_key
from protocol.keyspaces import SYSTEM_KEYSPACE
from protocol.turn import Turn
from protocol.voters import Voter

if TYPE_CHECKING:
    from .model import Model
    from .peers import Peer

TIMEOUT_S = 3.0


class VoterChanges:
    """In most runs there are none."""

    def __init__(self, model: Model, random: Random, end_s: float) -> None:
        self._model, self._random = model, random
        self.done = 0
        self.proposed: list[tuple[Voter, ...]] = []
        for _ in range(random.choice([0, 0, 1, 2, 5])):
            model.after(random.uniform(0.5, end_s + 1.0), self._change)

    def _change(self) -> None:
        """Asked of one node; or of two at once, for different voters."""
        keyspace = self._random.choice(sorted(self._model.voters))
        count = min(len(self._model.peers), self._random.choice([1, 1, 2]))
        for peer in self._random.sample(self._model.peers, count):
            if peer.is_up:
                peer.do(partial(peer.turn, partial(self._begin, peer=peer, keyspace=keyspace)))

    def _begin(self, turn: Turn, peer: Peer, keyspace: int) -> None:
        epoch = peer.seats.epoch(keyspace)
        voters = self._voters()

        def reply(outcome: object) -> None:
            self.done += isinstance(outcome, Committed)
            self._model.note(f"{peer} says of new voters {voters}: {outcome}")

        self.proposed.append(voters)
        names = " ".join(f"n{voter.node[0]}" for voter in voters)
        self._model.happened(f"{peer} is asked to let {names} vote on {keyspace} from epoch {epoch + 1} on")
        key = successor_key(keyspace, epoch + 1)
        change = Change((SYSTEM_KEYSPACE, key), encode(Successor(voters)))
        peer.commit.begin(turn, Task(reply, (), (change,), TIMEOUT_S, None, (keyspace, epoch)))

    def _voters(self) -> tuple[Voter, ...]:
        """With the stores that they have now."""
        peers = self._model.peers
        size = self._random.choice([n for n in (1, 3, 3, 5) if n <= len(peers)])
        return tuple(sorted(peer.voter for peer in self._random.sample(peers, size)))
