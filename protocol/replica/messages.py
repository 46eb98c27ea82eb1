"""The messages of the replica: batches of new entries, and sync sessions."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..effects import Entry
from ..limits import ORIGINS_MAX
from ..types import NodeId, Payload
from ..wire.fields import Counter, Head, Id32, Stamp
from ..wire.registry import Route, Stream
from .entry import Row, to_row
from .store import Origin

Heads = Annotated[list[Head], msgspec.Meta(max_length=ORIGINS_MAX)]


class Batch(Payload, frozen=True):
    """Entries `first` to `last` of one lineage of its author: what of them is not superseded.

    `confirm`: whoever holds them durably shall say so to the author at once (`Holding`).
    """

    lineage: Counter
    first: Counter
    last: Counter
    rows: list[Row]
    confirm: bool = False


class Floor(Payload, frozen=True):
    """How far a broken session had come through the store with this lineage."""

    lineage: Counter
    heads: Heads


class Pull(Payload, frozen=True):
    """Send me what I lack; this is my vector.

    `known_run`: the latest run of yours that I heard of before this link, 0: none. `known`: (lineage, seq), the
    highest that I hold of each of your lineages, also where what stands before it is missing. `above` is not 0: send
    whatever you hold with a later stamp, whether I cover it or not; such a session covers nothing (see mending.py).
    """

    session: Counter
    vector: Heads
    known_run: Counter
    known: Annotated[list[tuple[Counter, Counter]], msgspec.Meta(max_length=ORIGINS_MAX)]
    floor: Floor | None
    above: Stamp = 0


class Group(Payload, frozen=True):
    """Rows of one origin."""

    node: Id32
    lineage: Counter
    rows: list[Row]


class Chunk(Payload, frozen=True):
    """Piece `index` of a session. `lineage`: the sender's own, which names its store.

    `cut` is in the first piece: the vector that is covered once the last one is stored. `position`: how far the walk
    has come, as (node, lineage, seq); all of the cut before it was sent.
    """

    session: Counter
    index: Counter
    lineage: Counter
    groups: list[Group]
    cut: Heads | None
    position: Head | None
    last: bool


class More(Payload, frozen=True):
    """Everything before `index` is durable here: send that one."""

    session: Counter
    index: Counter


class Holding(Payload, frozen=True):
    """I hold these durably."""

    heads: Heads


ROUTES = (
    Route(20, Batch, Stream.GOSSIP, bulk=True),
    Route(21, Pull, Stream.LINK),
    Route(22, Chunk, Stream.LINK, bulk=True),
    Route(23, More, Stream.LINK),
    Route(24, Holding, Stream.LINK),
)


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
