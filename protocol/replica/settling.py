"""When a node may write after its start: once its numbers and its clock are known to be good.

The dot of an entry, (node, lineage, seq), must name one entry for ever. A folder that was restored from an old copy,
or that is used by two processes, would give numbers out again that others hold already. So the first write waits
until one peer has said what it knows of us: a higher seq of our lineage than ours, or a later run than the one before
this, and we begin a new *lineage*. If nobody says anything within `settle_s` we begin one, too: it costs an entry in
every vector, the other could cost data. The same wait lets clocks be measured, so that the first stamp is as good
as all later ones. A cluster of one waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ..clock import ClusterTime
from ..config import Config
from ..effects import MarkRow
from ..turn import Turn
from ..types import Instant
from .messages import Pull
from .replica import LINEAGE_MARK, Replica
from .store import Store

if TYPE_CHECKING:
    from random import Random


RUN_MARK = "run"
LINEAGE_RANDOM_BITS = 20


class Identity(msgspec.Struct, frozen=True):
    """The two counters of a node, durable before it starts: they are never mixed.

    `run` orders its membership and messages, `lineage` is part of the dots of its entries. `previous_run` is 0 in a
    new folder.
    """

    run: int
    previous_run: int
    lineage: int


def next_identity(store: Store, wall_ms: int) -> tuple[Identity, tuple[MarkRow, ...]]:
    """The numbers of the next run, and the rows that must be durable before anything is said under them."""
    previous = int.from_bytes(store.mark(RUN_MARK) or b"", "big")
    run = max(previous + 1, wall_ms)
    stored = store.mark(LINEAGE_MARK)
    lineage = int.from_bytes(stored, "big") if stored is not None else run
    rows = (MarkRow(RUN_MARK, run.to_bytes(8, "big")), MarkRow(LINEAGE_MARK, lineage.to_bytes(8, "big")))
    return Identity(run, previous, lineage), rows


def fresh_lineage(run: int, chance: Random) -> int:
    """A lineage that this node never had, also before its folder was set back: numbers that rise could meet again."""
    return (run << LINEAGE_RANDOM_BITS) + chance.getrandbits(LINEAGE_RANDOM_BITS)


class Settling:
    """`expected`: how many other members should be there."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        replica: Replica,
        time: ClusterTime,
        expected: Callable[[], int],
        random: Random,
    ) -> None:
        self._config, self._identity, self._replica = config, identity, replica
        self._time, self._expected, self._random = time, expected, random
        self._is_confirmed = identity.previous_run == 0
        self._is_over = False
        self._until_s = float("inf")

    @property
    def until_s(self) -> float:
        """No write waits longer."""
        return self._until_s

    def start(self, now: Instant, *, alone: bool) -> None:
        """`alone`: nobody else was ever heard of."""
        self._until_s = now.mono_s + (0.0 if alone else self._config.settle_s)
        self._is_confirmed = self._is_confirmed or alone

    def on_pull(self, turn: Turn, pull: Pull) -> None:
        """A peer says what it knows of us."""
        lineage, head = self._replica.lineage, self._replica.own_head
        knows_more = any(known == lineage and seq > head for known, seq in pull.known)
        knows_later = self._identity.previous_run < pull.known_run != self._identity.run
        if knows_more or knows_later:
            self.contradicted(turn)
        if 0 < pull.known_run <= self._identity.previous_run:  # else it cannot know what our last run wrote
            self._is_confirmed = True

    def contradicted(self, turn: Turn) -> None:
        """A peer knows more of us than we do: this folder is an old copy."""
        self._renew(turn, "a peer knows later entries or a later run of this node")

    def is_over(self, turn: Turn) -> bool:
        """Whether to write now; once true, for ever."""
        if not self._is_over:
            is_good = self._is_confirmed and 2 * self._time.measured_peers > self._expected()
            if not is_good and turn.now.mono_s < self._until_s:
                return False
            if not self._is_confirmed:
                self._renew(turn, "no peer has confirmed where this node stopped")
            self._is_over = True
        return True

    def _renew(self, turn: Turn, why: str) -> None:
        turn.log("lineage.new", why=why)
        self._replica.begin_lineage(turn, fresh_lineage(self._identity.run, self._random))
