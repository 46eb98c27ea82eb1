"""The shipped store under power cuts. `python -m tests.sim.power` makes many more of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .cuts import told, violations
from .disk import Resize, Sync, SyncFailed, Write
from .recording import Recording, Step, record
from .workload import DATABASE, STORE, WAL, Case

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

SEEDS = (1, 2)
CUTS = range(100)
FAULTS = ("full", "killed", "torn")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_power_cut_loses_nothing_acknowledged(seed: int, folder: Path) -> None:
    """Whatever became of unsynced writes: the store opens, is sound, whole, and not behind its word."""
    recording = record(Case(seed, 120, FAULTS), folder / "recording")
    check_is_eventful(recording)

    broken = [told(recording.case, *found) for found in violations(recording, CUTS, folder / "image")]
    assert not broken, "\n".join(broken)


def check_is_eventful(recording: Recording) -> None:
    """Cuts of an idle store would prove nothing: this one filled its WAL and began it anew, and died twice."""
    steps = recording.steps
    assert sorted(recording.ends) == ["done", "done", "done", "killed", "killed"]
    assert sum(isinstance(step, Sync) and step.name == f"{STORE}/{DATABASE}" for step in steps) > 2
    assert sum(isinstance(step, Write) and (step.name, step.offset) == (WAL, 0) for step in steps) > 2
    assert Resize(WAL, 0) in steps, "the full disk led to no checkpoint"


def test_the_same_case_makes_the_same_calls(folder: Path) -> None:
    """So a seed and the number of a cut are enough to see a broken promise again."""
    case = Case(3, 30, ("killed",))
    first, second = (record(case, folder / name) for name in ("first", "second"))
    assert [outline(step) for step in first.steps] == [outline(step) for step in second.steps]


def outline(step: Step) -> Step | tuple[str, int, int]:
    """SQLite marks each WAL by random numbers: bytes differ."""
    return (step.name, step.offset, len(step.data)) if isinstance(step, Write) else step


def test_nothing_is_lost_after_a_sync_that_failed(folder: Path) -> None:
    """The daemon stops and is started again; what it then acknowledges survives a power cut like all else."""
    recording = record(Case(1, 60, ("failed",)), folder / "recording")
    assert recording.ends == ("done", "broken", "done")
    assert SyncFailed(WAL) in recording.steps

    broken = [told(recording.case, *found) for found in violations(recording, CUTS, folder / "image")]
    assert not broken, "\n".join(broken)
