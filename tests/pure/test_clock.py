"""The hybrid logical clock: whatever the wall clock does, stamps rise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.clock import COUNTER_BITS, HybridClock, stamp_ms

walls = st.integers(0, 10)
foreign = st.integers(0, 12 << COUNTER_BITS)


@given(st.lists(st.one_of(walls.map(lambda ms: ("tick", ms)), foreign.map(lambda s: ("observe", s)))))
def test_a_stamp_is_greater_than_all_before(steps: list[tuple[str, int]]) -> None:
    """Than all given out and all seen, also while the wall clock stands or goes back."""
    clock, highest = HybridClock(), 0
    for step, number in steps:
        if step == "tick":
            assert clock.tick(number) > highest
        else:
            clock.observe(number)
        highest = max(highest, clock.last, number if step == "observe" else 0)
        assert clock.last == highest


@given(foreign, walls)
def test_a_clock_goes_on_from_its_high_water_mark(mark: int, wall_ms: int) -> None:
    """After a restart no stamp repeats, whatever the wall clock says."""
    assert HybridClock(mark).tick(wall_ms) > mark


@given(foreign, walls)
def test_entries_expire_by_the_later_of_wall_and_stamps(mark: int, wall_ms: int) -> None:
    """So an entry written with a fast clock is not expired before it is read."""
    clock = HybridClock(mark)
    assert clock.time_ms(wall_ms) == max(wall_ms, stamp_ms(mark))
    assert clock.time_ms(wall_ms) <= stamp_ms(clock.tick(wall_ms))


def test_a_stamp_follows_the_wall_clock() -> None:
    """Its upper bits are milliseconds, its lower ones count within one."""
    clock = HybridClock()
    assert [clock.tick(5), clock.tick(5), clock.tick(6)] == [5 << 16, (5 << 16) + 1, 6 << 16]
