"""Is a history of registers linearizable? Each register by itself, as linearizability is local.

The search is that of Wing and Gong, "Testing and Verifying Concurrent Objects" (JPDC 1993): put first any operation
that began before every other one ended, go on with the rest, go back when stuck. Lowe, "Testing for Linearizability"
(CCPE 2017), adds a memo: what was placed, as a set, and the value then are all that the rest depends on. Horn and
Kroening, "Faster Linearizability Checking via P-Compositionality" (FORTE 2015), add the split by key, as in
Porcupine.

Two rules of our own keep the search narrow, and neither misses an order:

- A read, or a compare-and-set that was refused, is placed as soon as it may be and fits: it changes nothing, so
  nothing that is possible later needs it to wait.
- An operation with an unknown outcome is placed only right before one that does not fit without it, directly or
  through other such ones. Anywhere else it can be moved later or left out: what follows fits without it, and
  either does not see its value or replaces it. So a hundred writes that timed out and were never seen cost nothing.

The problem is NP-complete all the same: past a bound of visited states the answer is `GaveUp`, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import assert_never

import msgspec

from .history import CompareAndSet, Delete, History, Operation, Outcome, Read, Value, Write, in_order

STATES_MAX = 200_000
"""Some seconds and a hundred megabytes; usual histories of 500 operations need a few hundred."""

Register = Read | Write | CompareAndSet
Node = tuple[int, Value]
"""Which operations are placed, as bits, and what the register then holds."""


class Linearizable(msgspec.Struct, frozen=True):
    """There is an order; so many states were visited."""

    states: int


class NotLinearizable(msgspec.Struct, frozen=True):
    """There is none: every order of `prefix` or of others stops at or before the end of `stuck`."""

    key: str
    prefix: History
    """The longest order found of all that ended before `stuck`, and perhaps of some that were still under way."""
    value: Value
    """What the register holds after that prefix."""
    stuck: Operation

    def __str__(self) -> str:
        lines = [f"{self.key}: {len(self.prefix)} operations can be put in an order:", *self.prefix]
        lines += [f"it then holds {msgspec.json.encode(self.value).decode()}, and no order has room for:"]
        return "\n".join(map(str, [*lines, self.stuck]))


class GaveUp(msgspec.Struct, frozen=True):
    """Neither is known: the bound of visited states is passed."""

    key: str
    states: int


Verdict = Linearizable | NotLinearizable | GaveUp


def check_registers(history: History, states_max: int = STATES_MAX) -> Verdict:
    """The first violation of any key; else `GaveUp` if one key needs more states than that; else `Linearizable`."""
    states, gave_up = 0, None
    for key, operations in by_key(in_order(history)).items():
        match Search(key, operations).run(states_max):
            case NotLinearizable() as violation:
                return violation
            case GaveUp() as verdict:
                gave_up = gave_up or verdict
            case Linearizable(visited):
                states += visited
    return gave_up or Linearizable(states)


def by_key(history: History) -> dict[str, list[Operation]]:
    """The operations of each register. Raises TypeError on an action of another kind."""
    found: dict[str, list[Operation]] = {}
    for operation in history:
        found.setdefault(register(operation).key, []).append(operation)
    return found


class Search:
    """For an order of one register's operations. Known ones are the first bits, by beginning; unknown ones follow."""

    def __init__(self, key: str, operations: list[Operation]) -> None:
        self.key = key
        known = [operation for operation in operations if operation.outcome is Outcome.OK]
        self.operations = known + [o for o in operations if o.outcome is Outcome.UNKNOWN]
        self.actions = [register(operation) for operation in self.operations]
        self.known = len(known)
        self.all_known = (1 << self.known) - 1
        self.effects: dict[Value, dict[Write | CompareAndSet, list[int]]] = {}
        """By the value they leave, unknown operations that do the same: the earliest is always as good."""
        for index, action in enumerate(self.actions[self.known :], self.known):
            if not isinstance(action, Read):
                new = action.value if isinstance(action, Write) else action.new
                self.effects.setdefault(new, {}).setdefault(action, []).append(index)

    def run(self, states_max: int) -> Verdict:
        start, placed = self._settled((0, None), ())
        came_by: dict[Node, tuple[Node | None, tuple[int, ...]]] = {start: (None, placed)}
        furthest, stuck_at, waiting = -1, start, [start]
        while waiting:
            node = waiting.pop()
            if node[0] & self.all_known == self.all_known:
                return Linearizable(len(came_by))
            first_end = min(self.operations[index].end_ns for index in self._candidates(node[0]))
            if (first_end, node[0].bit_count()) > (furthest, stuck_at[0].bit_count()):
                furthest, stuck_at = first_end, node
            for next_node, placed in self._moves(node):
                if next_node not in came_by:
                    came_by[next_node] = (node, placed)
                    waiting.append(next_node)
            if len(came_by) > states_max:
                return GaveUp(self.key, len(came_by))
        return self._violation(stuck_at, came_by)

    def _moves(self, node: Node) -> Iterator[tuple[Node, tuple[int, ...]]]:
        """What may be placed next, and in which order; the most urgent last, where the search goes on."""
        mask, value = node
        candidates = self._candidates(mask)
        before_ns = min(self.operations[index].end_ns for index in candidates)
        for index in sorted(candidates, key=lambda index: -self.operations[index].end_ns):
            for chain in self._chains_before(self.actions[index], mask, value, before_ns):
                placed = (*chain, index)
                yield self._settled(self._after(node, placed), placed)

    def _settled(self, node: Node, placed: tuple[int, ...]) -> tuple[Node, tuple[int, ...]]:
        """All is placed that fits and changes nothing."""
        mask, value = node
        while mask & self.all_known != self.all_known:
            idle = tuple(index for index in self._candidates(mask) if self._is_idle(index, value))
            if not idle:
                break
            mask, placed = mask | sum(1 << index for index in idle), placed + idle
        return (mask, value), placed

    def _is_idle(self, index: int, value: Value) -> bool:
        action = self.actions[index]
        return not isinstance(action, Write) and fits(action, value) and value_after(action, value) == value

    def _candidates(self, mask: int) -> list[int]:
        """Known operations not yet placed that began before any other of these had ended."""
        first_end: float = float("inf")
        found: list[int] = []
        for index in count((~mask & (mask + 1)).bit_length() - 1):
            if index >= self.known or self.operations[index].begin_ns > first_end:
                break
            if not mask >> index & 1:
                found.append(index)
                first_end = min(first_end, self.operations[index].end_ns)
        return [index for index in found if self.operations[index].begin_ns <= first_end]

    def _chains_before(
        self, action: Register, mask: int, value: Value, before_ns: int
    ) -> Iterator[tuple[int, ...]]:
        """The ways to make an operation fit by unknown ones right before it; none of them if it fits as it is."""
        match action:
            case Write():
                yield ()
            case Read(_, wanted) | CompareAndSet(_, wanted, _, True):
                yield from self._chains_to(wanted, mask, value, before_ns, (wanted,))
            case CompareAndSet(_, unwanted):
                for new in [value for value in self.effects if value != unwanted]:
                    for effect, index in self._open_effects(new, mask, before_ns):
                        if fits(effect, value):
                            yield (index,)

    def _chains_to(
        self, wanted: Value, mask: int, value: Value, before_ns: int, seen: tuple[Value, ...]
    ) -> Iterator[tuple[int, ...]]:
        """Unknown operations after which the register holds what is wanted; never twice the same on the way."""
        if wanted == value:
            yield ()
            return
        for effect, index in self._open_effects(wanted, mask, before_ns):
            if fits(effect, value):
                yield (index,)
            elif isinstance(effect, CompareAndSet) and effect.expected not in seen:
                way = (*seen, effect.expected)
                for chain in self._chains_to(effect.expected, mask, value, before_ns, way):
                    yield (*chain, index)

    def _open_effects(
        self, new: Value, mask: int, before_ns: int
    ) -> Iterator[tuple[Write | CompareAndSet, int]]:
        for effect, indexes in self.effects.get(new, {}).items():
            index = next((index for index in indexes if not mask >> index & 1), None)
            if index is not None and self.operations[index].begin_ns <= before_ns:
                yield effect, index

    def _after(self, node: Node, placed: tuple[int, ...]) -> Node:
        mask, value = node
        for index in placed:
            mask |= 1 << index
            value = value_after(self.actions[index], value)
        return mask, value

    def _violation(
        self, node: Node, came_by: dict[Node, tuple[Node | None, tuple[int, ...]]]
    ) -> NotLinearizable:
        stuck = min(self._candidates(node[0]), key=lambda index: self.operations[index].end_ns)
        order: tuple[int, ...] = ()
        before: Node | None = node
        while before is not None:
            before, placed = came_by[before]
            order = placed + order
        prefix = tuple(self.operations[index] for index in order)
        return NotLinearizable(self.key, prefix, node[1], self.operations[stuck])


def register(operation: Operation) -> Register:
    """What it does if it is placed: a delete writes None, a compare-and-set without an answer sets."""
    match operation.action:
        case Delete(key):
            return Write(key, None)
        case CompareAndSet(key, expected, new) if operation.outcome is Outcome.UNKNOWN:
            return CompareAndSet(key, expected, new, is_set=True)
        case Read() | Write() | CompareAndSet() as action:
            return action
        case _:
            raise TypeError(f"not of a register: {operation}")


def fits(action: Register, value: Value) -> bool:
    """Whether it has its result when the register holds this."""
    match action:
        case Write():
            return True
        case Read(_, seen):
            return seen == value
        case CompareAndSet(_, expected, _, is_set):
            return (expected == value) is is_set
    assert_never(action)


def value_after(action: Register, value: Value) -> Value:
    """What the register holds after one that fits."""
    match action:
        case Write(_, new) | CompareAndSet(_, _, new, True):
            return new
        case Read() | CompareAndSet():
            return value
    assert_never(action)
