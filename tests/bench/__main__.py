"""`python -m tests.bench`: runs the measurements and prints their tables as Markdown."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

from . import coordinated, measures
from .measures import Bench, sync_us
from .results import spread
from .servers import Redis, kinds

MEASURES = {
    "rates": measures.rates,
    "replication": measures.replication,
    "bulk": measures.bulk,
    "commands": measures.commands,
    "idle": measures.idle,
    "coordinated": coordinated.coordinated,
}


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="pn-", dir=options.dir) as home:
        bench = Bench(kinds(options.against), Path(home), options.rounds, options.seconds)
        names = [kind.name for kind in bench.kinds]
        print(circumstances(bench))
        if not any(isinstance(kind, Redis) for kind in bench.kinds):
            print("Redis is not installed here: its columns are missing.\n")
        if coordinated.missing():
            print(coordinated.missing() + "\n")
        print(load_average("before"), flush=True)
        for name in options.only or MEASURES:
            print(f"bench: {name} ...", file=sys.stderr, flush=True)
            for table in MEASURES[name](bench):
                print(table.markdown(names), flush=True)
        print(load_average("after"))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=15, help="of each measurement (15), of slow ones a third"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.2, help="that one rate is measured for in each round (0.2)"
    )
    parser.add_argument("--only", nargs="+", choices=MEASURES, help="only these measurements")
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="another checkout, measured in the same run"
    )
    parser.add_argument("--dir", type=Path, help="a folder on the disk to be measured (the temporary one)")
    options = parser.parse_args()
    if options.against is not None and not (options.against / "peernode").is_dir():
        parser.error(f"{options.against} is no checkout of peernode")
    return options


def circumstances(bench: Bench) -> str:
    return (
        f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; "
        f"{bench.rounds} rounds, median [range]. To append 200 bytes and sync them takes "
        f"{spread(sync_us(bench.home))} us here.\n"
    )


def load_average(when: str) -> str:
    return f"Load average {when}: {', '.join(f'{load:.2f}' for load in os.getloadavg())}.\n"


if __name__ == "__main__":
    main()
