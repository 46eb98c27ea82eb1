"""This node as an observer of every other member: what it hears, asks and finds, and so what it doubts.

A sign of life is a byte on a link, an answered probe, a new record. Everything else is weighed here, and nowhere
is anybody called dead here: that takes a majority (`verdicts.py`).

    a link breaks        a doubt, and a dial at once: what it finds is weighed (`evidence.py`)
    a link is silent     after `probe_after_s` a probe asks on a second connection, again every
                         `redial_stalled_s`; from `silence_s` on there is a doubt, and evidence if no probe
                         connected. The link stays: TCP may bring it back, and that is the quickest refutation.
                         It is cut when its far end is called dead, or after `hang_up_s`; then dials go on
    probes are answered  while the link stays silent: the link is broken, not the member; it is dialled anew

Evidence of absence ripens when the member has given no sign of life for `silence_s` (`never_met_s` more if
this run of it was never heard), or at once when another observer reports the member as CLOSED. CLOSED stays
until there is a sign of life: nothing else that happens at that address later brings that run back.

A node that was not running knows nothing. Every event shows how long ago the last one was, and there is one
each heartbeat; what is missing is credited to all members, and dials that timed out in that time found nothing
(a refusal still counts: it is the kernel's word).
"""

from __future__ import annotations

from math import inf

import msgspec

from ..config import Config
from ..effects import Dial, DialOutcome
from ..errors import Fault
from ..inputs import DialFailed
from ..limits import HEARTBEAT_REPORTS_MAX
from ..turn import Turn
from .contacts import Contacts, Up
from .evidence import Doubt, Evidence, Report, weigh
from .table import Member, State, Table

TIMED_OUT = (DialOutcome.UNREACHABLE, DialOutcome.STALLED)


