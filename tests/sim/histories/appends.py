"""Is a history of transactions over lists serializable, and strictly so? Appends tell by themselves what came when.

The idea is that of Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (VLDB
2020): elements are unique and stay where they were appended, so the longest list that was read of a key is the order
of its versions, and each shorter one must be a beginning of it. Versions give the edges between transactions, and no
order of transactions is possible exactly if they make a cycle (see cycles.py).

A transaction counts if it is known to have happened: it is ok, or unknown and one of its elements was read. Other
unknown ones never hurt an order by being left out. The reads of failed and unknown ones say nothing.

What is not a cycle is told by itself: an element nobody appended (`garbage`), one twice in a list (`duplicate`), one
of a failed transaction (`G1a`), a list that ends amid the appends of another transaction (`G1b`), reads that
contradict their own transaction (`internal`), two reads of which none begins the other, or a transaction's elements
in another order than its own (`incompatible-order`), and an element acknowledged before a read that misses it, and
never read (`lost`). A read that is told makes no edges. An empty answer means that there is an order, no less.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import msgspec

from .cycles import Cycle, Edge, Graph, Kind, name_of
from .history import Append, Get, History, Operation, Outcome, Transaction


class Anomaly(msgspec.Struct, frozen=True):
    """What no serial order explains. T3 is the fourth operation of the history."""

    kind: str
    words: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


class Seen(msgspec.Struct, frozen=True):
    """A list read by a transaction that is ok; `length` of it was there before the transaction's own appends."""

    reader: int
    key: str
    elements: tuple[int, ...]
    length: int

    def __str__(self) -> str:
        return f"T{self.reader} read {self.key} = {listed(self.elements)}"


def check_appends(history: History, *, is_strict: bool = True) -> list[Anomaly]:
    """All anomalies that are found; those of real time only if strict.

    Raises TypeError on an action of another kind, ValueError if an element is appended to one key twice.
    """
    return list(Check(history, is_strict).anomalies())


