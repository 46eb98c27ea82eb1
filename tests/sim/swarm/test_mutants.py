"""Broken nodes that the simulator must catch: a check without a mutant proves nothing.

Each mutant changes one decision of a node; the check that it must trip is named beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol.effects import Effect
from protocol.node import Node
from protocol.replica.replica import HLC_MARK, TALLY_MARK, Batch
from protocol.turn import Turn
from protocol.types import NodeId

from .checks import Violation
from .hosts import Plan, plan_of
from .swarm import Swarm

SEEDS = range(40)


class SaysAtOnce(Node):
    """Replies before its rows are durable."""

    def _finish(self, turn: Turn) -> list[Effect]:
        turn.effects += turn.held
        turn.held = []
        return super()._finish(turn)


class SpeaksOfStaged(Node):
    """Its vector moves when rows are staged, not when they are durable."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.replica.vector = self.replica.reached


class CutsAtTheEnd(Node):
    """The vector that ends a sync session is read at its end, not at its beginning."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        begin = self.replica.walk

        def walk(*of: Any) -> Any:
            begun = begin(*of)
            begun.cut = self.replica.vector
            return begun

        self.replica.walk = walk  # type: ignore[method-assign]


class ForgetsReplaced(Node):
    """A row superseded while a session streams is not sent with what superseded it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        begin = self.replica.walk

        def walk(*of: Any) -> Any:
            begun = begin(*of)
            begun._again.clear()
            begun.replaced = lambda old: None  # type: ignore[method-assign]
            return begun

        self.replica.walk = walk  # type: ignore[method-assign]


class JumpsGaps(Node):
    """Takes the head of a batch although what stands before it is missing."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        merge = self.replica.merge_batch

        def merge_batch(turn: Turn, author: NodeId, batch: Batch) -> bool:
            if not merge(turn, author, batch):
                self.replica.advance(turn, (author, batch.lineage), batch.last)
            return True

        self.replica.merge_batch = merge_batch  # type: ignore[method-assign]


class ReusesNumbers(Node):
    """Counts its entries from 1 at each start."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.replica._next_seq = 1


class ForgetsTheClock(Node):
    """Starts with a clock that does not know the stamps it gave out and saw."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert HLC_MARK
        self.clock.last = 0


class TakesTheLast(Node):
    """The entry that arrives last wins, whatever its version."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.replica._newest = lambda slot: None  # type: ignore[method-assign]


class LeavesTheDead(Node):
    """Never dials a member again that it has called dead."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        contacts = self.membership.contacts
        contacts.dial_failed_dead = lambda node, *_: contacts.by_node.pop(node, None)  # type: ignore[method-assign]
        contacts.know = lambda *_, **__: None  # type: ignore[method-assign]


class DialsNobody(Node):
    """Lets the time to dial pass."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.membership.contacts.dial_due = lambda *_: None  # type: ignore[method-assign]


class LowersHeads(Node):
    """Takes any head that it is told, also a lower one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        advance = self.replica.advance

        def lower(turn: Turn, origin: Any, head: int) -> None:
            self.replica.reached[origin] = min(head, self.replica.reached.get(origin, head))
            advance(turn, origin, head)

        self.replica.advance = lower  # type: ignore[method-assign]


class CountsTheExpired(Node):
    """Its digest keeps what has expired."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert TALLY_MARK
        self.replica.tally.expire = lambda entry: None  # type: ignore[method-assign]


class PullsNothing(Node):
    """Never begins a sync session."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sync._start_next = lambda turn: None  # type: ignore[method-assign]


class RefusesAll(Node):
    """Never acknowledges a write: safe, and worthless."""

    def _on_put(self, turn: Turn, put: Any) -> None:
        from protocol.errors import Refused

        turn.reply_after_commit(put.ref, Refused("overloaded", "no"))

    _on_delete = _on_put


Mutant = tuple[type[Node], str, Callable[[int], Plan]]
APART = lambda seed: Plan(  # noqa: E731
    nodes=3,
    faults_s=10,
    quiet_s=15,
    writes_per_s=100,
    crash_every_s=30,
    sync_rows_max=1,
    full_check_steps=20,
    apart=("n2", "n3"),
)
SKEWED = lambda seed: Plan(nodes=2 + seed % 4, skew_ms=5000)  # noqa: E731
MUTANTS: list[Mutant] = [
    (SaysAtOnce, "D1", plan_of),
    (SpeaksOfStaged, "S2", plan_of),
    (CutsAtTheEnd, "S2", plan_of),
    (ForgetsReplaced, "S2", APART),
    (JumpsGaps, "S2", plan_of),
    (ReusesNumbers, "S1", plan_of),
    (ForgetsTheClock, "H1", SKEWED),
    (TakesTheLast, "S", plan_of),
    (LeavesTheDead, "I9", plan_of),
    (DialsNobody, "L1", plan_of),
    (LowersHeads, "D2", plan_of),
    (CountsTheExpired, "T1", plan_of),
    (PullsNothing, "S5", plan_of),
    (RefusesAll, "F1", plan_of),
]


@pytest.mark.parametrize(("mutant", "check", "plan"), MUTANTS, ids=[kind.__name__ for kind, _, _ in MUTANTS])
def test_mutant_is_caught(mutant: type[Node], check: str, plan: Callable[[int], Plan]) -> None:
    """At least one of the seeds trips the check that exists for this fault."""
    caught: list[str] = []
    for seed in SEEDS:
        try:
            Swarm(seed, plan(seed), mutant).run()
        except Violation as violation:
            caught.append(str(violation).splitlines()[0])
            if caught[-1].startswith(check):
                return
    pytest.fail(f"{mutant.__name__} does not trip {check}; it tripped: {sorted(set(caught))[:5]}")


@pytest.mark.parametrize("plan", [APART, SKEWED], ids=["apart", "skewed"])
def test_the_true_node_holds_where_mutants_fall(plan: Callable[[int], Plan]) -> None:
    """The special plans are hard, not impossible: what they catch is the mutant, not the plan."""
    for seed in range(10):
        Swarm(seed, plan(seed)).run()
