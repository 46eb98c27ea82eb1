"""Broken judges and observers that the drills must catch, each named with the drill and the check that it trips."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import msgspec
import pytest

from protocol.effects import DialOutcome
from protocol.membership import verdicts
from protocol.membership.evidence import GONE, Doubt, Evidence
from protocol.membership.observer import Observer
from protocol.membership.verdicts import Bench, Verdicts

from . import drills
from .checks import Violation
from .drills import Drill
from .hosts import Plan
from .swarm import Swarm

SEEDS = range(10)
Patch = Callable[[pytest.MonkeyPatch], None]


def half_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(verdicts, "is_quorum", lambda live, accusers, own: accusers >= live / 2)


def one_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(verdicts, "is_quorum", lambda live, accusers, own: accusers >= 1)


def silence_kills_when_alone(patch: pytest.MonkeyPatch) -> None:
    """As one of two."""
    sound = verdicts.is_quorum
    patch.setattr(verdicts, "is_quorum", lambda live, *rest: live == 1 or sound(live, *rest))


def a_reset_counts_as_refused(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("protocol.membership.evidence.FINDINGS", dict.fromkeys(DialOutcome, GONE))


def refused_anywhere_counts(patch: pytest.MonkeyPatch) -> None:
    """Also at an address where the member was never reached."""
    sound = Observer._doubt

    def doubt(self: Observer, member: Any, failed: Any, now_s: float) -> None:
        member.reached = (member.run, failed.address)
        sound(self, member, failed, now_s)

    patch.setattr(Observer, "_doubt", doubt)


def silence_kills(patch: pytest.MonkeyPatch) -> None:
    """A silent link is evidence, whatever a probe finds."""
    sound = Observer._watch_link

    def watch(self: Observer, turn: Any, member: Any, up: Any) -> bool:
        is_new = sound(self, turn, member, up)
        if member.doubt is not None:
            member.doubt = Doubt(member.doubt.words, Evidence.UNREACHABLE, -inf)
        return is_new

    patch.setattr(Observer, "_watch_link", watch)


def no_refute_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Verdicts, "_has_stood", lambda self, member, has_quorum, now_s: has_quorum)


def refutation_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A quorum that once was there leads to a verdict, whatever is heard in the window."""
    sound = Verdicts._rule

    def rule(self: Verdicts, member: Any, bench: Any, now_s: float) -> Any:
        ruling = sound(self, member, bench, now_s)
        self.__dict__.setdefault("doomed", {}).setdefault(member.node, inf)
        if member.node in self._quorum_s:
            self.__dict__["doomed"][member.node] = self._quorum_s[member.node] + self._config.refute_s
        if now_s >= self.__dict__["doomed"][member.node]:
            return msgspec.structs.replace(ruling, state=verdicts.State.DEAD)
        self._look_again(self.__dict__["doomed"][member.node])
        return ruling

    patch.setattr(Verdicts, "_rule", rule)
    patch.setattr(Verdicts, "rule", rule_all)


def rule_all(self: Verdicts, now_s: float) -> Any:
    self.deadline_s = inf
    bench = self._bench(now_s)
    return [r for m in self._table.members.values() if (r := self._rule(m, bench, now_s)).is_news]


def nothing_is_withdrawn(patch: pytest.MonkeyPatch) -> None:
    """What an observer said once counts for ever, also when it is silent."""
    sound = Verdicts.hear

    def hear(self: Verdicts, observer: Any, reports: Any, echoes: Any, now_s: float) -> Any:
        before = self._testimonies.get(observer, verdicts.Testimony({}, {}))
        return sound(self, observer, [*before.reports.values(), *reports], echoes, now_s)

    def bench(self: Verdicts, now_s: float) -> Bench:
        return Bench(sound_bench(self, now_s).live, dict(self._testimonies))

    sound_bench = Verdicts._bench
    patch.setattr(Verdicts, "hear", hear)
    patch.setattr(Verdicts, "forget", lambda self, observer: None)
    patch.setattr(Verdicts, "_bench", bench)


def the_dead_vote(patch: pytest.MonkeyPatch) -> None:
    """The quorum is taken over dead observers too."""
    patch.setattr(verdicts, "GONE", (verdicts.State.LEFT,))
    patch.setattr(verdicts, "_is_written_off", lambda member, called_dead, now_s: False)


