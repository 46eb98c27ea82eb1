"""Delta sync, the receiving half: a peer's entries that we lack, found by version vector, pulled chunk by chunk.

`Pull` carries our vector; each `Chunk` is asked for with `More` only after the one before is durable, so nothing
piles up on either side and a slow disk slows the sender. One session is pulled at a time; others wait, and find
little left when their turn comes. The vector of the sender's cut comes with the first chunk and counts with the
last: only then may ours advance (see serving.py and walk.py for the sender), and not at all when anything was held
back: the sender left out what the held entry has superseded there.

A session starts when a link comes up and when an announced head is not reached in time, never because two moving
digests differ. One that breaks goes on later where it stopped: with every chunk we store how far the walk through
that peer's store has come, and tell it so when we meet the same store again.
"""

from __future__ import annotations

from collections import deque

import msgspec

from ..config import Config
from ..effects import MarkRow, Synced
from ..errors import Fault, RemoteFault
from ..limits import ORIGINS_MAX
from ..turn import Turn
from ..types import CommitNumber, LinkId, NodeId
from ..wire.fields import Head
from .messages import Chunk, Floor, Heads, More, Pull, as_heads, as_vector
from .replica import Replica
from .settling import Settling
from .store import Origin, Store

RESUME_MARK = "resume"


class Resume(msgspec.Struct, frozen=True):
    """How far a walk through one store has come; stored with the rows that it brought."""

    node: NodeId
    lineage: int
    heads: Heads


class Ask(msgspec.Struct, frozen=True):
    """A session to be begun. `audits`: the kind that asks for late stamps (see `Pull.above`)."""

    link: LinkId
    known_run: int = 0
    audits: bool = False


class Pulling(msgspec.Struct):
    """The session that feeds us."""

    link: LinkId
    node: NodeId
    session: int
    progress_s: float
    told_s: float
    above: int = 0
    index: int = 0
    rows: int = 0
    cut: dict[Origin, int] = {}
    started_at: dict[Origin, int] = {}
    floor: dict[Origin, int] = {}
    held_back: bool = False
    """Something of this session was held back: what it superseded is neither here nor there."""

    @property
    def percent(self) -> int:
        """How much of what was lacking has come; superseded entries count as come."""
        lacking = sum(max(0, head - self.started_at.get(origin, 0)) for origin, head in self.cut.items())
        came = 0
        for origin, head in self.floor.items():
            came += max(0, min(head, self.cut.get(origin, 0)) - self.started_at.get(origin, 0))
        return 100 * came // lacking if lacking else 0


class Wanted(msgspec.Struct, frozen=True):
    """A head that a peer announced and that we do not hold durably: what is only staged may yet be lost."""

    head: int
    link: LinkId
    since_s: float


class Lag(msgspec.Struct, frozen=True):
    """How far this node and a peer are apart, in numbers of entries: superseded ones count too."""

    behind: int
    ahead: int
    last_sync_ms: int | None
    percent: int | None  # of the session that runs


