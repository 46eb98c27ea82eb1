"""Linearizability: what is told, and when nothing can be told."""

from __future__ import annotations

import pytest

from .history import (
    Action,
    CompareAndSet,
    Delete,
    History,
    Operation,
    Outcome,
    Read,
    Transaction,
    Write,
    in_order,
)
from .registers import GaveUp, Linearizable, NotLinearizable, check_registers


def operation(begin_ns: int, end_ns: int, action: Action, outcome: Outcome = Outcome.OK) -> Operation:
    return Operation(begin_ns, begin_ns, end_ns, outcome, action)


def test_a_stale_read_is_told() -> None:
    """With the order until then, what the register holds, and the read that has no place."""
    first = operation(1, 2, Write("x", 1))
    second = operation(3, 4, Write("x", 2))
    fresh, stale, later = (operation(5 + n, 9 + n, Read("x", value)) for n, value in ((0, 2), (1, 1), (6, 2)))
    other = operation(0, 9, Write("y", 1))
    verdict = check_registers((other, first, second, fresh, stale, later))
    assert verdict == NotLinearizable("x", (first, second, fresh), 2, stale)
    assert str(verdict) == (
        "x: 3 operations can be put in an order:\n"
        '[1,1,2,"ok",["write","x",1]]\n'
        '[3,3,4,"ok",["write","x",2]]\n'
        '[5,5,9,"ok",["read","x",2]]\n'
        "it then holds 2, and no order has room for:\n"
        '[6,6,10,"ok",["read","x",1]]'
    )


WRITE = operation(1, 2, Write("x", 1))
GOOD: dict[str, History] = {
    "absent at first": (operation(1, 2, Read("x")),),
    "absent after a delete": (WRITE, operation(3, 4, Delete("x")), operation(5, 6, Read("x"))),
    "overlapping writes in either order": (
        operation(1, 9, Write("x", 1)),
        operation(2, 8, Write("x", 2)),
        operation(10, 11, Read("x", 1)),
    ),
    "what ends as another begins overlaps": (WRITE, operation(2, 3, Read("x"))),
    "a set that was refused": (
        WRITE,
        operation(3, 4, CompareAndSet("x", 2, 3)),
        operation(5, 6, Read("x", 1)),
    ),
    "a failed write was never there": (
        WRITE,
        operation(3, 4, Write("x", 2), Outcome.FAIL),
        operation(5, 6, Read("x", 1)),
    ),
    "an unknown write long after": (
        operation(0, 1, Write("x", 5), Outcome.UNKNOWN),
        WRITE,
        operation(3, 4, Read("x", 1)),
        operation(5, 6, Read("x", 5)),
    ),
    "unknown ones that need each other": (
        operation(0, 1, Write("x", 5), Outcome.UNKNOWN),
        operation(0, 1, CompareAndSet("x", 5, 6), Outcome.UNKNOWN),
        operation(3, 4, CompareAndSet("x", 6, 7, is_set=True)),
    ),
}
BAD: dict[str, History] = {
    "a read of what was never written": (WRITE, operation(3, 4, Read("x", 2))),
    "a read before the write": (operation(3, 4, Write("x", 1)), operation(1, 2, Read("x", 1))),
    "a failed write is read": (operation(1, 2, Write("x", 1), Outcome.FAIL), operation(3, 4, Read("x", 1))),
    "an unknown write happens once": (
        operation(0, 1, Write("x", 5), Outcome.UNKNOWN),
        operation(1, 2, Read("x", 5)),
        operation(3, 4, Write("x", 1)),
        operation(5, 6, Read("x", 5)),
    ),
    "an unknown write is read before it began": (
        operation(3, 4, Write("x", 5), Outcome.UNKNOWN),
        operation(1, 2, Read("x", 5)),
    ),
    "two sets from one value": (
        WRITE,
        operation(4, 5, CompareAndSet("x", 1, 3, is_set=True)),
        operation(3, 6, CompareAndSet("x", 1, 2, is_set=True)),
    ),
    "a refusal without a reason": (WRITE, operation(3, 4, CompareAndSet("x", 1, 2))),
    "there and back": (WRITE, operation(3, 4, Delete("x")), operation(5, 6, Read("x", 1))),
}


@pytest.mark.parametrize("name", GOOD)
def test_linearizable(name: str) -> None:
    """The history has an order."""
    assert isinstance(check_registers(GOOD[name]), Linearizable)


@pytest.mark.parametrize("name", BAD)
def test_not_linearizable(name: str) -> None:
    """The one that stands last here has no place."""
    verdict = check_registers(in_order(BAD[name]))
    assert isinstance(verdict, NotLinearizable)
    assert verdict.stuck == BAD[name][-1]


def sets_at_once(count: int) -> History:
    """Each may be the first: no order is better than another, and none is right."""
    writes = [operation(1, 90, Write("x", number)) for number in range(count)]
    return (*writes, operation(91, 92, Read("x", -1)))


def test_a_bound_is_kept() -> None:
    """Past it the answer is neither yes nor no, and names the key."""
    verdict = check_registers(sets_at_once(12), states_max=1000)
    assert isinstance(verdict, GaveUp)
    assert verdict.key == "x"
    assert 1000 < verdict.states < 1100


def test_a_violation_is_told_although_another_key_gives_up() -> None:
    """What is found is certain, whatever is not known elsewhere."""
    wrong = operation(1, 2, Read("y", 1))
    verdict = check_registers((*sets_at_once(12), wrong), states_max=1000)
    assert verdict == NotLinearizable("y", (), None, wrong)


def test_unknown_writes_that_nobody_saw_cost_nothing() -> None:
    """However many may still happen: they are not tried."""
    lost = [operation(n, n + 1, Write("x", 100 + n), Outcome.UNKNOWN) for n in range(100)]
    reads = [operation(200 + n, 201 + n, Read("x", 100)) for n in range(100)]
    assert check_registers((*lost, *reads)) == Linearizable(2)


def test_only_registers_are_taken() -> None:
    """A history of another kind is a mistake, not a pass."""
    with pytest.raises(TypeError, match="not of a register"):
        check_registers((operation(1, 2, Transaction(())),))
