"""The commit protocol under random faults: many seeds, each with its own size, load and troubles, always the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .ambush import Point
from .model import Model
from .order import Event, find_cycle
from .runs import Totals, play, replay_line
from .trace import Excerpt

ROOT = Path(__file__).parents[3]
SLOT = (1, b"k")
OTHER = (1, b"l")
ENOUGH = 50

FOUND = {
    8573: "a voter said that it knew an outcome which its full disk had not stored",
    15211: "a voter that was started anew proposed at a ballot that it had used before",
}
"""Seeds that found a bug, and which."""


@pytest.fixture(scope="module")
def totals(request: pytest.FixtureRequest) -> Totals:
    """Of all seeds that are asked for."""
    seed, count = request.config.getoption("--commit-seed"), request.config.getoption("--commit-seeds")
    return play(range(count) if seed is None else [seed])


def test_the_protocol_holds_under_faults(totals: Totals) -> None:
    """C1 to C8, in every run."""
    broken = [f"{what}\n    {replay_line(seed, what, None)}" for seed, what in totals.violations]
    assert broken == [], "\n".join(broken)


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_stays_mended(seed: int) -> None:
    """The seeds that found a bug run each time."""
    assert play([seed]).violations == []


def test_enough_is_done_under_faults(totals: Totals) -> None:
    """C9, over all runs."""
    if totals.runs < ENOUGH:
        pytest.skip("a few runs tell nothing of it")
    assert totals.broken is None, str(totals)


def test_every_kind_of_fault_comes_up(totals: Totals) -> None:
    """Each point of an ambush is reached, and each other fault strikes: none is dead code."""
    if totals.runs < ENOUGH:
        pytest.skip("a few runs do not have them all")
    kinds = {kind.split(" where ")[0] for kind in totals.faults}
    points = {kind for kind in totals.faults if " where " in kind}

    assert {"killed", "split", "paused", "change-over", "clock set ahead", "clock set back"} <= kinds
    assert {"lost its disk", "set back", "started anew"} <= kinds
    assert len(points) == len(Point)


def test_the_same_seed_gives_the_same_trace() -> None:
    """In two processes with different hash seeds: no order of a set decides anything."""
    traces = {trace_with_hash_seed(seed) for seed in ("1", "2")}
    assert len(traces) == 1
    assert len(traces.pop().splitlines()) > 1000


def trace_with_hash_seed(seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.commit", "--seed", "7", "--trace"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_trace_can_be_of_one_transaction() -> None:
    """Lines that name others are left out; what happened to nodes stays."""
    lines: list[str] = []
    Model(7, lines.append).run()
    excerpt = Excerpt("n1.1.1")
    some = [line for line in lines if excerpt.has(line)]

    assert any("PREPARE header=n1.1.1 " in line for line in some)
    assert any("starts, run 1" in line for line in some)
    assert not any("header=n1.1.2 " in line for line in some)


def test_a_violation_names_the_command_that_replays_it() -> None:
    """With the transaction that it is about, where there is one."""
    assert replay_line(5, "C2: n1.1.9 has two outcomes", None).endswith("--seed 5 --trace n1.1.9")
    assert replay_line(5, "C6: nodes hold different values", None).endswith("--seed 5 --trace")


def test_too_little_done_is_a_violation() -> None:
    """C9: a third during faults, four fifths afterwards."""
    totals = Totals()
    totals.tried.update({True: 100, False: 100})
    totals.done.update({True: 30, False: 79})
    assert totals.broken is not None

    totals.done.update({False: 1})
    assert totals.broken is None


# The order of what clients saw


def event(
    name: str, began_s: float, ended_s: float, reads: dict[tuple[int, bytes], int], *writes: int
) -> Event:
    return Event(name, began_s, ended_s, reads, dict.fromkeys([SLOT], writes[0]) if writes else {})


def test_a_read_of_what_was_replaced_before_it_began_has_no_place() -> None:
    """A stale read: real time puts it behind the write, what it saw before it."""
    write, read = event("w", 0, 1, {}, 5), event("r", 2, 3, {SLOT: 0})
    assert find_cycle([write, read]) is not None


def test_a_read_that_overlaps_may_see_either() -> None:
    """What was under way at the same time may be ordered either way."""
    write = event("w", 0, 2, {}, 5)
    assert find_cycle([write, event("r", 1, 3, {SLOT: 0}), event("s", 1, 3, {SLOT: 5})]) is None


def test_two_reads_must_not_go_back() -> None:
    """Who reads after somebody has seen the new value sees it, too, though its write is not answered yet."""
    write = event("w", 0, float("inf"), {}, 5)
    assert find_cycle([write, event("r", 1, 2, {SLOT: 5}), event("s", 3, 4, {SLOT: 0})]) is not None


def test_a_write_after_its_own_read_is_no_cycle() -> None:
    """A transaction may replace what it saw; not what came after that."""
    first = event("a", 0, 9, {}, 5)
    assert find_cycle([first, event("b", 0, 9, {SLOT: 5}, 7)]) is None
    assert find_cycle([first, event("b", 0, 9, {SLOT: 0}, 7)]) is not None


def test_two_that_each_saw_what_the_other_replaced_have_no_order() -> None:
    """Write skew."""
    one = Event("one", 0, 9, {SLOT: 0}, {OTHER: 3})
    other = Event("other", 0, 9, {OTHER: 0}, {SLOT: 4})
    assert find_cycle([one, other]) is not None
    assert find_cycle([one]) is None
