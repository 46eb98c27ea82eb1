"""C8: while a majority of its voters lives and is linked, nothing stays locked for longer than a bound.

The bound counts from the last fault or its end: what a coordinator has locked is free within `LOCKED_S` of its death,
although nothing but silence may tell of it. Runs in which messages are lost or late, or disks full, are exempt until
the faults are over and their back-offs have passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.commit.transaction import Record, Shard, TxnId, majority

from .checks import name_of, require
from .peers import Peer

if TYPE_CHECKING:
    from .model import Model

LOCKED_S = 1.0
LOOK_S = 0.05
GRACE_S = 6.5
"""Of recoveries that faults had slowed down: `recover_max_s`, with its jitter."""


class Patience:
    """Looks at all locks now and then."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._since: dict[tuple[int, TxnId], float] = {}
        self._quiet_since_s = 0.0
        self._taught_s = -GRACE_S
        self.longest_s = 0.0

    def disturbed(self) -> None:
        """Something happened after which it may take a moment."""
        self._quiet_since_s = self._model.now

    def taught(self) -> None:
        """A node has learned late who votes now: whoever waited for that has backed off meanwhile."""
        self._taught_s = self._model.now

    def look(self) -> None:
        self._model.after(LOOK_S, self.look)
        held = {
            (peer.index, r.header.txid): (peer, r) for peer in self._model.peers for r in _prepared_at(peer)
        }
        self._since = {
            place: self._since.get(place, self._model.now)
            for place, (peer, record) in held.items()
            if self._must_end(peer, record)
        }
        for (index, txid), since_s in self._since.items():
            held_s = self._model.now - max(since_s, self._quiet_since_s)
            self.longest_s = max(self.longest_s, held_s)
            require(held_s <= LOCKED_S, f"C8: {name_of(txid)} holds locks at n{index + 1} for {held_s:.2f} s")

    def _must_end(self, holder: Peer, record: Record) -> bool:
        """Whether there is no excuse."""
        return self._is_fair() and all(self._has_majority(holder, shard) for shard in record.header.shards)

    def _is_fair(self) -> bool:
        model = self._model
        if model.now <= self._taught_s + GRACE_S:
            return False
        if model.faults_on:
            return model.network.is_fair and model.full_disk == 0
        return model.now > model.faults_end_s + GRACE_S

    def _has_majority(self, holder: Peer, shard: Shard) -> bool:
        """Of voters that live, know that they are, and are linked with each other and with the holder."""
        voters = self._model.checks.voters(shard)
        able = [peer for peer in map(self._model.of, voters) if _is_able(peer) and peer.seats.is_named(shard)]
        able = [peer for peer in able if peer is holder or self._model.network.is_open(peer, holder)]
        are_linked = all(
            one is other or self._model.network.is_open(one, other) for one in able for other in able
        )
        return _is_able(holder) and are_linked and len(able) >= majority(len(voters))


def _prepared_at(peer: Peer) -> list[Record]:
    if not peer.is_up or not peer.commit.voter.locks:
        return []
    return [record for record in peer.commit.voter.records.values() if record.is_prepared]


def _is_able(peer: Peer) -> bool:
    return peer.is_up and not peer.is_paused and not peer.must_disown
