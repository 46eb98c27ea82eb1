"""Many runs of the swarm, in several processes, and what they came to."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from .checks import Violation
from .hosts import wrong_clock_plan
from .swarm import Swarm

CHUNK = 10
WRONG_CLOCKS = 10
"""Every so many seeds are played once more, with one clock that is far off."""


class Part:
    """What some seeds came to."""

    def __init__(self) -> None:
        self.runs = 0
        self.cpu_s = 0.0
        self.violations: list[str] = []
        self.stats: Counter[str] = Counter()

    def add(self, other: Part) -> None:
        self.runs += other.runs
        self.cpu_s += other.cpu_s
        self.violations += other.violations
        self.stats += other.stats

    def __str__(self) -> str:
        share = self.stats["acked"] / max(1, self.stats["asked"])
        crashes = self.stats["crashes"]
        return (
            f"{self.runs} runs, {len(self.violations)} violations, {self.stats['asked']} writes "
            f"({share:.1%} done), {crashes} crashes, {self.cpu_s:.0f} s of CPU"
        )


def run_many(seeds: range, jobs: int) -> Iterator[Part]:
    """In chunks, as they are done."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(play, chunks)


def play(seeds: Iterable[int]) -> Part:
    """One after the other."""
    part, began_s = Part(), time.process_time()
    for seed in seeds:
        plans = [None, *([wrong_clock_plan(seed)] if seed % WRONG_CLOCKS == 0 else [])]
        for swarm in [Swarm(seed, plan) for plan in plans]:
            part.runs += 1
            try:
                swarm.run()
            except Violation as violation:
                part.violations.append(str(violation))
            part.stats += swarm.stats
    part.cpu_s = time.process_time() - began_s
    return part
