"""One link: a reader task and a writer task round one TLS stream.

The reader hands every burst of frames on in one piece; the writer sends everything that waits in one write.
Neither decides anything. A link ends when the peer is gone, breaks the framing, says CLOSE, or when the
node cuts it: then the last frame is CLOSE with the reason, written within `CLOSE_S` or not at all.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import trio

from protocol.errors import Fault, RemoteFault
from protocol.types import LinkId
from protocol.wire.frames import Framer, Kind
from protocol.wire.hello import as_fault, read_close

from ..limits import RECEIVE_BYTES_MAX
from .hangup import hang_up
from .outbox import Outbox
from .tls import Stream

Receive = Callable[[LinkId, tuple[bytes, ...]], None]


class Ending(Exception):
    """Why the reader stopped: the peer's doing. `fault`: what it gave as a reason."""

    def __init__(self, why: str, fault: Fault | None = None) -> None:
        super().__init__(why)
        self.why, self.fault = why, fault


class Link:
    """`framer` may hold bytes that came behind the handshake; `early` are the frames among them."""

    def __init__(self, link: LinkId, stream: Stream, framer: Framer, early: list[tuple[Kind, bytes]]) -> None:
        self.id = link
        self._stream, self._framer, self._early = stream, framer, early
        self.outbox = Outbox()
        self._parked = trio.lowlevel.ParkingLot()
        self._closing = False
        self._scope = trio.CancelScope()

    def send(self, frame: bytes, *, bulk: bool) -> bool:
        """Queue a frame; False: the peer is stuck."""
        if self._closing:
            return True
        fits = self.outbox.put(frame, bulk=bulk)
        self._parked.unpark()
        return fits

    def close(self, last: bytes) -> None:
        """Say why, then hang up. Nothing that arrives from now on is handed on."""
        if not self._closing:
            self._closing = True
            self.outbox.close(last)
            self._scope.cancel()

    async def run(self, receive: Receive, refuse: Callable[[LinkId, RemoteFault], None]) -> Ending | None:
        """Until the link ends. Returns the peer's part in it; None when we hung up ourselves.

        `refuse` is called when the peer breaks the framing; it is expected to call `close`.
        """
        ending: Ending | None = None
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                try:
                    await self._read(receive)
                except Ending as reached:
                    ending = reached
                except RemoteFault as fault:
                    refuse(self.id, fault)
                nursery.cancel_scope.cancel()
        await hang_up(self._stream, self.outbox.take() if self._closing else b"")
        return None if self._closing else ending

    async def _read(self, receive: Receive) -> None:
        frames = self._early
        while True:
            self._hand_on(frames, receive)
            try:
                chunk = await self._stream.receive_some(RECEIVE_BYTES_MAX)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise Ending(_cause(error)) from None
            if not chunk:
                raise Ending("the peer closed the connection")
            frames = self._framer.feed(bytes(chunk))

    def _hand_on(self, frames: list[tuple[Kind, bytes]], receive: Receive) -> None:
        envelopes: list[bytes] = []
        for kind, payload in frames:
            if kind is Kind.ENVELOPE:
                envelopes.append(payload)
                continue
            if envelopes:
                receive(self.id, tuple(envelopes))
            if kind is Kind.CLOSE:
                close = read_close(payload)
                raise Ending(f"the peer hung up: {close.text}", as_fault(close.fault))
            raise RemoteFault(Fault.MALFORMED, f"a frame of kind {kind.name} on a link that is up")
        if envelopes:
            receive(self.id, tuple(envelopes))

    async def _write(self) -> None:
        while True:
            while not self.outbox or self._closing:  # the last words are not ours: they go out behind us
                await self._parked.park()
            try:
                await self._stream.send_all(self.outbox.take())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the reader finds out why


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLEOFError):
        return "the connection ended without a goodbye"
    return f"the connection broke: {cause}"
