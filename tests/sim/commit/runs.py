"""Many runs of the model, in several processes, and what they came to."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

from .checks import Violation
from .model import Told, run
from .mutants import MUTANTS

SHARE_IN_FAULTS = 0.3
SHARE_AFTER = 0.8
"""C9: of all that clients ask for. Without it a node that refuses everything would be the safest of all."""

Part = tuple[Sequence[int], str | None]


class Totals:
    """What runs came to."""

    def __init__(self) -> None:
        self.runs = 0
        self.violations: list[tuple[int, str]] = []
        self.tried: Counter[bool] = Counter()
        self.done: Counter[bool] = Counter()
        self.faults: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.longest_s = 0.0
        self.changes = 0

    def add(self, other: Totals) -> None:
        self.runs += other.runs
        self.violations += other.violations
        self.tried += other.tried
        self.done += other.done
        self.faults += other.faults
        self.refusals += other.refusals
        self.longest_s = max(self.longest_s, other.longest_s)
        self.changes += other.changes

    def share(self, *, faults: bool) -> float:
        """How much of what clients asked for was done."""
        return self.done[faults] / max(1, self.tried[faults])

    @property
    def shares_text(self) -> str:
        return f"done {self.share(faults=True):.1%} during faults, {self.share(faults=False):.1%} afterwards"

    @property
    def broken(self) -> str | None:
        """C9, over all runs."""
        is_enough = self.share(faults=True) >= SHARE_IN_FAULTS and self.share(faults=False) >= SHARE_AFTER
        return None if is_enough or self.violations else f"C9: {self.shares_text}"

    @property
    def are_good(self) -> bool:
        return not self.violations and self.broken is None

    def __str__(self) -> str:
        lines = [
            f"{self.runs} runs, {len(self.violations)} violations of C1 to C8 and C10",
            f"{sum(self.tried.values())} operations: {self.shares_text}",
            f"not done: {_counts_text(self.refusals)}",
            f"longest lock with no fault for as long: {self.longest_s:.2f} s",
            f"voters exchanged {self.changes} times",
            f"{sum(self.faults.values())} faults: {_counts_text(self.faults)}",
        ]
        return "\n".join([*lines, *filter(None, [self.broken])])


def play(seeds: Iterable[int], told: Told | None = None) -> Totals:
    """These seeds, one after the other. Whatever else than a violation or a failed assertion comes up is raised."""
    totals = Totals()
    for seed in seeds:
        totals.runs += 1
        try:
            model = run(seed, told)
        except Violation as violation:
            totals.violations.append((seed, str(violation)))
            continue
        except AssertionError as error:
            totals.violations.append((seed, f"the product asserts: {error}"))
            continue
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        totals.tried += Counter(model.checks.tried)
        totals.done += Counter(model.checks.done)
        totals.faults += Counter(model.faults.counts)
        totals.refusals += Counter(model.checks.refusals)
        totals.changes += model.changes.done
        totals.longest_s = max(totals.longest_s, model.patience.longest_s)
    return totals


def run_many(seeds: range, jobs: int, chunk: int, mutant: str | None) -> Iterator[Totals]:
    """In chunks, as they are done."""
    parts: list[Part] = [(seeds[start : start + chunk], mutant) for start in range(0, len(seeds), chunk)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_play_part, parts)


def _play_part(part: Part) -> Totals:
    seeds, mutant = part
    with MUTANTS[mutant].planted() if mutant else nullcontext():
        return play(seeds)


def replay_line(seed: int, what: str, mutant: str | None) -> str:
    """The command that shows how it came to this."""
    names = [word.strip("'[],:") for word in what.split()]
    txid = next((f" {name}" for name in names if name[:1] == "n" and name.count(".") == 2), "")
    planted = f" --mutant {mutant}" if mutant else ""
    return f"python -m tests.sim.commit{planted} --seed {seed} --trace{txid}"


def _counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "none"
