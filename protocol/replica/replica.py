"""The replica: which version of each key this node holds, and how far it has each origin's entries.

Last write wins: an entry replaces another of its key iff its version `(hlc, node, lineage, seq)` is greater.
Rows are staged first and count only once their commit is durable: until then they are seen by later
decisions (the *overlay*) and by nobody else. So there are two coverages: the durable one, whose heads are the
`vector` that may be told, and the one that is `reached` when all staged rows are. A failed commit takes all
staged ones with it (see `Stage`), so rolling back means forgetting the overlay; sequence numbers are never
used again.

Invariants (checked by the simulator after every event):
S1 a dot names one entry for ever; S2 what is covered is held, or what supersedes it is, durably;
S3 an arriving entry whose dot is covered and absent is dead and dropped; S4 merging is idempotent,
commutative and associative; S5 an entry from the future is neither merged nor covered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from ..clock import COUNTER_BITS, HybridClock
from ..effects import Entry, HeadRow, MarkRow
from ..errors import Fault, Refused, RemoteFault
from ..keyspaces import SYSTEM_KEYSPACE, Keyspaces
from ..limits import (
    BATCH_BYTES_MAX,
    ORIGINS_MAX,
    RESERVED_MS,
    RESERVED_SEQS,
    SCAN_BYTES_MAX,
    SCAN_ITEMS_MAX,
    STAGED_BYTES_MAX,
)
from ..turn import Turn
from ..types import CommitNumber, Instant, LinkId, NodeId
from .coverage import NOTHING, Coverage
from .entry import Row, from_row, row_bytes, to_row, version_text
from .messages import Batch
from .store import DamagedRow, Origin, Slot, Store
from .tally import Change, Tally
from .walk import Walk

HLC_MARK = "hlc"
TALLY_MARK = "tally"
LINEAGE_MARK = "lineage"
RESERVED_MARK = "reserved"
NEVER_MS = 1 << 63

STEP_BACK_MS = 1000
"""Cluster time that goes back by less is measuring noise."""


class Page(msgspec.Struct, frozen=True):
    """A piece of a scan; `next` continues it, None: that was all."""

    items: list[Entry]
    next: bytes | None


class HeldBack(msgspec.Struct, frozen=True):
    """The first entry of an origin that lies in the future: nothing from it on is covered."""

    seq: int
    hlc: int


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Numbers and stamps up to here are reserved: a later start begins behind them."""

    lineage: int = 0
    seq: int = 0
    hlc: int = 0

    @classmethod
    def decode(cls, stored: bytes | None) -> Block:
        return msgspec.msgpack.decode(stored, type=cls) if stored else cls()


class Staged(msgspec.Struct, frozen=True):
    """An entry on its way to the store."""

    number: CommitNumber
    entry: Entry


class Pending(msgspec.Struct):
    """What becomes true when one commit is durable."""

    number: CommitNumber
    change: Change
    slots: list[Slot]
    covered: dict[Origin, Coverage]
    own: list[Entry]
    reserved: Block | None = None
    size: int = 0
    expires_ms: int = NEVER_MS
    """When the first entry expires that it brings or replaces: no sweep passes that time before it is settled."""