class Sync:
    """All that one node pulls, and what it knows of its peers' heads."""

    def __init__(self, config: Config, replica: Replica, store: Store, settling: Settling) -> None:
        self._config, self._replica, self._store = config, replica, store
        self._settling = settling
        self._links: dict[LinkId, NodeId] = {}
        self._pulling: Pulling | None = None
        self._queue: deque[Ask] = deque()
        self._wanted: dict[Origin, Wanted] = {}
        self._awaited: CommitNumber | None = None
        """The commit of the last session's end: before it is durable, the next one would bring the same again."""
        self._again_s = float("inf")
        self._sessions = 0
        self._resume = self._stored_resume()
        self.peer_heads: dict[NodeId, dict[Origin, int]] = {}
        """What each peer holds durably, as far as it told us."""
        self.last_sync_ms: dict[NodeId, int] = {}

    @property
    def deadline_s(self) -> float:
        times = [wanted.since_s + self._config.catch_up_s for wanted in self._wanted.values()]
        if self._pulling is not None:
            times.append(self._pulling.progress_s + self._config.sync_idle_s)
        return min([self._again_s, *times])

    def link_up(self, turn: Turn, link: LinkId, node: NodeId, known_run: int) -> None:
        """`known_run`: the latest run of the peer that we heard of before, 0: none."""
        self._links[link] = node
        self._enqueue(turn, Ask(link, known_run))
        if self._replica.void_above:
            self._enqueue(turn, Ask(link, audits=True))

    def audit(self, turn: Turn) -> None:
        """Something was taken back: what it had superseded here may stand at others still."""
        for link in self._links:
            self._enqueue(turn, Ask(link, audits=True))

    def link_down(self, turn: Turn, link: LinkId) -> None:
        self._links.pop(link, None)
        self._queue = deque(ask for ask in self._queue if ask.link != link)
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
            self._enqueue(turn, Ask(pulling.link, audits=pulling.above > 0))
        for origin, wanted in list(self._wanted.items()):
            if self._replica.vector.get(origin, 0) >= wanted.head or wanted.link not in self._links:
                del self._wanted[origin]
            elif now_s >= wanted.since_s + self._config.catch_up_s:
                self._wanted[origin] = Wanted(wanted.head, wanted.link, now_s + self._config.sync_idle_s)
                if self._replica.reached_head(origin) < wanted.head:
                    self._enqueue(turn, Ask(wanted.link))
        if self._replica.release(turn.now) or now_s >= self._again_s:
            self._again_s = float("inf")
            for link in self._links:
                self._enqueue(turn, Ask(link))
            if self._replica.void_above:
                self.audit(turn)
        self._start_next(turn)

    def committed(self, turn: Turn, number: CommitNumber) -> None:
        """All up to this number is durable: what the last session brought counts now."""
        if self._awaited is not None and self._awaited <= number:
            self._awaited = None
            self._start_next(turn)

    def failed(self, now_s: float) -> None:
        """What was staged is lost, and with it the session: what it should have brought is asked for again."""
        self._resume = self._stored_resume()
        if self._pulling is not None or self._awaited is not None:
            self._again_s = now_s + self._config.sync_idle_s
        self._pulling = self._awaited = None

    def announced(self, turn: Turn, link: LinkId, heads: list[Head]) -> None:
        """A peer says what it holds."""
        node = self._links.get(link)
        if node is None:
            return
        known = self.peer_heads.setdefault(node, {})
        for author, lineage, head in heads:
            origin = (NodeId(author), lineage)
            if origin == self._replica.me and head > self._replica.own_head:
                self._settling.contradicted(turn)
            known[origin] = max(head, known.get(origin, 0))
            is_lacking = head > self._replica.vector.get(origin, 0) and origin not in self._replica.held_back
            if is_lacking and len(self._wanted) < ORIGINS_MAX:
                since_s = self._wanted[origin].since_s if origin in self._wanted else turn.now.mono_s
                self._wanted[origin] = Wanted(head, link, since_s)

    @property
    def peers(self) -> int:
        """How many peers are linked."""
        return len(self._links)

    def holders(self, origin: Origin, head: int) -> int:
        """How many peers have told us that they hold all of this origin up to `head`."""
        return sum(1 for heads in self.peer_heads.values() if heads.get(origin, 0) >= head)

    def lacking(self, origin: Origin, head: int) -> list[LinkId]:
        """Linked peers that have not told us yet that they hold all of this origin up to `head`."""
        links = self._links.items()
        return [link for link, node in links if self.peer_heads.get(node, {}).get(origin, 0) < head]

    def lag(self, node: NodeId) -> Lag:
        """How far apart this node and a peer are."""
        mine, theirs = self._replica.vector, self.peer_heads.get(node, {})
        behind = sum(max(0, head - mine.get(origin, 0)) for origin, head in theirs.items())
        ahead = sum(max(0, head - theirs.get(origin, 0)) for origin, head in mine.items())
        pulling = self._pulling
        percent = pulling.percent if pulling is not None and pulling.node == node else None
        return Lag(behind, ahead, self.last_sync_ms.get(node), percent)

    def on_chunk(self, turn: Turn, link: LinkId, chunk: Chunk) -> None:
        """Raises RemoteFault MALFORMED for a chunk out of order."""
        pulling = self._pulling
        if pulling is None or (pulling.link, pulling.session) != (link, chunk.session):
            return  # a session that we gave up
        if chunk.index != pulling.index or (chunk.cut is None) != (chunk.index > 0):
            raise RemoteFault(
                Fault.MALFORMED, f"chunk {chunk.index} of a sync session, expected {pulling.index}"
            )
        if chunk.cut is not None:
            pulling.cut = as_vector(chunk.cut)
            if self._resume is None or self._resume.lineage != chunk.lineage:
                pulling.floor = {}  # another store than the one that the floor was for
        pulling.progress_s = turn.now.mono_s
        pulling.index += 1
        for group in chunk.groups:
            origin = (NodeId(group.node), group.lineage)
            pulling.rows += self._replica.merge(turn, origin, group.rows, covered_too=pulling.above > 0)
            pulling.held_back = pulling.held_back or origin in self._replica.held_back
        if chunk.last:
            self._complete(turn, pulling)
        else:
            self._remember(turn, pulling, chunk)
            turn.say_after_commit((link,), More(chunk.session, pulling.index))
            self._tell_progress(turn, pulling)

    def _complete(self, turn: Turn, pulling: Pulling) -> None:
        if not pulling.above:
            self._cover(turn, pulling)
        turn.do_after_commit(Synced(pulling.node, pulling.rows))
        self._pulling = None
        self._awaited = turn.number if turn.rows else None
        self._start_next(turn)

    def _cover(self, turn: Turn, pulling: Pulling) -> None:
        self.announced(turn, pulling.link, as_heads(pulling.cut))
        if pulling.held_back:
            turn.log("sync.held_back", peer=pulling.node.hex()[:8])
        else:
            for origin, head in pulling.cut.items():
                self._replica.advance(turn, origin, head)
        if self._resume is not None:
            self._resume = None
            turn.stage(MarkRow(RESUME_MARK, b""))
        self.last_sync_ms[pulling.node] = turn.now.wall_ms

    def _remember(self, turn: Turn, pulling: Pulling, chunk: Chunk) -> None:
        """Store, with the rows, how far this walk has come: not past what was held back, that has to come again."""
        if chunk.position is None or pulling.above or pulling.held_back:
            return
        node, lineage, seq = chunk.position
        position = (NodeId(node), lineage)
        for origin, head in pulling.cut.items():
            if origin < position:
                pulling.floor[origin] = head
            elif origin == position:
                pulling.floor[origin] = min(seq, head)
        self._resume = Resume(pulling.node, chunk.lineage, as_heads(pulling.floor))
        turn.stage(MarkRow(RESUME_MARK, msgspec.msgpack.encode(self._resume)))

    def _tell_progress(self, turn: Turn, pulling: Pulling) -> None:
        if turn.now.mono_s >= pulling.told_s + self._config.sync_progress_s:
            pulling.told_s = turn.now.mono_s
            percent, rows = str(pulling.percent), str(pulling.rows)
            turn.log("sync.progress", peer=pulling.node.hex()[:8], percent=percent, rows=rows)

    def _stored_resume(self) -> Resume | None:
        stored = self._store.mark(RESUME_MARK)
        return msgspec.msgpack.decode(stored, type=Resume) if stored else None

    def _enqueue(self, turn: Turn, ask: Ask) -> None:
        waiting = {(other.link, other.audits) for other in self._queue}
        if ask.link in self._links and (ask.link, ask.audits) not in waiting:
            self._queue.append(ask)
        self._start_next(turn)

    def _start_next(self, turn: Turn) -> None:
        if self._pulling is not None or self._awaited is not None or not self._queue:
            return
        ask = self._queue.popleft()
        node, now_s = self._links[ask.link], turn.now.mono_s
        self._sessions += 1
        above = self._replica.void_above if ask.audits else 0
        pulling = self._pulling = Pulling(ask.link, node, self._sessions, now_s, now_s, above)
        pulling.started_at = dict(self._replica.vector)
        floor = None
        if self._resume is not None and self._resume.node == node and not above:
            pulling.floor = as_vector(self._resume.heads)
            floor = Floor(self._resume.lineage, self._resume.heads)
        vector, known = as_heads(self._replica.vector), self._replica.tops_of(node)
        turn.say((ask.link,), Pull(self._sessions, vector, ask.known_run, known, floor, above))
