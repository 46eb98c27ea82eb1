"""Globs over keys against a plain reference, and the message that tells other nodes what is stale."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.effects import Disconnect, Invalidated, Send
from protocol.errors import Fault
from protocol.inputs import Invalidate, Put
from protocol.invalidation import Glob, Invalidation
from protocol.limits import KEY_BYTES_MAX

from .rig import Peer, Rig, of, said

LETTERS = st.sampled_from(b"aab**?\\[\n")
"""Few of them, so that patterns and keys meet; a set and a line end must be nothing special."""

patterns = st.lists(LETTERS, max_size=10).map(bytes)
keys = st.lists(LETTERS, max_size=12).map(bytes)


@st.composite
def blotted(draw: st.DrawFn, key: bytes) -> bytes:
    """A pattern that matches the key: escaped, some bytes blotted out. Random pairs would seldom match."""
    marks = draw(st.lists(st.sampled_from([None, None, b"?", b"*"]), min_size=len(key), max_size=len(key)))
    return b"".join(mark or b"\\" + bytes([byte]) for mark, byte in zip(marks, key, strict=True))


def reference(pattern: bytes, key: bytes) -> bool:
    """The language by its definition: a `*` is tried in every way."""

    @cache
    def fits(p: int, k: int) -> bool:
        if p == len(pattern):
            return k == len(key)
        if pattern[p : p + 1] == b"*":
            return any(fits(p + 1, rest) for rest in range(k, len(key) + 1))
        if k == len(key):
            return False
        if pattern[p : p + 1] == b"?":
            return fits(p + 1, k + 1)
        if pattern[p : p + 1] == b"\\" and p + 1 < len(pattern):
            p += 1
        return pattern[p] == key[k] and fits(p + 1, k + 1)

    return fits(0, 0)


# The language


@given(patterns, keys)
def test_a_glob_matches_as_the_reference_does(pattern: bytes, key: bytes) -> None:
    """Never going back to a `*` loses no match."""
    assert Glob(pattern).matches(key) == reference(pattern, key)


@given(keys.flatmap(lambda key: st.tuples(st.just(key), blotted(key))))
def test_a_pattern_made_from_a_key_matches_it(pair: tuple[bytes, bytes]) -> None:
    """And the key begins with the pattern's prefix, so a cache need only look at the keys under it."""
    key, pattern = pair
    glob = Glob(pattern)
    assert (glob.matches(key), key[: len(glob.prefix)]) == (True, glob.prefix)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_an_escaped_key_matches_that_key_alone(key: bytes, other: bytes) -> None:
    """A backslash in front of every byte takes all meaning from it, whatever bytes they are."""
    glob = Glob(b"".join(b"\\" + bytes([byte]) for byte in key))
    assert (glob.matches(key), glob.matches(other), glob.prefix) == (True, other == key, key)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_any_bytes_are_a_pattern(pattern: bytes, key: bytes) -> None:
    """No pattern is invalid, and none means anything else than the reference says."""
    assert Glob(pattern).matches(key) == reference(pattern, key)


@given(keys.flatmap(lambda key: st.tuples(blotted(key), blotted(key))))
def test_globs_that_share_a_key_may_meet(pair: tuple[bytes, bytes]) -> None:
    """A subscriber is never spared an invalidation of a key that it asked for."""
    one, other = Glob(pair[0]), Glob(pair[1])
    assert (one.may_meet(other), other.may_meet(one)) == (True, True)


def test_globs_under_different_prefixes_never_meet() -> None:
    """What a subscriber of one part of the keys is spared."""
    assert not Glob(b"user/*").may_meet(Glob(b"group/*"))


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (b"user/*", b"user/", b"user"),
        (b"user/?/name", b"user/7/name", b"user/42/name"),
        (b"*.png", b"a/b.png", b"a/b.png.old"),
        (b"a*b*c", b"a-b-b-c", b"a-c-b"),
        (b"price\\*", b"price*", b"prices"),
        (b"list[1]", b"list[1]", b"list1"),
        (b"end\\", b"end\\", b"end"),
        (b"stra?e*", b"stra\xffe", "straße".encode()),
        (b"*", b"", None),
    ],
)
def test_examples(pattern: bytes, matching: bytes, other: bytes | None) -> None:
    """What users will try first."""
    glob = Glob(pattern)
    assert glob.matches(matching)
    assert other is None or not glob.matches(other)


@pytest.mark.parametrize(
    "pattern", [b"*a" * 500 + b"b", b"*" * 1000 + b"b", b"*?" * 500 + b"b", b"*" + b"a" * 512 + b"b"]
)
def test_no_pattern_explodes(pattern: bytes) -> None:
    """Against the longest key of the worst kind: trying every way would outlast the universe."""
    glob = Glob(pattern)
    assert [glob.matches(b"a" * KEY_BYTES_MAX) for _ in range(100)] == [False] * 100


# The message


def test_every_linked_node_is_told() -> None:
    """One signed message on all links."""
    rig, ann, bob = Rig().start(), Peer("ann"), Peer("bob")
    rig.join(ann)
    rig.join(bob)
    effects = rig.handle(Invalidate(b"user/*", True))

    ((links, payload),) = said(effects)
    assert sorted(links) == sorted(rig.links.values())
    assert payload == Invalidation(b"user/*", True)


def test_it_leaves_behind_what_was_written_before() -> None:
    """In the class of the batches, so that it overtakes none: who hears it and reads the store finds the write."""
    rig, ann = Rig().start(), Peer("ann")
    rig.join(ann)
    rig.handle(Put(None, "default", b"k", b"new"))
    written = of(rig.commit(), Send)
    invalidated = of(rig.handle(Invalidate(b"k", False)), Send)

    assert [send.bulk for send in written] == [send.bulk for send in invalidated] == [True]


def test_nobody_is_told_when_nobody_is_there() -> None:
    """Alone there is nothing to say, and no number of the stream is used up."""
    assert Rig().start().handle(Invalidate(b"k", False)) == []


def test_the_runtime_hears_who_said_what() -> None:
    """A message from another node becomes one effect."""
    rig, ann = Rig().start(), Peer("ann")
    rig.join(ann)
    effects = rig.receive(ann, ann.says(Invalidation(b"k", False)))

    assert of(effects, Invalidated) == [Invalidated(ann.node_id, b"k", False)]


@pytest.mark.parametrize("subject", [b"", b"k" * (KEY_BYTES_MAX + 1)])
def test_a_subject_out_of_bounds_ends_the_link(subject: bytes) -> None:
    """An empty one could mean anything, a long one costs too much to match."""
    rig, ann = Rig().start(), Peer("ann")
    rig.join(ann)
    effects = rig.receive(ann, ann.says(Invalidation(subject, True)))

    assert [cut.fault for cut in of(effects, Disconnect)] == [Fault.MALFORMED]
    assert of(effects, Invalidated) == []
