"""Who is there: records heard and handed on, links judged, goodbyes said.

Every node holds every member's record and, in this version, a link to every member. What is heard of a record
for the first time goes on to all other links, once, unchanged; heartbeats carry a digest of the table, and
where digests differ for longer the whole table is sent again.

The rules for states are at the head of `table.py`. A node that was not running knows nothing: after its own
late tick it credits the peers with the time that it lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..config import Config
from ..effects import Dial, DialOutcome, Farewell, MemberChanged, RecordRow, Send
from ..errors import Fault, RemoteFault
from ..limits import HEARTBEAT_ECHOES_MAX
from ..turn import Turn
from ..types import Instant, Keys, LinkId, NodeId
from .contacts import Contacts, Up
from .record import Goodbye, Heartbeat, MemberRecord, News, own_record
from .table import Member, State, Table, encode_member

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
    ) -> None:
        self._config, self._keys, self._run = config, keys, run
        self.contacts = Contacts(config, keys.node_id, random)
        self._incarnation = 0
        self._record = own_record(config, keys, started_ms, voided)
        self.table = Table(lambda: (keys.node_id, run, self._incarnation))
        for member in known:
            self.table.members[member.node] = member
        self.table.note_change()
        self._unsaved: dict[NodeId, None] = {}
        self._save_after_s = 0.0
        self._resend_after_s: dict[LinkId, float] = {}
        self._beat_s = 0.0
        self._tick_s = 0.0
        self._farewell: Farewells | None = None

    @property
    def deadline_s(self) -> float:
        return min(self._beat_s, self.contacts.deadline_s)

    @property
    def incarnation(self) -> int:
        return self._incarnation

    @property
    def is_leaving(self) -> bool:
        return self._farewell is not None

    def start(self, now: Instant) -> None:
        """Dial everybody known from the last run."""
        self._tick_s = self._beat_s = now.mono_s
        for node in sorted(self.table.members):
            self.contacts.know(node, now.mono_s, at_once=True)

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
            self._note_reached(member, run, dialled)
            self._set_state(turn, member, State.ALIVE, "linked")
            self._probe(turn, member)
        return is_kept

    def link_down(self, turn: Turn, link: LinkId, why: str, *, duplicate: bool) -> None:
        """A link is gone. `duplicate`: the peer kept another one, which says nothing against it."""
        self._resend_after_s.pop(link, None)
        node = self.contacts.link_down(link, turn.now.mono_s, self._config.yield_dial_s if duplicate else 0.0)
        member = self.table.members.get(node) if node is not None else None
        if self._farewell is not None and node is not None:
            self._farewell.waiting.discard(node)
        if member is not None and not duplicate and member.state is State.ALIVE:
            self._set_state(turn, member, State.SUSPECT, f"the link broke ({why}); dialling again")
        self.contacts.dial_due(turn, self._addresses())

    def heard(self, turn: Turn, link: LinkId) -> NodeId:
        """Bytes came from a peer: whatever they are, it runs."""
        node = self.contacts.by_link[link]
        up = self.contacts.up(node)
        assert up is not None
        up.last_rx_s = turn.now.mono_s
        member = self.table.members.get(node)
        if member is not None and member.state is State.SUSPECT and member.run == up.run:
            self._set_state(turn, member, State.ALIVE, "it is heard again")
        return node

    def probed(self, node: NodeId, run: int, address: str) -> None:
        """A node answered at an address, and hung up as it was asked to."""
        member = self.table.members.get(node)
        if member is not None:
            self._note_reached(member, run, address)

    def dial_failed(
        self, turn: Turn, address: str, node: NodeId | None, outcome: DialOutcome, detail: str
    ) -> None:
        """A dial or a probe did not lead to a link."""
        now_s = turn.now.mono_s
        if node is None:
            if outcome is DialOutcome.SELF:
                self.contacts.seeds.pop(address, None)
            self.contacts.seed_answered(address, None, now_s)
            return
        member = self.table.members.get(node)
        if member is not None and self.contacts.up(node) is None:
            self._judge(turn, member, address, outcome, detail)
        seldom = member is None or member.state in (State.DEAD, State.LEFT)
        self.contacts.dial_failed(node, now_s, seldom=seldom)

    def seed_answered(self, turn: Turn, address: str, node: NodeId) -> None:
        self.contacts.seed_answered(address, node, turn.now.mono_s)

    # Messages

    def is_known(self, origin: NodeId, run: int, incarnation: int) -> bool:
        """Whether a record is no news; asked before its signature is paid for."""
        member = self.table.members.get(origin)
        return member is not None and member.order >= (run, incarnation)

    def known_run(self, node: NodeId) -> int:
        """The latest run of a node that was heard of, 0: none."""
        member = self.table.members.get(node)
        return member.run if member is not None else 0

    def expected(self) -> int:
        """How many other members should be there: those not known to be dead or gone."""
        return sum(1 for m in self.table.members.values() if m.state not in (State.DEAD, State.LEFT))

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
            if prefix == self._keys.node_id[:8]:
                up.rtt_ms = round_trip_ms = max(0.0, now_s * 1000 - stamp_ms - held_ms)
        if node in self.table.members:
            self._probe(turn, self.table.members[node])
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
        """Judge silence, dial, and beat when it is time, with the `news`."""
        self._credit_lag(turn.now.mono_s)
        for node, up in self.contacts.linked():
            self._judge_silence(turn, node, up)
        self.contacts.dial_due(turn, self._addresses())
        if turn.now.mono_s >= self._beat_s:
            self._beat_s = turn.now.mono_s + self._config.heartbeat_s
            turn.say(self.contacts.links(), self._heartbeat(turn.now, news))
        self._say_farewell(turn)

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
        member.run, member.incarnation, member.record, member.frame = run, incarnation, record, frame
        if restarted and member.state is State.ALIVE:
            turn.log("member.restarted", member=record.name, run=str(run))
            member.since_ms = turn.now.wall_ms
        self._set_state(turn, member, state, why)
        self._unsaved[origin] = None
        self.table.note_change()
        if up is not None and is_linked:
            self._note_reached(member, run, up.address)
        if not record.left:
            self.contacts.know(origin, turn.now.mono_s)
            self._probe(turn, member)

    def _declare(self, turn: Turn, record: MemberRecord) -> None:
        """A newer record of our own, within this run."""
        self._incarnation += 1
        self._record = record
        self.table.note_change()
        turn.say(self.contacts.links(), self._record, seq=self._incarnation)

    def _probe(self, turn: Turn, member: Member) -> None:
        """Dial its address once to see that it answers there: only then a later refusal means anything."""
        up = self.contacts.up(member.node)
        place = (member.run, member.record.address)
        is_due = turn.now.mono_s >= member.probe_s
        if up is not None and up.run == member.run and member.reached != place and is_due:
            member.probe_s = turn.now.mono_s + self._config.reprobe_s
            turn.do(Dial(member.record.address, member.node, probe=True))

    def _note_reached(self, member: Member, run: int, address: str | None) -> None:
        if run == member.run and address == member.record.address:
            member.reached = (run, address)

    def _judge(self, turn: Turn, member: Member, address: str, outcome: DialOutcome, detail: str) -> None:
        """What a failed dial says about a member to which there is no link."""
        if outcome is DialOutcome.REFUSED and member.state is State.SUSPECT:
            if member.reached == (member.run, address):
                self._set_state(
                    turn, member, State.DEAD, f"the link closed and {address} refuses connections"
                )
        elif member.state is State.ALIVE:
            self._set_state(turn, member, State.SUSPECT, f"not reached at {address}: {outcome} ({detail})")

    def _judge_silence(self, turn: Turn, node: NodeId, up: Up) -> None:
        silent_s = turn.now.mono_s - up.last_rx_s
        if silent_s > self._config.hang_up_s:
            turn.cut(up.link, Fault.TIMEOUT, f"silent for {silent_s:.0f} s")
            return
        member = self.table.members.get(node)
        if silent_s > self._config.silence_s and member is not None and member.state is State.ALIVE:
            self._set_state(turn, member, State.SUSPECT, f"silent for {silent_s:.1f} s")

    def _credit_lag(self, now_s: float) -> None:
        """When this process itself was late, the peers' silence is partly its own."""
        lag_s = now_s - self._tick_s - 1.2 * self._config.heartbeat_s
        self._tick_s = now_s
        if lag_s > self._config.lag_credit_s:
            for _, up in self.contacts.linked():
                up.last_rx_s += lag_s

    def _heartbeat(self, now: Instant, news: News) -> Heartbeat:
        echoes = [
            (node[:8], up.stamp_ms, int((now.mono_s - up.stamp_at_s) * 1000))
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
        )

    def _send_table(self, turn: Turn, link: LinkId) -> None:
        for node in sorted(self.table.members):
            turn.do(Send((link,), self.table.members[node].frame))

    def _set_state(self, turn: Turn, member: Member, state: State, why: str) -> None:
        if member.state is not state:
            member.state, member.why, member.since_ms = state, why, turn.now.wall_ms
            self._unsaved[member.node] = None
            turn.do(MemberChanged(member.node, member.record.name, state, why))

    def _say_farewell(self, turn: Turn) -> None:
        farewell = self._farewell
        if farewell is not None and (not farewell.waiting or turn.now.mono_s >= farewell.until_s):
            turn.do(Farewell())

    def _addresses(self) -> dict[NodeId, str]:
        return {node: member.record.address for node, member in self.table.members.items()}


class Farewells(msgspec.Struct):
    """Who has not yet acknowledged our goodbye, and how long we wait for them."""

    waiting: set[NodeId]
    until_s: float
