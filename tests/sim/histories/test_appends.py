"""Each anomaly of list appends, planted alone: what is told, word for word."""

from __future__ import annotations

import pytest

from .appends import check_appends
from .history import Append, Get, History, Operation, Outcome, Read, Transaction


def transaction(begin_ns: int, end_ns: int, *words: str, outcome: Outcome = Outcome.OK) -> Operation:
    """Steps in words: `x+1` appends, `x=12` reads the elements 1 and 2."""
    return Operation(begin_ns, begin_ns, end_ns, outcome, Transaction(tuple(step(word) for word in words)))


def step(word: str) -> Append | Get:
    key, what, digits = word[0], word[1], word[2:]
    return Append(key, int(digits)) if what == "+" else Get(key, tuple(map(int, digits)))


def together(*transactions: tuple[str, ...]) -> History:
    """All overlap: real time says nothing."""
    return tuple(transaction(number, 90 + number, *words) for number, words in enumerate(transactions))


def in_turn(*transactions: tuple[str, ...]) -> History:
    """Each ends before the next begins."""
    return tuple(
        transaction(10 * number, 10 * number + 5, *words) for number, words in enumerate(transactions)
    )


def failing(history: History, number: int, outcome: Outcome = Outcome.FAIL) -> History:
    changed = list(history)
    one = changed[number]
    changed[number] = Operation(one.process, one.begin_ns, one.end_ns, outcome, one.action)
    return tuple(changed)


