"""`python -m tests.sim.power`: many recordings, many cuts of each; or one cut again, to look at its files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cuts import scratch, told, violations
from .recording import record
from .stores import STORES
from .workload import FAULTS, Case


def main() -> int:
    options = read_options()
    numbers = range(options.cuts) if options.cut is None else [options.cut]
    seeds = range(options.seeds) if options.seed is None else [options.seed]
    found = sum(cut_many(case_of(seed, options), numbers, options.keep) for seed in seeds)
    print(f"{len(seeds)} recordings, {len(seeds) * len(numbers)} cuts, {found} broken promises")
    return 1 if found else 0


def cut_many(case: Case, numbers: Sequence[int], keep: Path | None) -> int:
    """Returns how many cuts break a promise."""
    found = 0
    with scratch() as folder:
        recording = record(case, folder / "recording")
        print(f"seed {case.seed}: {len(recording.steps)} steps, {', '.join(recording.ends)}", flush=True)
        for image, violation in violations(recording, numbers, folder / "image"):
            found += 1
            print(told(case, image, violation), flush=True)
            if keep is not None:
                image.lay_out(keep / f"seed-{case.seed}-cut-{image.cut.number}")
    return found


def case_of(seed: int, options: argparse.Namespace) -> Case:
    return Case(seed, options.commits, tuple(options.faults), options.store, not options.no_readers)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.power", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="this many recordings")
    parser.add_argument("--cuts", type=int, default=2000, help="of each recording")
    parser.add_argument("--seed", type=int, help="this recording only")
    parser.add_argument("--cut", type=int, help="this cut only")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="put the files of broken cuts there, as the power left them",
    )
    parser.add_argument("--commits", type=int, default=120, help="of each recording")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=["full", "killed", "torn"])
    parser.add_argument(
        "--store", choices=STORES, default="Writer", help="a broken one, to see what it breaks"
    )
    parser.add_argument("--no-readers", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
