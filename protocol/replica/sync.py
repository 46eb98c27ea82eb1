"""Delta sync: a peer's entries that we lack, found by version vector and pulled chunk by chunk.

The receiver pulls: `Pull` carries its vector, each `Chunk` is asked for with `More` only after the one
before is durable, so nothing piles up on either side and a slow disk slows the sender. One session is pulled
at a time; others wait, and find little left when their turn comes.

The sender reads one consistent cut of its durable state (`walk.py`); the vector of that cut goes with the last
chunk, and only then may the receiver's vector advance.

A session starts when a link comes up and when an announced head is not reached in time, never because
two moving digests differ. It has no state worth keeping: a lost session begins anew from the vector.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated

import msgspec

from ..config import Config
from ..effects import Entry, Synced
from ..errors import Fault, RemoteFault
from ..limits import ORIGINS_MAX
from ..turn import Turn
from ..types import LinkId, NodeId, Payload
from ..wire.fields import Counter, Head, Id32
from ..wire.registry import Route, Stream
from .entry import Row, to_row
from .replica import Replica
from .store import DamagedRow, Origin, Store
from .walk import Walk

Heads = Annotated[list[Head], msgspec.Meta(max_length=ORIGINS_MAX)]


class Pull(Payload, frozen=True):
    """Send me what I lack; this is my vector."""

    session: Counter
    vector: Heads


class Group(Payload, frozen=True):
    """Rows of one origin."""

    node: Id32
    lineage: Counter
    rows: list[Row]


class Chunk(Payload, frozen=True):
    """Piece `index` of a session. `vector` is there in the last one only: all of it is covered now."""

    session: Counter
    index: Counter
    groups: list[Group]
    vector: Heads | None


class More(Payload, frozen=True):
    """Everything before `index` is durable here: send that one."""

    session: Counter
    index: Counter


ROUTES = (
    Route(21, Pull, Stream.LINK),
    Route(22, Chunk, Stream.LINK, bulk=True),
    Route(23, More, Stream.LINK),
)


class Serving(msgspec.Struct):
    """A session that we feed."""

    session: int
    walk: Walk
    index: int = 0


class Pulling(msgspec.Struct):
    """The session that feeds us."""

    link: LinkId
    node: NodeId
    session: int
    progress_s: float
    index: int = 0
    rows: int = 0


class Wanted(msgspec.Struct, frozen=True):
    """A head that a peer announced and that we do not hold durably: what is only staged may yet be lost."""

    head: int
    link: LinkId
    since_s: float


class Sync:
    """All sessions of one node, and what it knows of its peers' heads."""

    def __init__(self, config: Config, replica: Replica, store: Store) -> None:
        self._config, self._replica, self._store = config, replica, store
        self._links: dict[LinkId, NodeId] = {}
        self._serving: dict[LinkId, Serving] = {}
        self._pulling: Pulling | None = None
        self._queue: deque[LinkId] = deque()
        self._wanted: dict[Origin, Wanted] = {}
        self._sessions = 0
        self.peer_heads: dict[LinkId, dict[Origin, int]] = {}
        """What each linked peer holds durably, as far as it told us."""

    @property
    def deadline_s(self) -> float:
        times = [wanted.since_s + self._config.catch_up_s for wanted in self._wanted.values()]
        if self._pulling is not None:
            times.append(self._pulling.progress_s + self._config.sync_idle_s)
        return min(times, default=float("inf"))

    def link_up(self, turn: Turn, link: LinkId, node: NodeId) -> None:
        self._links[link] = node
        self.peer_heads[link] = {}
        self._enqueue(turn, link)

    def link_down(self, turn: Turn, link: LinkId) -> None:
        self._links.pop(link, None)
        self.peer_heads.pop(link, None)
        self._stop_serving(link)
        if link in self._queue:
            self._queue.remove(link)
        if self._pulling is not None and self._pulling.link == link:
            self._pulling = None
        self._start_next(turn)

    def tick(self, turn: Turn) -> None:
        """Begin sessions for heads that were announced and did not come; give up silent ones."""
        now_s = turn.now.mono_s
        pulling = self._pulling
        if pulling is not None and now_s >= pulling.progress_s + self._config.sync_idle_s:
            turn.log("sync.gave_up", peer=pulling.node.hex()[:8], rows=str(pulling.rows))
            self._pulling = None
            self._enqueue(turn, pulling.link)
        for origin, wanted in list(self._wanted.items()):
            if self._replica.vector.get(origin, 0) >= wanted.head or wanted.link not in self._links:
                del self._wanted[origin]
            elif now_s >= wanted.since_s + self._config.catch_up_s:
                self._wanted[origin] = Wanted(wanted.head, wanted.link, now_s + self._config.sync_idle_s)
                if self._replica.reached.get(origin, 0) < wanted.head:
                    self._enqueue(turn, wanted.link)
        self._start_next(turn)

    def announced(self, turn: Turn, link: LinkId, heads: list[Head]) -> None:
        """A peer says what it holds."""
        known = self.peer_heads.get(link)
        if known is None:
            return
        for node, lineage, head in heads:
            origin = (NodeId(node), lineage)
            known[origin] = max(head, known.get(origin, 0))
            if head > self._replica.vector.get(origin, 0) and len(self._wanted) < ORIGINS_MAX:
                since_s = self._wanted[origin].since_s if origin in self._wanted else turn.now.mono_s
                self._wanted[origin] = Wanted(head, link, since_s)

    def lacking(self, origin: Origin, head: int) -> list[LinkId]:
        """Linked peers that have not told us yet that they hold all of this origin up to `head`."""
        return [link for link, heads in self.peer_heads.items() if heads.get(origin, 0) < head]

    def on_pull(self, turn: Turn, link: LinkId, pull: Pull) -> None:
        self.announced(turn, link, pull.vector)
        self._serving[link] = Serving(pull.session, self._replica.walk(link, as_vector(pull.vector)))
        self._serve(turn, link)

    def on_more(self, turn: Turn, link: LinkId, more: More) -> None:
        serving = self._serving.get(link)
        if serving is not None and serving.session == more.session and serving.index == more.index:
            self._serve(turn, link)

    def on_chunk(self, turn: Turn, link: LinkId, chunk: Chunk) -> None:
        pulling = self._pulling
        if pulling is None or (pulling.link, pulling.session) != (link, chunk.session):
            return  # a session that we gave up
        if chunk.index != pulling.index:
            raise RemoteFault(
                Fault.MALFORMED, f"chunk {chunk.index} of a sync session, expected {pulling.index}"
            )
        pulling.progress_s = turn.now.mono_s
        pulling.index += 1
        for group in chunk.groups:
            pulling.rows += self._replica.merge(turn, (NodeId(group.node), group.lineage), group.rows)
        if chunk.vector is None:
            turn.say_after_commit((link,), More(chunk.session, pulling.index))
        else:
            self._complete(turn, pulling, chunk.vector)

    def _complete(self, turn: Turn, pulling: Pulling, vector: list[Head]) -> None:
        self.announced(turn, pulling.link, vector)
        for origin, head in as_vector(vector).items():
            self._replica.advance(turn, origin, head)
        turn.do_after_commit(Synced(pulling.node, pulling.rows))
        self._pulling = None
        self._start_next(turn)

    def _enqueue(self, turn: Turn, link: LinkId) -> None:
        if link in self._links and link not in self._queue:
            self._queue.append(link)
        self._start_next(turn)

    def _start_next(self, turn: Turn) -> None:
        if self._pulling is not None or not self._queue:
            return
        link = self._queue.popleft()
        self._sessions += 1
        self._pulling = Pulling(link, self._links[link], self._sessions, turn.now.mono_s)
        turn.say((link,), Pull(self._sessions, as_heads(self._replica.vector)))

    def _serve(self, turn: Turn, link: LinkId) -> None:
        serving = self._serving[link]
        if serving.walk.broken:
            self._stop_serving(link)
            return
        try:
            entries, last = serving.walk.next_piece(self._store, self._config.sync_rows_max)
        except DamagedRow as damaged:
            turn.log("sync.damaged_row", row=str(damaged))
            self._stop_serving(link)
            return
        vector = as_heads(serving.walk.cut) if last else None
        turn.say((link,), Chunk(serving.session, serving.index, grouped(entries), vector))
        serving.index += 1
        if last:
            self._stop_serving(link)

    def _stop_serving(self, link: LinkId) -> None:
        self._serving.pop(link, None)
        self._replica.walks.pop(link, None)


def grouped(entries: list[Entry]) -> list[Group]:
    """Rows with their origin told once."""
    groups: dict[Origin, Group] = {}
    for entry in entries:
        origin = (entry.node, entry.lineage)
        groups.setdefault(origin, Group(*origin, [])).rows.append(to_row(entry))
    return list(groups.values())


def as_heads(vector: dict[Origin, int]) -> list[Head]:
    return [(node, lineage, head) for (node, lineage), head in sorted(vector.items())]


def as_vector(heads: list[Head]) -> dict[Origin, int]:
    return {(NodeId(node), lineage): head for node, lineage, head in heads}
