"""What goes wrong with whole daemons: deaths, pauses, cuts, slow paths, clocks that are set; until it is over."""

from __future__ import annotations

from collections import Counter
from random import Random

import trio

from .network import LATENCY_S
from .simulation import Host, Simulation

EVERY_S = (0.05, 1.0)
AWAY_S = (0.05, 2.5)
PAUSE_S = (0.2, 3.0)
CUT_S = (0.2, 3.0)
SLOW_S = (0.0, 0.15)
JUMPS_MS = (-600_000, -8_000, -900, 900, 8_000, 600_000)


class Faults:
    """One after the other, several at a time; at most one host has a wrong clock."""

    def __init__(self, simulation: Simulation, hosts: list[Host], random: Random) -> None:
        self._simulation, self._hosts, self._random = simulation, hosts, random
        self.counts: Counter[str] = Counter()
        self._is_over = False

    async def run(self) -> None:
        kinds = [
            self._kill,
            self._kill,
            self._pause,
            self._cut_off,
            self._cut_one_way,
            self._slow,
            self._set_clock,
        ]
        async with trio.open_nursery() as nursery:
            while not self._is_over:
                await trio.sleep(self._random.uniform(*EVERY_S))
                kind, host = self._random.choice(kinds), self._random.choice(self._hosts)
                if not self._is_over and host.is_up and host.is_ready:
                    self.counts[kind.__name__.strip("_")] += 1
                    nursery.start_soon(kind, host)

    def end(self) -> None:
        """What is wrong now is soon put right, and nothing new comes."""
        self._is_over = True
        self._simulation.network.heal()

    async def _for(self, bounds_s: tuple[float, float]) -> None:
        await trio.sleep(self._random.uniform(*bounds_s))

    async def _kill(self, host: Host) -> None:
        await host.kill()
        await self._for(AWAY_S)
        await host.start()

    async def _pause(self, host: Host) -> None:
        host.pause()
        await self._for(PAUSE_S)
        host.resume()

    async def _cut_off(self, host: Host) -> None:
        for other in self._hosts:
            if other is not host:
                self._simulation.network.cut(host.ip, other.ip)
        await self._for(CUT_S)
        self._simulation.network.heal()

    async def _cut_one_way(self, host: Host) -> None:
        other = self._random.choice([other for other in self._hosts if other is not host])
        self._simulation.network.cut_one_way(host.ip, other.ip)
        await self._for(CUT_S)
        self._simulation.network.heal()

    async def _slow(self, _: Host) -> None:
        self._simulation.network.latency_s = SLOW_S
        await self._for(CUT_S)
        self._simulation.network.latency_s = LATENCY_S

    async def _set_clock(self, host: Host) -> None:
        if any(other.world.is_set for other in self._hosts):
            return
        host.world.is_set = True
        jump_ms = self._random.choice(JUMPS_MS)
        host.world.skew_ms += jump_ms
        await self._for(PAUSE_S)
        host.world.skew_ms -= jump_ms
        host.world.is_set = False
