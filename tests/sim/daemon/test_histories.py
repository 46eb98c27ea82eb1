"""What clients of whole daemons were told under faults: a slice of the histories, and bugs that they must show."""

from __future__ import annotations

import pytest

from .runs import play

LESS = 200
"""Operations of a run that only has to be wrong, or the same twice."""


@pytest.mark.parametrize("seed", range(2))
def test_registers_are_linearizable(seed: int) -> None:
    """Quorum reads, writes, deletes and compare-and-set while daemons die, stand still and are cut off."""
    result = play(seed)
    assert result.wrong == "", (
        f"seed {seed}: python -m tests.sim.daemon --seed {seed} --history\n{result.wrong}"
    )
    assert result.done[True] >= 0.3 * result.tried[True]
    assert result.done[False] >= 0.8 * result.tried[False]
    assert result.faults.total() > 10


def test_list_appends_are_serializable() -> None:
    """Transactions over several keys, each of which reads what it appends to."""
    result = play(0, appends=True)
    assert result.wrong == "", f"python -m tests.sim.daemon --appends --seed 0 --history\n{result.wrong}"


@pytest.mark.parametrize(
    ("mutant", "seed", "appends"), [("reads-one-voter", 6, False), ("reads-one-voter", 7, False)]
)
def test_a_planted_bug_shows(mutant: str, seed: int, appends: bool) -> None:
    """Daemons with this bug tell their clients what no correct system could."""
    assert play(seed, appends=appends, mutant=mutant).wrong != ""
    assert play(seed, appends=appends).wrong == "", "and without it all is well"


def test_the_same_seed_gives_the_same_history() -> None:
    """All that was sent, logged and told, down to the last nanosecond."""
    one, other = play(3, operations=LESS), play(3, operations=LESS)
    assert (one.trace, one.history) == (other.trace, other.history)
