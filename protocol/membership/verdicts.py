"""The judge: who is dead. Every node judges for itself, from its own doubts and from what observers report.

In this version every member observes every other. The rules, in this order:

    left     it said so itself, signed; final for that run
    alive    bytes of it come on a link of this node, whatever anybody else says
    dead     for `refute_s` on end a quorum of the live observers has reported evidence against this very
             run, and none of the live ones still hears it. Stays so until there is a sign of life
    suspect  this node has a doubt, or somebody reports it; also a dead one that is heard again elsewhere
    alive    otherwise: it announced itself, and nothing speaks against it

A live observer is this node and every member but the accused that is not dead or left, except those that this
node itself holds for CLOSED, and those that it doubts while somebody it hears has called them dead: a newcomer
need not wait for the votes of the long dead. Members that are merely silent count: so the smaller side of a
split never has a quorum. A quorum is more than half of the live observers, and at least two. Where only
this node is left, its own CLOSED is enough, since a refused connection is the kernel's word; silence is not, so
of two nodes neither ever calls the silent other dead, and both stay writable.

Only the words of observers that this node hears count, and only their latest: a heartbeat takes the place of the
one before, and what a silent observer said is void. A verdict is no report: it never travels as one.

Refuting. In a mesh every byte that a member sends is its refutation: who hears it says so in the echoes of its
heartbeats, and one live observer that hears it stops a verdict. So a link that is cut between two members
kills neither as long as a third reaches both: the two show each other as `suspect` and name who hears the
other, everybody else shows both as `alive`. A newer record of the accused, by whatever way it comes, voids all
that was said before. (Where not everybody hears everybody, the accused will have to be told; judges are
ready for its answer.) The price: a verdict waits for the last live observer to notice, `silence_s` at most.

A split in half kills both ways, as each half is a majority of those that are not accused; healing undoes it.

What is not known: whether evidence is independent. The reports of a whole rack may share one broken switch.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import msgspec

from ..config import Config
from ..types import NodeId
from .contacts import Contacts
from .evidence import Evidence, Report
from .table import Member, State, Table

PREFIX_BYTES = 8
"""Of an id in the echoes of a heartbeat."""
GONE = (State.DEAD, State.LEFT)
KNOWN_EVIDENCE = frozenset(Evidence)


def is_quorum(live: int, accusers: int, own: Evidence | None) -> bool:
    """Whether so many of the live observers, this node among them, may call somebody dead."""
    if live == 1:
        return own is Evidence.CLOSED
    return accusers >= max(2, live // 2 + 1)


class Testimony(msgspec.Struct):
    """What one observer said last: whom it holds what against, and whom it hears, until when that is fresh."""

    reports: dict[NodeId, Report]
    hears_s: dict[bytes, float]


class Bench(msgspec.Struct, frozen=True):
    """The observers other than this node, as they are at one moment."""

    live: frozenset[NodeId]
    heard: dict[NodeId, Testimony]

    def reports_on(self, accused: Member) -> dict[NodeId, Evidence]:
        """By observer, about the run of the accused that is known here."""
        found = {}
        for observer, testimony in self.heard.items():
            report = testimony.reports.get(accused.node)
            if report is not None and report.run == accused.run and report.evidence in KNOWN_EVIDENCE:
                found[observer] = Evidence(report.evidence)
        found.pop(accused.node, None)
        return found

    def hearers_of(self, accused: Member, now_s: float) -> dict[NodeId, float]:
        """Who hears it still, and until when that is fresh."""
        prefix = accused.node[:PREFIX_BYTES]
        hears_s = {observer: said.hears_s.get(prefix, -inf) for observer, said in self.heard.items()}
        return {o: until_s for o, until_s in hears_s.items() if until_s > now_s and o != accused.node}


class Ruling(msgspec.Struct, frozen=True):
    member: Member
    state: State
    why: str

    @property
    def is_news(self) -> bool:
        return (self.state, self.why) != (self.member.state, self.member.why)


class Verdicts:
    """Owns what other observers said, and how long each quorum has stood. The table it only reads."""

    def __init__(self, config: Config, me: NodeId, contacts: Contacts, table: Table) -> None:
        self._config, self._me, self._contacts, self._table = config, me, contacts, table
        self._testimonies: dict[NodeId, Testimony] = {}
        self._quorum_s: dict[NodeId, float] = {}
        self._held_s = -inf
        self.deadline_s = -inf
        """`rule` no later than this; at once when what is said or who says it has changed."""

    # What is said

    def hear(
        self,
        observer: NodeId,
        reports: Iterable[Report],
        echoes: Iterable[tuple[bytes, int, int]],
        now_s: float,
    ) -> list[bytes]:
        """One heartbeat. Returns the first bytes of the ids of those whom it hears and did not hear before."""
        before = self._testimonies.get(observer) or Testimony({}, {})
        fresh_s = now_s + self._config.silence_s
        hears_s = {prefix: fresh_s - held_ms / 1000 for prefix, _, held_ms in echoes}
        said = Testimony({NodeId(report.subject): report for report in reports}, hears_s)
        self._testimonies[observer] = said
        newly = [p for p, until_s in hears_s.items() if until_s > now_s >= before.hears_s.get(p, -inf)]
        if newly or said.reports != before.reports or hears_s.keys() != before.hears_s.keys():
            self.reopen()
        return newly

    def forget(self, observer: NodeId) -> None:
        """Its link is gone: what it said is void."""
        if self._testimonies.pop(observer, None) is not None:
            self.reopen()

    def acquit(self, accused: NodeId) -> None:
        """A newer record of it came: what was said before that is void, and has to be said again."""
        self._quorum_s.pop(accused, None)
        for testimony in self._testimonies.values():
            testimony.reports.pop(accused, None)
        self.reopen()

    def reopen(self) -> None:
        """A doubt, or who is linked, has changed."""
        self.deadline_s = -inf

    def lagged(self, lag_s: float, now_s: float) -> None:
        """This node was away: quorums did not stand meanwhile, and after long there may be mail to read first."""
        for accused in self._quorum_s:
            self._quorum_s[accused] += lag_s
        if lag_s > self._config.hold_s:
            self._held_s = now_s + self._config.hold_s
        self.reopen()

    # What follows

    def closed_by_others(self, now_s: float) -> list[Member]:
        """Members that somebody reports as CLOSED."""
        bench = self._bench(now_s)
        members = self._table.members.values()
        return [member for member in members if Evidence.CLOSED in bench.reports_on(member).values()]

    def rule(self, now_s: float) -> list[Ruling]:
        """What is to change in the table. Where a state does, ask again: who counts may have changed."""
        self.deadline_s = inf
        bench = self._bench(now_s)
        accused = {subject for said in bench.heard.values() for subject in said.reports}
        rulings = []
        for member in self._table.members.values():
            if member.state is State.ALIVE and member.doubt is None and member.node not in accused:
                self._quorum_s.pop(member.node, None)
            elif member.state is not State.LEFT:
                rulings.append(self._rule(member, bench, now_s))
        return [ruling for ruling in rulings if ruling.is_news]

    def _bench(self, now_s: float) -> Bench:
        members = self._table.members
        heard = {
            observer: said
            for observer, said in self._testimonies.items()
            if observer in members and members[observer].doubt is None and members[observer].state not in GONE
        }
        called_dead = {
            report.subject
            for said in heard.values()
            for report in said.reports.values()
            if report.is_dead
            and report.subject in members
            and report.run == members[NodeId(report.subject)].run
        }
        live = frozenset(
            member.node
            for member in members.values()
            if member.state not in GONE and not _is_written_off(member, called_dead, now_s)
        )
        return Bench(live, heard)

    def _rule(self, member: Member, bench: Bench, now_s: float) -> Ruling:
        if member.doubt is None and self._contacts.up(member.node) is not None:
            self._quorum_s.pop(member.node, None)
            return Ruling(member, State.ALIVE, "linked")
        against = bench.reports_on(member)
        own = member.doubt.holds(now_s) if member.doubt is not None else None
        if own is not None:
            against[self._me] = own
        elif member.doubt is not None:
            self._look_again(member.doubt.ripe_s)
        hearers = bench.hearers_of(member, now_s)
        self._look_again(min(hearers.values(), default=inf))
        live = 1 + len(bench.live - {member.node})
        has_quorum = is_quorum(live, len(against), own) and not hearers
        if member.state is State.DEAD and not hearers:
            return Ruling(member, State.DEAD, member.why)
        if self._has_stood(member, has_quorum, now_s):
            return Ruling(member, State.DEAD, self._words(member, against, hearers))
        if member.doubt is not None or against or member.state is State.DEAD:
            return Ruling(member, State.SUSPECT, self._words(member, against, hearers))
        return Ruling(member, State.ALIVE, "announced")

    def _has_stood(self, member: Member, has_quorum: bool, now_s: float) -> bool:
        """Whether the quorum against a member has stood through its refute window."""
        if not has_quorum:
            self._quorum_s.pop(member.node, None)
            return False
        due_s = max(self._quorum_s.setdefault(member.node, now_s) + self._config.refute_s, self._held_s)
        if now_s >= due_s:
            del self._quorum_s[member.node]
            return True
        self._look_again(due_s)
        return False

    def _look_again(self, at_s: float) -> None:
        self.deadline_s = min(self.deadline_s, at_s)

    def _words(self, member: Member, against: dict[NodeId, Evidence], hearers: Iterable[NodeId]) -> str:
        """The evidence, for people: `closed: a, c (the link closed and 10.0.0.1:7755 refuses connections)`."""
        parts = []
        for kind in Evidence:
            names = self._names(observer for observer, evidence in against.items() if evidence is kind)
            if names:
                parts.append(f"{kind.name.lower()}: {names}")
        words = "; ".join(parts)
        if member.doubt is not None:
            words = f"{words} ({member.doubt.words})" if words else member.doubt.words
        heard_by = self._names(hearers)
        return "; ".join(part for part in (words, f"heard by {heard_by}" if heard_by else "") if part)

    def _names(self, observers: Iterable[NodeId]) -> str:
        members = self._table.members
        names = (self._config.name if o == self._me else members[o].record.name for o in observers)
        return ", ".join(sorted(names))


def _is_written_off(member: Member, called_dead: set[bytes], now_s: float) -> bool:
    if member.doubt is None:
        return False
    return member.doubt.holds(now_s) is Evidence.CLOSED or member.node in called_dead
