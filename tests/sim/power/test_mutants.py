"""Broken stores, and disks that lie: each must be caught, and by the promise that it breaks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from .cuts import violations
from .disk import Sync, SyncFolder
from .recording import Recording, Step, record
from .workload import DATABASE, STORE, WAL, Case

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

CUTS = range(80)
SEED = 1
DAMAGED = {"opens", "integrity"}

MUTANTS = [
    (Case(SEED, 40, store="CommitsLater"), {"acknowledged"}),
    (Case(SEED, 40, store="CommitsInHalves"), {"whole"}),
    (Case(SEED, 40, store="CheckpointsUnsynced"), DAMAGED),
    (Case(SEED, 40, store="StartsClean"), {"acknowledged"}),
    (Case(SEED, 40, store="KeepsAJournal", is_read=False), {"acknowledged"}),
    (Case(SEED, 40, store="KeepsItsJournalInMemory", is_read=False), DAMAGED),
]


def promises_broken(recording: Recording, folder: Path) -> set[str]:
    return {violation.promise for _, violation in violations(recording, CUTS, folder / "image")}


@pytest.mark.parametrize(("case", "promises"), MUTANTS, ids=[case.store for case, _ in MUTANTS])
def test_a_broken_store_is_caught(case: Case, promises: set[str], folder: Path) -> None:
    """See stores.py for what is wrong with each."""
    assert promises & promises_broken(record(case, folder / "recording"), folder)


def test_synchronous_normal_loses_what_was_acknowledged(folder: Path) -> None:
    """And does no other harm: what is left is sound and whole. So the harness tells the two apart."""
    recording = record(Case(2, 80, store="SyncsAtCheckpoints"), folder / "recording")
    assert promises_broken(recording, folder) == {"acknowledged"}


def test_synchronous_off_damages_the_database(folder: Path) -> None:
    """Beyond losing what was acknowledged."""
    recording = record(Case(2, 80, store="NeverSyncs"), folder / "recording")
    broken = promises_broken(recording, folder)
    assert "acknowledged" in broken
    assert DAMAGED & broken


LIES: dict[str, tuple[Callable[[Step], bool], set[str]]] = {
    "of the WAL": (lambda step: step == Sync(WAL), {"acknowledged"}),
    "of the database": (lambda step: step == Sync(f"{STORE}/{DATABASE}"), DAMAGED),
    "of the folder": (lambda step: isinstance(step, SyncFolder), {"acknowledged"}),
}


@pytest.mark.parametrize("syncs", LIES)
def test_a_disk_that_ignores_syncs_is_caught(syncs: str, shipped: Recording, folder: Path) -> None:
    """The shipped store needs each of its syncs: without one kind of them it breaks a promise."""
    is_ignored, promises = LIES[syncs]
    lied_to = replace(shipped, steps=tuple(step for step in shipped.steps if not is_ignored(step)))
    assert promises & promises_broken(lied_to, folder)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(Case(2, 80), tmp_path_factory.mktemp("shipped") / "recording")