def the_closed_vote(patch: pytest.MonkeyPatch) -> None:
    """Observers that are closed, but not yet called dead, count as live."""
    patch.setattr(verdicts, "_is_written_off", lambda member, called_dead, now_s: False)


def the_silent_do_not_vote(patch: pytest.MonkeyPatch) -> None:
    """Only observers that are heard count as live."""
    sound = Verdicts._bench

    def bench(self: Verdicts, now_s: float) -> Bench:
        heard = sound(self, now_s).heard
        return Bench(frozenset(heard), heard)

    patch.setattr(Verdicts, "_bench", bench)


def the_word_of_hearers_is_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Bench, "hearers_of", lambda self, accused, now_s: {})


def verdicts_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """So a newcomer waits for the votes of the dead."""
    sound = Observer._reports
    lower = lambda report: msgspec.structs.replace(report, is_dead=False)  # noqa: E731
    patch.setattr(Observer, "_reports", lambda self, now_s: [lower(report) for report in sound(self, now_s)])


def nobody_seconds(patch: pytest.MonkeyPatch) -> None:
    """Who never reached the dead waits, although another observer knows better."""
    patch.setattr(Observer, "second", lambda self, member, now_s: None)


def no_lag_credit(patch: pytest.MonkeyPatch) -> None:
    """A process that was stopped blames the others."""
    patch.setattr(Observer, "wake", lambda self, now_s: 0.0)


def reports_wait_for_the_next_beat(patch: pytest.MonkeyPatch) -> None:
    """Or, here, for the one after ten."""
    sound = Observer.tell
    counts: dict[int, int] = {}

    def tell(self: Observer, now_s: float) -> Any:
        counts[id(self)] = counts.get(id(self), 0) + 1
        return sound(self, now_s) if counts[id(self)] % 10 == 0 else []

    patch.setattr(Observer, "tell", tell)
    patch.setattr(Observer, "has_news", lambda self, now_s: False)


def a_goodbye_is_undone_by_a_link(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Verdicts, "rule", rule_all)


MUTANTS: list[tuple[Patch, Drill, int, str]] = [
    (half_is_enough, drills.partitioned, 5, "V2"),
    (one_is_enough, drills.partitioned, 3, "V2"),
    (silence_kills_when_alone, drills.lost_power, 2, "V2"),
    (a_reset_counts_as_refused, drills.paused, 3, "V2"),
    (refused_anywhere_counts, drills.refuses_where_never_reached, 3, "V2"),
    (silence_kills, drills.paused, 3, "V2"),
    (no_refute_window, drills.refuted, 3, "V2"),
    (refutation_is_ignored, drills.refuted, 3, "V2"),
    (nothing_is_withdrawn, drills.reported_before, 4, "V2"),
    (the_dead_vote, drills.lost_power_one_by_one, 5, "V1"),
    (the_closed_vote, drills.killed_together, 5, "V1"),
    (the_silent_do_not_vote, drills.partitioned, 5, "V2"),
    (the_word_of_hearers_is_ignored, drills.heard_by_one, 4, "I9"),
    (verdicts_are_not_told, drills.newcomer_hears_of_the_dead, 5, "V1"),
    (nobody_seconds, drills.killed_just_joined, 3, "V1"),
    (no_lag_credit, drills.paused, 3, "V4"),
    (reports_wait_for_the_next_beat, drills.killed, 3, "V1"),
    (a_goodbye_is_undone_by_a_link, drills.left, 3, "V4"),
]


@pytest.mark.parametrize(
    ("mutant", "drill", "nodes", "check"), MUTANTS, ids=[mutant.__name__ for mutant, *_ in MUTANTS]
)
def test_mutant_is_caught(
    mutant: Patch, drill: Drill, nodes: int, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least one of the seeds trips the check that exists for this fault."""
    mutant(monkeypatch)
    tripped: list[str] = []
    for seed in SEEDS:
        try:
            drill(Swarm(seed, Plan(nodes=nodes, faults_s=0)))
        except Violation as violation:
            tripped.append(str(violation).splitlines()[0])
            if tripped[-1].startswith(check):
                return
    pytest.fail(f"{mutant.__name__} does not trip {check}; it tripped: {tripped}")
