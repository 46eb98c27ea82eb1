"""What one node sees for itself: probes, findings, and when they become evidence."""

from __future__ import annotations

from math import inf

import pytest

from protocol.effects import Dial, DialOutcome, Disconnect
from protocol.membership.contacts import Dialling, Idle
from protocol.membership.evidence import Doubt, Evidence
from protocol.membership.table import State

from .court import CONFIG, RUN, Court, node, turn_at

CLOSED, UNREACHABLE = Evidence.CLOSED, Evidence.UNREACHABLE
SILENCE_S = CONFIG.silence_s


def unlinked(name: str = "x") -> Court:
    """A court whose link to one member is gone and dialled again since 0.1 s; it was heard last at 0 s."""
    court = Court("ax")
    court.contacts.by_node[node(name)] = Dialling(0, 0.1)
    return court


FINDINGS = {
    # outcome, reached there before: the evidence, and when it counts
    (DialOutcome.REFUSED, True): (CLOSED, 0.5),
    (DialOutcome.REFUSED, False): (UNREACHABLE, SILENCE_S),
    (DialOutcome.UNREACHABLE, True): (UNREACHABLE, SILENCE_S),
    (DialOutcome.UNREACHABLE, False): (UNREACHABLE, SILENCE_S),
    (DialOutcome.STRANGER, True): (UNREACHABLE, SILENCE_S),
    (DialOutcome.SELF, True): (UNREACHABLE, SILENCE_S),
    (DialOutcome.STALLED, True): (None, inf),
    (DialOutcome.FAULT, True): (None, inf),
}


@pytest.mark.parametrize(("case", "found"), FINDINGS.items(), ids=lambda case: str(case[0]))
def test_what_a_redial_finds(case: tuple[DialOutcome, bool], found: tuple[Evidence | None, float]) -> None:
    """Refused is CLOSED only where this run was reached; who connects and says nothing is no evidence."""
    court = unlinked()
    outcome, was_reached = case
    if not was_reached:
        court["x"].reached = None
    court.fails("x", outcome, now_s=0.5)

    doubt = court["x"].doubt
    assert doubt is not None
    assert (doubt.evidence, doubt.ripe_s) == found


def test_an_address_where_another_run_was_reached_proves_nothing() -> None:
    """It restarted there, perhaps elsewhere: the refusal is not yet CLOSED."""
    court = unlinked()
    court["x"].reached = (RUN - 1, "x:1")
    court.fails("x", DialOutcome.REFUSED, now_s=0.5)

    assert court["x"].doubt is not None
    assert court["x"].doubt.evidence is UNREACHABLE


def test_who_was_never_met_is_given_longer() -> None:
    """It may be starting, or behind a NAT and dialling us."""
    court = unlinked()
    court["x"].was_met = False
    court.fails("x", DialOutcome.UNREACHABLE, now_s=0.5)

    doubt = court["x"].doubt
    assert doubt is not None
    assert doubt.ripe_s == SILENCE_S + CONFIG.never_met_s


def test_a_finding_that_another_observer_seconds_need_not_ripen() -> None:
    """It holds the member for CLOSED, at an address that it had reached."""
    court = unlinked()
    court["x"].was_met, court["x"].reached = False, None
    court.fails("x", DialOutcome.REFUSED, now_s=0.5)
    court.observer.second(court["x"], 0.6)

    assert court["x"].doubt is not None
    assert court["x"].doubt.holds(0.6) is UNREACHABLE


def test_seconding_makes_no_evidence_of_a_mere_doubt() -> None:
    """A stalled peer stays a stalled peer."""
    court = unlinked()
    court.fails("x", DialOutcome.STALLED, now_s=0.5)
    court.observer.second(court["x"], 0.6)

    assert court["x"].doubt is not None
    assert court["x"].doubt.holds(99.0) is None


def test_closed_outlives_what_happens_at_that_address_later() -> None:
    """Its successor starts there, or a stranger: that run is gone all the same."""
    court = unlinked()
    court.fails("x", DialOutcome.REFUSED, now_s=0.5)
    closed = court["x"].doubt
    for outcome in (DialOutcome.STALLED, DialOutcome.UNREACHABLE, DialOutcome.STRANGER):
        court.fails("x", outcome, now_s=5.0)

    assert court["x"].doubt == closed


def test_who_takes_connections_again_is_not_unreachable() -> None:
    """The report is withdrawn, the doubt stays."""
    court = unlinked()
    court.fails("x", DialOutcome.UNREACHABLE, now_s=2.0)
    assert [report.evidence for report in court.observer.tell(2.0)] == [UNREACHABLE]
    court.fails("x", DialOutcome.STALLED, now_s=3.0)

    assert court.observer.has_news(3.0)
    assert court.observer.tell(3.0) == []


def test_a_result_that_a_newer_record_overtook_finds_nothing() -> None:
    """The dial went to the old address."""
    court = unlinked()
    court.fails("x", DialOutcome.REFUSED, now_s=0.5, at="elsewhere:1")

    assert court["x"].doubt is None


def test_a_result_that_a_link_overtook_finds_nothing() -> None:
    """The dial began before the peer dialled us."""
    court = Court("ax")
    court.fails("x", DialOutcome.REFUSED, now_s=9.0)

    assert court["x"].doubt is None


def test_a_silent_link_is_probed_when_heartbeats_are_overdue() -> None:
    """Once, and again only some time after the answer."""
    court = Court("x")
    early, due, again = (turn_at(s) for s in (CONFIG.probe_after_s - 0.01, CONFIG.probe_after_s, 0.9))
    for turn in (early, due, again):
        court.observer.watch(turn)

    assert early.effects == []
    assert due.effects == [Dial("x:1", node("x"), CONFIG.probe_s, probe=True)]
    assert again.effects == []
    court.fails("x", DialOutcome.STALLED, now_s=1.2, probe=True)
    assert court.observer.deadline_s == 1.2
    later = turn_at(1.2 + CONFIG.redial_stalled_s)
    court.observer.watch(later)
    assert later.effects == [Dial("x:1", node("x"), CONFIG.probe_s, probe=True)]


