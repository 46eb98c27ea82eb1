"""What a recorded store is asked to store, and what it must then hold: both follow from the seed alone.

The rows are those of a replica: entries of several origins (small, large, deletes, some that expire), heads and
ranges beyond them, marks, records. Every commit carries its number in a mark, so a store says by itself up to which
commit it is, and must then be exactly what the commits up to that one make.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from peernode.store.reader import Reader
from protocol.effects import Entry, HeadRow, MarkRow, RecordRow, Stage, StoreRow
from protocol.limits import VALUE_BYTES_MAX
from protocol.replica.coverage import NOTHING, Coverage
from protocol.replica.store import Origin, Slot
from protocol.types import CommitNumber, NodeId

KEYSPACES = (1, (1 << 63) - 1)
KEYS = 60
ORIGINS: tuple[Origin, ...] = tuple(
    (NodeId(bytes([number]) * 32), lineage) for number, lineage in ((1, 7), (2, 1), (2, 2), (3, 1))
)
COMMIT_MARK = "commit"
MARKS = (COMMIT_MARK, "hlc", "tally", "run", "lineage")
KINDS = ("member", "ticket")


@dataclass(slots=True)
class Contents:
    """All that a store holds."""

    entries: dict[Slot, Entry] = field(default_factory=dict)
    coverage: dict[Origin, Coverage] = field(default_factory=dict)
    marks: dict[str, bytes] = field(default_factory=dict)
    records: dict[tuple[str, bytes], bytes] = field(default_factory=dict)

    @property
    def commit(self) -> int:
        """The number of the last commit in it."""
        return int.from_bytes(self.marks.get(COMMIT_MARK, b""), "big")

    def after(self, stage: Stage) -> Contents:
        """What this becomes with one more commit."""
        made = Contents(dict(self.entries), dict(self.coverage), dict(self.marks), dict(self.records))
        for row in stage.rows:
            match row:
                case Entry():
                    made.entries[row.keyspace, row.key] = row
                    made.coverage.setdefault((row.node, row.lineage), NOTHING)
                case HeadRow():
                    made.coverage[row.node, row.lineage] = Coverage(row.head, row.beyond)
                case MarkRow():
                    made.marks[row.name] = row.value
                case RecordRow(kind, key, None):
                    made.records.pop((kind, key), None)
                case RecordRow(kind, key, bytes(value)):
                    made.records[kind, key] = value
        return made

    def unlike(self, other: Contents) -> list[str]:
        """Where the two differ, in words."""
        return [
            f"{part} {key!r}"
            for part in ("entries", "coverage", "marks", "records")
            for key in sorted(getattr(self, part).keys() | getattr(other, part).keys())
            if getattr(self, part).get(key) != getattr(other, part).get(key)
        ]


def read(reader: Reader) -> Contents:
    """As the product reads, by key and by origin, which are two indexes. Raises DamagedRow or IndexesDiffer."""
    coverage = reader.coverage()
    by_key = [entry for keyspace in KEYSPACES for entry in reader.scan(keyspace, b"", None)]
    by_origin = [entry for origin in coverage for entry in reader.by_origin(origin, 0)]
    if sorted(by_key, key=dot) != sorted(by_origin, key=dot):
        raise IndexesDiffer("entries by key and by origin are not the same")
    marks = {name: value for name in MARKS if (value := reader.mark(name)) is not None}
    records = {(kind, key): value for kind in KINDS for key, value in reader.records(kind).items()}
    return Contents({(entry.keyspace, entry.key): entry for entry in by_key}, coverage, marks, records)


def dot(entry: Entry) -> tuple[bytes, int, int]:
    return (entry.node, entry.lineage, entry.seq)


class IndexesDiffer(Exception):
    """A row is reached one way and not the other."""


class Plan:
    """The commits of one seed, numbered from 1."""

    def __init__(self, seed: int, commits: int) -> None:
        self._random = Random(seed)
        self._coverage = dict.fromkeys(ORIGINS, NOTHING)
        self._hlc = 1 << 40
        self.stages = tuple(self._stage(number) for number in range(1, commits + 1))

    @cached_property
    def contents(self) -> tuple[Contents, ...]:
        """What a store holds after each number of commits; first the empty one."""
        made = [Contents()]
        for stage in self.stages:
            made.append(made[-1].after(stage))
        return tuple(made)

    def _stage(self, number: int) -> Stage:
        kinds = {self._own: 8, self._batch: 6, self._batch_beyond_a_gap: 2, self._chunk: 1, self._records: 4}
        (kind,) = self._random.choices(list(kinds), list(kinds.values()))
        rows = (*kind(), MarkRow(COMMIT_MARK, number.to_bytes(8, "big")))
        return Stage(CommitNumber(number), rows)

    def _own(self) -> Iterator[StoreRow]:
        """Writes of this node, as a client's requests bring them."""
        yield from self._entries(ORIGINS[0], self._random.randint(1, 3))
        yield MarkRow("hlc", self._hlc.to_bytes(8, "big"))
        yield MarkRow("tally", self._random.randbytes(40))

    def _batch(self) -> Iterator[StoreRow]:
        """What another node wrote, next in its order: a gap may close."""
        yield from self._entries(self._random.choice(ORIGINS[1:]), self._random.randint(1, 12))
        yield MarkRow("hlc", self._hlc.to_bytes(8, "big"))

    def _batch_beyond_a_gap(self) -> Iterator[StoreRow]:
        yield from self._entries(self._random.choice(ORIGINS[1:]), 3, skipped=self._random.randint(1, 4))

    def _chunk(self) -> Iterator[StoreRow]:
        """Of a sync session: many rows, and the head only with the last chunk."""
        *rows, _ = self._entries(self._random.choice(ORIGINS[1:]), 120)
        yield from rows

    def _records(self) -> Iterator[StoreRow]:
        key = bytes([self._random.randrange(8)])
        yield RecordRow(
            self._random.choice(KINDS), key, self._random.choice([None, self._random.randbytes(400)])
        )
        yield MarkRow(self._random.choice(["run", "lineage"]), self._random.randbytes(8))

    def _entries(self, origin: Origin, count: int, skipped: int = 0) -> Iterator[StoreRow]:
        """New entries of an origin, and last its head."""
        covered = self._coverage[origin]
        first = (covered.top if skipped or not covered.beyond else covered.head) + 1 + skipped
        for seq in range(first, first + count):
            if covered.has(seq):
                continue
            yield self._entry(origin, seq)
        self._coverage[origin] = covered.with_range(first, first + count - 1)
        yield HeadRow(*origin, self._coverage[origin].head, self._coverage[origin].beyond)

    def _entry(self, origin: Origin, seq: int) -> Entry:
        random = self._random
        self._hlc += random.randint(1, 1000)
        slot = (random.choice(KEYSPACES), b"key/%d" % random.randrange(KEYS))
        value = None if random.random() < 0.1 else random.randbytes(self._value_bytes())
        return Entry(*slot, self._hlc, *origin, seq, value, random.choice([0, 0, 0, self._hlc >> 8]))

    def _value_bytes(self) -> int:
        """Mostly small, sometimes several pages, rarely the most that is allowed."""
        ranges = [(0, 300), (1000, 12_000), (20_000, 60_000), (VALUE_BYTES_MAX, VALUE_BYTES_MAX)]
        return self._random.randint(*self._random.choices(ranges, [70, 22, 7, 1])[0])
