"""The one port: tells peers from joiners by the first byte, and lets strangers cost little.

A connection is a stranger until its handshake is over. Strangers have `HANDSHAKE_S` for that, and there are at
most `STRANGERS_MAX` of them: one more ends the oldest, first of all one that has not said a byte. So a
thousand silent connections neither fill memory nor keep a peer out.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable

import trio

from protocol.errors import Fault, RemoteFault

from ..limits import BACKLOG_MAX, HANDSHAKE_S, STRANGERS_MAX
from ..log import Log
from .dialler import STREAM_ERRORS, join_address
from .enrol import KNOCK

TLS_HANDSHAKE = b"\x16"

Serve = Callable[[], Awaitable[None]]
Greet = Callable[[trio.SocketStream], Awaitable[Serve | None]]
"""Does a handshake; returns what is to be done with the link behind it."""


async def open_listener(host: str, port: int) -> trio.socket.SocketType:
    """Bind and listen. Raises OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await sock.bind((host, port))
        sock.listen(BACKLOG_MAX)
    except BaseException:
        sock.close()
        raise
    return sock


class Stranger:
    """A connection that has not yet proved who it is."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_S)
        self.spoke = False


class Listener:
    """`greet_peer` and `greet_joiner` do the handshakes; `refused` counts what was wrong."""

    def __init__(
        self, greet_peer: Greet, greet_joiner: Greet, refused: Callable[[RemoteFault, str], None], log: Log
    ) -> None:
        self._greet_peer, self._greet_joiner, self._refused, self._log = (
            greet_peer,
            greet_joiner,
            refused,
            log,
        )
        self._strangers: dict[Stranger, None] = {}

    async def serve(self, sock: trio.socket.SocketType) -> None:
        """Accept until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    accepted, address = await sock.accept()
                except OSError as error:
                    self._log.warning("listener.not_accepted", why=str(error))
                    await trio.sleep(0.1)  # out of file descriptors: some will be freed
                    continue
                self._make_room()
                nursery.start_soon(self._serve_one, accepted, join_address(*address[:2]))

    def _make_room(self) -> None:
        while len(self._strangers) >= STRANGERS_MAX:
            silent = next((stranger for stranger in self._strangers if not stranger.spoke), None)
            oldest = silent or next(iter(self._strangers))
            oldest.scope.cancel()
            del self._strangers[oldest]

    async def _serve_one(self, accepted: trio.socket.SocketType, address: str) -> None:
        transport = trio.SocketStream(accepted)
        stranger = Stranger()
        self._strangers[stranger] = None
        serve: Serve | None = None
        try:
            with stranger.scope:
                serve = await self._greet(transport, stranger)
        except RemoteFault as fault:
            self._refused(fault, address)
        except STREAM_ERRORS as error:
            self._not_greeted(error.__cause__ or error, address)
        finally:
            self._strangers.pop(stranger, None)
            if serve is None:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(transport)
        if serve is not None:
            await serve()
        elif stranger.scope.cancelled_caught:
            self._refused(RemoteFault(Fault.TIMEOUT, "it did not finish its handshake"), address)

    def _not_greeted(self, cause: BaseException, address: str) -> None:
        if isinstance(cause, ssl.SSLEOFError | ConnectionError):
            self._log.debug(
                "peer.gone", address=address
            )  # members that asked whether we answer, while we did not
        else:
            self._refused(RemoteFault(Fault.NOT_A_MEMBER, f"the TLS handshake failed: {cause}"), address)

    async def _greet(self, transport: trio.SocketStream, stranger: Stranger) -> Serve | None:
        try:
            first = await transport.socket.recv(1, socket.MSG_PEEK)
            if first == KNOCK:
                await transport.socket.recv(1)
        except OSError:
            return None  # it is gone again
        stranger.spoke = True
        if first == KNOCK:
            return await self._greet_joiner(transport)
        if first == TLS_HANDSHAKE:
            return await self._greet_peer(transport)
        if first:
            raise RemoteFault(Fault.MALFORMED, "its first byte is neither TLS nor a joiner's")
        return None
