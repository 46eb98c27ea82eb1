"""The local TTL cache with a clock that stands until it is moved: bounds, order of leaving, expiry, figures."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peernode.cache import Cache, Counts
from peernode.limits import TTL_CACHE_OVERHEAD_BYTES
from protocol.invalidation import Glob

MIB = 1 << 20


def value_of(cache: Cache, key: bytes, now_s: float) -> bytes | None:
    found = cache.get(key, now_s)
    return found.value if found is not None else None


def held(cache: Cache, now_s: float, keys: bytes = b"abcdefgh") -> bytes:
    """Those of some keys of one byte that are served now."""
    return bytes(key for key in keys if cache.get(bytes([key]), now_s) is not None)


def filled(cache: Cache, keys: bytes = b"abcd", ttl_s: float = 100.0) -> Cache:
    for key in keys:
        cache.put(bytes([key]), b"v", ttl_s, 0.0)
    return cache


# Expiry


def test_an_entry_is_served_until_its_ttl_is_over() -> None:
    """Up to the last moment, and not at the very end."""
    cache = Cache(0.0)
    cache.put(b"k", b"v", 5.0, 10.0)

    assert [value_of(cache, b"k", now_s) for now_s in (10.0, 14.999, 15.0, 16.0)] == [b"v", b"v", None, None]
    assert (len(cache), cache.bytes_held, cache.counts.expired) == (0, 0, 1)


def test_writing_again_begins_a_new_ttl() -> None:
    """The later put counts, also when it shortens the time."""
    cache = Cache(0.0)
    cache.put(b"longer", b"1", 1.0, 0.0)
    cache.put(b"longer", b"22", 10.0, 0.5)
    cache.put(b"shorter", b"1", 10.0, 0.0)
    cache.put(b"shorter", b"22", 1.0, 0.5)

    assert (value_of(cache, b"longer", 5.0), value_of(cache, b"shorter", 5.0)) == (b"22", None)
    assert cache.bytes_held == TTL_CACHE_OVERHEAD_BYTES + len(b"longer22")


def test_expired_entries_are_cleaned_up_a_few_at_a_time() -> None:
    """One call does no more than it is told to; called until it says so, it has dropped all of them."""
    cache = filled(Cache(0.0), b"abcdefgh", ttl_s=1.5)
    cache.put(b"live", b"v", 100.0, 0.0)

    assert (cache.sweep(1.9), len(cache)) == (False, 9), "entries of the current second wait"
    sizes = []
    while cache.sweep(50.0, work_max=3):
        sizes.append(len(cache))

    assert max(before - after for before, after in zip([9, *sizes], sizes, strict=False)) == 3
    assert (len(cache), cache.counts) == (1, Counts(expired=8))


def test_a_put_cleans_up_on_its_way() -> None:
    """Expired entries leave without anybody asking for them."""
    cache = filled(Cache(0.0), b"abcd", ttl_s=1.0)
    cache.put(b"new", b"v", 1.0, 10.0)

    assert len(cache) == 1


# Bounds


def test_what_was_used_least_recently_leaves_first() -> None:
    """A read is a use, and so is a write."""
    cache = filled(Cache(0.0, entries_max=4), b"abcd")
    cache.get(b"a", 1.0)
    cache.put(b"b", b"new", 100.0, 1.0)
    cache.put(b"e", b"v", 100.0, 1.0)

    assert held(cache, 2.0) == b"abde"
    assert cache.counts.evictions == 1


def test_bytes_are_bounded() -> None:
    """Keys, values and what an entry takes beside them: a large value costs several small ones."""
    small = TTL_CACHE_OVERHEAD_BYTES + 2
    cache = filled(Cache(0.0, bytes_max=4 * small), b"abcd")
    assert (held(cache, 1.0), cache.bytes_held) == (b"abcd", 4 * small)

    cache.put(b"e", b"v" * (small + 2), 100.0, 1.0)
    assert (held(cache, 2.0), cache.counts.evictions) == (b"de", 3)


def test_what_has_expired_leaves_before_what_is_live() -> None:
    """Even where it was used later."""
    cache = filled(Cache(0.0, entries_max=4), b"ab", ttl_s=100.0)
    filled(cache, b"cd", ttl_s=1.0)
    for key in b"ef":
        cache.put(bytes([key]), b"v", 100.0, 10.0)

    assert (held(cache, 11.0), cache.counts.evictions, cache.counts.expired) == (b"abef", 0, 2)


def test_an_entry_larger_than_the_whole_is_a_bug() -> None:
    """The protocol's bounds on keys and values keep it out; nothing loops for ever where they do not."""
    with pytest.raises(AssertionError):
        Cache(0.0, bytes_max=1000).put(b"k", b"v" * 1000, 1.0, 0.0)


