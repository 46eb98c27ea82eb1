"""Broken nodes that the simulator must catch: a check without a mutant proves nothing.

Each mutant changes one decision of a node; the check that it must trip is named beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol.effects import Effect
from protocol.errors import Refused
from protocol.inputs import Delete, Event, Put
from protocol.node import Node
from protocol.replica.coverage import Coverage
from protocol.replica.messages import Batch
from protocol.replica.replica import HLC_MARK, TALLY_MARK
from protocol.replica.sync import Pulling
from protocol.turn import Turn
from protocol.types import NodeId

from .checks import Violation
from .hosts import Plan, plan_of, wrong_clock_plan
from .swarm import Swarm

SEEDS = range(40)


class SaysAtOnce(Node):
    """Replies before its rows are durable."""

    def _finish(self, turn: Turn) -> list[Effect]:
        turn.effects += turn.held
        turn.held = []
        return super()._finish(turn)


class AnswersInTheBurst(Node):
    """Of what comes at once it acknowledges all but the last before anything is durable."""

    def take(self, turn: Turn, event: Event) -> None:
        turn.effects += turn.held
        turn.held = []
        super().take(turn, event)


class SpeaksOfStaged(Node):
    """Its vector moves when rows are staged, not when they are durable."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        advance = self.replica._cover

        def cover(turn: Turn, origin: Any, first: int, last: int) -> None:
            advance(turn, origin, first, last)
            self.replica.vector[origin] = self.replica.reached_head(origin)

        self.replica._cover = cover  # type: ignore[method-assign]


class CutsAtTheEnd(Node):
    """Takes the heads that the peer has at the end of a session, not those of the cut that it walked."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        complete = self.sync._complete

        def complete_later(turn: Turn, pulling: Pulling) -> None:
            pulling.cut = pulling.cut | self.sync.peer_heads.get(pulling.node, {})
            complete(turn, pulling)

        self.sync._complete = complete_later  # type: ignore[method-assign]


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
        self.replica.newest = lambda slot: None  # type: ignore[method-assign]


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

        def lower(turn: Turn, origin: Any, head: int) -> None:
            self.replica._commit_of(turn).covered[origin] = self.replica.reached[origin] = Coverage(head)

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


class KeepsItsStamps(Node):
    """Never takes back what it stamped with a wrong clock."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.mending.tick = lambda turn: None  # type: ignore[method-assign]


class TrustsItsClock(Node):
    """Stamps by its own clock, whatever the others say."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.time._correct = lambda: None  # type: ignore[method-assign]


class ReusesTheReserved(Node):
    """Gives out again, after a restart, what it had answered early and lost."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.replica._next_seq = self.replica.vector.get(self.replica.me, 0) + 1


class TrustsItsFolder(Node):
    """Goes on with its numbers without asking anybody."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.settling._renew = lambda turn, why: None  # type: ignore[method-assign]


class RefusesAll(Node):
    """Never acknowledges a write: safe, and worthless."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._handlers |= dict.fromkeys((Put, Delete), self._refuse)

    def _refuse(self, turn: Turn, write: Put | Delete) -> None:
        turn.reply_after_commit(write.ref, Refused("overloaded", "no"))


Mutant = tuple[type[Node], str, Callable[[int], Plan]]


def apart(_: int) -> Plan:
    """Two of three never meet: they hear of each other through the third."""
    return Plan(
        nodes=3,
        faults_s=10,
        quiet_s=15,
        writes_per_s=100,
        crash_every_s=30,
        sync_rows_max=1,
        full_check_steps=20,
        apart=("n2", "n3"),
    )


def broken(_: int) -> Plan:
    """Links break all the time, and sessions have many chunks."""
    return Plan(
        nodes=4,
        faults_s=10,
        quiet_s=15,
        writes_per_s=60,
        keys=60,
        link_loss_every_s=0.2,
        sync_rows_max=1,
        full_check_steps=20,
    )


def restored(seed: int) -> Plan:
    """Machines are often set back to an old copy."""
    return Plan(nodes=2 + seed % 4, restore_every_s=2)


def skewed(seed: int) -> Plan:
    """Every clock is off by up to five seconds."""
    return Plan(nodes=2 + seed % 4, skew_ms=5000)


MUTANTS: list[Mutant] = [
    (SaysAtOnce, "D1", plan_of),
    (AnswersInTheBurst, "D1", plan_of),
    (SpeaksOfStaged, "S2", plan_of),
    (CutsAtTheEnd, "S2", broken),
    (JumpsGaps, "S2", plan_of),
    (ReusesNumbers, "S1", plan_of),
    (ForgetsTheClock, "H1", skewed),
    (TakesTheLast, "S", plan_of),
    (LeavesTheDead, "I9", plan_of),
    (DialsNobody, "L1", plan_of),
    (LowersHeads, "D2", plan_of),
    (CountsTheExpired, "T1", plan_of),
    (PullsNothing, "S5", plan_of),
    (RefusesAll, "F1", plan_of),
    (KeepsItsStamps, "S5", wrong_clock_plan),
    (TrustsItsClock, "H2", wrong_clock_plan),
    (TrustsItsFolder, "S1", restored),
    (ReusesTheReserved, "S1", restored),
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


@pytest.mark.parametrize("plan", [apart, broken, skewed], ids=["apart", "broken", "skewed"])
def test_the_true_node_holds_where_mutants_fall(plan: Callable[[int], Plan]) -> None:
    """The special plans are hard, not impossible: what they catch is the mutant, not the plan."""
    for seed in range(10):
        Swarm(seed, plan(seed)).run()


def test_broken_sessions_go_on_where_they_stopped() -> None:
    """The plan that breaks links does make sessions resume: else it would prove nothing about them."""
    resumed = 0
    for seed in range(5):
        swarm = Swarm(seed, broken(seed))
        swarm.run()
        resumed += sum(host.node.serving.resumed for host in swarm.hosts.values() if host.node)
    assert resumed > 0
