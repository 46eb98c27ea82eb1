"""From a trace to steps: what is understood, and that nothing else is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from .disk import Create, Resize, Sync, SyncFailed, SyncFolder, Write
from .recording import Acknowledged, NotModelled, Reading, Step, hexed
from .workload import ACKNOWLEDGED, INDEX

FOLDER = Path("/made/up")
NAMES = {"store": "store", "a": "store/a", "index": INDEX, "told": ACKNOWLEDGED}


def steps_of(trace: Path, *calls: str, thread: int = 7) -> list[Step]:
    """Files are named in the calls as in NAMES."""
    paths = {short: hexed(str(FOLDER / name)) for short, name in NAMES.items()}
    lines = [call.format_map(paths) for call in calls]
    trace.write_text("".join(line if line[0].isdigit() else f"{thread} {line}\n" for line in lines))
    reading = Reading(FOLDER)
    reading.read(trace)
    return reading.steps


OPENED = 'openat(AT_FDCWD<\\x2f>, "{a}", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = 3<{a}>'


def test_calls_become_steps(tmp_path: Path) -> None:
    """In their order; what failed or only reads is none, except for a sync."""
    steps = steps_of(
        tmp_path / "trace",
        OPENED,
        OPENED,
        'pwrite64(3<{a}>, "\\x61\\x62", 2, 10) = 2',
        'pwrite64(3<{a}>, "\\x61\\x62", 2, 20) = -1 ENOSPC (No space left on device) (INJECTED)',
        "fdatasync(3<{a}>) = 0",
        "fdatasync(3<{a}>) = -1 EIO (Input/output error) (INJECTED)",
        "fdatasync(4<{store}>) = 0",
        "ftruncate(3<{a}>, 5) = 0",
        'write(5<{told}>, "\\x31\\x32\\x0a", 3) = 3',
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 6<{index}>, 0) = 0x7f00",
        "fdatasync(3<{a}>) = ?",
    )
    name = "store/a"
    assert steps == [
        Create(name),
        Write(name, 10, b"ab"),
        Sync(name),
        SyncFailed(name),
        SyncFolder(),
        Resize(name, 5),
        Acknowledged(12),
    ]


def test_a_short_write_counts_as_far_as_it_went(tmp_path: Path) -> None:
    """Also one that is sought first: some builds of SQLite write so."""
    steps = steps_of(
        tmp_path / "trace",
        OPENED,
        "lseek(3<{a}>, 100, SEEK_SET) = 100",
        'write(3<{a}>, "\\x61\\x62\\x63", 3) = 2',
        'write(3<{a}>, "\\x63", 1) = 1',
    )
    assert steps[1:] == [Write("store/a", 100, b"ab"), Write("store/a", 102, b"c")]


@pytest.mark.parametrize(
    "call",
    [
        "fallocate(3<{a}>, 0, 0, 4096) = 0",
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3<{a}>, 0) = 0x7f00",
        'pwrite64(3<{a}>, "\\x61"..., 9000, 0) = 9000',
    ],
    ids=["unknown", "mapped", "cut-off"],
)
def test_what_the_disk_does_not_know_is_refused(tmp_path: Path, call: str) -> None:
    """A recording with a hole would prove nothing."""
    with pytest.raises(NotModelled):
        steps_of(tmp_path / "trace", OPENED, call)


def test_calls_that_overlap_are_refused(tmp_path: Path) -> None:
    """Their order is not known."""
    with pytest.raises(NotModelled):
        steps_of(
            tmp_path / "trace",
            OPENED,
            "fdatasync(3<{a}> <unfinished ...>",
            '8 pwrite64(3<{a}>, "\\x61", 1, 0) = 1\n',
            "<... fdatasync resumed>) = 0",
        )
