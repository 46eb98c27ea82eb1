"""The replica: which version of each key this node holds, and how far it has each origin's entries.

Last write wins: an entry replaces another of its key iff its version `(hlc, node, lineage, seq)` is greater.
Rows are staged first and count only once their commit is durable: until then they are seen by later
decisions (the *overlay*) and by nobody else. So there are two vectors: `vector`, what may be said, and
`reached`, what is staged. A failed commit takes all staged ones with it (see `Stage`), so rolling back
means forgetting the overlay; sequence numbers are never used again.

Invariants (checked by the simulator after every event):
S1 a dot names one entry for ever; S2 vector[o] >= s means that (o, s) or what supersedes it is held, durably;
S3 an arriving entry whose dot is covered and absent is dead and dropped; S4 merging is idempotent,
commutative and associative.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from ..clock import HybridClock
from ..effects import Entry, HeadRow, MarkRow
from ..errors import Fault, Refused, RemoteFault
from ..limits import BATCH_BYTES_MAX, ORIGINS_MAX, SCAN_BYTES_MAX, SCAN_ITEMS_MAX, STAGED_BYTES_MAX
from ..turn import Turn
from ..types import CommitNumber, LinkId, NodeId, Payload
from ..wire.fields import Counter
from ..wire.registry import Route, Stream
from .entry import Row, from_row, row_bytes, to_row, version_text
from .store import DamagedRow, Origin, Slot, Store
from .tally import Change, Tally
from .walk import Walk

HLC_MARK = "hlc"
TALLY_MARK = "tally"
NEVER_MS = 1 << 63


class Batch(Payload, frozen=True):
    """Entries `first` to `last` of one lineage of its author: what of them is not superseded."""

    lineage: Counter
    first: Counter
    last: Counter
    rows: list[Row]


ROUTES = (Route(20, Batch, Stream.GOSSIP, bulk=True),)


class Page(msgspec.Struct, frozen=True):
    """A piece of a scan; `next` continues it, None: that was all."""

    items: list[Entry]
    next: bytes | None


class Staged(msgspec.Struct, frozen=True):
    """An entry on its way to the store."""

    number: CommitNumber
    entry: Entry


class Pending(msgspec.Struct):
    """What becomes true when one commit is durable."""

    number: CommitNumber
    change: Change
    slots: list[Slot]
    heads: dict[Origin, int]
    own: list[Entry]
    size: int = 0
    expires_ms: int = NEVER_MS
    """When the first entry expires that it brings or replaces: no sweep passes that time before it is settled."""


class Replica:
    """`me` is the origin of what this node writes in this run."""

    def __init__(self, me: Origin, store: Store, clock: HybridClock) -> None:
        self._me, self._store, self._clock = me, store, clock
        self.vector = store.heads()
        self.reached = dict(self.vector)
        self._next_seq = self.vector.get(me, 0) + 1
        self._said = self._next_seq - 1  # our entries up to here were sent, or are left to sync
        self._overlay: dict[Slot, Staged] = {}
        self._pending: deque[Pending] = deque()
        self._staged_bytes = 0
        self._current: Pending | None = None
        self.tally = Tally(store.mark(TALLY_MARK))
        self.walks: dict[LinkId, Walk] = {}
        """Walks under way: they are told of every replacement before it is committed."""

    # What a client asks for

    @property
    def own_head(self) -> int:
        """Our own highest entry that is durable."""
        return self.vector.get(self._me, 0)

    def put(self, turn: Turn, slot: Slot, value: bytes | None, expires_ms: int) -> Entry:
        """Stage a write of this node (`value` None: a delete)."""
        keyspace, key = slot
        hlc = self._clock.tick(turn.now.wall_ms)
        entry = Entry(keyspace, key, hlc, *self._me, self._next_seq, value, expires_ms)
        self._next_seq += 1
        self._stage(turn, entry, self._newest(slot))
        pending = self._commit_of(turn)
        pending.own.append(entry)
        pending.heads[self._me] = self.reached[self._me] = entry.seq
        return entry

    def refuse(self, slot: Slot, if_version: str | None, if_absent: bool, time_ms: int) -> Refused | None:
        """Why a write may not happen, judged by what is staged or stored here."""
        if self._is_behind:
            text = "the disk is slower than the writers, and too much waits for it"
            return Refused("overloaded", text, "try again a little later", retryable=True)
        if if_version is None and not if_absent:
            return None
        current = self._newest(slot)
        seen = version_text(current) if current is not None and current.live_at(time_ms) else None
        if if_absent and seen is not None:
            return Refused(
                "exists", f"the key exists with version {seen}", "leave out if_absent to overwrite it"
            )
        if if_version is not None and seen != if_version:
            found = f"has version {seen}" if seen else "does not exist"
            return Refused("conflict", f"the key {found}, not {if_version}", "read it again and decide anew")
        return None

    def exists(self, slot: Slot, time_ms: int) -> bool:
        newest = self._newest(slot)
        return newest is not None and newest.live_at(time_ms)

    def is_staged(self, slot: Slot) -> bool:
        return slot in self._overlay

    def read(self, slot: Slot, time_ms: int) -> Entry | None:
        """The committed live entry. Raises DamagedRow."""
        entry = self._store.get(*slot)
        return entry if entry is not None and entry.live_at(time_ms) else None

    def scan(self, keyspace: int, prefix: bytes, after: bytes | None, limit: int, time_ms: int) -> Page:
        """Committed live entries in the order of their keys. Raises DamagedRow."""
        limit = max(1, min(limit, SCAN_ITEMS_MAX))
        items: list[Entry] = []
        size = 0
        for entry in self._store.scan(keyspace, prefix, after):
            if not entry.live_at(time_ms):
                continue
            size += row_bytes(entry)
            if items and (len(items) == limit or size > SCAN_BYTES_MAX):
                return Page(items, items[-1].key)
            items.append(entry)
        return Page(items, None)

    # What peers ask for and send

    def walk(self, reader: LinkId, floor: dict[Origin, int]) -> Walk:
        """Begin to read all that a peer lacks; a walk for the same reader takes the place of the last."""
        walk = Walk(self.vector, floor, self.reached, self._overlay)
        self.walks[reader] = walk
        return walk

    def merge(self, turn: Turn, origin: Origin, rows: Iterable[Row]) -> int:
        """Stage what is newer than ours; how many that were. Raises RemoteFault QUOTA.

        Its origin is known even before its head moves: what it wrote may supersede what others wrote.
        """
        self.advance(turn, origin, 0)
        covered = self.reached[origin]
        merged = 0
        for row in rows:
            if row.seq <= covered:
                continue
            entry = from_row(origin, row)
            self._clock.observe(entry.hlc)
            current = self._newest((entry.keyspace, entry.key))
            if current is None or current.version < entry.version:
                self._stage(turn, entry, current)
                merged += 1
        return merged

    def merge_batch(self, turn: Turn, author: NodeId, batch: Batch) -> bool:
        """Take in a batch; False when the head stays: entries before it are missing, or the disk is behind."""
        if self._is_behind:
            return False
        origin = (author, batch.lineage)
        self.merge(turn, origin, batch.rows)
        if batch.first > self.reached.get(origin, 0) + 1:
            return False
        self.advance(turn, origin, batch.last)
        return True

    def advance(self, turn: Turn, origin: Origin, head: int) -> None:
        """All up to `head` is staged here, or superseded by what is. Raises RemoteFault QUOTA."""
        if origin not in self.reached and len(self.reached) >= ORIGINS_MAX:
            raise RemoteFault(Fault.QUOTA, f"more than {ORIGINS_MAX} origins")
        if head > self.reached.get(origin, -1):
            self.reached[origin] = head
            self._commit_of(turn).heads[origin] = head
            if origin == self._me:
                self._next_seq = max(self._next_seq, head + 1)

    # Commits

    def seal(self, turn: Turn) -> None:
        """Add what must be stored beside the entries of this turn; called once, at its end."""
        if self._current is None:
            return
        pending, self._current = self._current, None
        for (node, lineage), head in pending.heads.items():
            turn.stage(HeadRow(node, lineage, head))
        if pending.slots:
            turn.stage(MarkRow(HLC_MARK, self._clock.last.to_bytes(8, "big")))
            turn.stage(MarkRow(TALLY_MARK, self.tally.encode()))
        self._pending.append(pending)

    def committed(self, number: CommitNumber) -> tuple[list[Entry], dict[Origin, int]]:
        """All staged up to `number` is durable. Returns our own entries among it and the heads that moved."""
        own: list[Entry] = []
        heads: dict[Origin, int] = {}
        while self._pending and self._pending[0].number <= number:
            pending = self._pending.popleft()
            self._staged_bytes -= pending.size
            self.tally.commit(pending.change)
            heads.update(pending.heads)
            own += pending.own
            for slot in pending.slots:
                self._settle(slot, pending.number)
        self.vector.update(heads)
        return own, heads

    def failed(self) -> None:
        """Nothing of what is staged was stored."""
        self.tally.roll_back()
        self._staged_bytes = 0
        self._overlay.clear()
        self._pending.clear()
        self.reached = dict(self.vector)

    def batches(self, own: list[Entry]) -> list[Batch]:
        """What other members must hear of our entries that became durable, in pieces that fit a frame.

        Their ranges are contiguous with what was said before: numbers that were never stored are covered.
        """
        newest = {(entry.keyspace, entry.key): entry for entry in own}
        entries = sorted(newest.values(), key=lambda entry: entry.seq)
        batches: list[Batch] = []
        first, rows, size = self._said + 1, list[Row](), 0
        for entry in entries:
            if rows and size + row_bytes(entry) > BATCH_BYTES_MAX:
                batches.append(Batch(self._me[1], first, rows[-1].seq, rows))
                first, rows, size = rows[-1].seq + 1, [], 0
            rows.append(to_row(entry))
            size += row_bytes(entry)
        if own:
            batches.append(Batch(self._me[1], first, own[-1].seq, rows))
            self._said = own[-1].seq
        return batches

    def sweep(self, time_ms: int) -> None:
        """Take entries that expired by now out of the digest; they stay as tombstones.

        Not those of a commit under way: what a commit changes is reckoned once, when it is staged.
        """
        time_ms = min([time_ms, *(pending.expires_ms - 1 for pending in self._pending)])
        if time_ms <= self.tally.swept_ms:
            return
        for entry in self._store.expiring(self.tally.swept_ms, time_ms):
            self.tally.expire(entry)
        self.tally.swept_ms = time_ms

    @property
    def _is_behind(self) -> bool:
        """What is staged has to be bounded: a disk may be slower than clients and peers together."""
        return self._staged_bytes > STAGED_BYTES_MAX

    def _commit_of(self, turn: Turn) -> Pending:
        if self._current is None:
            self._current = Pending(turn.number, Change(), [], {}, [])
        return self._current

    def _stage(self, turn: Turn, entry: Entry, current: Entry | None) -> None:
        slot = (entry.keyspace, entry.key)
        if current is not None:
            for walk in self.walks.values():
                walk.replaced(current)
        pending = self._commit_of(turn)
        pending.change += self.tally.replace(current, entry)
        for touched in (current, entry):
            if touched is not None and touched.expires_ms and self.tally.counts(touched):
                pending.expires_ms = min(pending.expires_ms, touched.expires_ms)
        pending.size += row_bytes(entry)
        self._staged_bytes += row_bytes(entry)
        pending.slots.append(slot)
        self._overlay[slot] = Staged(turn.number, entry)
        turn.stage(entry)

    def _settle(self, slot: Slot, number: CommitNumber) -> None:
        staged = self._overlay.get(slot)
        if staged is not None and staged.number == number:
            del self._overlay[slot]

    def _newest(self, slot: Slot) -> Entry | None:
        staged = self._overlay.get(slot)
        return staged.entry if staged is not None else self._stored(slot)

    def _stored(self, slot: Slot) -> Entry | None:
        try:
            return self._store.get(*slot)
        except DamagedRow:
            return None  # any intact version is better than a damaged one
