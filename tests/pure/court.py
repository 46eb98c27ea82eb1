"""A judge or an observer with a handful of members: rows without a network."""

from __future__ import annotations

from random import Random

from protocol.config import Config
from protocol.effects import DialOutcome
from protocol.inputs import DialFailed
from protocol.membership.contacts import Contacts, Dialling, Up
from protocol.membership.evidence import Doubt, Evidence, Report
from protocol.membership.observer import Observer
from protocol.membership.record import MemberRecord
from protocol.membership.table import Member, State, Table
from protocol.membership.verdicts import Verdicts
from protocol.turn import Turn
from protocol.types import CommitNumber, Instant, LinkId, NodeId

RUN = 7
CONFIG = Config("me", "me:1")
ME = NodeId(b"m" * 32)


def node(name: str) -> NodeId:
    return NodeId(name.encode() * 32)


class Court:
    """This node is `me`; the others have one letter each, are linked, and were heard at time 0."""

    def __init__(self, others: str) -> None:
        self.contacts = Contacts(CONFIG, ME, Random(1))
        self.table = Table(lambda: (ME, RUN, 0))
        self.observer = Observer(CONFIG, self.contacts, self.table)
        self.verdicts = Verdicts(CONFIG, ME, self.contacts, self.table)
        for number, name in enumerate(others):
            record = MemberRecord(name, f"{name}:1", "0", 1, 1, 0, False, [], [], [], bytes(16), True)
            member = Member(node(name), RUN, 0, record, b"", State.ALIVE, "linked", 0)
            member.was_met = True
            member.reached = (RUN, f"{name}:1")
            self.table.members[member.node] = member
            self.contacts.by_node[member.node] = Up(LinkId(number), RUN, f"{name}:1", 0.0, 0.0)
            self.contacts.by_link[LinkId(number)] = member.node
            self.says(name, "", now_s=0.0)

    def __getitem__(self, name: str) -> Member:
        return self.table.members[node(name)]

    # What is seen and said

    def doubts(self, name: str, evidence: Evidence | None, words: str = "so it seems") -> None:
        """This node has a doubt about a member, ripe at once, and no link to it."""
        self.contacts.by_node[node(name)] = Dialling(0, 0.0)
        self[name].doubt = Doubt(words, evidence, 0.0 if evidence else float("inf"))
        self.verdicts.forget(node(name))
        self.verdicts.reopen()

    def says(
        self,
        observer: str,
        accused: str,
        *,
        now_s: float = 0.0,
        evidence: int = Evidence.UNREACHABLE,
        run: int = RUN,
        is_dead: bool = False,
        hears: str = "",
        held_ms: int = 0,
    ) -> None:
        """A heartbeat of an observer with one report on each of the accused."""
        reports = [Report(node(name), run, evidence, is_dead) for name in accused]
        echoes = [(node(name)[:8], 1, held_ms) for name in hears]
        self.verdicts.hear(node(observer), reports, echoes, now_s)

    def fails(
        self, name: str, outcome: DialOutcome, *, now_s: float, probe: bool = False, at: str = ""
    ) -> Turn:
        """A dial or a probe to a member led to nobody."""
        turn = turn_at(now_s)
        self.observer.failed(
            turn, self[name], DialFailed(at or f"{name}:1", node(name), outcome, "detail", probe)
        )
        return turn

    # What follows

    def judged(self, now_s: float) -> str:
        """Apply every ruling of this moment; the first letters of all states in the order of names."""
        changed = True
        while changed:
            changed = False
            for ruling in self.verdicts.rule(now_s):
                changed = changed or ruling.state is not ruling.member.state
                ruling.member.state, ruling.member.why = ruling.state, ruling.why
        members = sorted(self.table.members.values(), key=lambda member: member.node)
        return " ".join(member.state.value for member in members)


def turn_at(now_s: float) -> Turn:
    return Turn(Instant(now_s, int(now_s * 1000)), CommitNumber(1))
