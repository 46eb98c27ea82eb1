"""Both ends of joining: one TLS conversation of three messages, in which the secret never travels.

The joiner writes `J` before the handshake, so that the listener answers with the context that asks for no
certificate, and only while a ticket lives; otherwise a TLS alert says so. The joiner believes nobody before the
ticket's cluster key vouches for the certificate that the TLS connection was made with. The issuer's end can
reach one thing: the redeeming of a ticket.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from protocol.errors import Fault, Refused, RemoteFault
from protocol.identity.keys import NodeKey
from protocol.identity.tickets import (
    JoinChallenge,
    JoinGranted,
    JoinRefused,
    JoinRequest,
    Ticket,
    accept_grant,
    challenge_answer,
    decode_challenge,
    decode_request,
    decode_verdict,
    encode,
)
from protocol.types import Grant, NodeId
from protocol.wire.frames import Framer, Kind, frame

from ..limits import JOIN_ATTEMPT_S, RECEIVE_BYTES_MAX
from .dialler import STREAM_ERRORS, DialError, connect
from .hangup import hang_up
from .tls import Stream, joiner_context

KNOCK = b"J"
NO_TICKET = b"\x15\x03\x03\x00\x02\x02\x31"
"""The answer to a knock while no ticket lives: the TLS alert access_denied."""


class Joined(NamedTuple):
    """What a joiner brings home."""

    grant: Grant
    addresses: tuple[str, ...]


class TicketRefused(Exception):
    """The issuer said no; asking again with the same ticket is useless."""


class NotReached(Exception):
    """Nobody took the ticket this time; worth trying again."""


async def join(ticket: Ticket, address: str, key: NodeKey, nonce: bytes) -> Joined:
    """Redeem the ticket at one address. Raises TicketRefused or NotReached."""
    try:
        with trio.move_on_after(JOIN_ATTEMPT_S):
            transport = await connect(address)
            await transport.send_all(KNOCK)
            stream = trio.SSLStream(transport, joiner_context())
            try:
                await stream.do_handshake()
                return await _converse(stream, ticket, key, nonce)
            finally:
                await hang_up(stream, b"")
        raise NotReached(f"{address} does not answer")
    except DialError as error:
        raise NotReached(f"{address}: {error}") from None
    except STREAM_ERRORS as error:
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLError) and cause.reason == "TLSV1_ALERT_ACCESS_DENIED":
            raise TicketRefused(f"{address} has no live ticket: it expired, or was made elsewhere") from None
        raise NotReached(f"{address} hung up ({cause})") from None
    except RemoteFault as fault:
        raise TicketRefused(f"{address}: {fault.detail}") from None


async def _converse(stream: Stream, ticket: Ticket, key: NodeKey, nonce: bytes) -> Joined:
    leaf = stream.getpeercert(binary_form=True)
    if leaf is None:
        raise RemoteFault(Fault.NOT_A_MEMBER, "it shows no certificate")
    messages = Messages(stream)
    challenge = decode_challenge(await messages.receive())
    await messages.send(encode(challenge_answer(ticket, key, challenge, leaf, nonce)))
    verdict = decode_verdict(await messages.receive())
    if isinstance(verdict, JoinRefused):
        raise TicketRefused(verdict.message)
    return Joined(accept_grant(ticket, key.node_id, verdict), tuple(verdict.addresses))


Redeem = Callable[[JoinRequest, bytes], Awaitable[JoinGranted | Refused]]
"""Given the request and our nonce, what the ticket is worth; comes back when that is durable."""


async def serve_joiner(stream: Stream, challenge: JoinChallenge, redeem: Redeem) -> NodeId:
    """The issuer's end, after the handshake. Returns who is a member now. Raises RemoteFault."""
    messages = Messages(stream)
    await messages.send(encode(challenge))
    request = decode_request(await messages.receive())
    verdict = await redeem(request, challenge.nonce)
    if isinstance(verdict, Refused):
        await hang_up(stream, frame(Kind.JOIN, encode(JoinRefused(verdict.code, verdict.message))))
        raise RemoteFault(Fault.REFUSED_TICKET, verdict.message)
    await hang_up(stream, frame(Kind.JOIN, encode(verdict)))
    return NodeId(request.node_id)


class Messages:
    """JOIN frames on a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._framer = stream, Framer()

    async def send(self, payload: bytes) -> None:
        await self._stream.send_all(frame(Kind.JOIN, payload))

    async def receive(self) -> bytes:
        while True:
            chunk = await self._stream.receive_some(RECEIVE_BYTES_MAX)
            if not chunk:
                raise trio.BrokenResourceError("it hung up")
            for kind, payload in self._framer.feed(bytes(chunk)):
                if kind is not Kind.JOIN:
                    raise RemoteFault(Fault.MALFORMED, f"a frame of kind {kind.name} while joining")
                return payload
