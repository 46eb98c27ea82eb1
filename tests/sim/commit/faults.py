"""What goes wrong: deaths (at random, or at the worst moment), splits, pauses, wrong clocks, lost and old disks."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

from .ambush import Ambush, Point
from .peers import Peer

if TYPE_CHECKING:
    from .model import Model

AWAY_S = (0.05, 3.0)
"""How long a dead node stays dead."""
PAUSE_S = (0.3, 4.0)
SPLIT_S = (0.1, 2.5)
SKEWS_MS = (-600_000, -60_000, -7_000, 15_000, 60_000, 600_000)
"""All of them wrong enough to be refused: a voter says `late` or `clock`."""


class Faults:
    """All faults of a run, until `end`."""

    def __init__(self, model: Model, random: Random, begin_s: float, end_s: float) -> None:
        self._model, self._random = model, random
        self.counts: dict[str, int] = {}
        self._ambushes = [
            Ambush(random.choice(list(Point)), random.randint(1, random.choice([2, 10, 60])))
            for _ in range(random.choice([0, 0, 2, 5]))
        ]
        for _ in range(random.choice([0, 2, 6, 12])):
            model.after(random.uniform(begin_s, end_s), self._strike)

    def end(self) -> None:
        """All is well from now on."""
        self._ambushes.clear()
        self._model.full_disk = 0.0
        self._model.network.heal()
        for peer in self._model.peers:
            self._mend_clock(peer)
            peer.resume()
            self._restart(peer)

    def reached(self, point: Point, peer: Peer) -> None:
        """A node has come to a point where it may be killed."""
        for ambush in [ambush for ambush in self._ambushes if ambush.strikes(point)]:
            self._ambushes.remove(ambush)
            if peer.is_up:
                self._count(f"killed where {point.value}")
                self._kill(peer)

    def _strike(self) -> None:
        if self._model.faults_on:
            kinds = [self._kill_one, self._kill_one, self._split, self._split, self._pause, self._pause]
            self._random.choice(
                [*kinds, self._set_clock, self._set_back, self._copy_disk, self._change_over]
            )()

    def _count(self, kind: str) -> None:
        self._model.happened(f"fault: {kind}")
        self._model.patience.disturbed()
        self.counts[kind] = self.counts.get(kind, 0) + 1

    # Deaths

    def _kill_one(self) -> None:
        peer = self._random.choice(self._model.peers)
        if peer.is_up:
            self._count("killed")
            self._kill(peer)

    def _start_anew(self, peer: Peer) -> None:
        if self._model.faults_on and peer.is_up:
            self._count("started anew")
            self._kill(peer, (0.01, 0.1))

    def _kill(self, peer: Peer, away_s: tuple[float, float] = AWAY_S) -> None:
        peer.crash()
        self._model.network.drop(peer, self._model.peers)
        self._model.after(self._random.uniform(*away_s), lambda: self._restart(peer))

    def _restart(self, peer: Peer) -> None:
        if not peer.is_up:
            self._model.patience.disturbed()
            peer.boot()
            self._model.network.link(peer)

    # Splits and pauses

    def _split(self) -> None:
        self._count("split")
        self._model.network.split([peer for peer in self._model.peers if self._random.random() < 0.5])
        self._model.after(self._random.uniform(*SPLIT_S), self._heal)

    def _heal(self) -> None:
        self._model.patience.disturbed()
        self._model.network.heal()

    def _pause(self) -> None:
        self._pause_one(self._random.choice(self._model.peers))

    def _pause_one(self, peer: Peer) -> None:
        """The node stands still; its links do not end, its messages and timers wait."""
        if self._model.faults_on and peer.is_up and not peer.is_paused:
            self._count("paused")
            self._model.happened(f"{peer} stands still")
            peer.is_paused = True
            boots = peer.boots
            self._model.after(
                self._random.uniform(*PAUSE_S), lambda: self._resume(peer) if peer.boots == boots else None
            )

    def _resume(self, peer: Peer) -> None:
        self._model.patience.disturbed()
        peer.resume()

    def _change_over(self) -> None:
        """Those who know go, those who do not come back: what counts must be on more disks than one."""
        away = self._random.choice(self._model.peers)
        others = [peer for peer in self._model.peers if peer is not away]
        step_s = self._random.uniform(0.2, 1.2)
        if not others:
            return
        self._count("change-over")
        self._model.network.split([away])
        for peer in others:
            peer.backup = peer.disk.copy()
            self._model.after(step_s + self._random.uniform(0.0, 0.3), partial(self._start_anew, peer))
        if self._random.random() < 0.5:
            self._model.after(step_s, lambda: self._set_back_one(self._random.choice(others)))
        self._model.after(2 * step_s, lambda: self._pause_one(self._random.choice(others)))
        self._model.after(2 * step_s + self._random.uniform(-0.1, 0.1), self._heal)

    # Clocks

    def _set_clock(self) -> None:
        """One at a time, and none that votes alone: what is stamped far ahead stays in the way of all others."""
        peer = self._random.choice(self._model.peers)
        if peer.is_up and not self._is_sole(peer) and not any(other.wrong_ms for other in self._model.peers):
            peer.wrong_ms = self._random.choice(SKEWS_MS)
            self._count("clock set ahead" if peer.wrong_ms > 0 else "clock set back")
            self._model.happened(f"{peer} has a clock that is wrong by {peer.wrong_ms} ms")
            peer.clock.time.correction_ms += peer.wrong_ms
            self._model.after(self._random.uniform(0.2, 3.0), lambda: self._mend_clock(peer))

    def _mend_clock(self, peer: Peer) -> None:
        """A clock that was ahead has left its traces in memory: the node is started anew."""
        if not peer.wrong_ms:
            return
        self._model.happened(f"{peer} has its clock mended")
        wrong_ms, peer.wrong_ms = peer.wrong_ms, 0
        if peer.is_up and wrong_ms < 0:
            peer.clock.time.correction_ms -= wrong_ms
        elif peer.is_up:
            self._kill(peer)

    # Disks

    def _copy_disk(self) -> None:
        peer = self._random.choice(self._model.peers)
        self._model.happened(f"{peer} is backed up")
        peer.backup = peer.disk.copy()
        self._model.after(self._random.uniform(0.2, 3.0), self._set_back)

    def _set_back(self) -> None:
        self._set_back_one(self._random.choice(self._model.peers))

    def _set_back_one(self, peer: Peer) -> None:
        """A disk is lost or set back: at most one, else a majority may be gone, and all with it."""
        if (
            not self._model.faults_on
            or self._is_sole(peer)
            or any(other.lost_store for other in self._model.peers)
        ):
            return
        self._count("set back" if peer.backup.run else "lost its disk")
        run = peer.disk.run
        peer.disk = peer.backup.copy()
        peer.disk.run = run
        peer.losses += 1
        peer.must_disown = True
        if peer.is_up:
            self._kill(peer)

    def _is_sole(self, peer: Peer) -> bool:
        """Whether some shard has no voter but this one."""
        sets = [*self._model.checks.all_voters, *self._model.changes.proposed]
        return any(len(some) < 3 and peer.voter in some for some in sets)
