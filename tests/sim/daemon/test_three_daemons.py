"""Three whole daemons in virtual time: the seams hold, and one seed gives one trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from .simulation import Host, Simulation, simulate

ROOT = Path(__file__).parents[3]
PRINT_TRACE = """
import sys
from pathlib import Path
from tests.sim.daemon.simulation import simulate
from tests.sim.daemon.test_three_daemons import life_of_a_cluster
print(simulate(7, Path(sys.argv[1]), life_of_a_cluster))
"""


async def life_of_a_cluster(simulation: Simulation) -> None:
    """Join, write, crash, restart, cut, heal, goodbye."""
    a, b, c = (simulation.host(name, skew_ms=skew) for name, skew in (("a", 0), ("b", 40), ("c", -40)))
    await a.start()
    ticket = await a.ticket(uses=2)
    await b.start(ticket)
    await c.start(ticket)
    await all_alive(simulation, a, b, c)
    for host in (a, b, c):
        await host.put(b"from " + host.name.encode(), b"v")
    await equal(simulation, 3, a, b, c)
    await simulation.until(lambda: a.has_reached(c) and b.has_reached(c), "c to be reached at its address")

    await c.kill()
    await simulation.until(lambda: a.state_of(c) == b.state_of(c) == "dead", "c to be dead")
    await a.put(b"while c was away", b"v")
    await c.start()
    await all_alive(simulation, a, b, c)
    await equal(simulation, 4, a, b, c)

    simulation.network.cut(a.ip, b.ip)
    await simulation.until(lambda: a.state_of(b) == b.state_of(a) == "suspect", "a and b to miss each other")
    await a.put(b"during the cut", b"v")
    assert c.state_of(a) == c.state_of(b) == "alive"
    simulation.network.heal()
    await all_alive(simulation, a, b, c)
    await equal(simulation, 5, a, b, c)

    await b.stop()
    await simulation.until(lambda: a.state_of(b) == c.state_of(b) == "left", "b to have left")


async def life_of_a_split(simulation: Simulation) -> None:
    """One of three is cut off: dead to the majority, which is suspect to it; healed, all are alive and equal."""
    a, b, c = (simulation.host(name) for name in "abc")
    await a.start()
    ticket = await a.ticket(uses=2)
    await b.start(ticket)
    await c.start(ticket)
    await all_alive(simulation, a, b, c)

    simulation.network.cut(a.ip, b.ip)
    simulation.network.cut(a.ip, c.ip)
    took_s = await simulation.until(lambda: b.state_of(a) == c.state_of(a) == "dead", "a to be dead")
    assert took_s < 1.7
    await trio.sleep(15)
    assert [a.state_of(b), a.state_of(c), b.state_of(c), c.state_of(b)] == [
        "suspect",
        "suspect",
        "alive",
        "alive",
    ]
    await a.put(b"written by one", b"v")
    await b.put(b"written by two", b"v")
    simulation.network.heal()
    took_s = await all_alive(simulation, a, b, c)
    assert took_s < 3
    await equal(simulation, 2, a, b, c)


async def all_alive(simulation: Simulation, *hosts: Host) -> float:
    def hold() -> bool:
        return all(one.state_of(other) == "alive" for one in hosts for other in hosts if one is not other)

    return await simulation.until(hold, "all to see all alive")


async def equal(simulation: Simulation, keys: int, *hosts: Host) -> None:
    def hold() -> bool:
        tallies = {(host.digest, host.runtime.node.replica.tally.durable.keys) for host in hosts}
        return len(tallies) == 1 and tallies.pop()[1] == keys

    await simulation.until(hold, f"{keys} equal keys everywhere")


@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_lives_in_virtual_time(seed: int, tmp_path: Path) -> None:
    """Real TLS and SQLite, no real network and no real time: what holds on real machines holds here."""
    assert simulate(seed, tmp_path, life_of_a_cluster)


@pytest.mark.parametrize("seed", range(2))
def test_a_split_heals_in_virtual_time(seed: int, tmp_path: Path) -> None:
    """The smaller side never kills, the larger one does in time, and nothing that either wrote is lost."""
    assert simulate(seed, tmp_path, life_of_a_split)


def test_the_same_seed_gives_the_same_trace(tmp_path: Path) -> None:
    """In two processes with different hash seeds: all that was sent and logged is the same."""
    traces = {trace_with_hash_seed(seed, tmp_path / seed) for seed in ("1", "2")}
    assert len(traces) == 1


def trace_with_hash_seed(hash_seed: str, folder: Path) -> str:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PRINT_TRACE, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