# Dropping on request


def test_delete_says_whether_something_was_there() -> None:
    """An expired entry was not."""
    cache = filled(Cache(0.0), b"ab")
    cache.put(b"old", b"v", 1.0, 0.0)

    assert [cache.delete(key, 5.0) for key in (b"a", b"a", b"old", b"never")] == [True, False, False, False]
    assert held(cache, 5.0) == b"b"


def test_clear_drops_everything() -> None:
    """And leaves the figures: they count from the start of the daemon."""
    cache = filled(Cache(0.0), b"abcd")
    cache.get(b"a", 1.0)

    assert (cache.clear(), len(cache), cache.bytes_held, cache.counts.hits) == (4, 0, 0, 1)
    assert held(filled(cache, b"ab"), 1.0) == b"ab"


def test_a_glob_drops_what_matches() -> None:
    """Also where the pattern begins with a wildcard; the rest stays."""
    cache = Cache(0.0, entries_max=4)
    for key in (b"user/1", b"user/2/name", b"user/2/mail", b"group/2"):
        cache.put(key, b"v", 100.0, 0.0)

    assert cache.invalidate_glob(Glob(b"user/2/*"), 1.0) == 2
    assert cache.invalidate_glob(Glob(b"*/2"), 1.0) == 1
    assert cache.invalidate_glob(Glob(b"nobody/*"), 1.0) == 0
    assert [
        key for key in (b"user/1", b"user/2/name", b"user/2/mail", b"group/2") if cache.get(key, 1.0)
    ] == [b"user/1"]
    assert (cache.counts.invalidations, cache.counts.invalidated) == (3, 3)


def test_figures_tell_what_happened() -> None:
    """Every lookup is a hit or a miss, every entry leaves in one way."""
    cache = filled(Cache(0.0, entries_max=2), b"abc")  # a is evicted
    cache.get(b"c", 1.0)
    cache.get(b"never", 1.0)
    cache.invalidate(b"b", 1.0)
    cache.invalidate(b"b", 1.0)
    cache.get(b"c", 100.0)  # too late

    assert cache.counts == Counts(
        hits=1, misses=2, evictions=1, expired=1, invalidations=2, invalidated=1, emptied=0
    )


def test_globs_that_come_too_fast_empty_the_cache() -> None:
    """Dropping too much is right, and cheap; searching on and on would stop the node."""
    cache = filled(Cache(0.0, glob_keys_per_s_max=10), b"abcd")
    for _ in range(2):
        cache.invalidate_glob(Glob(b"*x"), 0.0)
    assert (held(cache, 0.0), cache.counts.emptied) == (b"abcd", 0)

    cache.invalidate_glob(Glob(b"*x"), 0.1)
    assert (held(cache, 0.1), cache.counts.emptied, cache.counts.invalidated) == (b"", 1, 4)

    filled(cache, b"abcd")
    cache.invalidate_glob(Glob(b"*x"), 2.0)
    assert (held(cache, 2.0), cache.counts.emptied) == (b"abcd", 1)


