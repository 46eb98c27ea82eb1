"""`python -m tests.sim.daemon`: many histories of whole clusters; or one again, with its history."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial

from ..commit.mutants import MUTANTS
from .runs import OPERATIONS, Result, play

REPORT_EVERY = 20
SHARE_IN_FAULTS, SHARE_AFTER = 0.3, 0.8


def main() -> int:
    options = read_options()
    if options.seed is not None:
        return tell_one(playing(options)(options.seed), with_history=options.history)
    seeds = range(options.first_seed, options.first_seed + options.runs)
    tried: Counter[bool] = Counter()
    done: Counter[bool] = Counter()
    faults: Counter[str] = Counter()
    wrong = 0
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        results = pool.imap_unordered(playing(options), seeds)
        for number, result in enumerate(results, start=1):
            if result.wrong:
                wrong += 1
                print(f"seed {result.seed}: {result.wrong[:500]}")
                print(f"    {replay_line(result.seed, options)}", flush=True)
            tried += Counter(result.tried)
            done += Counter(result.done)
            faults += result.faults
            if number % REPORT_EVERY == 0:
                print(f"{number} histories, {wrong} wrong", flush=True)
    shares = done[True] / max(1, tried[True]), done[False] / max(1, tried[False])
    what = "list-append transactions" if options.appends else "operations"
    print(f"{options.runs} histories of {options.operations} {what}, {wrong} wrong")
    print(
        f"done {shares[0]:.1%} of {tried[True]} during faults, {shares[1]:.1%} of {tried[False]} afterwards"
    )
    print(f"{faults.total()} faults: {', '.join(f'{count} {kind}' for kind, count in faults.most_common())}")
    are_enough = shares[0] >= SHARE_IN_FAULTS and shares[1] >= SHARE_AFTER
    return 0 if not wrong and are_enough else 1


def playing(options: argparse.Namespace) -> Callable[[int], Result]:
    return partial(play, appends=options.appends, operations=options.operations, mutant=options.mutant)


def tell_one(result: Result, *, with_history: bool) -> int:
    if with_history:
        print(result.history, end="")
    print(f"trace {result.trace}, {dict(result.answers)}, {dict(result.faults)}")
    print(result.wrong or "nothing is wrong")
    return 1 if result.wrong else 0


def replay_line(seed: int, options: argparse.Namespace) -> str:
    """The command that shows it again."""
    parts = ["python -m tests.sim.daemon", f"--seed {seed}", "--history"]
    parts += ["--appends"] if options.appends else []
    parts += [f"--operations {options.operations}"] if options.operations != OPERATIONS else []
    return " ".join([*parts, *([f"--mutant {options.mutant}"] if options.mutant else [])])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.daemon", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="so many seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--operations", type=int, default=OPERATIONS, help="of each run")
    parser.add_argument("--appends", action="store_true", help="transactions over lists instead of registers")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument(
        "--history", action="store_true", help="print what clients did and were told (with --seed)"
    )
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="a broken product, to see what catches it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
