"""The disk of disk.py: what it keeps for sure, and that all the rest can really happen."""

from __future__ import annotations

from itertools import product
from random import Random

from .disk import (
    SECTORS,
    Change,
    Create,
    Disk,
    Remove,
    Rename,
    Resize,
    Sync,
    SyncFailed,
    SyncFolder,
    Weather,
    Write,
)

OLD, NEW = b"o" * 1024, b"n" * 1024
MADE = (Create("a"), Write("a", 0, OLD), Sync("a"), SyncFolder())
"""A file of two small sectors, all of it durable."""


def found(*changes: Change, name: str = "a", garbles: bool = False) -> set[bytes | None]:
    """All that some hundred cuts find under a name."""
    disk = Disk()
    for change in changes:
        disk.do(change)
    weathers = [Weather(kept, sector, garbles) for kept, sector in product((0.0, 0.5, 1.0), SECTORS)]
    return {disk.after_cut(weather, Random(seed)).get(name) for weather in weathers for seed in range(50)}


def test_what_was_synced_is_there() -> None:
    """The file and its folder: after every cut."""
    assert found(*MADE) == {OLD}


def test_what_was_not_synced_is_there_or_not_sector_by_sector() -> None:
    """In any combination."""
    halves = (OLD[:512], NEW[:512])
    assert found(*MADE, Write("a", 0, NEW)) == {first + second for first, second in product(halves, halves)}


def test_a_later_write_may_survive_an_earlier_one() -> None:
    """But in one sector no write survives one before it."""
    apart = found(*MADE, Write("a", 0, b"1"), Write("a", 512, b"2"))
    assert {(content[0], content[512]) for content in apart if content} == set(product(b"o1", b"o2"))
    together = found(*MADE, Write("a", 0, b"1"), Write("a", 1, b"2"))
    assert {content[:2] for content in together if content} == {b"oo", b"1o", b"12"}


def test_a_lost_sector_may_hold_anything() -> None:
    """Where it was written: what stands beside that is not touched."""
    contents = found(*MADE, Write("a", 100, NEW[:100]), garbles=True)
    assert {content[:100] + content[200:] for content in contents if content} == {OLD[:924]}
    assert len({content[100:200] for content in contents if content}) > 10


def test_a_size_may_be_any_since_the_last_sync() -> None:
    """Whatever became of the bytes: a hole reads as zeros."""
    contents = found(*MADE, Write("a", 1024, NEW[:512]), Resize("a", 10))
    assert {len(content) for content in contents if content is not None} == {10, 1024, 1536}
    assert {content[1024:] for content in contents if content} == {b"", bytes(512), NEW[:512]}


def test_a_file_is_cut_in_one_step() -> None:
    """All of its end is gone, or none."""
    assert found(*MADE, Resize("a", 100)) == {OLD, OLD[:100]}
    assert found(*MADE, Resize("a", 0), Resize("a", 9)) == {OLD, b"", bytes(9)}


def test_a_name_needs_a_sync_of_its_folder() -> None:
    """Made, moved or removed; a sync of the file does not help."""
    assert found(Create("a"), Write("a", 0, OLD), Sync("a")) == {None, OLD}
    assert found(*MADE, Remove("a")) == {None, OLD}
    assert found(*MADE, Remove("a"), SyncFolder()) == {None}
    assert found(*MADE, Rename("a", "b"), name="b") == {None, OLD}
    assert found(*MADE, Rename("a", "b"), SyncFolder(), name="b") == {OLD}
    assert found(*MADE, Rename("a", "b"), SyncFolder()) == {None}


def test_a_failed_sync_is_not_made_good_by_the_next() -> None:
    """What was written before it is seen, and lost, unless its page is written again."""
    failed = (*MADE, Write("a", 0, NEW), SyncFailed("a"))
    assert found(*failed, Sync("a")) == {OLD}
    assert found(*failed, Write("a", 1023, b"x"), Sync("a")) == {NEW[:1023] + b"x"}
    disk = Disk()
    for change in failed:
        disk.do(change)
    assert disk.seen("a") == NEW
