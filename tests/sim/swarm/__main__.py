"""`python -m tests.sim.swarm`: random faults for as long as it may take; says how to replay what it finds."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter

from .checks import Violation
from .hosts import wrong_clock_plan
from .swarm import Swarm

CHUNK = 10
WRONG_CLOCKS = 10
"""Every so many seeds are played once more, with one clock that is far off."""
REPORT_EVERY = 500


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.swarm", description=__doc__)
    parser.add_argument(
        "--cpu-s", type=float, default=3600.0, help="end when all together have used so much CPU"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    totals = Part()
    chunks = (range(first, first + CHUNK) for first in range(options.first_seed, sys.maxsize, CHUNK))
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        while totals.cpu_s < options.cpu_s:
            for part in pool.imap_unordered(play, [next(chunks) for _ in range(REPORT_EVERY // CHUNK)]):
                totals.add(part)
                for what in part.violations:
                    print(what, flush=True)
            print(totals, flush=True)
    return 1 if totals.violations else 0


def play(seeds: range) -> Part:
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


if __name__ == "__main__":
    sys.exit(main())
