"""The drills of drills.py, in every size that they make sense for."""

from __future__ import annotations

import pytest

from .drills import DRILLS, Drill
from .swarm import Plan, Swarm

SEEDS = range(4)


@pytest.mark.parametrize(
    ("drill", "nodes"),
    [(drill, nodes) for drill, sizes in DRILLS.items() for nodes in sizes],
    ids=lambda value: value.__name__ if callable(value) else value,
)
def test_drill(drill: Drill, nodes: int) -> None:
    """What its docstring says, whatever the seed."""
    for seed in SEEDS:
        drill(Swarm(seed, Plan(nodes=nodes, faults_s=0)))
