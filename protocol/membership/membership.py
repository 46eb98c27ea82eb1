"""Who is there: records heard and handed on, links judged, goodbyes said.

Every node holds every member's record and, in this version, a link to every member. What is heard of a record
for the first time goes on to all other links, once, unchanged; heartbeats carry a digest of the table, and
where digests differ for longer the whole table is sent again.

What this node sees of a member by itself is `observer.py`, what follows from that and from what the others report
is `verdicts.py`. A report is news that does not wait for the next heartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..config import Config
from ..effects import DialOutcome, Farewell, MemberChanged, RecordRow, Send
from ..errors import Fault, RemoteFault
from ..inputs import DialFailed
from ..keyspaces import Candidate
from ..limits import HEARTBEAT_ECHOES_MAX
from ..turn import Turn
from ..types import Instant, Keys, LinkId, NodeId
from ..voters import Voter
from .contacts import Contacts
from .observer import Observer
from .record import Goodbye, Heartbeat, MemberRecord, News, own_record
from .table import Member, State, Table, encode_member
from .verdicts import PREFIX_BYTES, Verdicts

if TYPE_CHECKING:
    from random import Random

MEMBER_RECORD = "member"


class Membership:
    """`run` is durable already; `known` are the members of the last run."""

    def __init__(
        self,
        config: Config,
        keys: Keys,
        run: int,
        started_ms: int,
        random: Random,
        known: list[Member],
        voided: list[tuple[int, int]],
        store_id: bytes,
    ) -> None:
        self._config, self._keys, self._run = config, keys, run
        self.contacts = Contacts(config, keys.node_id, random)
        self._incarnation = 0
        self._record = own_record(config, keys, started_ms, voided, store_id)
        self.table = Table(lambda: (keys.node_id, run, self._incarnation))
        for member in known:
            self.table.members[member.node] = member
        self.table.note_change()
        self._observer = Observer(config, self.contacts, self.table)
        self._verdicts = Verdicts(config, keys.node_id, self.contacts, self.table)
        self._unsaved: dict[NodeId, None] = {}
        self._save_after_s = 0.0
        self._resend_after_s: dict[LinkId, float] = {}
        self._beat_s = self._beaten_s = 0.0
        self._farewell: Farewells | None = None

    @property
    def deadline_s(self) -> float:
        watch_s = min(self._observer.deadline_s, self._verdicts.deadline_s)
        return min(self._beat_s, watch_s, self.contacts.deadline_s)

    @property
    def incarnation(self) -> int:
        return self._incarnation

    @property
    def record(self) -> MemberRecord:
        """What this node says of itself."""
        return self._record

    @property
    def is_leaving(self) -> bool:
        return self._farewell is not None

    def start(self, now: Instant) -> None:
        """Dial everybody known from the last run."""
        self._beat_s = now.mono_s
        self._observer.start(now.mono_s)
        for node in sorted(self.table.members):
            self.contacts.know(node, now.mono_s, at_once=True)

    def wake(self, now_s: float) -> None:
        """Called before each event: a node that was not running must not blame the others for it."""
        lag_s = self._observer.wake(now_s)
        if lag_s:
            self._verdicts.lagged(lag_s, now_s)

    # Links

    def link_up(self, turn: Turn, link: LinkId, node: NodeId, run: int, dialled: str | None) -> bool:
        """A handshake is over. Whether this is now the link to that node."""
        is_kept = self.contacts.link_up(turn, link, node, run, dialled)
        if is_kept:
            self._beat_s = turn.now.mono_s
            turn.say((link,), self._record, seq=self._incarnation)
            self._send_table(turn, link)
        member = self.table.members.get(node)
        if member is not None and member.run == run:
            self._observer.linked(member, dialled, turn.now.mono_s)
            self._verdicts.reopen()
            self._observer.probe_address(turn, member)
        return is_kept

    def link_down(self, turn: Turn, link: LinkId, why: str, *, duplicate: bool) -> None:
        """A link is gone. `duplicate`: the peer kept another one, which says nothing against it."""
        self._resend_after_s.pop(link, None)
        node = self.contacts.link_down(link, turn.now.mono_s, self._config.yield_dial_s if duplicate else 0.0)
        member = self.table.members.get(node) if node is not None else None
        if self._farewell is not None and node is not None:
            self._farewell.waiting.discard(node)
        if node is not None:
            self._verdicts.forget(node)
        if member is not None and not duplicate and member.state is not State.LEFT:
            self._observer.lost(member, why)
            self._verdicts.reopen()
        self.contacts.dial_due(turn, self.table.members)

    def heard(self, turn: Turn, link: LinkId) -> NodeId:
        """Bytes came from a peer: whatever they are, it runs."""
        node = self.contacts.by_link[link]
        up = self.contacts.up(node)
        assert up is not None
        member = self.table.members.get(node)
        if member is not None and member.doubt is not None:
            self._verdicts.reopen()
        self._observer.heard(member, up, turn.now.mono_s)
        return node

    def probed(self, turn: Turn, node: NodeId, run: int, address: str) -> None:
        """A node answered at an address, and hung up as it was asked to."""
        member = self.table.members.get(node)
        if member is not None:
            self._observer.answered(turn, member, run, address)
            self._verdicts.reopen()

    def dial_failed(self, turn: Turn, failed: DialFailed) -> None:
        """A dial or a probe did not lead to a link."""
        now_s, node = turn.now.mono_s, failed.node
        if node is None:
            if failed.outcome is DialOutcome.SELF:
                self.contacts.seeds.pop(failed.address, None)
            self.contacts.seed_answered(failed.address, None, now_s)
            return
        member = self.table.members.get(node)
        if member is not None and member.state is not State.LEFT:
            self._observer.failed(turn, member, failed)
            self._verdicts.reopen()
        if member is None or member.state in (State.DEAD, State.LEFT):
            live = sum(other.state is State.ALIVE for other in self.table.members.values())
            self.contacts.dial_failed_dead(node, now_s, live + 1)
        else:
            pause_max_s = self._config.redial_max_s
            if failed.outcome is DialOutcome.STALLED:
                pause_max_s = self._config.redial_stalled_s
            self.contacts.dial_failed(node, now_s, pause_max_s)

    def seed_answered(self, turn: Turn, address: str, node: NodeId) -> None:
        self.contacts.seed_answered(address, node, turn.now.mono_s)

    # Messages

    def is_known(self, origin: NodeId, run: int, incarnation: int) -> bool:
        """Whether a record is no news; asked before its signature is paid for."""
        member = self.table.members.get(origin)
        return member is not None and member.order >= (run, incarnation)

    def known_run(self, node: NodeId, run: int) -> int:
        """The latest run of a node that was heard of before this one, 0: none."""
        member = self.table.members.get(node)
        if member is None:
            return 0
        return member.run if member.run < run else member.earlier_run

    def expected(self) -> int:
        """How many other members should be there: those not known to be dead or gone."""
        return sum(1 for m in self.table.members.values() if m.state not in (State.DEAD, State.LEFT))

    def candidates(self) -> list[Candidate]:
        """All members that have not left, as voters to be: this node first, then by id."""
        others = (
            member for _, member in sorted(self.table.members.items()) if member.state is not State.LEFT
        )
        return [
            _candidate(self._keys.node_id, self._record, State.ALIVE),
            *(_candidate(member.node, member.record, member.state) for member in others),
        ]

    def store_of(self, node: NodeId) -> bytes | None:
        """The store that a node says it has; None: nobody knows it."""
        member = self.table.members.get(node)
        record = self._record if node == self._keys.node_id else member.record if member is not None else None
        return record.store_id if record is not None else None

    def is_alone(self) -> bool:
        """Whether nobody else is left: a dead member may come back and know more of us than we do."""
        return all(member.state is State.LEFT for member in self.table.members.values())

    def later_record(self, node: NodeId, run: int) -> bytes | None:
        """The record of a node, if it is known under a later run than this one."""
        member = self.table.members.get(node)
        return member.frame if member is not None and member.run > run else None

    def is_heard(self, node: NodeId, now_s: float) -> bool:
        """Whether there is a link to this node that is not silent."""
        up = self.contacts.up(node)
        return up is not None and now_s - up.last_rx_s <= self._config.silence_s

    def is_member(self, node: NodeId) -> bool:
        """Whether this node's certificates were seen and found good."""
        return node in self.table.members

    def on_record(
        self,
        turn: Turn,
        link: LinkId,
        origin: NodeId,
        run: int,
        incarnation: int,
        record: MemberRecord,
        frame: bytes,
    ) -> None:
        """A record that is news, its signature verified. Raises RemoteFault NOT_A_MEMBER or QUOTA."""
        member = self.table.members.get(origin)
        if member is None and self.table.is_full:
            raise RemoteFault(Fault.QUOTA, "the member table is full")
        # A known member too must stay provable: its record goes on to nodes that never met it.
        is_proved = member is not None and member.record.credential == record.credential
        if not is_proved and not self._keys.vouches(origin, tuple(record.credential)):
            raise RemoteFault(Fault.NOT_A_MEMBER, "a record without a certificate of this cluster")
        self._take(turn, origin, run, incarnation, record, frame)
        turn.do(Send(tuple(other for other in self.contacts.links() if other != link), frame))
        up = self.contacts.up(origin)
        if record.left and up is not None and up.run == run:
            turn.say((up.link,), Goodbye(run, incarnation))  # also when another member was faster to tell us

    def on_heartbeat(self, turn: Turn, link: LinkId, node: NodeId, beat: Heartbeat) -> float | None:
        """Returns the round trip in ms, if this beat tells it."""
        up = self.contacts.up(node)
        assert up is not None
        now_s = turn.now.mono_s
        if up.stamp_ms == 0:
            self._beat_s = now_s  # its first: with our echo it can measure our clock at once
        round_trip_ms: float | None = None
        up.stamp_ms, up.stamp_at_s, up.lag_ms = beat.stamp_ms, now_s, beat.lag_ms
        for prefix, stamp_ms, held_ms in beat.echoes:
            if prefix == self._keys.node_id[:PREFIX_BYTES]:
                up.rtt_ms = round_trip_ms = max(0.0, now_s * 1000 - stamp_ms - held_ms)
        member = self.table.members.get(node)
        if member is not None:
            self._observer.timed(member, up)
            self._observer.probe_address(turn, member)
        self._dial_heard(self._verdicts.hear(node, beat.reports, beat.echoes, now_s), now_s)
        if beat.table == self.table.digest:
            self._resend_after_s.pop(link, None)
        elif now_s >= self._resend_after_s.setdefault(link, now_s + self._config.record_resend_s):
            del self._resend_after_s[link]
            turn.say((link,), self._record, seq=self._incarnation)
            self._send_table(turn, link)
        return round_trip_ms

    def on_goodbye(self, turn: Turn, node: NodeId, goodbye: Goodbye) -> None:
        if self._farewell is not None and (goodbye.run, goodbye.incarnation) == (
            self._run,
            self._incarnation,
        ):
            self._farewell.waiting.discard(node)

    # Time

    def tick(self, turn: Turn, news: News) -> None:
        """Watch, judge, dial, and beat when it is time, with the `news`."""
        if self._observer.watch(turn):
            self._verdicts.reopen()
        self.judge(turn)
        self.contacts.dial_due(turn, self.table.members)
        if turn.now.mono_s >= self._beat_s:
            self._beaten_s = turn.now.mono_s
            self._beat_s = turn.now.mono_s + self._config.heartbeat_s
            turn.say(self.contacts.links(), self._heartbeat(turn.now, news))
        self._say_farewell(turn)

    def judge(self, turn: Turn) -> None:
        """Draw the conclusions of the turn; called at its end. A report that is new or withdrawn goes out soon."""
        now_s = turn.now.mono_s
        if now_s < self._verdicts.deadline_s:
            return
        for member in self._verdicts.closed_by_others(now_s):
            self._observer.second(member, now_s)
            if member.doubt is None:
                self.contacts.know(member.node, now_s, at_once=True)  # look for oneself
        is_settled = False
        while not is_settled:
            is_settled = True
            for ruling in self._verdicts.rule(now_s):
                is_settled = is_settled and ruling.state is ruling.member.state
                self._set_state(turn, ruling.member, ruling.state, ruling.why)
                up = self.contacts.up(ruling.member.node)
                if ruling.state is State.DEAD and up is not None:
                    turn.cut(up.link, Fault.TIMEOUT, f"called dead; {ruling.why}")
        if self._observer.has_news(now_s):
            self._beat_s = min(self._beat_s, max(now_s, self._beaten_s + self._config.beat_gap_s))

    def is_beat_due(self, now_s: float) -> bool:
        return now_s >= self._beat_s

    def leave(self, turn: Turn, patience_s: float) -> None:
        """Say goodbye: `Farewell` follows once all linked members heard it, at the latest in `patience_s`."""
        if self._farewell is not None:
            return
        self._declare(turn, msgspec.structs.replace(self._record, left=True))
        self._farewell = Farewells({node for node, _ in self.contacts.linked()}, turn.now.mono_s + patience_s)
        self._say_farewell(turn)

    def declare_voided(self, turn: Turn, voided: list[tuple[int, int]]) -> None:
        """Tell everybody which of our entries carry wrong stamps."""
        self._declare(turn, msgspec.structs.replace(self._record, voided=voided))

    def declare_store(self, turn: Turn, store_id: bytes) -> None:
        """Tell everybody that our store is another one: the old one's promises are forgotten."""
        self._declare(turn, msgspec.structs.replace(self._record, store_id=store_id))

    def save(self, turn: Turn) -> None:
        """Stage what changed in the table; called at the end of a turn."""
        if self._unsaved and turn.now.mono_s >= self._save_after_s:
            for node in self._unsaved:
                member = self.table.members[node]
                turn.stage(RecordRow(MEMBER_RECORD, node, encode_member(member)))
            self._unsaved.clear()

    def save_failed(self, now: Instant) -> None:
        """The store refused: everything is offered again later, but not at once."""
        self._unsaved = dict.fromkeys(self.table.members)
        self._save_after_s = now.mono_s + self._config.redial_max_s

    def _take(
        self, turn: Turn, origin: NodeId, run: int, incarnation: int, record: MemberRecord, frame: bytes
    ) -> None:
        member = self.table.members.get(origin)
        up = self.contacts.up(origin)
        is_linked = up is not None and up.run == run
        if record.left:
            state, why = State.LEFT, "it said goodbye"
        else:
            state, why = State.ALIVE, "linked" if is_linked else "announced"
        if member is None:
            member = Member(origin, run, incarnation, record, frame, State.SUSPECT, "", 0)
            self.table.members[origin] = member
        restarted = run > member.run
        if restarted or record.address != member.record.address:
            member.probe_s = 0.0
        if restarted:
            member.earlier_run = member.run
        self._observer.renewed(member, turn.now.mono_s, restarted=restarted)
        self._verdicts.acquit(origin)
        member.run, member.incarnation, member.record, member.frame = run, incarnation, record, frame
        if restarted and member.state is State.ALIVE:
            turn.log("member.restarted", member=record.name, run=str(run))
            member.since_ms = turn.now.wall_ms
        self._set_state(turn, member, state, why)
        self._unsaved[origin] = None
        self.table.note_change()
        if up is not None and is_linked:
            self._observer.linked(member, up.address, turn.now.mono_s)
        if not record.left:
            self.contacts.know(origin, turn.now.mono_s)
            self._observer.probe_address(turn, member)

    def _declare(self, turn: Turn, record: MemberRecord) -> None:
        """A newer record of our own, within this run."""
        self._incarnation += 1
        self._record = record
        self.table.note_change()
        turn.say(self.contacts.links(), self._record, seq=self._incarnation)

    def _dial_heard(self, prefixes: list[bytes], now_s: float) -> None:
        """Somebody hears members whom this node misses: a split is healing, or there is a way round it."""
        for member in self.table.members.values():
            is_missed = member.doubt is not None or member.state is State.DEAD
            if is_missed and member.node[:PREFIX_BYTES] in prefixes:
                self.contacts.know(member.node, now_s, at_once=True)

    def _heartbeat(self, now: Instant, news: News) -> Heartbeat:
        echoes = [
            (node[:PREFIX_BYTES], up.stamp_ms, int((now.mono_s - up.stamp_at_s) * 1000))
            for node, up in self.contacts.linked()
            if up.stamp_ms
        ]
        return Heartbeat(
            self._incarnation,
            int(now.mono_s * 1000),
            news.steady_ms,
            news.lag_ms,
            self.table.digest,
            news.heads,
            news.streams,
            echoes[:HEARTBEAT_ECHOES_MAX],
            self._observer.tell(now.mono_s),
        )

    def _send_table(self, turn: Turn, link: LinkId) -> None:
        for node in sorted(self.table.members):
            turn.do(Send((link,), self.table.members[node].frame))

    def _set_state(self, turn: Turn, member: Member, state: State, why: str) -> None:
        member.why = why
        if member.state is not state:
            member.state, member.since_ms = state, turn.now.wall_ms
            self._unsaved[member.node] = None
            turn.do(MemberChanged(member.node, member.record.name, state, why))

    def _say_farewell(self, turn: Turn) -> None:
        farewell = self._farewell
        if farewell is not None and (not farewell.waiting or turn.now.mono_s >= farewell.until_s):
            turn.do(Farewell())


def _candidate(node: NodeId, record: MemberRecord, state: State) -> Candidate:
    trouble = "" if state is State.ALIVE else f"it is {state}"
    if not record.votes:
        trouble = "it was started with --no-voter"
    return Candidate(record.name, Voter(node, record.store_id), record.votes, trouble)


class Farewells(msgspec.Struct):
    """Who has not yet acknowledged our goodbye, and how long we wait for them."""

    waiting: set[NodeId]
    until_s: float