def test_a_probe_that_does_not_connect_makes_silence_evidence() -> None:
    """When the bound has passed, not before; the link stays for now."""
    court = Court("x")
    court.observer.watch(turn_at(CONFIG.probe_after_s))
    turn = court.fails("x", DialOutcome.UNREACHABLE, now_s=1.19, probe=True)

    doubt = court["x"].doubt
    assert doubt is not None
    assert (doubt.holds(1.19), doubt.holds(SILENCE_S)) == (None, UNREACHABLE)
    assert turn.cut_links == {}


def test_silence_alone_is_no_evidence() -> None:
    """However long, as long as the probe is under way or stalls."""
    court = Court("x")
    for now_s in (0.7, 1.2, 5.0):
        court.observer.watch(turn_at(now_s))

    doubt = court["x"].doubt
    assert doubt == Doubt("silent for 1.2 s")
    assert doubt.holds(99.0) is None


def test_a_failed_probe_of_a_member_that_is_heard_says_nothing() -> None:
    """Behind a NAT its address never answers."""
    court = Court("x")
    court["x"].reached = None
    court.observer.probe_address(turn_at(0.1), court["x"])
    court.fails("x", DialOutcome.REFUSED, now_s=0.2, probe=True)

    assert court["x"].doubt is None


def test_an_answered_probe_is_a_sign_of_life() -> None:
    """The doubt goes; a second answer without a byte on the link means that the link is broken."""
    court = Court("x")
    court.observer.watch(turn_at(1.2))
    first, second = turn_at(1.3), turn_at(2.1)
    court.observer.answered(first, court["x"], RUN, "x:1")
    assert court["x"].doubt is None
    assert first.effects == []
    court.observer.watch(turn_at(2.0))
    court.observer.answered(second, court["x"], RUN, "x:1")

    assert second.effects == [Dial("x:1", node("x"), CONFIG.probe_s)]


def test_who_answers_after_it_was_missed_is_dialled_at_once() -> None:
    """Its link had evidence against it."""
    court = Court("x")
    court.observer.watch(turn_at(0.7))
    court.fails("x", DialOutcome.UNREACHABLE, now_s=1.2, probe=True)
    turn = turn_at(2.0)
    court.observer.answered(turn, court["x"], RUN, "x:1")

    assert turn.effects == [Dial("x:1", node("x"), CONFIG.probe_s)]


def test_a_link_that_is_silent_for_long_is_cut() -> None:
    """A paused process has been given its time."""
    court = Court("x")
    turn = turn_at(CONFIG.hang_up_s)
    court.observer.watch(turn)

    assert [type(effect) for effect in turn.effects] == [Disconnect]


def test_a_node_that_was_away_credits_the_others_with_the_time() -> None:
    """Nobody is doubted for what it slept through."""
    court = Court("x")
    court.observer.wake(0.3)
    lag_s = court.observer.wake(5.3)
    turn = turn_at(5.3)
    court.observer.watch(turn)

    assert lag_s == pytest.approx(4.7)
    assert court["x"].doubt is None
    assert turn.effects == []


@pytest.mark.parametrize(
    ("outcome", "counts"), [(DialOutcome.UNREACHABLE, False), (DialOutcome.REFUSED, True)]
)
def test_dials_that_timed_out_while_this_node_was_away_found_nothing(
    outcome: DialOutcome, counts: bool
) -> None:
    """A refusal is the kernel's word and counts."""
    court = unlinked()
    court.observer.wake(0.2)
    court.observer.wake(9.0)
    court.fails("x", outcome, now_s=9.0)

    assert (court["x"].doubt is not None) is counts


def test_members_of_the_last_run_are_suspect_until_they_show_themselves() -> None:
    """Nobody was reached in this run yet; who was dead or left stays so."""
    court = Court("xyz")
    for name, state in zip("xyz", (State.SUSPECT, State.DEAD, State.LEFT), strict=True):
        court.contacts.by_node[node(name)] = Idle(0.0)
        court[name].state = state
    court.observer.start(3.0)

    assert court.judged(3.0) == "suspect dead left"
    assert court["x"].why == "not reached since this node started"


def test_a_round_trip_that_a_stall_drew_out_hardly_counts() -> None:
    """The patience of a probe follows the least round trip lately, and that rises only slowly."""
    court = Court("x")
    up = court.contacts.up(node("x"))
    assert up is not None
    for rtt_ms in (10.0, 5000.0):
        up.rtt_ms = rtt_ms
        court.observer.timed(court["x"], up)

    assert court["x"].rtt_ms == pytest.approx(12.6)
    assert court.contacts.patience_s(court["x"].rtt_ms) == CONFIG.probe_s
    assert court.contacts.patience_s(200.0) == 0.8
    assert court.contacts.patience_s(5000.0) == CONFIG.patience_max_s


def test_dead_members_are_dialled_at_a_rate_of_the_whole_cluster() -> None:
    """Each of n waits about n seconds, and nobody longer than the bound."""
    court = Court("x")
    for dialling, least_s, most_s in ((1, 0.75, 1.25), (4, 3.0, 5.0), (1000, 22.5, 37.5)):
        court.contacts.by_node[node("x")] = Dialling(3, 0.0)
        court.contacts.dial_failed_dead(node("x"), 0.0, dialling)
        contact = court.contacts.by_node[node("x")]
        assert isinstance(contact, Idle)
        assert least_s <= contact.dial_s <= most_s
