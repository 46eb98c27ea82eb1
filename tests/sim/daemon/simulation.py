"""Whole daemons in virtual time: the same seed gives the same trace, in any process.

What runs is `peernode.daemon.serve`: the real task tree with real TLS and real SQLite files. Three things are
exchanged, each at a seam that the daemon has for it: the sockets of peer links (`trio.socket`, see network.py), the
clock and chance (`World`), and the store's thread (a task that commits inline). Trio's scheduler is seeded; time
jumps whenever all tasks wait.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from pathlib import Path
from random import Random

import trio
import trio.socket
import trio.testing
from trio._core import _run as trio_run

from peernode.daemon.enrol import found_cluster, join_cluster
from peernode.daemon.folder import Folder
from peernode.daemon.runtime import Runtime
from peernode.daemon.serve import Setup, serve
from peernode.log import Log
from peernode.net.dialler import join_address
from peernode.net.listener import open_listener
from peernode.store.committer import Group, NotStored, Outcome
from peernode.store.writer import Writer
from protocol.effects import Entry, Stage
from protocol.identity.keys import Ed25519Keys
from protocol.identity.tickets import Ticket
from protocol.inputs import CreateTicket, Event, Put, Written
from protocol.types import Instant, NodeId

from .network import HOST, Network

EPOCH_MS = 1_700_000_000_000
PORT = 7755
PATIENCE_S = 30.0
POLL_S = 0.01
DISK_S = (0.0002, 0.008)


class Simulation:
    """One run's network and hosts. Made inside `simulate`."""

    def __init__(self, seed: int, folder: Path, nursery: trio.Nursery) -> None:
        self.random = Random(f"daemons {seed}")
        self.network = Network(Random(self.random.random()))
        self._folder, self.nursery = folder, nursery
        self.hosts: list[Host] = []

    def host(self, name: str, *, skew_ms: int = 0) -> Host:
        """A machine without a daemon yet."""
        made = Host(self, name, f"10.0.0.{len(self.hosts) + 1}", self._folder / name, skew_ms)
        self.hosts.append(made)
        return made

    async def until(self, condition: Callable[[], bool], what: str) -> float:
        """Let time pass until the condition holds; how long that took, in virtual seconds."""
        began_s = trio.current_time()
        while not condition():
            assert trio.current_time() < began_s + PATIENCE_S, (
                f"waited {PATIENCE_S:.0f} s for {what}\n{self.logs()}"
            )
            await trio.sleep(POLL_S)
        return trio.current_time() - began_s

    def logs(self) -> str:
        return "\n".join(f"--- {host.name}\n{host.log.getvalue()}" for host in self.hosts)

    def trace(self) -> str:
        """A hash over everything that was sent and logged."""
        self.network.note(self.logs())
        return self.network.trace()


class SimWorld:
    """`peernode.daemon.world.World` with virtual clocks and seeded chance."""

    def __init__(self, random: Random, skew_ms: int) -> None:
        self._random, self.skew_ms = random, skew_ms
        self.is_set = False
        """Somebody has set its clock."""

    def now(self) -> Instant:
        now_s = trio.current_time()
        return Instant(now_s, EPOCH_MS + self.skew_ms + int(now_s * 1000))

    def entropy(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def random(self) -> Random:
        return Random(self._random.random())


class InlineCommitter:
    """Commits in a task, after a time that a disk would take. A dead host's queue is lost."""

    def __init__(
        self, writer: Writer, deliver: Callable[[Outcome], None], host: Host, random: Random
    ) -> None:
        self._writer, self._deliver, self._host, self._random = writer, deliver, host, random
        self._queue: deque[Stage] = deque()
        self._work = trio.lowlevel.ParkingLot()

    def submit(self, stage: Stage) -> None:
        self._queue.append(stage)
        self._work.unpark()

    def acknowledge_failure(self) -> None:
        pass  # what was staged on top of a failed commit is forgotten before the core hears of it

    def close(self) -> None:
        if self._host.is_up:
            while self._queue:
                self._take().apply(self._writer)
        self._writer.close()

    async def run(self) -> None:
        while True:
            while not self._queue:
                await self._work.park()
            await trio.sleep(self._random.uniform(*DISK_S))
            outcome = self._take().apply(self._writer)
            if isinstance(outcome, NotStored):
                self._queue.clear()
            self._deliver(outcome)

    def _take(self) -> Group:
        return Group(self._queue.popleft(), lambda: self._queue.popleft() if self._queue else None)


class Held:
    """In the place of a node whose process stands still: nothing is ever due, and events wait."""

    deadline_s = float("inf")

    def __init__(self, runtime: Runtime) -> None:
        self.node, self.dispatch = runtime.node, runtime.dispatch
        self.events: list[Event] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.node, name)


