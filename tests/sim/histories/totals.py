"""Do transfers keep the total? Each snapshot of all accounts must have the accounts, and the sum, of the beginning.

The test of snapshots that comes from Jepsen's "bank" workload. It needs no record of the transfers, so it holds
whatever became of the unknown ones, and costs one addition per amount.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .history import History, Operation, Outcome, Snapshot


class WrongTotal(msgspec.Struct, frozen=True):
    """A snapshot in which money is missing, or too much, or an account."""

    number: int
    """Its place in the history."""
    snapshot: Operation
    words: str

    def __str__(self) -> str:
        return f"T{self.number}: {self.words}: {self.snapshot}"


def check_totals(history: History, accounts: Mapping[str, int]) -> list[WrongTotal]:
    """The snapshots that are wrong, given what each account had at first. Other operations are passed over."""
    return [
        WrongTotal(number, operation, words)
        for number, operation in enumerate(history)
        if operation.outcome is Outcome.OK
        and isinstance(operation.action, Snapshot)
        and (words := wrong_in(operation.action.amounts, accounts))
    ]


def wrong_in(amounts: Mapping[str, int], accounts: Mapping[str, int]) -> str:
    if amounts.keys() != accounts.keys():
        differing = ", ".join(sorted(amounts.keys() ^ accounts.keys()))
        return f"accounts that are not in both: {differing}"
    total, expected = sum(amounts.values()), sum(accounts.values())
    return f"the sum is {total}, not {expected}" if total != expected else ""
