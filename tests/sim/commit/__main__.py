"""`python -m tests.sim.commit`: many runs of the model; or one again, with all that happens in it."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext

from .mutants import MUTANTS
from .runs import Totals, play, replay_line, run_many
from .trace import Excerpt

CHUNK = 50
REPORT_EVERY = 1000


def main() -> int:
    options = read_options()
    if options.seed is not None:
        return run_one(options)
    seeds = range(options.first_seed, options.first_seed + options.runs)
    totals = Totals()
    for part in run_many(seeds, options.jobs, CHUNK, options.mutant):
        for seed, what in part.violations:
            print(f"seed {seed}: {what}\n    {replay_line(seed, what, options.mutant)}", flush=True)
        before = totals.runs
        totals.add(part)
        if totals.runs // REPORT_EVERY > before // REPORT_EVERY:
            print(
                f"{totals.runs} runs, {len(totals.violations)} violations, {totals.shares_text}", flush=True
            )
    print(totals)
    return 0 if totals.are_good else 1


def run_one(options: argparse.Namespace) -> int:
    """Play a seed; `--trace` prints what happens."""
    wanted = None if options.trace is None else Excerpt(options.trace)

    def told(line: str) -> None:
        if wanted is not None and wanted.has(line):
            print(line)

    with MUTANTS[options.mutant].planted() if options.mutant else nullcontext():
        part = play([options.seed], told if wanted is not None else None)
    print("\n".join(what for _, what in part.violations) or "nothing is broken")
    return 1 if part.violations else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.commit", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="so many seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument(
        "--trace",
        nargs="?",
        const="",
        metavar="TXID",
        help="print what happens (with --seed), or what names TXID",
    )
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="a broken product, to see what catches it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