class Observer:
    """Owns the doubts, and what members' rows say of reaching and hearing them."""

    def __init__(self, config: Config, contacts: Contacts, table: Table) -> None:
        self._config, self._contacts, self._table = config, contacts, table
        self.deadline_s = inf
        """`watch` no later than this."""
        self._awake_s = inf
        self._late_s = -inf
        self._told: list[Report] = []

    def start(self, now_s: float) -> None:
        """Members of the last run are expected to show themselves from now on."""
        for member in self._table.members.values():
            member.life_s = now_s
            if member.state is State.SUSPECT:
                member.doubt = Doubt("not reached since this node started")

    def wake(self, now_s: float) -> float:
        """Called for every event: how long this node was away, when that is worth crediting; else 0."""
        lag_s = now_s - self._awake_s - 1.2 * self._config.heartbeat_s
        self._awake_s = now_s
        if lag_s <= self._config.lag_credit_s:
            return 0.0
        self._late_s = now_s
        for _, up in self._contacts.linked():
            up.last_rx_s += lag_s
        for member in self._table.members.values():
            member.life_s += lag_s
            if member.doubt is not None:
                member.doubt = msgspec.structs.replace(member.doubt, ripe_s=member.doubt.ripe_s + lag_s)
        return lag_s

    # Signs of life

    def renewed(self, member: Member, now_s: float, *, restarted: bool) -> None:
        """A newer record of its own came, by whatever way."""
        member.life_s, member.doubt = now_s, None
        if restarted:
            member.was_met = False

    def linked(self, member: Member, dialled: str | None, now_s: float) -> None:
        self._note_life(member, now_s)
        self.note_reached(member, member.run, dialled)

    def heard(self, member: Member | None, up: Up, now_s: float) -> None:
        """Bytes came, whatever they are. They speak for the run that the link is to."""
        up.last_rx_s, up.pongs = now_s, 0
        if member is not None and member.run == up.run:
            self._note_life(member, now_s)

    def timed(self, member: Member, up: Up) -> None:
        """A round trip was measured. One that a stall drew out hardly counts: the least rises only slowly."""
        if up.rtt_ms is not None:
            member.rtt_ms = min(up.rtt_ms, (member.rtt_ms or up.rtt_ms) * 1.25 + 0.1)

    def answered(self, turn: Turn, member: Member, run: int, address: str) -> None:
        """It answered a probe, and hung up as it was asked to."""
        now_s = turn.now.mono_s
        was_missed = member.doubt is not None and member.doubt.holds(now_s) is not None
        self.note_reached(member, run, address)
        if run == member.run:
            self._note_life(member, now_s)
        up = self._contacts.up(member.node)
        if up is None:
            self._contacts.know(member.node, now_s, at_once=True)
            return
        up.probed_s = None
        if now_s - up.last_rx_s < self._config.probe_after_s:
            return
        up.pongs += 1
        if up.pongs > 1 or was_missed or run != up.run:
            up.pongs = 0
            turn.do(Dial(address, member.node, self._contacts.patience_s(member.rtt_ms)))

    def note_reached(self, member: Member, run: int, address: str | None) -> None:
        if run == member.run and address == member.record.address:
            member.reached = (run, address)

    def probe_address(self, turn: Turn, member: Member) -> None:
        """Ask it once at its address whether it answers there: only then a later refusal means anything."""
        up = self._contacts.up(member.node)
        place = (member.run, member.record.address)
        is_due = turn.now.mono_s >= member.probe_s
        if up is not None and up.run == member.run and member.reached != place and is_due:
            member.probe_s = turn.now.mono_s + self._config.reprobe_s
            self._probe(turn, member, up)

    # Doubts

    def lost(self, member: Member, why: str) -> None:
        """The link to it is gone; a dial follows at once."""
        if member.doubt is None:
            member.doubt = Doubt(f"the link broke ({why}); dialling again")

    def failed(self, turn: Turn, member: Member, failed: DialFailed) -> None:
        """A dial or a probe led to nobody."""
        now_s = turn.now.mono_s
        up = self._contacts.up(member.node)
        since_s = self._contacts.dialling_since_s(member.node)
        if failed.probe != (up is not None) or since_s is None:
            return  # it was overtaken: a link came up, or went
        if up is not None:
            up.probed_s, up.probe_due_s = None, now_s + self._config.redial_stalled_s
            self.deadline_s = min(self.deadline_s, up.probe_due_s)
        is_void = failed.outcome in TIMED_OUT and since_s < self._late_s
        is_heard = up is not None and now_s < member.life_s + self._config.probe_after_s
        has_moved = failed.address != member.record.address
        if not is_void and not is_heard and not has_moved:
            self._doubt(member, failed, now_s)

    def watch(self, turn: Turn) -> bool:
        """Look at every link: probe the silent ones, give up the lost ones. Whether there are new doubts."""
        self.deadline_s = inf
        has_new = False
        for node, up in self._contacts.linked():
            if turn.now.mono_s >= up.last_rx_s + self._config.hang_up_s:
                turn.cut(up.link, Fault.TIMEOUT, f"silent for {self._config.hang_up_s:.0f} s")
                continue
            member = self._table.members.get(node)
            if member is not None and member.run == up.run:
                has_new |= self._watch_link(turn, member, up)
        return has_new

    def second(self, member: Member, now_s: float) -> None:
        """Another observer holds it for CLOSED: what was found here need not ripen."""
        doubt = member.doubt
        if doubt is not None and doubt.evidence is not None and now_s < doubt.ripe_s:
            member.doubt = msgspec.structs.replace(doubt, ripe_s=now_s)

    # Reports

    def has_news(self, now_s: float) -> bool:
        """Whether there is something to report, or to withdraw, that was not told yet."""
        told = {(report.subject, report.run, report.evidence) for report in self._told}
        return told != {(report.subject, report.run, report.evidence) for report in self._reports(now_s)}

    def tell(self, now_s: float) -> list[Report]:
        """What this node holds against others, to be told to all."""
        self._told = self._reports(now_s)
        return self._told

    def _reports(self, now_s: float) -> list[Report]:
        """First those about whom there is no verdict yet."""
        found = []
        for member in self._table.members.values():
            evidence = member.doubt.holds(now_s) if member.doubt is not None else None
            if evidence is not None:
                found.append(Report(member.node, member.run, evidence, member.state is State.DEAD))
        return sorted(found, key=lambda report: (report.is_dead, report.subject))[:HEARTBEAT_REPORTS_MAX]

    def _note_life(self, member: Member, now_s: float) -> None:
        member.life_s, member.was_met, member.doubt = now_s, True, None

    def _doubt(self, member: Member, failed: DialFailed, now_s: float) -> None:
        if member.doubt is not None and member.doubt.evidence is Evidence.CLOSED:
            return
        was_reached = member.reached == (member.run, failed.address)
        evidence, words = weigh(failed, was_reached=was_reached)
        match evidence:
            case Evidence.CLOSED:
                ripe_s = now_s
            case Evidence.UNREACHABLE:
                grace_s = 0.0 if member.was_met else self._config.never_met_s
                ripe_s = member.life_s + self._config.silence_s + grace_s
            case None:
                ripe_s = inf
        member.doubt = Doubt(words, evidence, ripe_s)

    def _watch_link(self, turn: Turn, member: Member, up: Up) -> bool:
        config, now_s = self._config, turn.now.mono_s
        probe_s = max(member.life_s + config.probe_after_s, up.probe_due_s)
        doubt_s = member.life_s + config.silence_s
        if now_s >= probe_s and up.probed_s is None:
            self._probe(turn, member, up)
        is_new = now_s >= doubt_s and member.doubt is None
        if is_new:
            member.doubt = Doubt(f"silent for {now_s - member.life_s:.1f} s")
        if up.probed_s is None:
            self.deadline_s = min(self.deadline_s, probe_s)
        if member.doubt is None:
            self.deadline_s = min(self.deadline_s, doubt_s)
        self.deadline_s = min(self.deadline_s, up.last_rx_s + config.hang_up_s)
        return is_new

    def _probe(self, turn: Turn, member: Member, up: Up) -> None:
        if up.probed_s is None:
            up.probed_s = turn.now.mono_s
            patience_s = self._contacts.patience_s(member.rtt_ms)
            turn.do(Dial(member.record.address, member.node, patience_s, probe=True))
