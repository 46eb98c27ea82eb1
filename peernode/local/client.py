"""One connection to the Unix socket: MessagePack-RPC, pipelined, bounded.

Every request that one read brings is handled in one go and answered with one write. A client that asks for more
than it reads waits until it catches up; nobody else notices. What all clients together hold is bounded too:
beyond that only those are served that hold nothing yet. A client that leaves its notifications unread loses the
later ones, and is told so. Garbage ends the connection of the client that sent it.
"""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import TYPE_CHECKING

import msgpack
import msgspec

from protocol.errors import Refused

from ..limits import (
    CLIENT_BYTES_MAX,
    CLIENT_NOTICE_BYTES_MAX,
    CLIENT_REQUESTS_MAX,
    CLIENTS_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    RECEIVE_BYTES_MAX,
)
from .methods import call
from .notices import Outlet
from .readiness import READ, WRITE

if TYPE_CHECKING:
    from .server import Clients

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
NOT_READ = 0
"""In the place of a request's number, where no request could be read."""
TOO_LARGE = f"a request of more than {MESSAGE_BYTES_MAX} bytes"
PARSE_ERRORS = (ValueError, TypeError, RecursionError, msgpack.UnpackException)

_encode = msgspec.msgpack.Encoder().encode


class Cut(Exception):
    """A client sent what cannot be answered: it is told why, and must go."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class Client:
    """Requests are handled when they can be read (`ready`), answers gathered until `flush`."""

    def __init__(self, sock: socket.socket, clients: Clients) -> None:
        sock.setblocking(False)
        self._sock, self._clients = sock, clients
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=True,
            max_buffer_size=MESSAGE_BYTES_MAX,
            max_ext_len=0,
            max_array_len=4096,
            max_map_len=4096,
        )
        self._unpacked = 0
        """Where the last whole message ended, counted from the first byte of the connection."""
        self._out = bytearray()
        self._outlet = Outlet(self._notify)
        self._in_flight = 0
        self._held = 0
        """Its part of what all clients hold."""
        self._is_waiting = False
        """For room: nothing more is read until then."""
        self._is_over = False
        """Nothing more is read at all: it has ended its output, or is cut."""
        self._is_full = False
        """The kernel takes no more until the client has read."""
        self._is_closed = False
        self._watched = 0
        self._watch()

    def ready(self, events: int) -> None:
        """The socket can be read or written, or is broken, which shows when that is tried."""
        if events & ~READ and self._out:
            self.flush()
        if events & ~WRITE and self._watched & READ:
            self._read()

    def go_on(self) -> None:
        """There is room for requests that have come already."""
        self._is_waiting = False
        self._take()

    def has_room(self) -> bool:
        if not self._held:
            return True
        has_own = self._in_flight < CLIENT_REQUESTS_MAX and self._held < CLIENT_BYTES_MAX
        return has_own and self._clients.held < CLIENTS_BYTES_MAX

    def flush(self) -> None:
        """Write what was gathered, as far as the kernel takes it."""
        if self._is_closed or not self._out:
            return
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
            sent = len(self._out)  # it went away: nobody will read this
        del self._out[:sent]
        self._hold(-sent)
        self._is_full = bool(self._out)
        if not self._is_full:
            self._outlet.drained()
        self._go_if_done()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._outlet.close()
        self._hold(-self._held)
        self._watch()
        self._clients.closed(self)
        self._sock.close()

    # Requests

    def _read(self) -> None:
        try:
            chunk = self._sock.recv(RECEIVE_BYTES_MAX)
        except BlockingIOError:
            return
        except ConnectionResetError:
            chunk = b""  # it hung up on answers that it had not read
        if chunk:
            self._take(chunk)
        else:
            self._is_over = True
            self._go_if_done()

    def _take(self, chunk: bytes = b"") -> None:
        """Handle every whole request, as far as there is room."""
        try:
            self._feed(chunk)
            while self.has_room():
                message = self._next()
                if message is None:
                    return
                self._handle(*message)
        except Cut as cut:
            self._cut(cut)
        else:
            self._is_waiting = True
            self._clients.waits(self)
        finally:
            self._watch()

    def _feed(self, chunk: bytes) -> None:
        try:
            self._unpacker.feed(chunk)
        except msgpack.BufferFull:
            raise Cut("too_large", TOO_LARGE) from None

    def _next(self) -> tuple[object, int] | None:
        """The next whole message and its size; None when more bytes are needed."""
        try:
            message = self._unpacker.unpack()
        except msgpack.OutOfData:
            self._check_size()
            return None
        except PARSE_ERRORS as error:
            raise Cut("invalid", f"bytes that are no MessagePack: {error}") from None
        size = self._check_size()
        self._unpacked += size
        return message, size

    def _check_size(self) -> int:
        """Bytes since the last message: the unpacker bounds what it has not parsed, not the whole."""
        size: int = self._unpacker.tell() - self._unpacked
        if size > MESSAGE_BYTES_MAX:
            raise Cut("too_large", TOO_LARGE)
        return size

    def _handle(self, message: object, size: int) -> None:
        match message:
            case [0, number, method, params] if isinstance(number, int) and isinstance(method, str):
                self._in_flight += 1
                self._hold(size)
                answer = partial(self._answer, number, size)
                call(self._clients.api, method, params, answer, self._outlet)
            case [2, str(), _]:
                pass  # notifications are allowed, and none means anything yet
            case _:
                raise Cut("invalid", "a message that is no MessagePack-RPC request")

    # Answers

    def _answer(self, number: int, size: int, outcome: object) -> None:
        if self._is_closed:
            return
        self._in_flight -= 1
        self._hold(-size)
        if isinstance(outcome, Refused):
            self._say((RESPONSE, number, _error(outcome), None))
        else:
            self._say((RESPONSE, number, None, outcome))

    def _notify(self, method: str, params: dict[str, object]) -> bool:
        """Tell what was not asked for, unless the client is behind with reading."""
        if len(self._out) >= CLIENT_NOTICE_BYTES_MAX or self._clients.held >= CLIENTS_BYTES_MAX:
            return False
        self._say((NOTIFICATION, method, (params,)))
        return True

    def _say(self, message: tuple[object, ...]) -> None:
        if not self._out:
            self._clients.answered(self)
        packed = _encode(message)
        self._out += packed
        self._hold(len(packed))

    def _hold(self, size: int) -> None:
        self._held += size
        self._clients.hold(size)

    # Endings

    def _cut(self, cut: Cut) -> None:
        self._clients.log.event("client.cut", reason=cut.code, detail=cut.why)
        self._is_over = True
        self._say((RESPONSE, NOT_READ, _error(Refused(cut.code, cut.why)), None))
        self.flush()
        if not self._is_closed:
            self._clients.cut(self)

    def _go_if_done(self) -> None:
        """A client that will say nothing more still gets all that it asked for."""
        if self._is_over and not self._held:
            self.close()
        else:
            self._watch()

    def _watch(self) -> None:
        wanted = 0
        if not self._is_closed:
            may_read = not (self._is_over or self._is_waiting)
            wanted = (READ if may_read else 0) | (WRITE if self._is_full else 0)
        if wanted != self._watched:
            self._clients.watch(self._sock, self._watched, wanted, self.ready)
            self._watched = wanted


def _error(refused: Refused) -> dict[str, object]:
    return {
        "code": refused.code,
        "message": refused.message,
        "hint": refused.hint,
        "retryable": refused.retryable,
        **dict(refused.details),
    }
