"""The checkers against all orders, on thousands of small random histories."""

from __future__ import annotations

from random import Random

import pytest

from .appends import check_appends
from .brute import apply_register, is_linearizable, is_serializable
from .history import (
    Action,
    Append,
    CompareAndSet,
    Delete,
    Get,
    History,
    Operation,
    Outcome,
    Read,
    Transaction,
    Value,
    Write,
    in_order,
    print_history,
)
from .registers import Linearizable, NotLinearizable, check_registers, register

REGISTER_HISTORIES = 4000
LIST_HISTORIES = 4000


def test_registers_agree_with_all_orders() -> None:
    """Linearizable by the one exactly if by the other, and neither answer is rare."""
    found = []
    for seed in range(REGISTER_HISTORIES):
        history = register_history(Random(f"registers {seed}"))
        expected = is_linearizable(history)
        assert isinstance(check_registers(history), Linearizable) is expected, told(seed, history)
        found.append(expected)
    assert 0.2 < sum(found) / len(found) < 0.8


def test_what_is_told_of_a_violation_is_so() -> None:
    """The prefix is an order of all that ended before the operation that is stuck, and no order goes further."""
    violations = 0
    for seed in range(REGISTER_HISTORIES):
        history = register_history(Random(f"registers {seed}"))
        verdict = check_registers(history)
        if isinstance(verdict, NotLinearizable):
            violations += 1
            one_key = tuple(one for one in history if register(one).key == verdict.key)
            ended = [
                one for one in one_key if one.outcome is Outcome.OK and one.end_ns < verdict.stuck.end_ns
            ]
            assert all(one in verdict.prefix for one in ended), told(seed, history, verdict)
            assert value_after_all(verdict) == verdict.value, told(seed, history, verdict)
            assert not is_linearizable(one_key, verdict.stuck.end_ns), told(seed, history, verdict)
    assert violations > REGISTER_HISTORIES / 10


def value_after_all(verdict: NotLinearizable) -> Value:
    """Of the prefix, each operation of which has its result."""
    state = frozenset[tuple[str, Value]]()
    for operation in verdict.prefix:
        after = apply_register(operation, state)
        assert after is not None, verdict
        state = after
    return dict(state).get(verdict.key)


@pytest.mark.parametrize("is_strict", [True, False])
def test_lists_agree_with_all_orders(is_strict: bool) -> None:
    """No anomaly is told exactly if there is a serial order, in real time or without; neither answer is rare."""
    found = []
    for seed in range(LIST_HISTORIES):
        history = list_history(Random(f"lists {seed}"))
        expected = is_serializable(history, is_strict=is_strict)
        anomalies = check_appends(history, is_strict=is_strict)
        assert (not anomalies) is expected, told(seed, history, *anomalies)
        found.append(expected)
    assert 0.2 < sum(found) / len(found) < 0.8


def told(seed: int, history: History, *details: object) -> str:
    return "\n".join([f"seed {seed}", print_history(history), *map(str, details)])


def moments(random: Random, count: int) -> list[tuple[int, int]]:
    """Of operations that overlap more or less; some begin when others end."""
    width = random.choice((1, 4, 12))
    begins = [random.randint(0, 2 * count) for _ in range(count)]
    return [(begin, begin + random.randint(0, width)) for begin in begins]


def register_history(random: Random) -> History:
    """Each operation happens at some moment of its own, or not; then a few results are changed."""
    values: dict[str, Value] = {}
    spans = sorted(moments(random, random.randint(2, 7)), key=lambda span: random.uniform(*span))
    keys, values_max = random.choice(("x", "xy")), random.randint(1, 4)
    damage = random.choice((0.0, 0.1, 0.4))
    made = []
    for process, (begin, end) in enumerate(spans):
        outcome = random.choices(list(Outcome), (6, 1, 3))[0]
        key, value, new = random.choice(keys), random.randint(1, values_max), random.randint(1, values_max)
        now = values.get(key)
        expected = random.choice((now, value, None))
        kinds: tuple[Action, ...] = (
            Read(key, now),
            Write(key, value),
            Delete(key),
            CompareAndSet(key, expected, new, now == expected),
        )
        action = random.choices(kinds, (4, 3, 1, 4))[0]
        if outcome is Outcome.OK or (outcome is Outcome.UNKNOWN and random.random() < 0.6):
            match action:
                case Write() | CompareAndSet(is_set=True):
                    values[key] = action.value if isinstance(action, Write) else action.new
                case Delete():
                    values[key] = None
        if random.random() < damage and isinstance(action, Read):
            action = Read(key, random.randint(1, values_max))
        if random.random() < damage and isinstance(action, CompareAndSet):
            action = CompareAndSet(key, action.expected, action.new, not action.is_set)
        if random.random() < 0.1:
            begin, end = begin - 9, end - 8
        made.append(Operation(process, begin, end, outcome, action))
    return in_order(made)


def list_history(random: Random) -> History:
    """As above; some read what was there before, or in lists that are cut, turned round, or longer."""
    lists: dict[str, tuple[int, ...]] = {}
    spans = sorted(moments(random, random.randint(2, 6)), key=lambda span: random.uniform(*span))
    keys = random.choice(("x", "xy"))
    damage = random.choice((0.0, 0.2, 0.6))
    views: list[dict[str, tuple[int, ...]]] = [{}]
    made = []
    for process, (begin, end) in enumerate(spans):
        outcome = random.choices(list(Outcome), (7, 1, 2))[0]
        seen = random.choice(views) if random.random() < damage else lists
        after, steps = dict(lists), list[Append | Get]()
        for place in range(random.randint(1, 4)):
            key = random.choice(keys)
            if random.random() < 0.5:
                after[key] = (*after.get(key, ()), 10 * process + place)
                steps.append(Append(key, 10 * process + place))
            else:
                own = tuple(step.element for step in steps if isinstance(step, Append) and step.key == key)
                elements = (*seen.get(key, ()), *own)
                steps.append(
                    Get(key, damaged(random, elements) if random.random() < damage / 2 else elements)
                )
        if outcome is Outcome.OK or random.random() < (0.1 if outcome is Outcome.FAIL else 0.5):
            lists = after
            views.append(lists)
        if random.random() < 0.1:
            begin, end = begin - 9, end - 8
        made.append(Operation(process, begin, end, outcome, Transaction(tuple(steps))))
    return in_order(made)


def damaged(random: Random, elements: tuple[int, ...]) -> tuple[int, ...]:
    kept = elements[: random.randint(0, len(elements))]
    return random.choice((kept, elements[::-1], elements + elements[-1:], (*kept, random.randint(0, 59))))
