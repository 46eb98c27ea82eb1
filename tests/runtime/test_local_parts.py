"""Parts of the local socket and of the store's cache by themselves."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from peernode.daemon.runtime import Burst
from peernode.limits import ENTRY_OVERHEAD_BYTES
from peernode.local.kv import KvGet, KvMget, KvMput, MputItem
from peernode.local.readiness import READ, WRITE, Selected
from peernode.store.reader import EntryCache
from protocol.effects import Entry
from protocol.replica.store import Slot
from protocol.types import NodeId


@pytest.mark.parametrize("text", ["abcd", "YWJj", "", "straße"])
def test_a_string_that_looks_like_base64_is_its_utf8(text: str) -> None:
    """Whatever a string looks like, it means its own bytes."""
    raw = text.encode()

    assert KvGet.read([{"key": text}]).key == raw
    assert KvMget.read({"keys": [text]}).keys == [raw]
    assert KvMput.read([[{"key": text, "value": text}]]).items == [MputItem(raw, raw)]


# Readiness


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


@pytest.mark.parametrize("open_readiness", [Selected, *([select.epoll] if hasattr(select, "epoll") else [])])
def test_readiness_is_told_alike_on_every_system(
    open_readiness: type, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What stands in for epoll elsewhere tells the same of the same socket."""
    ours, theirs = pair
    number = ours.fileno()
    readiness = open_readiness()
    readiness.register(number, READ)
    told = [readiness.poll(0)]
    theirs.send(b"x")
    told.append(readiness.poll(0))
    readiness.modify(number, READ | WRITE)
    told.append(readiness.poll(0))
    readiness.modify(number, WRITE)
    told.append(readiness.poll(0))
    readiness.unregister(number)
    told.append(readiness.poll(0))
    readiness.close()

    assert told == [[], [(number, READ)], [(number, READ | WRITE)], [(number, WRITE)], []]


# Bursts


def test_a_burst_is_let_out_once() -> None:
    """What is decided within a burst leaves at its end, in one go; what is decided outside, at once."""
    trace: list[str] = []
    burst = Burst(lambda: trace.append("let out"))
    with burst:
        trace += ["first", "second"]
        burst.decided()
        burst.decided()
    burst.decided()
    with burst:
        trace.append("nothing was decided")

    assert trace == ["first", "second", "let out", "let out", "nothing was decided"]


# The cache above SQLite


def entry(key: bytes, value: bytes = b"") -> tuple[Slot, Entry]:
    return (1, key), Entry(1, key, 1, NodeId(b"n" * 32), 1, 1, value)


def test_what_was_used_least_recently_leaves_the_cache_first() -> None:
    """With room for two, the third takes the place of the one that was not asked for."""
    cache = EntryCache(2 * (ENTRY_OVERHEAD_BYTES + 1))
    (a, in_a), (b, in_b), (c, in_c) = entry(b"a"), entry(b"b"), entry(b"c")
    cache.keep(a, in_a)
    cache.keep(b, in_b)
    cache.get(a)
    cache.keep(c, in_c)

    assert [cache.get(slot) for slot in (a, b, c)] == [in_a, None, in_c]


def test_what_is_replaced_in_the_cache_gives_its_room_back() -> None:
    """A key that is written over and over takes the room of one, and an entry larger than all is not kept."""
    cache = EntryCache(2 * (ENTRY_OVERHEAD_BYTES + 10))
    a, in_a = entry(b"a")
    cache.keep(a, in_a)
    b, last = entry(b"b", b"9")
    for number in range(9):
        cache.keep(*entry(b"b", b"%d" % number))
    cache.keep(b, last)
    held = (cache.get(a), cache.get(b))
    c, in_c = entry(b"c", bytes(4 * ENTRY_OVERHEAD_BYTES))
    cache.keep(c, in_c)

    assert held == (in_a, last)
    assert cache.get(c) is None
