"""Histories of whole clusters: one seed makes one run, its faults, its history, and a verdict."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from random import Random

import msgspec
import trio

from protocol.inputs import Created, CreateKeyspace

from ..commit.mutants import MUTANTS
from ..histories.appends import check_appends
from ..histories.history import History, Recorder, print_history
from ..histories.registers import Linearizable, check_registers
from .clients import KEYSPACE, Client, Lists, Registers, Work
from .faults import Faults
from .simulation import Host, Simulation, simulate

CLIENTS = 8
OPERATIONS = 500
FAULTY_SHARE = 0.7
"""Of all operations begin while faults go on."""
ANOMALIES_SHOWN = 3


class Result(msgspec.Struct):
    """What a run came to. `wrong`: what must not be."""

    seed: int
    wrong: str = ""
    trace: str = ""
    tried: dict[bool, int] = {}
    done: dict[bool, int] = {}
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    answers: Counter[str] = msgspec.field(default_factory=Counter)
    history: str = ""


def play(
    seed: int, *, appends: bool = False, operations: int = OPERATIONS, mutant: str | None = None
) -> Result:
    """One run. Whatever is raised in it is a violation, too. `mutant`: of tests/sim/commit/mutants.py."""
    result = Result(seed)

    async def scenario(simulation: Simulation) -> None:
        history = await live(
            simulation, Random(f"history/{seed}"), Lists if appends else Registers, operations, result
        )
        result.history = print_history(history)
        result.wrong = judge(history, appends=appends)

    planted = MUTANTS[mutant].planted() if mutant else nullcontext()
    with tempfile.TemporaryDirectory() as folder, planted:
        try:
            result.trace = simulate(seed, Path(folder), scenario)
        except Exception as error:  # noqa: BLE001  it is told, with the seed that shows it again
            result.wrong = f"{type(error).__name__}: {told(error)}"
    return result


def judge(history: History, *, appends: bool) -> str:
    """Why no correct system could have told clients that; empty: one could."""
    if appends:
        return "\n".join(str(anomaly) for anomaly in check_appends(history)[:ANOMALIES_SHOWN])
    verdict = check_registers(history)
    return "" if isinstance(verdict, Linearizable) else str(verdict)


async def live(
    simulation: Simulation, random: Random, kind: type[Client], operations: int, result: Result
) -> History:
    """A cluster of three to five, of which three vote; clients and faults; then peace, and all must agree."""
    hosts = [
        simulation.host(f"n{number}", skew_ms=random.randint(-40, 40))
        for number in range(random.choice((3, 3, 4, 5)))
    ]
    await gather(simulation, hosts)
    recorder = Recorder(trio.current_time)
    work = Work(hosts, recorder, operations)
    faults = Faults(simulation, hosts, random)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(faults.run)
        async with trio.open_nursery() as clients:
            for number in range(CLIENTS):
                clients.start_soon(kind(work, number, Random(f"{random.random()}")).run)
            await work.is_begun(round(operations * FAULTY_SHARE))
            faults.end()
            await all_well(simulation, hosts)
            work.are_faults_on = False
    await agreed(simulation, hosts)
    result.tried, result.done, result.faults = work.tried, work.done, faults.counts
    result.answers = work.answers
    return recorder.history()


async def gather(simulation: Simulation, hosts: list[Host]) -> None:
    first, *others = hosts
    await first.start()
    ticket = await first.ticket(uses=len(others))
    for host in others:
        await host.start(ticket)
    await simulation.until(lambda: all_alive(hosts), "all to be alive")
    made = await first.ask(lambda ref: CreateKeyspace(ref, KEYSPACE, "coordinated"))
    assert isinstance(made, Created), made
    await simulation.until(
        lambda: all(knows(host, made.definition.id) for host in hosts), "the keyspace to be known"
    )


async def all_well(simulation: Simulation, hosts: list[Host]) -> None:
    await simulation.until(
        lambda: all(host.is_up and host.is_ready for host in hosts) and all_alive(hosts),
        "all to be well again",
    )


async def agreed(simulation: Simulation, hosts: list[Host]) -> None:
    """Nothing in doubt, nothing locked, and the same values everywhere."""

    def hold() -> bool:
        voters = [host.runtime.node.transactions.commit.voter for host in hosts]
        is_decided = all(len(voter.locks) == 0 and not any(voter.records.in_doubt()) for voter in voters)
        return is_decided and len({host.digest for host in hosts}) == 1

    await simulation.until(hold, "all to agree")


def all_alive(hosts: list[Host]) -> bool:
    return all(one.state_of(other) == "alive" for one in hosts for other in hosts if one is not other)


def knows(host: Host, keyspace: int) -> bool:
    return host.runtime.node.replica.keyspaces.by_id(keyspace) is not None


def told(error: BaseException) -> str:
    """The first that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)[:2000]
