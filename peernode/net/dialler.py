"""One dial: resolve, connect, TLS, HELLO. What comes of it is told as one event, whatever happens."""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

from protocol.effects import Dial, DialOutcome
from protocol.errors import Fault, RemoteFault

from ..limits import CONNECT_S

STREAM_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError)


class DialError(Exception):
    """Why there is no link, in one of the four ways that mean different things."""

    def __init__(self, outcome: DialOutcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


Watch = Callable[[trio.socket.SocketType], None]


async def connect(
    address: str, patience_s: float = CONNECT_S, watch: Watch = lambda sock: None
) -> trio.SocketStream:
    """A TCP connection to host:port. Names are resolved anew each time. Raises DialError.

    `watch` sees every socket before it connects.
    """
    with trio.move_on_after(patience_s):
        try:
            host, port = split_address(address)
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:  # ValueError: a peer may announce any text as its address
            raise DialError(DialOutcome.UNREACHABLE, f"{address} is not known: {error}") from None
        return await _connect_first([(family, target) for family, _, _, _, target in found], watch)
    raise DialError(DialOutcome.UNREACHABLE, f"no answer within {patience_s:.1f} s")


async def _connect_first(targets: list[tuple[int, object]], watch: Watch) -> trio.SocketStream:
    errors: list[OSError] = []
    for family, target in targets:
        try:
            return trio.SocketStream(await _connect_one(family, target, watch))
        except OSError as failed:
            errors.append(failed)
    others = [error for error in errors if not isinstance(error, ConnectionRefusedError)]
    if errors and not others:
        raise DialError(DialOutcome.REFUSED, "connection refused")
    raise DialError(DialOutcome.UNREACHABLE, str(next(iter(others), "the name has no address")))


async def _connect_one(family: int, target: object, watch: Watch) -> trio.socket.SocketType:
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        watch(sock)
        await sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, `[v6]:port` or a bare host with the default port. Raises ValueError with what to write."""
    host, colon, port = address.rpartition(":")
    if not colon or (host.count(":") > 1 and not host.startswith("[")):
        host, port = address, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not _is_host(host) or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{address!r} is no address; write host:port, such as 10.0.0.5:{DEFAULT_PORT}")
    return host, int(port)


def _is_host(host: str) -> bool:
    """Whether a resolver takes it: its labels have 1 to 63 characters (numeric addresses pass too)."""
    return all(0 < len(label) <= 63 for label in host.removesuffix(".").split("."))


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


DEFAULT_PORT = 7755


def outcome_of(fault: RemoteFault) -> DialOutcome:
    """What a refused handshake says about the address that was dialled."""
    return OUTCOMES.get(fault.fault, DialOutcome.FAULT)


OUTCOMES = {Fault.SELF: DialOutcome.SELF, Fault.WRONG_PEER: DialOutcome.STRANGER}


def check_target(dial: Dial, peer: bytes) -> None:
    """Raises RemoteFault when somebody else answers at a member's address."""
    if dial.node is not None and dial.node != peer:
        raise RemoteFault(Fault.WRONG_PEER, f"another member answers at {dial.address}")
