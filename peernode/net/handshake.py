"""From a TLS stream to a link: HELLO and CONFIRM, one deadline for all of it.

A refusal is told to the peer in a CLOSE frame before we hang up, so that both logs name the reason.
"""

from __future__ import annotations

from protocol.errors import Fault, RemoteFault
from protocol.types import Keys, NodeId
from protocol.wire.frames import Framer, Kind
from protocol.wire.hello import Established, Handshake, Hello, close_frame
from protocol.wire.registry import Registry

from ..limits import RECEIVE_BYTES_MAX
from .hangup import hang_up
from .tls import Stream


class Greeted:
    """An established peer, and what came behind the handshake."""

    def __init__(self, established: Established, framer: Framer, early: list[tuple[Kind, bytes]]) -> None:
        self.established, self.framer, self.early = established, framer, early


async def greet(
    stream: Stream, keys: Keys, registry: Registry, hello: Hello, peer: NodeId, *, dialled: bool
) -> Greeted:
    """Exchange HELLO and CONFIRM. Raises RemoteFault, after telling the peer, or trio's stream errors."""
    handshake = Handshake(keys, registry, hello, peer, dialled=dialled)
    framer = Framer()
    try:
        await stream.send_all(handshake.hello())
        while True:
            chunk = await stream.receive_some(RECEIVE_BYTES_MAX)
            if not chunk:
                raise RemoteFault(Fault.NOT_A_MEMBER, "the peer hung up during the handshake")
            frames = framer.feed(bytes(chunk))
            while frames:
                kind, payload = frames.pop(0)
                answer, established = handshake.receive(kind, payload)
                if answer:
                    await stream.send_all(answer)
                if established is not None:
                    return Greeted(established, framer, frames)
    except RemoteFault as fault:
        await hang_up(stream, close_frame(keys, fault.fault, fault.detail))
        raise
