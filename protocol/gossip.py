"""Gossip: what a node says to everybody reaches everybody, also those whom its author cannot reach.

Each author numbers its messages from 1 within a run and sends them on all its links. What a node has received it
keeps for a while, as the bytes that the author signed, and offers on: its heartbeats say how far it has each stream
that moved lately, and whoever lacks something asks for it (`Want`). So a message crosses any number of hops
where a direct path is missing, and nobody sends what nobody lacks. On a new link both ends say how far they have
everything (`Held`).

Duplicates are recognised by (author, run, number) before their signature is looked at. Messages are handed on as they
come: their meaning must not depend on their order. What nobody holds any more is given up, counted, and left
to the store's own sync. Everything is bounded: kept bytes, numbers beyond a gap, streams, open questions.

Pushing first and pulling what is lacking afterwards follows Demers et al., "Epidemic Algorithms for Replicated
Database Maintenance" (1987); summaries that lead to pulls are the "lazy push" of Leitao et al., "Epidemic Broadcast
Trees" (2007).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

import msgspec

from .config import Config
from .effects import Send
from .limits import (
    GOSSIP_AHEAD_MAX,
    GOSSIP_ANSWER_BYTES_MAX,
    GOSSIP_KEPT_BYTES_MAX,
    GOSSIP_STREAMS_MAX,
    GOSSIP_WANT_MAX,
    HEARTBEAT_STREAMS_MAX,
)
from .turn import Turn
from .types import Instant, LinkId, NodeId, Payload
from .wire.fields import Counter, Head, Id32
from .wire.registry import Route
from .wire.registry import Stream as Counting

STREAMS_OF_AN_AUTHOR = 2
"""What a node said before its last restart may still be on its way; what it said before that is not."""

StreamId = tuple[NodeId, int]
"""(author, run): one numbering of messages."""


class Held(Payload, frozen=True):
    """On a new link: how far I have each stream, as (author, run, number)."""

    streams: Annotated[list[Head], msgspec.Meta(max_length=GOSSIP_STREAMS_MAX)]


class Want(Payload, frozen=True):
    """Send me these messages of one stream, if you still have them."""

    author: Id32
    run: Counter
    numbers: Annotated[list[Counter], msgspec.Meta(max_length=GOSSIP_WANT_MAX)]


ROUTES = (
    Route(40, Held, Counting.LINK),
    Route(41, Want, Counting.LINK),
)


class Stream:
    """What was received of one stream: all up to `head`, and some beyond it."""

    def __init__(self, head: int) -> None:
        self.head = head
        self._beyond: set[int] = set()

    @property
    def top(self) -> int:
        """The highest number received."""
        return max(self._beyond, default=self.head)

    def has(self, number: int) -> bool:
        return number <= self.head or number in self._beyond

    def take(self, number: int) -> None:
        if number > self.head:
            self._beyond.add(number)
        if len(self._beyond) > GOSSIP_AHEAD_MAX:
            self.skip_to(min(self._beyond))
        self._close_up()

    def skip_to(self, head: int) -> int:
        """Give up what is missing up to here; how many messages that is."""
        lost = max(0, head - self.head) - sum(1 for number in self._beyond if number <= head)
        self.head = max(self.head, head)
        self._beyond = {number for number in self._beyond if number > self.head}
        self._close_up()
        return lost

    def missing(self, up_to: int) -> list[int]:
        """The first numbers that are lacking."""
        last = min(up_to, self.head + GOSSIP_AHEAD_MAX)
        lacking = (number for number in range(self.head + 1, last + 1) if number not in self._beyond)
        return [number for number, _ in zip(lacking, range(GOSSIP_WANT_MAX), strict=False)]

    def _close_up(self) -> None:
        while self.head + 1 in self._beyond:
            self.head += 1
            self._beyond.remove(self.head)


class Wanted(msgspec.Struct, frozen=True):
    """A peer says that it has a stream up to `top`; it is asked at `ask_s` if we still lack some of it."""

    top: int
    link: LinkId
    ask_s: float
    asked: int = 0


class Gossip:
    """All streams of one node. `me` is the stream of what it says itself."""

    def __init__(self, config: Config, me: StreamId) -> None:
        self._config, self._me = config, me
        self._streams: dict[StreamId, Stream] = {me: Stream(0)}
        self._kept: OrderedDict[tuple[NodeId, int, int], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._wanted: dict[StreamId, Wanted] = {}
        self._announce_until_s: dict[StreamId, float] = {}
        self.duplicates = self.lost = 0
        """Messages that came again, and messages that were given up."""

    @property
    def deadline_s(self) -> float:
        return min((wanted.ask_s for wanted in self._wanted.values()), default=float("inf"))

    def link_up(self, turn: Turn, link: LinkId) -> None:
        heads: list[Head] = [(*stream, state.head) for stream, state in sorted(self._streams.items())]
        turn.say((link,), Held(heads))

    def link_down(self, link: LinkId) -> None:
        for stream in [stream for stream, wanted in self._wanted.items() if wanted.link == link]:
            del self._wanted[stream]

    def next_number(self) -> int:
        """The number of the next message of our own; `keep` must follow."""
        return self._streams[self._me].head + 1

    def has(self, author: NodeId, run: int, number: int) -> bool:
        """Whether a message is no news; asked before its signature is paid for."""
        state = self._streams.get((author, run))
        if state is None or not state.has(number):
            return False
        self.duplicates += 1
        return True

    def keep(self, now: Instant, author: NodeId, run: int, number: int, frame: bytes) -> None:
        """Take note of a message, our own or one whose signature is good, and offer it on."""
        stream = (author, run)
        if stream not in self._streams and not self._begin(stream, number - 1):
            return
        self._streams[stream].take(number)
        self._announce_until_s[stream] = now.mono_s + self._config.head_announce_s
        self._kept[author, run, number] = frame
        self._kept_bytes += len(frame)
        while self._kept_bytes > GOSSIP_KEPT_BYTES_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest)

    def to_announce(self, now: Instant) -> list[Head]:
        """Streams that moved lately, for a heartbeat; those that do not fit wait for the next."""
        for stream in [s for s, until_s in self._announce_until_s.items() if until_s < now.mono_s]:
            del self._announce_until_s[stream]
        chosen = list(self._announce_until_s)[:HEARTBEAT_STREAMS_MAX]
        for stream in chosen:
            self._announce_until_s[stream] = self._announce_until_s.pop(stream)
        return [(*stream, self._streams[stream].top) for stream in chosen]

    def announced(self, turn: Turn, link: LinkId, streams: list[Head]) -> None:
        """A peer's heartbeat says how far it has some streams. A new stream is wanted from its beginning."""
        for author, run, top in streams:
            stream = (NodeId(author), run)
            if stream in self._streams or self._begin(stream, max(0, top - GOSSIP_WANT_MAX)):
                self._want(turn.now, link, stream, top)

    def on_held(self, turn: Turn, link: LinkId, held: Held) -> None:
        """A new peer says how far it has all streams. Of one that is new to us the past is left to sync."""
        for author, run, head in held.streams:
            stream = (NodeId(author), run)
            if stream in self._streams or self._begin(stream, head):
                self._want(turn.now, link, stream, head)

    def on_want(self, turn: Turn, link: LinkId, want: Want) -> None:
        """Hand on what we have, as its author signed it."""
        size = 0
        for number in want.numbers:
            frame = self._kept.get((NodeId(want.author), want.run, number))
            if frame is not None and size < GOSSIP_ANSWER_BYTES_MAX:
                size += len(frame)
                turn.do(Send((link,), frame, bulk=True))

    def tick(self, turn: Turn) -> None:
        """Ask for what was announced and did not come by itself; give up what nobody gives."""
        now_s = turn.now.mono_s
        for stream, wanted in list(self._wanted.items()):
            missing = self._streams[stream].missing(wanted.top)
            if not missing:
                del self._wanted[stream]
            elif now_s < wanted.ask_s:
                continue
            elif wanted.asked == self._config.gossip_tries:
                self.lost += self._streams[stream].skip_to(wanted.top)
                del self._wanted[stream]
            else:
                turn.say((wanted.link,), Want(*stream, missing))
                again_s = now_s + self._config.gossip_retry_s
                self._wanted[stream] = Wanted(wanted.top, wanted.link, again_s, wanted.asked + 1)

    def _want(self, now: Instant, link: LinkId, stream: StreamId, top: int) -> None:
        """Remember who has more than we; what is on its way to us gets a moment to arrive."""
        if stream == self._me or not self._streams[stream].missing(top):
            return  # nobody else says how far we have spoken
        known = self._wanted.get(stream)
        if known is None:
            self._wanted[stream] = Wanted(top, link, now.mono_s + self._config.gossip_grace_s)
        elif top >= known.top:
            self._wanted[stream] = Wanted(top, link, known.ask_s, known.asked if top == known.top else 0)

    def _begin(self, stream: StreamId, head: int) -> bool:
        """Follow a new stream, unless it is of an older run than the two of its author that are followed."""
        author = stream[0]
        runs = sorted(run for known, run in self._streams if known == author)
        if len(runs) == STREAMS_OF_AN_AUTHOR:
            if stream[1] < runs[0]:
                return False
            self._forget((author, runs[0]))
        if len(self._streams) >= GOSSIP_STREAMS_MAX:
            return False
        self._streams[stream] = Stream(head)
        return True

    def _forget(self, stream: StreamId) -> None:
        del self._streams[stream]
        self._wanted.pop(stream, None)
        self._announce_until_s.pop(stream, None)
