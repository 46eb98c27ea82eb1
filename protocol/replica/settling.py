"""When a node may write after its start: once its numbers and its clock are known to be good.

The dot of an entry, (node, lineage, seq), must name one entry for ever. A folder that was restored from an old copy,
or that is used by two processes, would give numbers out again that others hold already. So the first write waits
until one peer has said what it knows of us: a higher seq of our lineage than ours, or a later run than the one before
this, and we begin a new *lineage*. If nobody says anything within `settle_s` we begin one, too: it costs an entry in
every vector, the other could cost data. The same wait lets clocks be measured, so that the first stamp is as good
as all later ones. A cluster of one waits for nobody.

The folder's *store id* names what it has ever stored, beside the node: a voter that lost that has forgotten what it
promised. A folder that is shown to be an old copy gets a new one, at once and durably; an isolated start does not,
for its lineage is new by caution only, nor does a clock that was mended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ..clock import ClusterTime
from ..config import Config
from ..effects import MarkRow
from ..turn import Turn
from ..types import CommitNumber, Instant
from ..voters import STORE_ID_BYTES
from .messages import Pull
from .replica import LINEAGE_MARK, Replica
from .store import Store

if TYPE_CHECKING:
    from random import Random


RUN_MARK = "run"
STORE_ID_MARK = "store"
LINEAGE_RANDOM_BITS = 20


class Identity(msgspec.Struct, frozen=True):
    """The two counters of a node and the id of its store, durable before it starts: they are never mixed.

    `run` orders its membership and messages, `lineage` is part of the dots of its entries. `previous_run` is 0 in a
    new folder.
    """

    run: int
    previous_run: int
    lineage: int
    store_id: bytes


def next_identity(store: Store, wall_ms: int, chance: Random) -> tuple[Identity, tuple[MarkRow, ...]]:
    """The numbers of the next run, and the rows that must be durable before anything is said under them."""
    previous = int.from_bytes(store.mark(RUN_MARK) or b"", "big")
    run = max(previous + 1, wall_ms)
    stored = store.mark(LINEAGE_MARK)
    lineage = int.from_bytes(stored, "big") if stored is not None else run
    store_id = store.mark(STORE_ID_MARK) or chance.randbytes(STORE_ID_BYTES)
    rows = (
        MarkRow(RUN_MARK, run.to_bytes(8, "big")),
        MarkRow(LINEAGE_MARK, lineage.to_bytes(8, "big")),
        MarkRow(STORE_ID_MARK, store_id),
    )
    return Identity(run, previous, lineage, store_id), rows


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
        self._store_id = identity.store_id
        self._is_stored = True
        """Whether that is durable."""
        self._staged: CommitNumber | None = None
        self._again_s = float("inf")
        self._is_over = False
        self._until_s = float("inf")

    @property
    def store_id(self) -> bytes:
        return self._store_id

    @property
    def is_confirmed(self) -> bool:
        """Whether this store is known to hold all that was ever promised under its id."""
        return self._is_stored if self._is_renewed else self._is_confirmed

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
        if knows_more or (knows_later and not self._is_renewed):
            self.contradicted(turn)
        if 0 < pull.known_run <= self._identity.previous_run:  # else it cannot know what our last run wrote
            self._is_confirmed = True

    def contradicted(self, turn: Turn) -> None:
        """A peer knows more of us than we do: this folder is an old copy."""
        self._renew(turn, "a peer knows later entries or a later run of this node")
        self._store_id = self._random.randbytes(STORE_ID_BYTES)
        self._save_store_id(turn)

    def tick(self, turn: Turn) -> None:
        """Store again what a full disk did not take: the next start must not find the old numbers."""
        if turn.now.mono_s >= self._again_s:
            turn.stage(MarkRow(LINEAGE_MARK, self._replica.lineage.to_bytes(8, "big")))
            self._save_store_id(turn)

    def committed(self, number: CommitNumber) -> bool:
        """Whether a new store id has become durable: now everybody must be told."""
        is_durable = self._staged is not None and self._staged <= number
        if is_durable:
            self._staged, self._is_stored = None, True
        return is_durable

    def failed(self, now_s: float) -> None:
        """Nothing of what was staged was stored."""
        if self._staged is not None:
            self._staged = None
            self._again_s = now_s + self._config.redial_max_s

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

    @property
    def _is_renewed(self) -> bool:
        return self._store_id != self._identity.store_id

    def _save_store_id(self, turn: Turn) -> None:
        turn.stage(MarkRow(STORE_ID_MARK, self._store_id))
        self._staged, self._is_stored, self._again_s = turn.number, False, float("inf")

    def _renew(self, turn: Turn, why: str) -> None:
        turn.log("lineage.new", why=why)
        self._replica.begin_lineage(turn, fresh_lineage(self._identity.run, self._random))