def test_a_glob_looks_only_at_the_keys_under_its_prefix() -> None:
    """A thousand others cost it nothing of what globs may look at."""
    cache = Cache(0.0, glob_keys_per_s_max=1)
    for number in range(1000):
        cache.put(b"other/%d" % number, b"v", 100.0, 0.0)
    cache.put(b"user/1", b"v", 100.0, 0.0)

    assert (cache.invalidate_glob(Glob(b"user/*"), 0.0), len(cache)) == (1, 1000)


# Against a model


@dataclass
class Model:
    """A cache without bounds, as plain as can be."""

    values: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)

    def get(self, key: bytes, now_s: float) -> bytes | None:
        value, expires_s = self.values.get(key, (b"", 0.0))
        return value if now_s < expires_s else None


names = st.sampled_from([b"a", b"ab", b"abc", b"b", b"b/1", b"b/2", b"c"])
globs = st.sampled_from([b"a*", b"?", b"*b*", b"b/*", b"*", b"x*", b"?b*"])
steps = st.one_of(
    st.tuples(st.just("put"), names, st.binary(max_size=40), st.sampled_from([0.3, 1.0, 2.5, 60.0])),
    st.tuples(st.just("get"), names),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("invalidate"), names),
    st.tuples(st.just("glob"), globs),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.3, 1.0, 7.0, 500.0])),
    st.tuples(st.just("sweep"), st.integers(1, 5)),
)


def play(cache: Cache, script: list[tuple], *, is_roomy: bool) -> None:
    """Let a cache and the model live through the same; compare what is served."""
    model, now_s = Model(), 1000.0
    for step in script:
        match step:
            case ("put", key, value, ttl_s):
                cache.put(key, value, ttl_s, now_s)
                model.values[key] = (value, now_s + ttl_s)
                assert value_of(cache, key, now_s) == value
            case ("get", key):
                found, expected = value_of(cache, key, now_s), model.get(key, now_s)
                assert found == expected or (found is None and not is_roomy)
            case ("delete", key):
                was_there = model.get(key, now_s) is not None
                assert cache.delete(key, now_s) == was_there or not is_roomy
                model.values.pop(key, None)
            case ("invalidate", key):
                cache.invalidate(key, now_s)
                model.values.pop(key, None)
            case ("glob", pattern):
                cache.invalidate_glob(Glob(pattern), now_s)
                model.values = {k: v for k, v in model.values.items() if not Glob(pattern).matches(k)}
            case ("wait", passed_s):
                now_s += passed_s
            case ("sweep", work_max):
                cache.sweep(now_s, work_max)
        check_bounds(cache)
    for key in model.values:
        assert value_of(cache, key, now_s) == model.get(key, now_s) or not is_roomy


def check_bounds(cache: Cache) -> None:
    """The figures are true, and within the bounds."""
    entries = cache._entries.values()
    assert len(cache) == len(cache._sorted) == sum(map(len, cache._buckets.values()))
    assert cache._sorted == sorted(cache._entries)
    assert all(cache._buckets.values()), "a bucket that is empty is gone"
    assert cache.bytes_held == sum(entry.size for entry in entries) <= cache.bytes_max
    assert len(cache) <= cache.entries_max


@settings(deadline=None)
@given(st.lists(steps, max_size=60))
def test_with_room_it_serves_exactly_what_is_live(script: list[tuple]) -> None:
    """Never an expired or a dropped entry, and never less than what was kept."""
    play(Cache(1000.0), script, is_roomy=True)


@settings(deadline=None)
@given(st.lists(steps, max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_without_room_it_serves_nothing_wrong(
    script: list[tuple], entries_max: int, entries_bytes: int
) -> None:
    """Whatever must leave for the bounds: what is served is the last value, and live."""
    bytes_max = entries_bytes * (TTL_CACHE_OVERHEAD_BYTES + 45)
    play(Cache(1000.0, bytes_max=bytes_max, entries_max=entries_max), script, is_roomy=False)
