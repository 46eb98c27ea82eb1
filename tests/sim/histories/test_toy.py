"""Toy stores under seeded clients: the right ones pass with every seed, each wrong one is caught within a few."""

from __future__ import annotations

from random import Random

import pytest

from . import toy
from .appends import check_appends
from .history import History, print_history
from .registers import Linearizable, NotLinearizable, check_registers

REGISTER_SEEDS = 60
LIST_SEEDS = 60
CAUGHT_WITHIN = 3
"""Seeds, for each wrong store."""


def registers(seed: int, store: type[toy.Registers]) -> History:
    """500 operations of 8 clients over 3 keys."""
    world = toy.World(Random(f"toy {seed}"))
    return toy.record(world, store(world.random).perform, toy.draw_register, clients=8, operations=500)


def lists(seed: int, store: type[toy.Serial], operations: int = 200) -> History:
    """Transactions of 8 clients."""
    world = toy.World(Random(f"toy {seed}"))
    perform = store(world.random).perform
    return toy.record(world, perform, toy.draw_transaction, clients=8, operations=operations)


def test_right_registers_pass() -> None:
    """With every seed, after so few states that 500 operations take a fraction of a second."""
    for seed in range(REGISTER_SEEDS):
        history = registers(seed, toy.Registers)
        verdict = check_registers(history)
        assert isinstance(verdict, Linearizable), f"seed {seed}\n{verdict}\n{print_history(history)}"
        assert verdict.states < 5000


@pytest.mark.parametrize("store", [toy.StaleRead, toy.LostWrite, toy.SplitCompareAndSet, toy.WritesTwice])
def test_wrong_registers_are_caught(store: type[toy.Registers]) -> None:
    """See each for what is wrong with it."""
    verdicts = [check_registers(registers(seed, store)) for seed in range(CAUGHT_WITHIN)]
    assert any(isinstance(verdict, NotLinearizable) for verdict in verdicts)


def test_right_lists_pass() -> None:
    """With every seed."""
    for seed in range(LIST_SEEDS):
        history = lists(seed, toy.Serial)
        assert check_appends(history) == [], f"seed {seed}\n{print_history(history)}"


def test_thousands_of_transactions_pass() -> None:
    """5,000 of them are looked at in seconds, well below the time that a test may take."""
    history = lists(0, toy.Serial, operations=5000)
    assert len(history) == 5000
    assert check_appends(history) == []


CAUGHT = {
    toy.StaleSnapshot: {"G-single", "G-single-realtime"},
    toy.LostUpdate: {"lost", "incompatible-order"},
    toy.DirtyRead: {"G1a", "incompatible-order"},
    toy.WriteSkew: {"G2"},
    toy.AppendsTwice: {"duplicate"},
}


@pytest.mark.parametrize("store", CAUGHT)
def test_wrong_lists_are_caught(store: type[toy.Serial]) -> None:
    """By the anomalies that are its own."""
    found = {anomaly.kind for seed in range(CAUGHT_WITHIN) for anomaly in check_appends(lists(seed, store))}
    assert CAUGHT[store] <= found


def test_snapshot_isolation_breaks_nothing_else() -> None:
    """Each cycle of the store with write skew needs two reads that missed a write: the kinds are told apart."""
    kinds = {anomaly.kind for seed in range(10) for anomaly in check_appends(lists(seed, toy.WriteSkew))}
    assert kinds == {"G2"}
