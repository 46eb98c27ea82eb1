"""The drills of drills.py, in every size that they make sense for."""

from __future__ import annotations

import pytest

from .checks import Violation
from .drills import DRILLS, Drill
from .hosts import Plan
from .swarm import Swarm

SEEDS = range(4)
DRILLS_AND_SIZES = [(drill, nodes) for drill, sizes in DRILLS.items() for nodes in sizes]


@pytest.mark.parametrize(
    ("drill", "nodes"),
    DRILLS_AND_SIZES,
    ids=[f"{drill.__name__}-{nodes}" for drill, nodes in DRILLS_AND_SIZES],
)
def test_drill(drill: Drill, nodes: int, request: pytest.FixtureRequest) -> None:
    """What its docstring says, whatever the seed."""
    given = request.config.getoption("--swarm-seed")
    for seed in SEEDS if given is None else [given]:
        try:
            drill(Swarm(seed, Plan(nodes=nodes, faults_s=0)))
        except Violation as violation:
            pytest.fail(f"{violation}\nreplay: bin/test '{request.node.nodeid}' --swarm-seed {seed}")
