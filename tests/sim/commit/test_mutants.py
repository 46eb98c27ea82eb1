"""Broken protocols that the model must catch: a check without a mutant proves nothing."""

from __future__ import annotations

from itertools import chain

import pytest

from .mutants import MUTANTS
from .runs import play

SEEDS = 300
"""So many are tried when none of the recorded ones catches any more."""

CAUGHT: dict[str, tuple[int, ...]] = {
    "aborts-without-evidence": (30, 48),
    "fast-with-a-majority": (1, 2, 3),
    "reuses-ids": (5, 6),
    "shares-ids": (9, 15),
    "chains-attempts": (8, 17, 27),
    "refuses-all": (0, 1, 2),
    "forgets-promises": (34,),
    "speaks-before-durable": (0, 1, 2),
    "recovery-always-aborts": (1, 2),
    "recovery-hopes": (16, 19, 34),
    "reuses-ballots": (15211,),
    "never-recovers": (2, 3, 5),
    "reads-through-locks": (5, 8),
    "reads-one-voter": (2, 7, 11),
    "ignores-shared-locks": (102, 369, 654),
    "forgets-requests": (3, 13),
    "forgets-early": (273, 366, 371),
    "never-forgets": (0, 1, 2),
    "votes-on": (568, 1216, 1597),
    "takes-over-blindly": (27, 57, 106),
    "takes-one-word": (57, 283, 1664),
    "answers-in-doubt": (7, 16, 26),
    "lapses-early": (7, 23, 27),
    "drops-open-ends": (1088, 2400, 3144),
    "drops-requests": (256, 425, 608),
    "votes-from-a-backup": (1526, 1813),
}
"""Seeds that catch each. What a seed plays changes with the model and the product: `--mutant NAME` finds others."""


def test_every_mutant_has_seeds() -> None:
    """None is left out."""
    assert CAUGHT.keys() == MUTANTS.keys()


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    """By the check that exists for this fault."""
    mutant, tripped = MUTANTS[name], set[str]()
    with mutant.planted():
        for seed in chain(CAUGHT[name], range(SEEDS)):
            totals = play([seed])
            found = [what for _, what in totals.violations]
            if mutant.check == "C9" and totals.broken is not None:
                found.append(totals.broken)
            if any(what.startswith(mutant.check) for what in found):
                return
            tripped.update(what[:2] for what in found)
    pytest.fail(f"{name} does not trip {mutant.check}; it tripped: {sorted(tripped)}")


def test_the_true_protocol_holds_where_mutants_fall() -> None:
    """What these seeds catch is the mutant."""
    assert play(sorted(set(chain(*CAUGHT.values())))).violations == []