class Host:
    """A machine: its folder and its clock stay, its daemon comes and goes."""

    def __init__(self, simulation: Simulation, name: str, ip: str, folder: Path, skew_ms: int) -> None:
        self._simulation, self.name, self.ip, self._folder = simulation, name, ip, folder
        self.world = SimWorld(Random(simulation.random.random()), skew_ms)
        self.log = io.StringIO()
        self.is_up = False
        self._stood_by: Held | None = None
        self._runtime: Runtime | None = None
        self._scope = trio.CancelScope()
        self._stop = trio.Event()
        self._ready = self._ended = trio.Event()

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    @property
    def runtime(self) -> Runtime:
        assert self._runtime is not None
        return self._runtime

    @property
    def digest(self) -> int:
        return self.runtime.node.replica.tally.durable.digest

    def state_of(self, other: Host) -> str | None:
        """What this daemon says of another."""
        members = self.runtime.node.membership.table.members.values()
        return next((m.state.value for m in members if m.record.name == other.name), None)

    def has_reached(self, other: Host) -> bool:
        """Whether it has seen the other answer at its address: only then a refusal there means anything."""
        members = self.runtime.node.membership.table.members.values()
        return any(m.record.name == other.name and m.reached is not None for m in members)

    async def start(self, ticket: Ticket | None = None) -> None:
        """Start the daemon and wait until it is ready; without a ticket an empty folder founds a cluster."""
        assert not self.is_up
        self.is_up = True
        self._stop, self._ready, self._ended = trio.Event(), trio.Event(), trio.Event()
        self._scope = trio.CancelScope()
        self._simulation.nursery.start_soon(self._live, ticket)
        await self._ready.wait()

    async def kill(self) -> None:
        """kill -9: nothing is said, nothing that was not committed is kept."""
        self.is_up, self._stood_by = False, None
        self._scope.cancel()  # first: its tasks must not see their sockets fail
        self._simulation.network.process_died(self.ip)
        await self._ended.wait()

    def pause(self) -> None:
        """SIGSTOP: nothing is decided, while bytes and time go on."""
        if self.is_up and self._runtime is not None and not self._stood_by:
            self._stood_by = held = Held(self._runtime)
            self._runtime.dispatch = held.events.append  # type: ignore[method-assign]
            self._runtime.node = held  # type: ignore[assignment]

    def resume(self) -> None:
        """All that came meanwhile is decided now."""
        held, self._stood_by = self._stood_by, None
        if held is not None and self.is_up:
            self.runtime.dispatch, self.runtime.node = held.dispatch, held.node  # type: ignore[method-assign]
            for event in held.events:
                self._dispatch(event)

    async def stop(self) -> None:
        """SIGTERM: the daemon says goodbye and ends."""
        self._stop.set()
        await self._ended.wait()
        self.is_up = False

    async def ticket(self, uses: int) -> Ticket:
        made = await self.ask(
            lambda ref: CreateTicket(ref, self.world.entropy(8), self.world.entropy(16), 900_000, uses)
        )
        assert isinstance(made, tuple) and isinstance(made[0], Ticket)
        return made[0]

    async def put(self, key: bytes, value: bytes) -> Entry:
        """A write, acknowledged."""
        written = await self.ask(lambda ref: Put(ref, "default", key, value))
        assert isinstance(written, Written), written
        return written.entry

    async def ask(self, request: Callable[[object], object]) -> object:
        """Let the daemon handle one local request."""
        outcomes: list[object] = []
        answered = trio.Event()

        def answer(outcome: object) -> None:
            outcomes.append(outcome)
            answered.set()

        self._dispatch(request(answer))  # type: ignore[arg-type]
        await answered.wait()
        return outcomes[0]

    def _dispatch(self, event: Event) -> None:
        """As if from one of its own tasks: what it starts in answer opens sockets of this host."""
        context = copy_context()
        context.run(HOST.set, self.ip)
        context.run(self.runtime.dispatch, event)

    async def _live(self, ticket: Ticket | None) -> None:
        HOST.set(self.ip)
        log = Log("debug", lambda: self.world.now().wall_ms, self.log)
        folder = Folder(self._folder)
        try:
            with self._scope:
                if not folder.is_enrolled and ticket is None:
                    found_cluster(folder, self.world)
                elif not folder.is_enrolled:
                    assert ticket is not None
                    await join_cluster(folder, ticket, ticket.addresses, (), self.world, log)
                while await self._serve(folder, log):
                    pass  # it was known under a later run
        finally:
            folder.close()
            self._ended.set()

    async def _serve(self, folder: Folder, log: Log) -> bool:
        listener = await open_listener(self.ip, PORT)
        keys = Ed25519Keys(folder.node_key(b""), folder.grant())
        setup = Setup(folder, keys, self.name, join_address(self.ip, PORT), listener)
        setup.seeds = folder.seeds()
        setup.new_committer = self._committer
        return await serve(setup, self.world, log, self._stop, self._on_ready)

    def _committer(
        self, writer: Writer, deliver: Callable[[Outcome], None], nursery: trio.Nursery
    ) -> InlineCommitter:
        committer = InlineCommitter(writer, deliver, self, self.world.random())
        nursery.start_soon(committer.run)
        return committer

    def _on_ready(self, runtime: Runtime, _: NodeId | None) -> None:
        self._runtime = runtime
        self._ready.set()


def simulate(seed: int, folder: Path, scenario: Callable[[Simulation], Awaitable[None]]) -> str:
    """Run one scenario to its end; returns the trace hash."""
    trace = ""

    async def main() -> None:
        nonlocal trace
        async with trio.open_nursery() as nursery:
            simulation = Simulation(seed, folder, nursery)
            trio.socket.set_custom_socket_factory(simulation.network)
            await scenario(simulation)
            trace = simulation.trace()
            for host in simulation.hosts:
                if host.is_up:
                    await host.kill()

    was_seeded, trio_run._ALLOW_DETERMINISTIC_SCHEDULING = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, True  # type: ignore[misc]
    try:
        trio_run._r.seed(seed)
        trio.run(main, clock=trio.testing.MockClock(rate=0, autojump_threshold=0))
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = was_seeded  # type: ignore[misc]
    return trace
