"""What goes wrong in a swarm at random, and what clients ask meanwhile: each at its own rate, for `faults_s`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol.membership.membership import MEMBER_RECORD
from protocol.types import LinkId

from .hosts import Host, Pipe

if TYPE_CHECKING:
    from .swarm import Swarm

Fault = Callable[["Swarm"], None]


def schedule(swarm: Swarm) -> None:
    """Begin with it."""
    plan = swarm.plan
    repeat(swarm, 1 / plan.writes_per_s, lambda swarm: swarm.client_request())
    repeat(swarm, plan.crash_every_s, crash_one)
    repeat(swarm, plan.cut_every_s, cut_one)
    repeat(swarm, plan.link_loss_every_s, lose_link)
    repeat(swarm, plan.full_every_s, fill_disk)
    repeat(swarm, plan.jump_every_s, jump_clock)
    repeat(swarm, plan.restore_every_s, restore_one)
    repeat(swarm, plan.pause_every_s, pause_one)


def repeat(swarm: Swarm, every_s: float, fault: Fault) -> None:
    def again() -> None:
        if swarm.now < swarm.plan.faults_s:
            fault(swarm)
            swarm.at(swarm.rng.expovariate(1 / every_s), again)

    swarm.at(swarm.rng.expovariate(1 / every_s), again)


def any_host(swarm: Swarm) -> Host:
    return swarm.rng.choice(list(swarm.hosts.values()))


def crash_one(swarm: Swarm) -> None:
    """A process is killed, or its machine loses power; it is started again soon."""
    host = any_host(swarm)
    if host.node is not None:
        swarm.crash(host, power=swarm.rng.random() < 0.7)
        swarm.at(swarm.rng.uniform(0.05, 3.0), lambda: swarm.boot(host))


def pause_one(swarm: Swarm) -> None:
    """A process is stopped for a while."""
    host = any_host(swarm)
    if host.node is not None and not host.is_paused:
        swarm.pause(host)
        swarm.at(swarm.rng.uniform(0.1, 6.0), lambda: swarm.resume(host))


def cut_one(swarm: Swarm) -> None:
    """Between two nodes nothing gets through for a while, or only one way."""
    one, other = swarm.rng.sample(sorted(swarm.hosts), 2)
    swarm.stats["cuts"] += 1
    ways = [(one, other)] if swarm.rng.random() < 0.3 else [(one, other), (other, one)]
    swarm.block(*ways)
    swarm.at(swarm.rng.uniform(0.2, 8.0), lambda: swarm.unblock(*ways))


def lose_link(swarm: Swarm) -> None:
    """A connection is reset; both ends live on."""
    pipes = {id(pipe): pipe for host in swarm.hosts.values() for pipe in host.pipes.values()}
    if pipes:
        swarm.break_pipe(swarm.rng.choice(sorted(pipes.values(), key=ends_of)), "reset by the network")


def ends_of(pipe: Pipe) -> tuple[tuple[str, LinkId], tuple[str, LinkId]]:
    return pipe.ends


def fill_disk(swarm: Swarm) -> None:
    """A disk is full for a while."""
    host = any_host(swarm)
    host.full = True
    swarm.note("full", host.name)
    swarm.at(swarm.rng.uniform(0.1, 2.0), lambda: setattr(host, "full", False))


def jump_clock(swarm: Swarm) -> None:
    """Somebody sets a wall clock."""
    host = any_host(swarm)
    host.skew_ms = swarm.rng.randint(-swarm.plan.jump_ms, swarm.plan.jump_ms)
    swarm.note("jump", host.name, host.skew_ms)


def restore_one(swarm: Swarm) -> None:
    """A machine is set back to an old copy of its disk; the next copy is taken now.

    Copies of a time when it knew nobody are not used: such a node waits for nobody, by design.
    """
    host = any_host(swarm)
    old, host.copy = host.copy, host.disk.copy()
    if old is None or host.node is None or not old.records(MEMBER_RECORD):
        return
    swarm.crash(host)
    swarm.note("restore", host.name)
    swarm.stats["restores"] += 1
    host.disk = old.copy()
    swarm.checks.restored(host)
    swarm.at(swarm.rng.uniform(0.05, 2.0), lambda: swarm.boot(host))
