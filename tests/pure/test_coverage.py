"""Ranges beyond a gap: whatever comes in whatever order, what is covered is the set of what came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.limits import RANGES_MAX
from protocol.replica.coverage import Coverage, Range, decode_ranges, encode_ranges

TOP = 40
ranges = st.tuples(st.integers(0, TOP), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def covering(came: list[Range], start: int = 0) -> Coverage:
    coverage = Coverage(start)
    for first, last in came:
        coverage = coverage.with_range(first, last)
    return coverage


@given(st.integers(0, TOP), st.lists(ranges, max_size=12))
def test_what_is_covered_is_the_set_of_what_came(start: int, came: list[Range]) -> None:
    """Number by number; in one way of writing it down: sorted, apart from each other and from the head."""
    coverage = covering(came, start)
    numbers = set(range(start + 1)).union(*(range(first, last + 1) for first, last in came))

    assert [seq for seq in range(2 * TOP) if coverage.has(seq)] == sorted(numbers)
    assert coverage.top == max(numbers)
    assert coverage.head + 1 not in numbers
    ends = [coverage.head]
    for first, last in coverage.beyond:
        assert ends[-1] + 1 < first <= last
        ends.append(last)


@given(st.lists(ranges, max_size=12).flatmap(lambda came: st.tuples(st.just(came), st.permutations(came))))
def test_order_and_repeats_do_not_matter(orders: tuple[list[Range], list[Range]]) -> None:
    """A batch that comes twice, or late, changes nothing."""
    one, other = orders
    assert covering(one) == covering(other) == covering([*other, *one])


def test_gaps_are_bounded() -> None:
    """One too many is not remembered, nor is anything lost by it; one that closes a gap is taken all the same."""
    full = covering([(2 * n, 2 * n) for n in range(1, RANGES_MAX + 1)])
    assert len(full.beyond) == RANGES_MAX

    assert full.with_range(2 * RANGES_MAX + 2, 2 * RANGES_MAX + 2) == full
    assert full.with_range(2 * RANGES_MAX + 1, 2 * RANGES_MAX + 1).top == 2 * RANGES_MAX + 1
    assert full.with_range(1, 1) == Coverage(2, full.beyond[1:])
    assert full.with_range(1, 2 * RANGES_MAX) == Coverage(2 * RANGES_MAX)


@given(st.lists(ranges, max_size=12))
def test_ranges_are_stored_as_they_are(came: list[Range]) -> None:
    """No range takes no room at all."""
    beyond = covering(came).beyond
    assert decode_ranges(encode_ranges(beyond)) == beyond
    assert encode_ranges(()) == b""
