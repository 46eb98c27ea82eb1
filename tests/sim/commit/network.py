"""What lies between the nodes: links that delay, reorder, repeat and lose, splits, and the time that disks take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from protocol.commit.messages import Prepare, Promise, Steps, Vote
from protocol.commit.transaction import TxnId
from protocol.effects import Entry

from .ambush import Point
from .peers import Peer
from .trace import told

if TYPE_CHECKING:
    from .model import Model

NOTICE_S = (0.001, 1.2)
"""A lost link is noticed at once (the other side hung up) or when nothing was heard for a while."""


class Network:
    """All links. `loss`, `repeats` and `slow` are chances of messages, `broken` of sync sessions, `behind` of disks
    that take no batch; they count while faults last."""

    def __init__(self, model: Model, random: Random) -> None:
        self._model, self._random = model, random
        self.loss = random.choice([0.0, 0.0, 0.02, 0.1])
        self.repeats = random.choice([0.0, 0.05])
        self.slow = random.choice([0.0, 0.0, 0.05, 0.2])
        self.delay_s = random.choice([0.003, 0.003, 0.02])
        self.sync_s = random.choice([0.1, 0.1, 1.0, 10.0])
        self._chance = Random(f"sync/{model.seed}")
        self.broken = self._chance.choice([0.0, 0.2, 0.8])
        self.behind = self._chance.choice([0.0, 0.0, 0.3, 0.9])
        self.cut: set[frozenset[int]] = set()
        self._reached: set[tuple[Point, TxnId]] = set()

    @property
    def is_fair(self) -> bool:
        """Whether nothing is lost or late in this run but by splits, pauses and deaths."""
        return self.loss == self.slow == 0

    def is_open(self, one: Peer, other: Peer) -> bool:
        return one.is_up and other.is_up and not self.is_cut(one, other)

    def is_cut(self, one: Peer, other: Peer) -> bool:
        return frozenset((one.index, other.index)) in self.cut

    # Messages

    def send(self, sender: Peer, to: Peer, steps: Steps) -> None:
        self._model.checks.said(steps)
        if any(isinstance(step, Prepare) for step in steps.steps):
            self._model.faults.reached(Point.ASKED, sender)
        if self._is_lost():
            self._note("lost", sender, to, steps)
            return
        for _ in range(2 if self._random.random() < self.repeats else 1):
            to.later(self._delay(), lambda: self._deliver(sender, to, steps))

    def _deliver(self, sender: Peer, to: Peer, steps: Steps) -> None:
        """What the sender had sent before it died may still come."""
        if self.is_cut(sender, to):
            self._note("cut", sender, to, steps)
            return
        self._note("->", sender, to, steps)
        to.turn(lambda turn: to.commit.receive(turn, sender.id, steps))
        for step in steps.steps:
            if isinstance(step, Vote):
                self._reached_once(Point.FIRST_VOTE, to, step.txid)
            elif isinstance(step, Promise):
                self._reached_once(Point.FIRST_PROMISE, to, step.txid)

    def _reached_once(self, point: Point, peer: Peer, txid: TxnId) -> None:
        if (point, txid) not in self._reached:
            self._reached.add((point, txid))
            self._model.faults.reached(point, peer)

    def _note(self, how: str, sender: Peer, to: Peer, steps: Steps) -> None:
        if self._model.is_traced:
            for step in steps.steps:
                self._model.note(f"{sender} {how} {to} {told(step)}")

    def _is_lost(self) -> bool:
        return self._model.faults_on and self._random.random() < self.loss

    def _is_behind(self) -> bool:
        """A slow disk: a batch is left to sync, and the next ones are covered only after that."""
        return self._model.faults_on and self._chance.random() < self.behind

    def _delay(self) -> float:
        if self._model.faults_on and self._random.random() < self.slow:
            return self._random.uniform(0.05, 2.0)
        return self._random.uniform(0.0002, self.delay_s)

    def disk_delay(self) -> float:
        if self._model.faults_on and self._random.random() < self.slow:
            return self._random.uniform(0.02, 0.7)
        return self._random.uniform(0.0002, 0.002)

    # Ordinary entries

    def spread(self, peer: Peer, entries: list[Entry], before: int) -> None:
        """Own entries of a peer go to all, like a batch does: behind `before`, up to the last."""
        for other in self._others(peer):
            if self.is_open(peer, other) and not self._is_lost() and not self._is_behind():
                other.later(self._delay(), _batch_of(other, entries, before))

    def exchange(self) -> None:
        """Two peers sync, now and then; a session may break off, and then no number covers what it has brought."""
        one, other = self._random.choice(self._model.peers), self._random.choice(self._model.peers)
        if self.is_open(one, other):
            entries = list(other.disk.entries.values())
            if self._model.faults_on and self._chance.random() < self.broken:
                some = self._chance.sample(entries, self._chance.randint(0, len(entries)))
                one.do(partial(one.merge, some, {}))
            else:
                one.do(partial(one.merge, entries, dict(other.disk.heads)))
        self._model.after(self.sync_s if self._model.faults_on else 0.5, self.exchange)

    # Links

    def link(self, peer: Peer) -> None:
        """A node is back: everybody it can reach links with it, and hears it a little later."""
        for other in self._others(peer):
            self._link(peer, other)
            self._link(other, peer)

    def _link(self, one: Peer, other: Peer) -> None:
        if not self.is_open(one, other):
            return
        one.do(lambda: one.turn(lambda _: one.commit.link_up(other.id)))

        def hear() -> None:
            if self.is_open(one, other):
                one.near.add(other.index)

        one.later(self._random.choice([0.0, 0.05, 0.5]), hear)

    def drop(self, peer: Peer, others: list[Peer]) -> None:
        """Links end; their other ends notice it sooner or later."""
        for other in others:
            if other is not peer:
                other.later(self._random.choice(NOTICE_S), self._notice_of(other, peer))

    def _notice_of(self, one: Peer, gone: Peer) -> Callable[[], None]:
        def notice() -> None:
            if not self.is_open(one, gone):
                one.near.discard(gone.index)
                one.turn(lambda turn: one.commit.link_down(turn, gone.id))

        return notice

    def split(self, side: list[Peer]) -> None:
        """These hear each other, and nobody else."""
        rest = [peer for peer in self._model.peers if peer not in side]
        self._model.happened(f"split {' '.join(map(str, side))} | {' '.join(map(str, rest))}")
        self.cut |= {frozenset((one.index, other.index)) for one in side for other in rest}
        for one in side:
            self.drop(one, rest)
        for other in rest:
            self.drop(other, side)

    def heal(self) -> None:
        self._model.happened("healed")
        healed, self.cut = sorted(map(sorted, self.cut)), set()
        for one, other in healed:
            self._link(self._model.peers[one], self._model.peers[other])
            self._link(self._model.peers[other], self._model.peers[one])

    def _others(self, peer: Peer) -> list[Peer]:
        return [other for other in self._model.peers if other is not peer]


def _batch_of(peer: Peer, entries: list[Entry], before: int) -> Callable[[], None]:
    """Its entries are covered where all before them are."""

    def arrive() -> None:
        origin, last = (entries[-1].node, entries[-1].lineage), entries[-1].seq
        peer.merge(entries, {origin: last} if peer.reached.get(origin, 0) >= before else {})

    return arrive
