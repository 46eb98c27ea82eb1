"""The sending half of a sync session: one consistent cut, walked piece by piece as the reader asks.

Nothing is kept for a reader between sessions. One that comes back after a broken session brings a *floor*: how far it
has each origin of a former walk through this very store. That is sound because a store only moves forward: an
entry below the floor that is current now was current then, too, so the reader has it; and what has superseded
another since then lies beyond the cut of then, so it is walked now. Through another store's walk it would lose rows
for ever; therefore a floor names the lineage of the store that it is for.
"""

from __future__ import annotations

import msgspec

from ..config import Config
from ..turn import Turn
from ..types import LinkId
from .messages import Chunk, More, Pull, as_heads, as_vector, grouped
from .replica import Replica
from .store import DamagedRow, Store
from .walk import Walk


class Session(msgspec.Struct):
    """One reader."""

    number: int
    walk: Walk
    index: int = 0


class Serving:
    """All readers of one node, one session a link."""

    def __init__(self, config: Config, replica: Replica, store: Store) -> None:
        self._config, self._replica, self._store = config, replica, store
        self._sessions: dict[LinkId, Session] = {}
        self.resumed = 0
        """Sessions that went on where a broken one had stopped."""

    def on_pull(self, turn: Turn, link: LinkId, pull: Pull) -> None:
        """Begin a session; it takes the place of the last one on this link."""
        floor = as_vector(pull.vector)
        if pull.floor is not None and pull.floor.lineage == self._replica.lineage:
            self.resumed += 1
            for origin, head in as_vector(pull.floor.heads).items():
                floor[origin] = max(head, floor.get(origin, 0))
        if pull.above:
            floor = {}
        self._sessions[link] = Session(pull.session, self._replica.walk(link, floor, pull.above))
        self._send_next(turn, link)

    def on_more(self, turn: Turn, link: LinkId, more: More) -> None:
        session = self._sessions.get(link)
        if session is not None and (session.number, session.index) == (more.session, more.index):
            self._send_next(turn, link)

    def stop(self, link: LinkId) -> None:
        self._sessions.pop(link, None)
        self._replica.walks.pop(link, None)

    def _send_next(self, turn: Turn, link: LinkId) -> None:
        session = self._sessions[link]
        walk = session.walk
        if walk.broken:
            self.stop(link)
            return
        try:
            entries, last = walk.next_piece(self._store, self._config.sync_rows_max)
        except DamagedRow as damaged:
            turn.log("sync.damaged_row", row=str(damaged))
            self.stop(link)
            return
        cut = as_heads(walk.cut) if session.index == 0 else None
        lineage, position = self._replica.lineage, walk.position
        chunk = Chunk(session.number, session.index, lineage, grouped(entries), cut, position, last)
        turn.say((link,), chunk)
        session.index += 1
        if last:
            self.stop(link)
