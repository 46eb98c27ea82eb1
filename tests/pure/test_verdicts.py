"""Every rule of the judge, alone."""

from __future__ import annotations

import pytest

from protocol.membership.evidence import Doubt, Evidence
from protocol.membership.table import State
from protocol.membership.verdicts import is_quorum

from .court import CONFIG, RUN, Court, node

CLOSED, UNREACHABLE = Evidence.CLOSED, Evidence.UNREACHABLE
WINDOW_S = CONFIG.refute_s
FRESH_S = CONFIG.silence_s

QUORUMS = {
    # live observers, this node included: how many must report
    2: 2,
    3: 2,
    4: 3,
    5: 3,
    6: 4,
    7: 4,
    63: 32,
}


@pytest.mark.parametrize(("live", "needed"), QUORUMS.items())
def test_a_quorum_is_a_strict_majority_and_at_least_two(live: int, needed: int) -> None:
    """Neither half nor one is ever enough, whatever the evidence of this node."""
    found = [accusers for accusers in range(live + 1) if is_quorum(live, accusers, CLOSED)]
    assert found == list(range(needed, live + 1))


@pytest.mark.parametrize(("own", "kills"), [(CLOSED, True), (UNREACHABLE, False), (None, False)])
def test_alone_only_closed_kills(own: Evidence | None, kills: bool) -> None:
    """Of two nodes, one left: a refused connection is the kernel's word, silence is not."""
    assert is_quorum(1, 1 if own else 0, own) is kills


def test_dead_when_the_quorum_has_stood_for_the_refute_window() -> None:
    """Not before, and at the deadline that the judge names."""
    court = Court("abx")
    court.doubts("x", CLOSED)
    court.says("a", "x", now_s=1.0)

    assert court.judged(1.0) == "alive alive suspect"
    assert court.verdicts.deadline_s == 1.0 + WINDOW_S
    assert court.judged(1.0 + WINDOW_S / 2) == "alive alive suspect"
    assert court.judged(1.0 + WINDOW_S) == "alive alive dead"


def test_a_report_that_is_withdrawn_in_the_window_stops_the_verdict() -> None:
    """A heartbeat takes the place of the one before; said again later, the window begins anew."""
    court = Court("abx")
    court.doubts("x", CLOSED)
    court.says("a", "x", now_s=1.0)
    court.judged(1.0)
    court.says("a", "", now_s=1.1)
    court.judged(1.1)
    court.says("a", "x", now_s=1.2)

    assert court.judged(1.0 + WINDOW_S) == "alive alive suspect"
    assert court.judged(1.2 + WINDOW_S) == "alive alive dead"


def test_a_newer_record_in_the_window_stops_the_verdict() -> None:
    """What was said before it is void until it is said again."""
    court = Court("abx")
    court.doubts("x", UNREACHABLE)
    court.says("a", "x", now_s=1.0)
    court.judged(1.0)
    court.verdicts.acquit(node("x"))
    court["x"].doubt = None

    assert court.judged(9.0) == "alive alive alive"


def test_who_is_linked_here_is_alive_whatever_the_others_say() -> None:
    """Bytes are stronger than votes."""
    court = Court("abcx")
    for observer in "abc":
        court.says(observer, "x", evidence=CLOSED)

    court.judged(0.0)
    assert court.judged(9.0) == "alive alive alive alive"


def test_one_live_observer_that_hears_the_accused_stops_the_verdict() -> None:
    """As long as its word is fresh: so long after the heartbeat that it heard as silence may last."""
    court = Court("abcx")
    court.doubts("x", UNREACHABLE)
    court.says("a", "x", now_s=5.0)
    court.says("b", "x", now_s=5.0)
    court.says("c", "", now_s=5.0, hears="x", held_ms=200)
    stale_s = 5.0 + FRESH_S - 0.2

    court.judged(5.0)
    assert court.verdicts.deadline_s == pytest.approx(stale_s)
    assert court.judged(stale_s - 0.01) == "alive alive alive suspect"
    assert court["x"].why == "unreachable: a, b, me (so it seems); heard by c"
    court.judged(stale_s)
    assert court.judged(stale_s + WINDOW_S) == "alive alive alive dead"


VOID = {
    "about another run": {"run": RUN - 1},
    "of a kind that this build does not know": {"evidence": 9},
}


@pytest.mark.parametrize("report", VOID.values(), ids=VOID.keys())
def test_reports_that_do_not_count(report: dict[str, int]) -> None:
    """They leave the accused with one accuser of two."""
    court = Court("ax")
    court.doubts("x", UNREACHABLE)
    court.says("a", "x", **report)  # type: ignore[arg-type]

    court.judged(0.0)
    assert court.judged(9.0) == "alive suspect"


def test_the_accused_does_not_vote_on_itself() -> None:
    """Neither its report nor its hearing itself counts, nor is it one of the live observers."""
    court = Court("ax")
    court.doubts("x", CLOSED)
    court.says("x", "x")
    court.says("a", "x")

    court.judged(0.0)
    assert court.judged(WINDOW_S) == "alive dead"
    assert court["x"].why == "closed: me; unreachable: a (so it seems)"


def test_what_an_observer_said_is_void_when_this_node_does_not_hear_it_any_more() -> None:
    """It still counts as live, so that the quorum grows no smaller."""
    court = Court("abx")
    court.doubts("x", UNREACHABLE)
    court.says("a", "x")
    court.says("b", "")
    court.doubts("a", None)

    court.judged(0.0)
    assert court.judged(9.0) == "suspect alive suspect"


