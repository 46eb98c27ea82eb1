"""Effects performed: the one place where decisions become I/O.

`dispatch` hands one event to the node and performs what it answers, at once and without awaiting anything:
under trio that makes it atomic, so the core needs no lock and no inbox. Events that arise while effects are
performed wait for their turn in `_events`. Events that come together are one burst: what they stage goes to the
store, and what they answer to the clients, when the last of them is decided. Tasks that have to wait (dials, links)
are started in the nursery and come back with an event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from protocol.effects import (
    Dial,
    DialOutcome,
    Disconnect,
    Effect,
    Farewell,
    Halt,
    Invalidated,
    MemberChanged,
    Reply,
    Said,
    Send,
    Stage,
    StartAgain,
    Synced,
)
from protocol.errors import Fault, RemoteFault
from protocol.inputs import (
    DialFailed,
    Durable,
    Event,
    LinkDown,
    LinkUp,
    PersistFailed,
    Probed,
    Received,
    Tick,
)
from protocol.node import Node
from protocol.turn import Turn
from protocol.types import Keys, LinkId, NodeId, node_text
from protocol.wire.hello import Hello, close_frame

from ..limits import HANDSHAKE_S
from ..log import Log
from ..net.dialler import STREAM_ERRORS, DialError, check_target, connect, outcome_of
from ..net.handshake import Greeted, greet
from ..net.hangup import hang_up
from ..net.link import Link, Traffic
from ..net.tls import Contexts, Stream, peer_of
from ..store.committer import Broken, Committer, NotStored, Outcome, Stored
from ..store.reader import Reader
from .faults import FaultPoint
from .world import World

LAG_DECAY = 0.9
"""Of the reported loop lag a tenth is forgotten each tick."""


class Halted(Exception):
    """This daemon must not go on; the text is for its operator."""


class Burst:
    """`with` it, what follows from several events is let out in one go; without it, after each."""

    def __init__(self, let_out: Callable[[], None]) -> None:
        self._let_out = let_out
        self.is_open = self._is_due = False

    def __enter__(self) -> None:
        self.is_open = True

    def __exit__(self, *_: object) -> None:
        self.is_open = False
        if self._is_due:
            self.decided()

    def decided(self) -> None:
        """Something wants to be let out: now, or when the burst is over."""
        self._is_due = self.is_open
        if not self.is_open:
            self._let_out()


class Runtime:
    """One running node. `nursery` holds its links and dials."""

    def __init__(
        self,
        node: Node,
        keys: Keys,
        contexts: Contexts,
        reader: Reader,
        world: World,
        log: Log,
        nursery: trio.Nursery,
    ) -> None:
        self.node, self.keys, self.contexts, self.world, self.log = node, keys, contexts, world, log
        self._reader, self._nursery = reader, nursery
        self.committer: Committer | None = None
        self.faults: FaultPoint | None = None
        """Only where a test asked for it."""
        self.links: dict[LinkId, Link] = {}
        self.traffic = Traffic()
        self.ended = trio.Event()
        self.begins_anew = False
        self.first_sync = trio.Event()
        self.first_sync_from: NodeId | None = None
        self.burst = Burst(self._let_out)
        self.after_dispatch: list[Callable[[], None]] = []
        """Called when a dispatch or a burst is over: faces write what they gathered, in one go."""
        self.on_invalidated: list[Callable[[Invalidated], None]] = []
        """Called when another node says that something cached is stale."""
        self.on_member_changed: list[Callable[[MemberChanged], None]] = []
        """Called when a member is new, or in another state."""
        self.lag_ms = 0.0
        self._events: deque[Event] = deque()
        self._stages: list[Stage] = []
        self._turn: Turn | None = None
        """Of the burst that is under way."""
        self._is_dispatching = False
        self._sleep = trio.CancelScope()
        self._link_ids = 0
        self._perform: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Reply: self._reply,
            Stage: self._stage,
            Dial: self._start_dial,
            Disconnect: self._disconnect,
            MemberChanged: self._member_changed,
            Synced: self._synced,
            Invalidated: self._invalidated,
            Said: self._said,
            Farewell: lambda _: self.ended.set(),
            StartAgain: self._start_again,
            Halt: lambda halt: self._nursery.start_soon(stop_because, Halted(halt.why)),
        }

    def dispatch(self, event: Event) -> None:
        """Let the node decide about one event, and do what it says: in a burst when that is over."""
        if self.burst.is_open and not self._is_dispatching:
            self._turn = self._turn or self.node.begin(self.world.now())
            self.node.take(self._turn, event)
            self.burst.decided()
            return
        self._events.append(event)
        if self._is_dispatching:
            return
        self._work_off([])
        self.burst.decided()

    def _work_off(self, effects: list[Effect]) -> None:
        """Perform these, and all that follows from what comes up meanwhile."""
        self._is_dispatching = True
        try:
            for effect in effects:
                self._perform[type(effect)](effect)
            while self._events:
                for effect in self.node.handle(self._events.popleft(), self.world.now()):
                    self._perform[type(effect)](effect)
        finally:
            self._is_dispatching = False

    async def tick_forever(self) -> None:
        """Call the node when its deadline comes, and measure how late that was."""
        while True:
            due_s = self.node.deadline_s
            with trio.CancelScope(deadline=due_s) as self._sleep:
                await trio.sleep_forever()
            late_ms = max(0.0, trio.current_time() - self._sleep.deadline) * 1000
            self.lag_ms = max(late_ms, self.lag_ms * LAG_DECAY)
            self.node.lag_ms = round(self.lag_ms)
            self.dispatch(Tick())

    def on_outcome(self, outcome: Outcome) -> None:
        """What the store says of a group of commits; called in the main thread."""
        match outcome:
            case Stored(stages):
                self._reader.committed(stages)
                self.dispatch(Durable(stages[-1].number))
            case NotStored(why):
                assert self.committer is not None
                self.committer.acknowledge_failure()
                self.dispatch(PersistFailed(why))
            case Broken(error):
                self._nursery.start_soon(stop_because, error)

    def _let_out(self) -> None:
        assert self.committer is not None
        if self._turn is not None:
            turn, self._turn = self._turn, None
            self._work_off(self.node.finish(turn))
        for stage in self._stages:
            self.committer.submit(stage)
        self._stages.clear()
        deadline_s = self.node.deadline_s
        if deadline_s < self._sleep.deadline:
            self._sleep.deadline = deadline_s
        for flush in self.after_dispatch:
            flush()

    # Effects

    def _send(self, send: Send) -> None:
        for number in send.links:
            link = self.links.get(number)
            if link is not None and not link.send(send.frame, bulk=send.bulk):
                self.refuse(number, RemoteFault(Fault.STUCK, "it does not read what is sent to it"))

    def _reply(self, reply: Reply) -> None:
        answer = reply.ref
        assert callable(answer)
        answer(reply.outcome)

    def _stage(self, stage: Stage) -> None:
        self._stages.append(stage)

    def _start_dial(self, dial: Dial) -> None:
        self._nursery.start_soon(self._dial, dial)

    def _disconnect(self, cut: Disconnect) -> None:
        link = self.links.pop(cut.link, None)
        if link is not None:
            self.log.event("link.cut", link=str(cut.link), reason=cut.fault.value, detail=cut.detail)
            link.close(cut.parting + close_frame(self.keys, cut.fault, cut.detail))

    def _member_changed(self, change: MemberChanged) -> None:
        node = node_text(change.node)[:8]
        self.log.event(f"member.{change.state}", member=change.name, id=node, why=change.why)
        if self.faults is not None:
            self.faults.refresh()  # its address may be new
        for hear in self.on_member_changed:
            hear(change)

    def _synced(self, synced: Synced) -> None:
        self.log.event("sync.complete", peer=node_text(synced.node)[:8], rows=str(synced.rows))
        if not self.first_sync.is_set():
            self.first_sync_from = synced.node
            self.first_sync.set()

    def _invalidated(self, stale: Invalidated) -> None:
        for hear in self.on_invalidated:
            hear(stale)

    def _start_again(self, _: StartAgain) -> None:
        self.begins_anew = True
        self.ended.set()

    def _said(self, said: Said) -> None:
        self.log.event(said.event, **dict(said.fields))

    # Links

    def refuse(self, number: LinkId, fault: RemoteFault) -> None:
        """The runtime itself found a fault with a peer: cut the link and let the node know."""
        self.node.refused[fault.fault] += 1
        self._disconnect(Disconnect(number, fault.fault, fault.detail))
        self.dispatch(LinkDown(number, fault.detail))

    def watch(self, sock: trio.socket.SocketType, peer: NodeId | None, dialled: str | None) -> None:
        """Tell the fault point whose socket this is: the peer's address is its record's, else the dialled one."""
        if self.faults is None:
            return

        def address() -> str | None:
            member = self.node.membership.table.members.get(peer) if peer is not None else None
            return member.record.address if member is not None else dialled

        self.faults.watch(sock, address)

    def hello(self, *, probe: bool = False) -> Hello:
        """What this node says of itself on a fresh connection."""
        node, now = self.node, self.world.now()
        return Hello(
            protocol_min=node.config.protocol_min,
            protocol_max=node.config.protocol_max,
            cluster_id=self.keys.cluster_id,
            node_id=self.keys.node_id,
            run=node.identity.run,
            previous_run=node.identity.previous_run,
            wall_ms=now.wall_ms,
            nonce=self.world.entropy(16),
            probe=probe,
        )

    async def run_link(self, stream: Stream, greeted: Greeted, dialled: str | None, *, seed: bool) -> None:
        """A handshake is over: hand the link to the node and serve it until it ends."""
        if greeted.established.probe:
            await hang_up(stream, b"")
            return
        self._link_ids += 1
        number = LinkId(self._link_ids)
        link = Link(number, stream, greeted.framer, greeted.early, self.traffic)
        self.links[number] = link
        self.log.event("link.up", link=str(number), peer=node_text(greeted.established.peer)[:8])
        self.dispatch(LinkUp(number, greeted.established, dialled, seed))
        ending = await link.run(self._receive, self.refuse)
        self.links.pop(number, None)
        if ending is not None:
            self.log.event("link.down", link=str(number), why=ending.why)
            self.dispatch(LinkDown(number, ending.why, ending.fault))

    def _receive(self, number: LinkId, envelopes: tuple[bytes, ...]) -> None:
        if self.faults is not None:
            self.faults.received(envelopes)
        self.dispatch(Received(number, envelopes))

    async def _dial(self, dial: Dial) -> None:
        """Every way out ends in an event: LinkUp, Probed or DialFailed."""
        try:
            stream, greeted = await self._reach(dial)
        except DialError as error:
            self._dial_failed(dial, error.outcome, error.detail)
        except RemoteFault as fault:
            self.node.refused[fault.fault] += 1
            self._dial_failed(dial, outcome_of(fault), str(fault))
        except STREAM_ERRORS as error:
            self._dial_failed(dial, DialOutcome.STALLED, f"connected, then: {error.__cause__ or error}")
        else:
            established = greeted.established
            if dial.probe:
                await hang_up(stream, b"")
                self.dispatch(Probed(dial.address, established.peer, established.run))
                return
            await self.run_link(stream, greeted, dial.address, seed=dial.node is None)

    def _dial_failed(self, dial: Dial, outcome: DialOutcome, detail: str) -> None:
        self.log.debug("dial.failed", address=dial.address, outcome=outcome.value, detail=detail)
        if outcome is DialOutcome.FAULT:
            self.log.event("dial.refused", address=dial.address, detail=detail)
        self.dispatch(DialFailed(dial.address, dial.node, outcome, detail, dial.probe))

    async def _reach(self, dial: Dial) -> tuple[Stream, Greeted]:
        watch = partial(self.watch, peer=dial.node, dialled=dial.address)
        transport = await connect(dial.address, dial.patience_s, watch)
        stream = trio.SSLStream(transport, self.contexts.dial)
        try:
            answer_s = dial.patience_s if dial.probe else HANDSHAKE_S
            with trio.move_on_after(answer_s):
                await stream.do_handshake()
                peer = peer_of(stream, self.keys.cluster_id)
                self.watch(transport.socket, peer, dial.address)
                check_target(dial, peer)
                hello = self.hello(probe=dial.probe)
                greeted = await greet(stream, self.keys, self.node.registry, hello, peer, dialled=True)
                return stream, greeted
            raise DialError(DialOutcome.STALLED, f"connected, but no HELLO within {answer_s:.1f} s")
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            raise


async def stop_because(error: BaseException) -> None:
    """End the daemon from a task of its own: an error raised in the store's callback, trio takes for its own."""
    raise error