class Check:
    """Of one history. Transactions are told by their place in it."""

    def __init__(self, history: History, is_strict: bool) -> None:
        self.history, self.is_strict = history, is_strict
        self.writers: dict[str, dict[int, int]] = defaultdict(dict)
        """Of each key, which transaction appended an element."""
        self.appended: dict[tuple[int, str], list[int]] = defaultdict(list)
        """The elements of a transaction for a key, in its order."""
        for number, operation in enumerate(history):
            for step in steps_of(operation):
                if isinstance(step, Append):
                    if step.element in self.writers[step.key]:
                        raise ValueError(f"appended twice, so nothing can be told: {step.key} {step.element}")
                    self.writers[step.key][step.element] = number
                    self.appended[number, step.key].append(step.element)
        self.told: set[tuple[str, str, int]] = set()
        self.versions: dict[str, tuple[int, ...]] = {}
        self.reads: dict[str, list[Seen]] = defaultdict(list)
        """Those without an anomaly: each begins the versions of its key."""
        self.observed: dict[str, set[int]] = defaultdict(set)

    def anomalies(self) -> Iterator[Anomaly]:
        by_key: dict[str, list[Seen]] = defaultdict(list)
        for number, operation in enumerate(self.history):
            if operation.outcome is Outcome.OK:
                for seen in self._reads_of(number):
                    if isinstance(seen, Anomaly):
                        yield seen
                    else:
                        by_key[seen.key].append(seen)
        for key in sorted(by_key):
            yield from self._versions_of(key, by_key[key])
        happened = self._happened()
        missing = {key: self._missing(key, happened) for key in sorted(self.writers)}
        for key in missing:
            yield from self._lost(key, missing[key])
        for cycle in self._graph(happened, missing).cycles():
            yield Anomaly(name_of(cycle), "\n".join([circle(cycle), *map(self._because, cycle)]))

    def _reads_of(self, number: int) -> Iterator[Seen | Anomaly]:
        """The first read of each key that agrees with what the transaction did before; others are anomalies."""
        own: dict[str, tuple[int, ...]] = defaultdict(tuple)
        first: dict[str, tuple[int, ...]] = {}
        for step in steps_of(self.history[number]):
            if isinstance(step, Append):
                own[step.key] += (step.element,)
                continue
            length = max(len(step.elements) - len(own[step.key]), 0)
            seen = Seen(number, step.key, step.elements, length)
            before = step.elements[:length]
            agrees = step.elements[length:] == own[step.key] and first.get(step.key, before) == before
            if not agrees or not set(before).isdisjoint(self.appended.get((number, step.key), ())):
                self.observed[step.key].update(step.elements)
                yield Anomaly("internal", f"{seen}, which contradicts its other steps")
            else:
                first[step.key] = before
                yield seen

    def _versions_of(self, key: str, reads: list[Seen]) -> Iterator[Anomaly]:
        """The longest read without an anomaly of its own makes the versions; all others are compared with it."""
        longest: Seen | None = None
        for seen in sorted(reads, key=lambda seen: -len(seen.elements)):
            if longest is None or longest.elements[: len(seen.elements)] != seen.elements:
                self.observed[key].update(seen.elements)
                if (found := self._wrong_in(seen)) is not None:
                    yield from self._once(*found, seen)
                    continue
                if longest is not None:
                    yield Anomaly("incompatible-order", f"{seen}, but {longest}")
                    continue
                longest = seen
                self.versions[key] = seen.elements
            if (element := self._amid(seen)) is not None:
                yield from self._once("G1b", element, seen)
            else:
                self.reads[key].append(seen)

    def _wrong_in(self, seen: Seen) -> tuple[str, int] | None:
        """The anomaly of a list by itself, and the first element that shows it."""
        writers = self.writers[seen.key]
        own: dict[int, int] = defaultdict(int)
        before: set[int] = set()
        for element in seen.elements:
            if element in before:
                return "duplicate", element
            if element not in writers:
                return "garbage", element
            writer = writers[element]
            if self.history[writer].outcome is Outcome.FAIL:
                return "G1a", element
            if self.appended[writer, seen.key][own[writer]] != element:
                return "incompatible-order", element
            own[writer] += 1
            before.add(element)
        return None

    def _amid(self, seen: Seen) -> int | None:
        """The last element that another transaction made, if it made more for the key."""
        if not seen.length:
            return None
        element = seen.elements[seen.length - 1]
        writer = self.writers[seen.key][element]
        return element if self.appended[writer, seen.key][-1] != element else None

    def _once(self, kind: str, element: int, seen: Seen) -> Iterator[Anomaly]:
        if (kind, seen.key, element) not in self.told:
            self.told.add((kind, seen.key, element))
            writer = self.writers[seen.key].get(element)
            whose = {
                "duplicate": f"{element} twice",
                "garbage": f"nobody appended {element}",
                "G1a": f"but T{writer}, which appended {element}, failed",
                "G1b": f"but T{writer} appended more after {element}",
                "incompatible-order": f"but T{writer} appended other elements before {element}",
            }
            yield Anomaly(kind, f"{seen}, {whose[kind]}")

    def _happened(self) -> set[int]:
        found = {number for number, operation in enumerate(self.history) if operation.outcome is Outcome.OK}
        for key, elements in self.observed.items():
            writers = (self.writers[key].get(element) for element in elements)
            found.update(writer for writer in writers if writer is not None)
        return {number for number in found if self.history[number].outcome is not Outcome.FAIL}

    def _missing(self, key: str, happened: set[int]) -> dict[int, int]:
        """Transactions that appended what is not in the versions, each with the first such element."""
        placed = set(self.versions.get(key, ()))
        found: dict[int, int] = {}
        for element, writer in self.writers[key].items():
            if element not in placed and writer in happened:
                found.setdefault(writer, element)
        return found

    def _lost(self, key: str, missing: dict[int, int]) -> Iterator[Anomaly]:
        """They are taken out of what is missing: their cycles would tell the same again."""
        if not self.is_strict or not self.reads[key]:
            return
        latest = max(self.reads[key], key=lambda seen: self.history[seen.reader].begin_ns)
        for writer, element in sorted(missing.items()):
            operation = self.history[writer]
            has_ended = operation.end_ns < self.history[latest.reader].begin_ns
            if operation.outcome is Outcome.OK and has_ended and element not in self.observed[key]:
                del missing[writer]
                yield Anomaly(
                    "lost", f"T{writer} had appended {element} to {key} before {latest}; no read shows it"
                )

    def _graph(self, happened: set[int], missing: dict[str, dict[int, int]]) -> Graph:
        graph = Graph()
        for key in missing:
            for edge in self._edges_of(key, missing[key]):
                graph.add(edge)
        if self.is_strict:
            for edge in self._real_time(happened):
                graph.add(edge)
        return graph

    def _edges_of(self, key: str, missing: dict[int, int]) -> Iterator[Edge]:
        """What is missing in the longest list came after it, in an order that nobody saw."""
        versions = self.versions.get(key, ())
        writers = [self.writers[key][element] for element in versions]
        for place in range(1, len(versions)):
            why = (key, versions[place - 1], versions[place])
            yield Edge(writers[place - 1], Kind.WW, writers[place], why)
        for writer, element in missing.items() if versions else ():
            yield Edge(writers[-1], Kind.WW, writer, (key, versions[-1], element))
        for seen in self.reads[key]:
            if seen.length:
                element = versions[seen.length - 1]
                yield Edge(writers[seen.length - 1], Kind.WR, seen.reader, (key, element, element))
            if seen.length < len(versions):
                element = versions[seen.length]
                yield Edge(seen.reader, Kind.RW, writers[seen.length], (key, element, element))
            else:
                for writer, element in missing.items():
                    yield Edge(seen.reader, Kind.RW, writer, (key, element, element))

    def _real_time(self, happened: set[int]) -> Iterator[Edge]:
        """Only from the latest that had ended: the ones before come before these. So there are few for each."""
        endings = sorted(
            (self.history[number].end_ns, number)
            for number in happened
            if self.history[number].outcome is Outcome.OK
        )
        latest: list[int] = []
        place = 0
        for number in sorted(happened, key=lambda number: self.history[number].begin_ns):
            begin_ns = self.history[number].begin_ns
            while place < len(endings) and endings[place][0] < begin_ns:
                ended = endings[place][1]
                began_ns = self.history[ended].begin_ns
                latest = [one for one in latest if self.history[one].end_ns >= began_ns] + [ended]
                place += 1
            for ended in latest:
                yield Edge(ended, Kind.RT, number)

    def _because(self, edge: Edge) -> str:
        arrow = f"  T{edge.before} -{edge.kind}-> T{edge.after}: "
        if edge.why is None:
            return f"{arrow}T{edge.before} had ended before T{edge.after} began"
        key, before, element = edge.why
        match edge.kind:
            case Kind.WW:
                return (
                    f"{arrow}T{edge.after} appended {element} to {key} after T{edge.before} appended {before}"
                )
            case Kind.WR:
                return f"{arrow}T{edge.after} read {key} with {element}, which T{edge.before} appended"
            case _:
                return f"{arrow}T{edge.before} read {key} without {element}, which T{edge.after} appended"


def steps_of(operation: Operation) -> tuple[Append | Get, ...]:
    if not isinstance(operation.action, Transaction):
        raise TypeError(f"not a transaction: {operation}")
    return operation.action.steps


def listed(elements: tuple[int, ...]) -> str:
    """A long list is told by its end, where lists differ."""
    shown = elements[-8:]
    return f"[{'... ' if len(elements) > len(shown) else ''}{' '.join(map(str, shown))}]"


def circle(cycle: Cycle) -> str:
    return " -> ".join(f"T{number}" for number in [*(edge.before for edge in cycle), cycle[0].before])
