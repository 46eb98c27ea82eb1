"""One consistent cut of a replica, read piece by piece while writes go on.

A walk goes through the index of current entries by (origin, seq), behind the reader's vector. The index is
live: an entry may be superseded before the walk comes to it, and what superseded it may lie where the walk
has already been. So whoever stages a replacement tells the walk (`replaced`), which remembers the slot if the
old entry is still ahead; slots that were staged when the walk began are remembered too.
They are read again at the end. Then every entry of the cut was sent, or what superseded it was, and only then
may the vector of the cut go along. (A vector read at the end, or sent over a half-walked index, loses rows
for ever.)
"""

from __future__ import annotations

from collections.abc import Iterable

from ..effects import Entry
from ..limits import SYNC_CHUNK_BYTES_MAX, SYNC_LOOKS_MAX, WALK_REPLACED_MAX
from ..wire.fields import Head
from .entry import row_bytes
from .store import Origin, Slot, Store


class Walk:
    """`cut` is the durable vector at its start, `floor` what the reader already covers.

    `known`: every origin of which an entry may be stored. `staged`: slots with a newer entry on its way.
    `above`: only entries with later stamps are sent.
    """

    def __init__(
        self,
        cut: dict[Origin, int],
        floor: dict[Origin, int],
        known: Iterable[Origin],
        staged: Iterable[Slot],
        above: int = 0,
    ) -> None:
        self.cut = dict(cut)
        self._floor, self._above = floor, above
        self._origins = sorted(known)
        self._at = 0
        self._after_seq = 0
        self._again: dict[Slot, None] = dict.fromkeys(staged)
        self.broken = False
        """More was replaced meanwhile than we remember: the session must begin anew."""

    @property
    def position(self) -> Head | None:
        """Every entry of the cut before this (node, lineage, seq) was sent; None: the index is walked through."""
        return (*self._origins[self._at], self._after_seq) if self._at < len(self._origins) else None

    def replaced(self, old: Entry) -> None:
        """`old` is about to be superseded.

        Also one beyond the cut counts: it may stand for an entry of the cut that it superseded.
        """
        if self._is_ahead((old.node, old.lineage), old.seq):
            self._again[old.keyspace, old.key] = None
            self.broken = len(self._again) > WALK_REPLACED_MAX

    def next_piece(self, store: Store, rows_max: int) -> tuple[list[Entry], bool]:
        """Entries for one chunk, and whether they are the last. Raises DamagedRow."""
        piece = Piece(rows_max)
        with store.snapshot():
            last = self._walk_index(store, piece) and self._read_again(store, piece)
        return piece.entries, last

    def _is_ahead(self, origin: Origin, seq: int) -> bool:
        if self._at >= len(self._origins):
            return False
        current = self._origins[self._at]
        return origin > current or (origin == current and seq > self._after_seq)

    def _walk_index(self, store: Store, piece: Piece) -> bool:
        while self._at < len(self._origins):
            origin = self._origins[self._at]
            for entry in store.by_origin(origin, max(self._floor.get(origin, 0), self._after_seq)):
                if not piece.look_at(entry, self._above):
                    return False
                self._after_seq = entry.seq
            self._at += 1
            self._after_seq = 0
        return True

    def _read_again(self, store: Store, piece: Piece) -> bool:
        for slot in list(self._again):
            entry = store.get(*slot)
            if entry is not None and not piece.take(entry):
                return False
            del self._again[slot]
        return True


class Piece:
    """Entries of one chunk: as many as fit, and at least one."""

    def __init__(self, rows_max: int) -> None:
        self.entries: list[Entry] = []
        self._rows_max, self._bytes, self._looks = rows_max, 0, 0

    def look_at(self, entry: Entry, above: int) -> bool:
        """Take an entry if its stamp is late enough; False when this piece is over."""
        self._looks += 1
        if entry.hlc > above:
            return self.take(entry)
        return self._looks < SYNC_LOOKS_MAX

    def take(self, entry: Entry) -> bool:
        size = row_bytes(entry)
        if self.entries and (
            self._bytes + size > SYNC_CHUNK_BYTES_MAX or len(self.entries) >= self._rows_max
        ):
            return False
        self.entries.append(entry)
        self._bytes += size
        return True
