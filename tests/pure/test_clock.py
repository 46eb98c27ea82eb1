"""Time: no single wrong clock moves the cluster's, and stamps on it rise whatever happens."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.clock import (
    AHEAD_MAX_MS,
    COUNTER_BITS,
    JUMP_HOLD_S,
    JUMP_MS,
    SAMPLES,
    SUSPECT_MS,
    ClusterTime,
    HybridClock,
    stamp_ms,
)
from protocol.inputs import Put, Tick, Written
from protocol.membership.record import Heartbeat
from protocol.types import Instant, NodeId

from .rig import Peer, Rig, outcomes, payloads

WALL_MS = 1_000_000
START = Instant(0.0, WALL_MS)
PEERS = [NodeId(bytes([n]) * 32) for n in range(1, 7)]


def at(seconds: float, set_ms: int = 0) -> Instant:
    """So long after the start, on a wall clock that was set by so much."""
    return Instant(seconds, WALL_MS + int(seconds * 1000) + set_ms)


def measuring(*offsets_ms: float) -> ClusterTime:
    """With peers whose clocks are so far ahead."""
    time = ClusterTime(START)
    for peer, offset_ms in zip(PEERS, offsets_ms, strict=False):
        time.measured(peer, 0.0, WALL_MS + int(offset_ms), START)
    return time


# Steady time


def test_a_wall_clock_that_is_set_changes_nothing() -> None:
    """It is news once, and once more when it is set back; it is shown in between."""
    time = ClusterTime(START)
    assert [time.watch(at(1)), time.watch(at(2, JUMP_MS)), time.is_suspect] == [False, False, False]
    assert [time.watch(at(3, 3_600_000)), time.watch(at(4, 3_600_000))] == [True, False]
    assert (time.jump_ms, time.is_suspect) == (3_600_000, True)
    assert time.steady_ms(at(5, 3_600_000)) == time.time_ms(at(5, 3_600_000)) == WALL_MS + 5_000
    assert [time.watch(at(6)), time.watch(at(7))] == [True, False]
    assert (time.jump_ms, time.is_suspect) == (0, False)


@pytest.mark.parametrize("set_ms", [3_600_000, -3_600_000])
def test_a_wall_clock_that_stays_set_is_believed(set_ms: int) -> None:
    """After the hold, and not before: its machine was suspended, or its clock was wrong when it booted."""
    time = ClusterTime(START)
    time.watch(at(10, set_ms))
    before, after = at(9.9 + JUMP_HOLD_S, set_ms), at(10 + JUMP_HOLD_S, set_ms)
    assert not time.watch(before)
    assert time.steady_ms(before) == before.wall_ms - set_ms
    assert time.watch(after)
    assert time.steady_ms(after) == time.time_ms(after) == after.wall_ms
    assert (time.jump_ms, time.is_suspect) == (0, False)
    assert not time.watch(at(200, set_ms))


@pytest.mark.parametrize("then_ms", [0, -5_000])
def test_a_wall_clock_that_is_set_again_is_not_believed_yet(then_ms: int) -> None:
    """Back, or elsewhere: the hold begins anew."""
    time = ClusterTime(START)
    time.watch(at(1, 5_000))
    assert time.watch(at(50, then_ms))
    time.watch(at(51, 5_000))
    assert not time.watch(at(1 + JUMP_HOLD_S, 5_000))
    assert time.watch(at(51 + JUMP_HOLD_S, 5_000))


@pytest.mark.parametrize(("offsets_ms", "moved_ms"), [((), 8_000), ((0,), 4_000), ((0, 0), 0)])
def test_a_believed_clock_is_one_vote(offsets_ms: tuple[float, ...], moved_ms: int) -> None:
    """The measured distance to the peers stays true: with two of them cluster time does not move at all."""
    time = measuring(*offsets_ms)
    time.watch(at(1, 8_000))
    time.watch(at(1 + JUMP_HOLD_S, 8_000))
    assert list(time.offsets_ms().values()) == [-8_000] * len(offsets_ms)
    assert time.time_ms(at(100, 8_000)) == at(100).wall_ms + moved_ms


# Cluster time


@pytest.mark.parametrize(
    ("offsets_ms", "expected_ms"),
    [
        ((), 0),
        ((100,), 50),
        ((100, 200), 100),
        ((100, 200, 300), 150),
        ((100, 200, 300, 400), 200),
        ((100, 200, 300, 400, 500), 250),
        ((-600_000,), -300_000),
        ((10, 3_600_000), 10),
        ((-10, 20, 3_600_000), 10),
        ((-3_600_000, 10, 20, 3_600_000), 10),
    ],
)
def test_cluster_time_is_the_median_of_all_clocks(offsets_ms: tuple[float, ...], expected_ms: float) -> None:
    """Our own among them, whoever is measured first; of an even count the mean of the middle two."""
    for order in permutations(offsets_ms):
        time = measuring(*order)
        assert (time.correction_ms, time.measured_peers) == (expected_ms, len(offsets_ms))
        assert time.time_ms(at(1)) == WALL_MS + 1_000 + expected_ms
        assert time.steady_ms(at(1)) == WALL_MS + 1_000
        assert time.is_suspect == (abs(expected_ms) > SUSPECT_MS)


def test_the_shortest_round_trip_of_the_last_ones_counts() -> None:
    """Half of it is the way back; when it is too old, the next best takes its place."""
    time = ClusterTime(START)
    time.measured(PEERS[0], 4.0, WALL_MS + 100 - 2, START)
    assert time.offsets_ms() == {PEERS[0]: 100}
    for n in range(1, SAMPLES):
        time.measured(PEERS[0], 300.0 - n, WALL_MS, START)
        assert time.offsets_ms() == {PEERS[0]: 100}
    time.measured(PEERS[0], 400.0, WALL_MS, START)
    assert time.offsets_ms() == {PEERS[0]: (300 - (SAMPLES - 1)) / 2}


def test_a_peer_whose_clock_moved_is_measured_anew() -> None:
    """What no round trip explains makes the old samples worthless, however short theirs were."""
    time = ClusterTime(START)
    time.measured(PEERS[0], 0.0, WALL_MS, START)
    time.measured(PEERS[0], 100.0, WALL_MS - 50 + JUMP_MS + 100, START)
    assert time.offsets_ms() == {PEERS[0]: 0}
    time.measured(PEERS[0], 100.0, WALL_MS - 50 + JUMP_MS + 101, START)
    assert time.offsets_ms() == {PEERS[0]: JUMP_MS + 101}


class Clocks:
    """Machines whose clocks are apart, and what they tell each other over links that are slow one way at times."""

    def __init__(self, skews_ms: list[int], random: Random) -> None:
        self._random, self._now_s = random, 0.0
        self._walls_ms = [WALL_MS + skew_ms for skew_ms in skews_ms]
        self.times = [ClusterTime(Instant(0.0, wall_ms)) for wall_ms in self._walls_ms]

    def beat(self) -> None:
        """Everybody measures everybody."""
        self._now_s += 0.25
        for asking, time in enumerate(self.times):
            for asked, other in enumerate(self.times):
                if asking != asked:
                    there_s, back_s = self._delay_s(), self._delay_s()
                    steady_ms = other.steady_ms(self._instant(asked, there_s))
                    heard = self._instant(asking, there_s + back_s)
                    time.measured(PEERS[asked], (there_s + back_s) * 1000, steady_ms, heard)

    def readings_ms(self) -> list[int]:
        """Cluster time on each machine, less the time that has passed."""
        passed_ms = int(self._now_s * 1000)
        return [time.time_ms(self._instant(n, 0.0)) - passed_ms for n, time in enumerate(self.times)]

    def _instant(self, machine: int, later_s: float) -> Instant:
        now_s = self._now_s + later_s
        return Instant(now_s, self._walls_ms[machine] + int(now_s * 1000))

    def _delay_s(self) -> float:
        return self._random.choice([0.25, *[self._random.uniform(0.0, 0.02)] * 7])


@pytest.mark.parametrize("machines", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(5))
def test_nobody_follows_a_follower(machines: int, seed: int) -> None:
    """Two seconds are enough for all to agree to 20 ms; however long it goes on, the common time stays put."""
    random = Random(seed)
    skews_ms = [random.randint(-900_000, 900_000) for _ in range(machines)]
    clocks = Clocks(skews_ms, random)
    common_ms = WALL_MS + (sorted(skews_ms)[(machines - 1) // 2] + sorted(skews_ms)[machines // 2]) / 2
    for beats in (SAMPLES, 200):
        for _ in range(beats):
            clocks.beat()
        readings_ms = clocks.readings_ms()
        assert max(readings_ms) - min(readings_ms) < 20
        assert abs(readings_ms[0] - common_ms) < 20


def test_two_nodes_ten_minutes_apart_meet_half_way() -> None:
    """Each has one vote; both know that a clock wants mending, neither knows whose."""
    clocks = Clocks([0, 600_000], Random(1))
    for _ in range(SAMPLES):
        clocks.beat()
    assert all(abs(reading_ms - WALL_MS - 300_000) < 20 for reading_ms in clocks.readings_ms())
    assert [time.is_suspect for time in clocks.times] == [True, True]


# Stamps

now_s = st.integers(0, 5)
set_ms = st.integers(-5_000, 5_000)
foreign = st.integers(0, (WALL_MS + 8_000) << COUNTER_BITS)
moves = st.one_of(
    st.tuples(st.just("tick"), now_s, set_ms),
    st.tuples(st.just("measure"), now_s, set_ms),
    st.tuples(st.just("observe"), now_s, foreign),
)


@given(st.lists(moves), foreign)
def test_a_stamp_is_greater_than_all_before(steps: list[tuple[str, int, int]], mark: int) -> None:
    """Than all given out, all merged and all of former runs, also while clocks are set and corrected backwards."""
    clock = HybridClock(ClusterTime(START), mark)
    highest = mark
    for step, seconds, number in steps:
        now = at(seconds, number if step == "tick" else 0)
        match step:
            case "tick":
                clock.time.watch(now)
                assert clock.tick(now) > highest
                assert stamp_ms(clock.last) >= clock.time.time_ms(now)
                highest = clock.last
            case "measure":
                clock.time.measured(PEERS[0], 0.0, WALL_MS + number, now)
            case "observe":
                clock.observe(number)
                highest = max(highest, number)
        assert clock.last == highest


def test_a_stamp_follows_cluster_time() -> None:
    """Its upper bits are milliseconds, its lower ones count within one."""
    clock = HybridClock(measuring(100, 100))
    stamps = [clock.tick(at(0)), clock.tick(at(0)), clock.tick(at(0.5))]
    first = WALL_MS + 100 << COUNTER_BITS
    assert stamps == [first, first + 1, first + (500 << COUNTER_BITS)]


def test_a_stamp_from_the_future_waits() -> None:
    """Beyond the bound, by cluster time and not by our own clock."""
    clock = HybridClock(measuring(100, 100))
    latest_ms = WALL_MS + 100 + AHEAD_MAX_MS
    latest = (latest_ms + 1 << COUNTER_BITS) - 1
    assert [clock.is_ahead(latest, at(0)), clock.is_ahead(latest + 1, at(0))] == [False, True]
    assert not clock.is_ahead(latest + 1, at(0.001))


# In a node


def test_a_node_measures_its_peers_and_stamps_by_cluster_time() -> None:
    """What it tells of its own clock is the steady one, never the corrected one."""
    rig, b, c = Rig().start(), Peer("b"), Peer("c")
    for peer in (b, c):
        rig.join(peer)
        rig.measure(peer, ahead_ms=600_000)
    rig.handle(Put(None, "default", b"k", b"v", ttl_ms=1_000))
    (written,) = outcomes(rig.commit())
    assert isinstance(written, Written)
    assert stamp_ms(written.entry.hlc) == rig.now.wall_ms + 600_000
    assert written.entry.expires_ms == rig.now.wall_ms + 600_000 + 1_000

    told = [told for told in payloads(rig.wait(0.3), Heartbeat) if isinstance(told, Heartbeat)]
    assert [abs(beat.steady_ms - rig.now.wall_ms) < 300 for beat in told] == [True] * len(told) != []
    assert rig.node.get("default", b"k", rig.now) == written.entry
    rig.wait(0.7)
    assert rig.node.get("default", b"k", rig.now) is None


def test_a_node_says_when_its_wall_clock_was_set() -> None:
    """And goes on by the steady one."""
    rig = Rig().start()
    set_by_an_hour = Instant(rig.now_s + 1, rig.now.wall_ms + 3_601_000)
    (line,) = [e for e in rig.node.handle(Tick(), set_by_an_hour) if type(e).__name__ == "Said"]
    assert line.event == "clock.jumped"  # type: ignore[union-attr]
    assert rig.node.time.time_ms(set_by_an_hour) == rig.now.wall_ms + 1_000
