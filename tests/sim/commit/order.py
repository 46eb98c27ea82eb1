"""Whether one order fits all that clients saw.

Versions say what comes before what: a write before whoever saw it, whoever saw the version before it ahead of it, and
the versions of a key one after the other. So does real time: what ended before something began comes first. An order
exists unless these form a cycle. So that there are few edges, moments and versions are nodes of the graph, too: "all
that ended by then" comes before "all that began after it".
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise

import msgspec

from protocol.commit.transaction import Slot

Node = Hashable
Graph = dict[Node, list[Node]]


class Event(msgspec.Struct, frozen=True):
    """A committed transaction or a snapshot, as clients saw it: between `began_s` and `ended_s`."""

    name: str
    began_s: float
    ended_s: float
    reads: dict[Slot, int]
    writes: dict[Slot, int]


def find_cycle(events: list[Event]) -> list[Event] | None:
    """Events that each must come before the next, and the last before the first."""
    graph: Graph = {}
    _add_times(graph, events)
    for slot in sorted({slot for event in events for slot in (*event.reads, *event.writes)}):
        _add_versions(graph, events, slot)
    cycle = _cycle_in(graph)
    return [events[node] for node in cycle if isinstance(node, int)] if cycle else None


def _add_times(graph: Graph, events: list[Event]) -> None:
    ends = sorted(
        (event.ended_s, place) for place, event in enumerate(events) if event.ended_s < float("inf")
    )
    begins = sorted((event.began_s, place) for place, event in enumerate(events))
    ended = 0
    for began_s, place in begins:
        while ended < len(ends) and ends[ended][0] < began_s:
            _add(graph, ends[ended][1], ("by", ended))
            if ended:
                _add(graph, ("by", ended - 1), ("by", ended))
            ended += 1
        if ended:
            _add(graph, ("by", ended - 1), place)


def _add_versions(graph: Graph, events: list[Event], slot: Slot) -> None:
    stamps = sorted({0, *(event.writes[slot] for event in events if slot in event.writes)})
    following = dict(pairwise(stamps))
    for stamp, later in following.items():
        _add(graph, ("after", slot, stamp), ("before", slot, later))
    for place, event in enumerate(events):
        written, seen = event.writes.get(slot), event.reads.get(slot)
        if written is not None:
            _add(graph, ("before", slot, written), place)
            _add(graph, place, ("after", slot, written))
        if seen is not None:
            _add(graph, ("after", slot, seen), place)
            if seen in following and following[seen] != written:
                _add(graph, place, ("before", slot, following[seen]))


def _add(graph: Graph, one: Node, other: Node) -> None:
    graph.setdefault(one, []).append(other)


def _cycle_in(graph: Graph) -> list[Node] | None:
    done: set[Node] = set()
    for start in graph:
        if start in done:
            continue
        path, on_path, stack = [start], {start}, [iter(graph[start])]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                on_path.discard(path[-1])
                done.add(path.pop())
            elif step in on_path:
                return path[path.index(step) :]
            elif step not in done:
                path.append(step)
                on_path.add(step)
                stack.append(iter(graph.get(step, ())))
    return None
