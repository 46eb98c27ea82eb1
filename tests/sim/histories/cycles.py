"""Cycles in a graph of transactions, the simplest kind of anomaly first.

An edge says that one transaction must come before another: `ww` it wrote what the other wrote after, `wr` it wrote
what the other read, `rw` it read what the other then wrote, `rt` it had ended before the other began. A cycle has no
serial order, and its edges tell its kind: Adya, "Weak Consistency" (MIT 1999), and for the choice of what to look for
Kingsbury and Alvaro, "Elle" (VLDB 2020). Only `ww` is G0; with `wr`, G1c; with one `rw`, G-single; with several, G2.
A cycle that needs real time is `-realtime`: a serializable system may show it, a strictly serializable one not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

STARTS_MAX = 32
"""In how many places of a tangle the shortest cycle is looked for: a short one is easier to read, any one proves."""


class Kind(StrEnum):
    WW = "ww"
    WR = "wr"
    RW = "rw"
    RT = "rt"


class Edge(NamedTuple):
    """From what must come first; `why` names the key and the elements, for the words."""

    before: int
    kind: Kind
    after: int
    why: tuple[str, int, int] | None = None


Cycle = list[Edge]

LEVELS: tuple[tuple[tuple[Kind, ...], bool], ...] = tuple(
    (kinds, is_single)
    for real_time in ((), (Kind.RT,))
    for kinds, is_single in (
        ((Kind.WW, *real_time), False),
        ((Kind.WW, Kind.WR, *real_time), False),
        ((Kind.WW, Kind.WR, *real_time), True),
        ((Kind.WW, Kind.WR, Kind.RW, *real_time), False),
    )
)
"""Edges that a cycle may have, and whether one `rw` closes it: G0, G1c, G-single, G2, and again with real time."""


class Graph:
    """Of transactions, by number."""

    def __init__(self) -> None:
        self._edges: dict[Kind, dict[int, dict[int, Edge]]] = {kind: {} for kind in Kind}

    def add(self, edge: Edge) -> None:
        """The first of a kind between two is kept; a transaction need not come before itself."""
        if edge.before != edge.after:
            self._edges[edge.kind].setdefault(edge.before, {}).setdefault(edge.after, edge)

    def cycles(self) -> Iterator[Cycle]:
        """One of each tangle at each level, unless it holds a cycle that was told before."""
        nodes = sorted({node for edges in self._edges.values() for node in edges})
        tangled = sorted(node for tangle in self._tangles(nodes, tuple(Kind)) for node in tangle)
        told: list[set[int]] = []
        for kinds, is_single in LEVELS:
            allowed = (*kinds, Kind.RW) if is_single else kinds
            for tangle in self._tangles(tangled, allowed):
                if any(cycle <= tangle for cycle in told):
                    continue
                cycle = self._closed_by_one(tangle, kinds) if is_single else self._short(tangle, kinds)
                if cycle is not None:
                    told.append({edge.before for edge in cycle})
                    yield cycle

    def _tangles(self, nodes: Iterable[int], kinds: tuple[Kind, ...]) -> list[set[int]]:
        """Sets in which each reaches each other one: no order of them is possible."""
        among = set(nodes)
        found = components(sorted(among), lambda node: self._next(node, kinds, among))
        return sorted((set(component) for component in found if len(component) > 1), key=min)

    def _next(self, node: int, kinds: tuple[Kind, ...], among: set[int]) -> list[int]:
        return [after for kind in kinds for after in self._edges[kind].get(node, ()) if after in among]

    def _short(self, tangle: set[int], kinds: tuple[Kind, ...]) -> Cycle | None:
        starts = sorted(tangle)[:STARTS_MAX]
        found = [self._path(start, start, tangle, kinds) for start in starts]
        return min((cycle for cycle in found if cycle is not None), key=len, default=None)

    def _closed_by_one(self, tangle: set[int], kinds: tuple[Kind, ...]) -> Cycle | None:
        """A cycle of these kinds and exactly one `rw`."""
        reaches = self._reachability(tangle, kinds)
        for before in sorted(tangle):
            for after, edge in self._edges[Kind.RW].get(before, {}).items():
                if after in tangle and reaches(after, before):
                    way = self._path(after, before, tangle, kinds)
                    assert way is not None
                    return [edge, *way]
        return None

    def _reachability(self, tangle: set[int], kinds: tuple[Kind, ...]) -> Callable[[int, int], bool]:
        """Whether one reaches another, for all at once: of each component a set of components, as bits."""
        found = components(sorted(tangle), lambda node: self._next(node, kinds, tangle))
        place = {node: number for number, component in enumerate(found) for node in component}
        reached: list[int] = []
        for number, component in enumerate(found):
            bits = 1 << number
            for node in component:
                for after in self._next(node, kinds, tangle):
                    if place[after] != number:
                        bits |= reached[place[after]]
            reached.append(bits)
        return lambda before, after: bool(reached[place[before]] >> place[after] & 1)

    def _path(self, start: int, goal: int, among: set[int], kinds: tuple[Kind, ...]) -> Cycle | None:
        """A shortest way of one or more edges."""
        came_by: dict[int, Edge] = {}
        waiting = deque([start])
        while waiting and goal not in came_by:
            node = waiting.popleft()
            for kind in kinds:
                for after, edge in self._edges[kind].get(node, {}).items():
                    if after in among and after not in came_by:
                        came_by[after] = edge
                        waiting.append(after)
        if goal not in came_by:
            return None
        way = [came_by[goal]]
        while way[-1].before != start:
            way.append(came_by[way[-1].before])
        return way[::-1]


def name_of(cycle: Cycle) -> str:
    """Of its anomaly."""
    kinds = [edge.kind for edge in cycle]
    match kinds.count(Kind.RW):
        case 0:
            name = "G1c" if Kind.WR in kinds else "G0"
        case 1:
            name = "G-single"
        case _:
            name = "G2"
    return f"{name}-realtime" if Kind.RT in kinds else name


def components(nodes: Iterable[int], following: Callable[[int], list[int]]) -> list[list[int]]:
    """Strongly connected ones, each after all that it reaches (Tarjan, SIAM J. Comput. 1972; without recursion)."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()
    found: list[list[int]] = []

    def enter(node: int) -> tuple[int, Iterator[int]]:
        number[node] = low[node] = len(number)
        path.append(node)
        on_path.add(node)
        return node, iter(following(node))

    for root in nodes:
        calls = [enter(root)] if root not in number else []
        while calls:
            node, rest = calls[-1]
            for after in rest:
                if after not in number:
                    calls.append(enter(after))
                    break
                if after in on_path:
                    low[node] = min(low[node], number[after])
            else:
                calls.pop()
                if calls:
                    low[calls[-1][0]] = min(low[calls[-1][0]], low[node])
                if low[node] == number[node]:
                    found.append([path.pop()])
                    while found[-1][-1] != node:
                        found[-1].append(path.pop())
                    on_path.difference_update(found[-1])
    return found
