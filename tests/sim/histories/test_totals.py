"""Snapshots of accounts: what is told of a wrong one."""

from __future__ import annotations

from .history import Action, History, Operation, Outcome, Snapshot, Write
from .totals import check_totals

ACCOUNTS = {"a": 10, "b": 20}


def history_of(*actions: Action, outcome: Outcome = Outcome.OK) -> History:
    return tuple(Operation(1, number, number, outcome, action) for number, action in enumerate(actions))


def test_money_that_moves_keeps_its_sum() -> None:
    """Also below zero; other operations do not matter, nor what an unanswered snapshot holds."""
    assert (
        check_totals(history_of(Snapshot(ACCOUNTS), Write("x", 1), Snapshot({"a": 31, "b": -1})), ACCOUNTS)
        == []
    )
    assert check_totals(history_of(Snapshot(), outcome=Outcome.UNKNOWN), ACCOUNTS) == []


def test_a_wrong_snapshot_is_told() -> None:
    """With its place, what is wrong, and its line: too little, too much, an account too few or too many."""
    wrong = history_of(
        Snapshot({"a": 9, "b": 20}),
        Snapshot({"a": 10, "b": 21}),
        Snapshot({"a": 30}),
        Snapshot({**ACCOUNTS, "c": 0}),
    )
    assert [str(one) for one in check_totals(wrong, ACCOUNTS)] == [
        'T0: the sum is 29, not 30: [1,0,0,"ok",["snapshot",{"a":9,"b":20}]]',
        'T1: the sum is 31, not 30: [1,1,1,"ok",["snapshot",{"a":10,"b":21}]]',
        'T2: accounts that are not in both: b: [1,2,2,"ok",["snapshot",{"a":30}]]',
        'T3: accounts that are not in both: c: [1,3,3,"ok",["snapshot",{"a":10,"b":20,"c":0}]]',
    ]