PLANTED: dict[str, tuple[History, list[str]]] = {
    "G0": (
        together(("x+1", "y+2"), ("x+3", "y+4"), ("x=13", "y=42")),
        [
            "G0: T0 -> T1 -> T0\n"
            "  T0 -ww-> T1: T1 appended 3 to x after T0 appended 1\n"
            "  T1 -ww-> T0: T0 appended 2 to y after T1 appended 4"
        ],
    ),
    "G1a": (
        failing(together(("x+1",), ("x=1",)), 0),
        ["G1a: T1 read x = [1], but T0, which appended 1, failed"],
    ),
    "G1b": (
        together(("x+1", "x+2"), ("x=1",)),
        ["G1b: T1 read x = [1], but T0 appended more after 1"],
    ),
    "G1c": (
        together(("x+1", "y=2"), ("x=1", "y+2")),
        [
            "G1c: T0 -> T1 -> T0\n"
            "  T0 -wr-> T1: T1 read x with 1, which T0 appended\n"
            "  T1 -wr-> T0: T0 read y with 2, which T1 appended"
        ],
    ),
    "G-single": (
        together(("x+1", "y+2"), ("x=", "y=2"), ("x=1",)),
        [
            "G-single: T1 -> T0 -> T1\n"
            "  T1 -rw-> T0: T1 read x without 1, which T0 appended\n"
            "  T0 -wr-> T1: T1 read y with 2, which T0 appended"
        ],
    ),
    "G2, write skew": (
        together(("x=", "y+1"), ("y=", "x+2")),
        [
            "G2: T0 -> T1 -> T0\n"
            "  T0 -rw-> T1: T0 read x without 2, which T1 appended\n"
            "  T1 -rw-> T0: T1 read y without 1, which T0 appended"
        ],
    ),
    "G0 in real time": (
        in_turn(("x+1",), ("x+2",), ("x=21",)),
        [
            "G0-realtime: T0 -> T1 -> T0\n"
            "  T0 -rt-> T1: T0 had ended before T1 began\n"
            "  T1 -ww-> T0: T0 appended 1 to x after T1 appended 2"
        ],
    ),
    "G1c in real time": (
        in_turn(("x=1",), ("x+1",)),
        [
            "G1c-realtime: T0 -> T1 -> T0\n"
            "  T0 -rt-> T1: T0 had ended before T1 began\n"
            "  T1 -wr-> T0: T0 read x with 1, which T1 appended"
        ],
    ),
    "G-single in real time, a stale read": (
        in_turn(("x+1",), ("x=",), ("x=1",)),
        [
            "G-single-realtime: T1 -> T0 -> T1\n"
            "  T1 -rw-> T0: T1 read x without 1, which T0 appended\n"
            "  T0 -rt-> T1: T0 had ended before T1 began"
        ],
    ),
    "G2 in real time": (
        (transaction(1, 5, "y+2"), transaction(2, 99, "x+1", "y="), transaction(10, 20, "x=")),
        [
            "G2-realtime: T0 -> T2 -> T1 -> T0\n"
            "  T0 -rt-> T2: T0 had ended before T2 began\n"
            "  T2 -rw-> T1: T2 read x without 1, which T1 appended\n"
            "  T1 -rw-> T0: T1 read y without 2, which T0 appended"
        ],
    ),
    "lost update": (
        together(("x=", "x+1"), ("x=", "x+2")),
        [
            "G2: T0 -> T1 -> T0\n"
            "  T0 -rw-> T1: T0 read x without 2, which T1 appended\n"
            "  T1 -rw-> T0: T1 read x without 1, which T0 appended"
        ],
    ),
    "two reads of which none begins the other": (
        together(("x+1",), ("x+2",), ("x=12",), ("x=2",)),
        ["incompatible-order: T3 read x = [2], but T2 read x = [1 2]"],
    ),
    "own appends turned round": (
        together(("x+1", "x+2"), ("x=21",)),
        ["incompatible-order: T1 read x = [2 1], but T0 appended other elements before 2"],
    ),
    "twice": (together(("x+1",), ("x=11",)), ["duplicate: T1 read x = [1 1], 1 twice"]),
    "from nowhere": (together(("x=1",)), ["garbage: T0 read x = [1], nobody appended 1"]),
    "lost": (
        in_turn(("x+1",), ("x+2",), ("x=2",)),
        ["lost: T0 had appended 1 to x before T2 read x = [2]; no read shows it"],
    ),
    "its own append is not read": (
        together(("x+1", "x=")),
        ["internal: T0 read x = [], which contradicts its other steps"],
    ),
    "one read is not as the other": (
        together(("x+1",), ("x=", "x=1")),
        ["internal: T1 read x = [1], which contradicts its other steps"],
    ),
    "its own append is read too early": (
        together(("x=1", "x+1")),
        ["internal: T0 read x = [1], which contradicts its other steps"],
    ),
    "a transaction in doubt happens as a whole": (
        failing(together(("x+1", "y+2"), ("x=1",), ("y=", "x=1")), 0, Outcome.UNKNOWN),
        [
            "G-single: T2 -> T0 -> T2\n"
            "  T2 -rw-> T0: T2 read y without 2, which T0 appended\n"
            "  T0 -wr-> T2: T2 read x with 1, which T0 appended"
        ],
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_anomaly_is_told(name: str) -> None:
    """It, and nothing else."""
    history, words = PLANTED[name]
    assert [str(anomaly) for anomaly in check_appends(history)] == words


@pytest.mark.parametrize("name", PLANTED)
def test_real_time_counts_only_if_strict(name: str) -> None:
    """A serializable system may answer from the past, and then nothing is lost yet."""
    history, words = PLANTED[name]
    expected = [word for word in words if "-realtime" not in word and not word.startswith("lost")]
    assert [str(anomaly) for anomaly in check_appends(history, is_strict=False)] == expected


GOOD: dict[str, History] = {
    "nothing": (),
    "in turn": in_turn(("x+1",), ("x=1", "x+2", "x=12"), ("x=12", "y=")),
    "in another order than they began": together(("x=12",), ("x+2", "y=3"), ("x+1",), ("y+3",)),
    "a failed one leaves no trace": failing(in_turn(("x+1",), ("x=",)), 0),
    "one in doubt never happens": failing(in_turn(("x+1",), ("x=",)), 0, Outcome.UNKNOWN),
    "one in doubt happens long after": failing(in_turn(("x+1",), ("x=",), ("x=1",)), 0, Outcome.UNKNOWN),
    "its reads say nothing": failing(in_turn(("x+1",), ("x=5",)), 1, Outcome.UNKNOWN),
    "what ends as another begins overlaps": (transaction(1, 2, "x+1"), transaction(2, 3, "x=")),
    "nobody reads": in_turn(("x+1",), ("x+2",)),
}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_told_of_what_is_right(name: str) -> None:
    """There is an order in real time."""
    assert check_appends(GOOD[name]) == []


def test_two_tangles_are_told_apart() -> None:
    """Each by its simplest cycle, also where a greater one holds both."""
    both = (
        *PLANTED["G1c"][0],
        *(
            transaction(200 + one.begin_ns, 200 + one.end_ns, *words)
            for one, words in zip(together((), ()), (("a=", "b+1"), ("b=", "a+2")), strict=True)
        ),
    )
    assert [anomaly.kind for anomaly in check_appends(both)] == ["G1c", "G2"]


def test_a_short_cycle_is_told() -> None:
    """Where a tangle has several, of which the first to be met is long."""
    history = together(("a+1", "d=4"), ("a=1", "b+2"), ("b=2", "c+3", "e=5"), ("c=3", "d+4", "e+5"))
    words = [str(anomaly).splitlines()[0] for anomaly in check_appends(history)]
    assert words == ["G1c: T2 -> T3 -> T2"]


def test_an_element_is_appended_once() -> None:
    """Else nothing could be told of who wrote what: a mistake of the test, not a pass."""
    with pytest.raises(ValueError, match="appended twice, so nothing can be told: x 1"):
        check_appends(together(("x+1",), ("x+1",)))


def test_only_transactions_are_taken() -> None:
    """A history of another kind is a mistake, not a pass."""
    with pytest.raises(TypeError, match="not a transaction"):
        check_appends((Operation(1, 1, 2, Outcome.OK, Read("x")),))