class Replica:
    """`me` is the origin of what this node writes now."""

    def __init__(self, me: Origin, store: Store, clock: HybridClock) -> None:
        self.me, self._store, self._clock = me, store, clock
        self._reserved = self._durable_block = Block.decode(store.mark(RESERVED_MARK))
        self.durable = store.coverage()
        """What is covered of each origin: what may be told of, and (`reached`) what will be when all is stored."""
        self.reached = dict(self.durable)
        self.vector = {origin: coverage.head for origin, coverage in self.durable.items()}
        self._said = {me[1]: self.vector.get(me, 0)}
        """Our entries up to here were sent, or are left to sync; by lineage."""
        self._next_seq = self.vector.get(me, 0) + 1
        if self._reserved.lineage == me[1]:  # entries of the last block may have been answered, and lost
            self._next_seq = max(self._next_seq, self._reserved.seq + 1)
            clock.observe(self._reserved.hlc)
        self._overlay: dict[Slot, Staged] = {}
        self._pending: deque[Pending] = deque()
        self._staged_bytes = 0
        self._current: Pending | None = None
        self.tally = Tally(store.mark(TALLY_MARK))
        self._void: dict[Origin, int] = {}
        self.held_back: dict[Origin, HeldBack] = {}
        """Origins of which something lies too far in the future to be merged (quarantine)."""
        self.keyspaces = Keyspaces()
        """The definitions among what is stored."""
        for entry in store.scan(SYSTEM_KEYSPACE, b"", None):
            self.keyspaces.note(entry.key, entry.value)
        self.walks: dict[LinkId, Walk] = {}
        """Walks under way: they are told of every replacement before it is committed."""

    # What a client asks for

    @property
    def lineage(self) -> int:
        """Ours; it also names this store."""
        return self.me[1]

    def tops_of(self, node: NodeId) -> list[tuple[int, int]]:
        """(lineage, seq): the highest that is stored of each lineage of a node, or covered, be it only staged."""
        return [
            (origin[1], max(coverage.top, self._store.top(origin)))
            for origin, coverage in sorted(self.reached.items())
            if origin[0] == node
        ]

    def begin_lineage(self, turn: Turn, lineage: int) -> None:
        """Number our entries anew: nobody can have an entry of this lineage yet."""
        self.me = (self.me[0], lineage)
        self._next_seq = 1
        self._commit_of(turn)
        turn.stage(MarkRow(LINEAGE_MARK, lineage.to_bytes(8, "big")))

    @property
    def own_head(self) -> int:
        """Our own highest entry that is durable."""
        return self.vector.get(self.me, 0)

    def put(self, turn: Turn, slot: Slot, value: bytes | None, expires_ms: int) -> Entry:
        """Stage a write of this node (`value` None: a delete)."""
        current = self.newest(slot)
        if current is not None and not self.is_void(current):
            self._clock.observe(current.hlc)
        return self._author(turn, slot, value, self._clock.tick(turn.now), expires_ms)

    def record(self, turn: Turn, slot: Slot, value: bytes | None, stamp: int) -> None:
        """Stage what voters decided, under their stamp: it spreads to all members like any write of this node."""
        self._clock.observe(stamp)
        self._author(turn, slot, value, stamp, 0)

    def is_reserved(self, entry: Entry) -> bool:
        """Whether no later start will give out the number or the stamp of this entry of ours again."""
        block = self._durable_block
        return entry.lineage == block.lineage and entry.seq <= block.seq and entry.hlc <= block.hlc

    def reserve(self, turn: Turn) -> None:
        """Have a block of numbers and stamps ahead, durably: staged when half of the last one is used."""
        block, time_ms = self._reserved, self._clock.time.time_ms(turn.now)
        is_ample = block.lineage == self.me[1] and block.seq >= self._next_seq + RESERVED_SEQS // 2
        if is_ample and block.hlc >= (time_ms + RESERVED_MS // 2) << COUNTER_BITS:
            return
        # From the clock, not from the last stamp: quick restarts would add up to a stamp that peers hold back.
        hlc = max((time_ms + RESERVED_MS) << COUNTER_BITS, self._clock.last + RESERVED_SEQS)
        self._reserved = Block(self.me[1], self._next_seq + RESERVED_SEQS, hlc)
        self._commit_of(turn).reserved = self._reserved
        turn.stage(MarkRow(RESERVED_MARK, msgspec.msgpack.encode(self._reserved)))

    def refuse(self, slot: Slot, if_version: str | None, if_absent: bool, time_ms: int) -> Refused | None:
        """Why a write may not happen, judged by what is staged or stored here."""
        if self._is_behind:
            text = "the disk is slower than the writers, and too much waits for it"
            return Refused("overloaded", text, "try again a little later", retryable=True)
        if if_version is None and not if_absent:
            return None
        current = self.newest(slot)
        seen = version_text(current) if current is not None and current.live_at(time_ms) else None
        if if_absent and seen is not None:
            return Refused(
                "exists", f"the key exists with version {seen}", "leave out if_absent to overwrite it"
            )
        if if_version is not None and seen != if_version:
            found = f"has version {seen}" if seen else "does not exist"
            return Refused("conflict", f"the key {found}, not {if_version}", "read it again and decide anew")
        return None

    def is_durable(self, entry: Entry) -> bool:
        """Whether one of our own entries is stored."""
        return entry.seq <= self.vector.get((entry.node, entry.lineage), 0)

    def newest(self, slot: Slot) -> Entry | None:
        """Stored or staged, deletes included."""
        staged = self._overlay.get(slot)
        return staged.entry if staged is not None else self._stored(slot)

    def exists(self, slot: Slot, time_ms: int) -> bool:
        newest = self.newest(slot)
        return newest is not None and newest.live_at(time_ms)

    def is_staged(self, slot: Slot) -> bool:
        return slot in self._overlay

    def staged_in(self, keyspace: int) -> list[Entry]:
        """What is on its way to the store in one keyspace. It looks at all that is: not for every request."""
        return [staged.entry for slot, staged in self._overlay.items() if slot[0] == keyspace]

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

    def walk(self, reader: LinkId, floor: dict[Origin, int], above: int = 0) -> Walk:
        """Begin to read all that a peer lacks; a walk for the same reader takes the place of the last."""
        walk = Walk(self.vector, floor, self.reached, self._overlay, above)
        self.walks[reader] = walk
        return walk

    def merge(self, turn: Turn, origin: Origin, rows: Iterable[Row], *, covered_too: bool = False) -> int:
        """Stage what is newer than ours; how many that were; see `held_back`. Raises RemoteFault QUOTA.

        `covered_too`: also what we cover and do not hold, for what superseded it was taken back.

        Its origin is known even before its head moves: what it wrote may supersede what others wrote.
        """
        self.advance(turn, origin, 0)
        covered = self.reached[origin]
        merged = 0
        for row in rows:
            if covered.has(row.seq) and not covered_too:
                continue
            entry = from_row(origin, row)
            if not self.is_void(entry):
                if self._clock.is_ahead(entry.hlc, turn.now):
                    self._hold_back(turn, origin, entry)
                    break  # whatever its author wrote later is further ahead still
                self._clock.observe(entry.hlc)
            current = self.newest((entry.keyspace, entry.key))
            if current is None or self._beats(entry, current):
                self._stage(turn, entry, current)
                merged += 1
        return merged

    def merge_batch(self, turn: Turn, author: NodeId, batch: Batch) -> bool:
        """Take in a batch; False when the head stays behind: entries before it are missing, or the disk is slow."""
        if self._is_behind:
            return False
        origin = (author, batch.lineage)
        self.merge(turn, origin, batch.rows)
        held = self.held_back.get(origin)
        if held is not None and held.seq <= batch.last:
            return False  # what the held entry supersedes in this batch is not among its rows
        self._cover(turn, origin, batch.first, batch.last)
        return self.reached_head(origin) >= batch.last

    def void(self, node: NodeId, bounds: Iterable[tuple[int, int]]) -> bool:
        """A node says from which stamp on its lineages count for nothing (see mending.py). Whether that is news."""
        before = dict(self._void)
        for lineage, hlc in bounds:
            origin = (node, lineage)
            self._void[origin] = min(hlc, self._void.get(origin, hlc))
            held = self.held_back.get(origin)
            if held is not None and held.hlc > self._void[origin]:
                self.held_back[origin] = HeldBack(held.seq, 0)  # it may come now
        return self._void != before

    def void_only(self, node: NodeId, bounds: Iterable[tuple[int, int]]) -> None:
        """As `void`, and whatever the node said before does not count: it was never stored."""
        self._void = {origin: hlc for origin, hlc in self._void.items() if origin[0] != node}
        self.void(node, bounds)

    @property
    def void_above(self) -> int:
        """The earliest stamp above which something is void; 0: nothing is."""
        return min(self._void.values(), default=0)

    def is_void(self, entry: Entry) -> bool:
        """Whether its author has taken it back. What voters decided is not its author's to take back."""
        bound = self._void.get((entry.node, entry.lineage)) if self._void else None
        return bound is not None and entry.hlc > bound and not self.keyspaces.has_voters(entry.keyspace)

    def own_lineages(self) -> list[int]:
        return sorted({self.lineage, *(lineage for node, lineage in self.reached if node == self.me[0])})

    def own_after(self, hlc: int) -> list[Entry]:
        """Our own current entries with later stamps, staged ones too, in the order in which they were written."""
        origins = [(self.me[0], lineage) for lineage in self.own_lineages()]
        stored = [entry for origin in origins for entry in self._store.by_origin(origin, 0)]
        current = [entry for entry in stored if (entry.keyspace, entry.key) not in self._overlay]
        current += [staged.entry for staged in self._overlay.values() if staged.entry.node == self.me[0]]
        late = [entry for entry in current if entry.hlc > hlc and not self.is_void(entry)]
        late = [entry for entry in late if not self.keyspaces.has_voters(entry.keyspace)]
        return sorted(late, key=lambda entry: (entry.hlc, entry.lineage, entry.seq))

    def advance(self, turn: Turn, origin: Origin, head: int) -> None:
        """All up to `head` is staged here, or superseded by what is. Raises RemoteFault QUOTA."""
        self._cover(turn, origin, 0, head)

    def reached_head(self, origin: Origin) -> int:
        return self.reached.get(origin, NOTHING).head

    # Commits

    def seal(self, turn: Turn) -> None:
        """Add what must be stored beside the entries of this turn; called once, at its end."""
        if self._current is None:
            return
        pending, self._current = self._current, None
        for (node, lineage), coverage in pending.covered.items():
            turn.stage(HeadRow(node, lineage, coverage.head, coverage.beyond))
        if pending.slots:
            turn.stage(MarkRow(HLC_MARK, self._clock.last.to_bytes(8, "big")))
            turn.stage(MarkRow(TALLY_MARK, self.tally.encode()))
        self._pending.append(pending)

    def committed(self, number: CommitNumber) -> tuple[list[Entry], dict[Origin, int]]:
        """All staged up to `number` is durable. Returns our own entries among it and the heads that moved."""
        own: list[Entry] = []
        covered: dict[Origin, Coverage] = {}
        while self._pending and self._pending[0].number <= number:
            pending = self._pending.popleft()
            self._staged_bytes -= pending.size
            self.tally.commit(pending.change)
            covered.update(pending.covered)
            self._durable_block = pending.reserved or self._durable_block
            own += pending.own
            for slot in pending.slots:
                self._settle(slot, pending.number)
        self.durable.update(covered)
        heads = {origin: coverage.head for origin, coverage in covered.items()}
        self.vector.update(heads)
        return own, heads

    def failed(self) -> None:
        """Nothing of what is staged was stored."""
        self.tally.roll_back()
        self._staged_bytes = 0
        self._reserved = self._durable_block
        self._overlay.clear()
        self._pending.clear()
        self.reached = dict(self.durable)

    def batches(self, own: list[Entry], *, confirm: bool = False) -> list[Batch]:
        """What other members must hear of our entries that became durable, in pieces that fit a frame.

        `confirm`: they shall say at once that they hold them.
        Their ranges are contiguous with what was said before: numbers that were never stored are covered.
        """
        batches: list[Batch] = []
        for lineage in sorted({entry.lineage for entry in own}):
            batches += self._batches_of(lineage, [e for e in own if e.lineage == lineage], confirm)
        return batches

    def _batches_of(self, lineage: int, own: list[Entry], confirm: bool) -> list[Batch]:
        newest = {(entry.keyspace, entry.key): entry for entry in own}
        batches: list[Batch] = []
        first, rows, size = self._said.get(lineage, 0) + 1, list[Row](), 0
        for entry in sorted(newest.values(), key=lambda entry: entry.seq):
            if rows and size + row_bytes(entry) > BATCH_BYTES_MAX:
                batches.append(Batch(lineage, first, rows[-1].seq, rows, confirm))
                first, rows, size = rows[-1].seq + 1, [], 0
            rows.append(to_row(entry))
            size += row_bytes(entry)
        self._said[lineage] = own[-1].seq
        return [*batches, Batch(lineage, first, own[-1].seq, rows, confirm)]

    def sweep(self, time_ms: int) -> None:
        """Take entries that expired by now out of the digest; they stay as tombstones.

        Not those of a commit under way: what a commit changes is reckoned once, when it is staged. When cluster
        time was corrected backwards, those that are alive again count again.
        """
        swept_ms = self.tally.swept_ms
        under_way = [*self._pending, *filter(None, [self._current])]
        time_ms = min([time_ms, *(pending.expires_ms - 1 for pending in under_way)])
        if time_ms > swept_ms:
            for entry in self._store.expiring(swept_ms, time_ms):
                self.tally.expire(entry)
        elif time_ms < swept_ms - STEP_BACK_MS and not under_way:
            for entry in self._store.expiring(time_ms, swept_ms):
                self.tally.revive(entry)
        else:
            return
        self.tally.swept_ms = time_ms

    def release(self, now: Instant) -> bool:
        """Whether entries that were held back may come now: they want to be pulled again."""
        due = [origin for origin, held in self.held_back.items() if not self._clock.is_ahead(held.hlc, now)]
        for origin in due:
            del self.held_back[origin]
        return bool(due)

    @property
    def _is_behind(self) -> bool:
        """What is staged has to be bounded: a disk may be slower than clients and peers together."""
        return self._staged_bytes > STAGED_BYTES_MAX

    def _hold_back(self, turn: Turn, origin: Origin, entry: Entry) -> None:
        """An entry from the future: it stays where it is, uncovered here, until its time comes."""
        held = self.held_back.get(origin)
        if held is None:
            turn.log("entry.held_back", author=entry.node.hex()[:8], why="its stamp lies in the future")
        if held is None or entry.seq < held.seq:
            self.held_back[origin] = HeldBack(entry.seq, entry.hlc)

    def _cover(self, turn: Turn, origin: Origin, first: int, last: int) -> None:
        if origin == self.me:
            last = min(last, self._next_seq - 1)  # nobody else says what we have written
        if last < first:
            return
        before = self.reached.get(origin)
        if before is None and len(self.reached) >= ORIGINS_MAX:
            raise RemoteFault(Fault.QUOTA, f"more than {ORIGINS_MAX} origins")
        after = (before or NOTHING).with_range(first, last)
        if after != before:
            self._commit_of(turn).covered[origin] = self.reached[origin] = after

    def _commit_of(self, turn: Turn) -> Pending:
        if self._current is None:
            self._current = Pending(turn.number, Change(), [], {}, [])
        return self._current

    def _author(self, turn: Turn, slot: Slot, value: bytes | None, hlc: int, expires_ms: int) -> Entry:
        entry = Entry(*slot, hlc, *self.me, self._next_seq, value, expires_ms)
        self._next_seq += 1
        self._stage(turn, entry, self.newest(slot))
        pending = self._commit_of(turn)
        pending.own.append(entry)
        pending.covered[self.me] = self.reached[self.me] = Coverage(entry.seq)
        return entry

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
        if slot[0] == SYSTEM_KEYSPACE:
            entry = self._stored(slot)
            self.keyspaces.note(slot[1], entry.value if entry is not None else None)

    def _beats(self, entry: Entry, other: Entry) -> bool:
        """Last write wins; what was taken back loses against everything else."""
        voids = self.is_void(entry), self.is_void(other)
        return entry.version > other.version if voids[0] == voids[1] else voids[1]

    def _stored(self, slot: Slot) -> Entry | None:
        try:
            return self._store.get(*slot)
        except DamagedRow:
            return None  # any intact version is better than a damaged one
