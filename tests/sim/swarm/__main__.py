"""`python -m tests.sim.swarm`: random faults for as long as it may take; says how to replay what it finds."""

from __future__ import annotations

import argparse
import sys

from .runs import Part, run_many

ROUND = 500
"""Seeds between two lines of progress."""


def main() -> int:
    options = read_options()
    totals, first = Part(), options.first_seed
    while totals.cpu_s < options.cpu_s:
        for part in run_many(range(first, first + ROUND), options.jobs):
            totals.add(part)
            for what in part.violations:
                print(what, flush=True)
        first += ROUND
        print(totals, flush=True)
    return 1 if totals.violations else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.swarm", description=__doc__)
    parser.add_argument(
        "--cpu-s", type=float, default=3600.0, help="end when all have used so much CPU together"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