def test_the_smaller_side_of_a_split_has_no_quorum() -> None:
    """Two of five: the silent ones count as live."""
    court = Court("acde")
    for name in "cde":
        court.doubts(name, UNREACHABLE)
        court.says("a", "cde")

    court.judged(0.0)
    assert court.judged(9.0) == "alive suspect suspect suspect"


def test_the_larger_side_of_a_split_has_one() -> None:
    """Three of five: the second verdict counts without the first dead."""
    court = Court("abxy")
    for name in "xy":
        court.doubts(name, UNREACHABLE)
    court.says("a", "xy")
    court.says("b", "x")

    court.judged(0.0)
    assert court.judged(WINDOW_S) == "alive alive dead suspect"
    assert court.judged(2 * WINDOW_S) == "alive alive dead dead"


def test_whom_this_node_holds_for_closed_does_not_vote_on_others() -> None:
    """Three of five killed at once: the two that are left agree without waiting for the dead."""
    court = Court("axyz")
    for name in "xyz":
        court.doubts(name, CLOSED)
    court.says("a", "xyz", evidence=CLOSED)

    court.judged(0.0)
    assert court.judged(WINDOW_S) == "alive dead dead dead"


@pytest.mark.parametrize(
    ("doubted", "states"), [("xyz", "alive dead dead dead"), ("z", "alive alive alive suspect")]
)
def test_a_newcomer_need_not_wait_for_the_votes_of_the_long_dead(doubted: str, states: str) -> None:
    """Whom a survivor has called dead is no observer, unless this node itself has nothing against it."""
    court = Court("axyz")
    for name in doubted:
        court.doubts(name, UNREACHABLE)
    court.says("a", "xyz", is_dead=True)

    court.judged(0.0)
    assert court.judged(WINDOW_S) == states


def test_the_last_one_calls_dead_only_what_is_closed() -> None:
    """With the others dead it is alone, and its rules are those of two nodes."""
    court = Court("xyz")
    for name in "xy":
        court[name].state = State.DEAD
        court.doubts(name, CLOSED)
    court.doubts("z", UNREACHABLE)

    court.judged(0.0)
    assert court.judged(9.0) == "dead dead suspect"
    court.doubts("z", CLOSED)
    court.judged(9.0)
    assert court.judged(9.0 + WINDOW_S) == "dead dead dead"


def test_dead_stays_dead_when_the_reports_end() -> None:
    """Only a sign of life ends it; the reason stays the one of the verdict."""
    court = Court("ax")
    court.doubts("x", CLOSED)
    court.says("a", "x", evidence=CLOSED)
    court.judged(0.0)
    court.judged(WINDOW_S)
    court.says("a", "", now_s=5.0)

    assert court.judged(5.0) == "alive dead"
    assert court["x"].why == "closed: a, me (so it seems)"


def test_a_dead_one_that_somebody_hears_is_suspect_until_it_is_linked() -> None:
    """A split heals between two others first."""
    court = Court("ax")
    court.doubts("x", UNREACHABLE)
    court["x"].state = State.DEAD

    newly = court.verdicts.hear(node("a"), [], [(node("x")[:8], 1, 100)], 5.0)
    assert newly == [node("x")[:8]]
    assert court.judged(5.0) == "alive suspect"
    court["x"].doubt = None
    court.contacts.by_node[node("x")] = court.contacts.by_node[node("a")]
    assert court.judged(5.1) == "alive alive"


def test_a_goodbye_is_final_for_its_run() -> None:
    """Neither reports nor a late link change it."""
    court = Court("abx")
    court["x"].state = State.LEFT
    court.says("a", "x", evidence=CLOSED)
    court.says("b", "x", evidence=CLOSED)

    court.judged(0.0)
    assert court.judged(9.0) == "alive alive left"


def test_a_doubt_without_evidence_only_makes_suspect() -> None:
    """A broken link, a silent one, a stalled peer."""
    court = Court("abx")
    court.doubts("x", None, "silent for 1.2 s")

    court.judged(0.0)
    assert court.judged(9.0) == "alive alive suspect"
    assert court["x"].why == "silent for 1.2 s"


def test_evidence_counts_when_it_is_ripe() -> None:
    """The judge asks to be called then."""
    court = Court("ax")
    court.says("a", "x")
    court.doubts("x", UNREACHABLE)
    court["x"].doubt = Doubt("not reached", UNREACHABLE, ripe_s=3.0)

    assert court.judged(1.0) == "alive suspect"
    assert court.verdicts.deadline_s == 3.0
    court.judged(3.0)
    assert court.judged(3.0 + WINDOW_S) == "alive dead"


def test_after_a_long_lag_there_is_no_verdict_for_a_while() -> None:
    """What was heard before it is out of date: the mail comes first."""
    court = Court("ax")
    court.doubts("x", CLOSED)
    court.says("a", "x", evidence=CLOSED)
    court.judged(0.0)
    court.verdicts.lagged(5.0, now_s=5.3)

    assert court.judged(5.3) == "alive suspect"
    assert court.verdicts.deadline_s == 5.3 + CONFIG.hold_s
    assert court.judged(5.3 + CONFIG.hold_s) == "alive dead"


def test_the_reason_names_the_reporters_by_their_kind_of_evidence() -> None:
    """In words for people, with what this node itself found."""
    court = Court("abcx")
    court.doubts("x", CLOSED, "the link closed and 10.0.0.1:7755 refuses connections")
    court.says("b", "x", evidence=CLOSED)
    court.says("a", "x")

    court.judged(0.0)
    assert court["x"].why == (
        "closed: b, me; unreachable: a (the link closed and 10.0.0.1:7755 refuses connections)"
    )
