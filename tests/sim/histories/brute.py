"""The same questions answered by trying all orders: slow, and plain enough to be believed."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeVar

from .history import (
    Action,
    Append,
    CompareAndSet,
    Delete,
    History,
    Operation,
    Outcome,
    Read,
    Transaction,
    Value,
    Write,
)

S = TypeVar("S")
Apply = Callable[[Operation, S], S | None]
"""The state after an operation, or None if it cannot have had its result."""


def is_linearizable(history: History, until_ns: float = inf) -> bool:
    """Of registers, all keys together; what ends later than that may be left out."""
    return has_order(history, apply_register, frozenset[tuple[str, Value]](), until_ns=until_ns)


def is_serializable(history: History, *, is_strict: bool = True) -> bool:
    """Of transactions over lists."""
    return has_order(
        history, apply_transaction, frozenset[tuple[str, tuple[int, ...]]](), is_strict=is_strict
    )


def has_order(
    history: History, apply: Apply[S], state: S, *, is_strict: bool = True, until_ns: float = inf
) -> bool:
    """Whether all that is ok, and any of what is unknown, can be done one by one."""
    left = tuple(operation for operation in history if operation.outcome is not Outcome.FAIL)
    if all(operation.outcome is Outcome.UNKNOWN or operation.end_ns > until_ns for operation in left):
        return True
    for operation in left:
        rest = tuple(other for other in left if other is not operation)
        if is_strict and any(ended_before(other, operation) for other in rest):
            continue
        after = apply(operation, state)
        if after is not None and has_order(rest, apply, after, is_strict=is_strict, until_ns=until_ns):
            return True
    return False


def ended_before(one: Operation, other: Operation) -> bool:
    return one.outcome is Outcome.OK and one.end_ns < other.begin_ns


def apply_register(
    operation: Operation, state: frozenset[tuple[str, Value]]
) -> frozenset[tuple[str, Value]] | None:
    values, is_known = dict(state), operation.outcome is Outcome.OK
    action: Action = operation.action
    match action:
        case Read(key, value):
            return state if not is_known or values.get(key) == value else None
        case Write(key, value):
            values[key] = value
        case Delete(key):
            values[key] = None
        case CompareAndSet(key, expected, new, is_set):
            fits = values.get(key) == expected
            if is_known and fits is not is_set:
                return None
            if fits:
                values[key] = new
    return frozenset(values.items())


def apply_transaction(
    operation: Operation, state: frozenset[tuple[str, tuple[int, ...]]]
) -> frozenset[tuple[str, tuple[int, ...]]] | None:
    lists = dict(state)
    assert isinstance(operation.action, Transaction)
    for step in operation.action.steps:
        if isinstance(step, Append):
            lists[step.key] = (*lists.get(step.key, ()), step.element)
        elif operation.outcome is Outcome.OK and lists.get(step.key, ()) != step.elements:
            return None
    return frozenset(lists.items())
