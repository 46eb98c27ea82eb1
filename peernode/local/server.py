"""The Unix socket: MessagePack-RPC, pipelined, bounded.

Every request that one read brings is handled in one go and answered with one write. A client that asks for more
than it reads waits until it catches up; nobody else notices. What all clients together hold is bounded too:
beyond that only those are served that hold nothing yet. A client that leaves its notifications unread loses the
later ones, and is told so. Garbage ends the connection of the client that sent it. This is a local face, so it
may use raw non-blocking socket calls.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from functools import partial
from pathlib import Path

import msgpack
import trio

from protocol.errors import Refused

from ..limits import (
    CLIENT_BYTES_MAX,
    CLIENT_NOTICE_BYTES_MAX,
    CLIENT_REQUESTS_MAX,
    CLIENTS_BYTES_MAX,
    CLIENTS_MAX,
    CLOSE_S,
    MESSAGE_BYTES_MAX,
    RECEIVE_BYTES_MAX,
)
from ..log import Log
from .api import Api
from .methods import call
from .notices import Outlet

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
NOT_READ = 0
"""In the place of a request's number, where no request could be read."""
TOO_LARGE = f"a request of more than {MESSAGE_BYTES_MAX} bytes"
PARSE_ERRORS = (ValueError, TypeError, RecursionError, msgpack.UnpackException)


def open_listener(path: Path) -> socket.socket:
    """Bind the socket file, mode 0600. Takes the place of a socket that nobody answers at.

    Raises FileExistsError when another daemon listens there, or when it is no socket at all.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(128)
    listener.setblocking(False)
    return listener


class Load:
    """What all clients together hold: bytes of requests without an answer, and of answers not yet read."""

    def __init__(self) -> None:
        self.held = 0
        self.room = trio.lowlevel.ParkingLot()


async def serve(listener: socket.socket, api: Api, log: Log) -> None:
    """Accept clients until cancelled."""
    load = Load()
    clients = trio.CapacityLimiter(CLIENTS_MAX)
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                accepted, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                log.warning("client.not_accepted", why=str(error))
                await trio.sleep(0.1)  # out of file descriptors: some will be freed
                continue
            if not _same_user(accepted):
                log.warning("client.refused", why="another user's process")
                accepted.close()
                continue
            client = Client(accepted, api, log, load)
            nursery.start_soon(_serve_client, clients, client)


async def _serve_client(clients: trio.CapacityLimiter, client: Client) -> None:
    try:
        clients.acquire_on_behalf_of_nowait(client)
    except trio.WouldBlock:
        client.close()
        return
    try:
        await client.run()
    finally:
        clients.release_on_behalf_of(client)
        client.close()


class Cut(Exception):
    """A client sent what cannot be answered: it is told why, and must go."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class Client:
    """One connection: requests in, answers gathered, one write when a dispatch or a burst is over."""

    def __init__(self, sock: socket.socket, api: Api, log: Log, load: Load) -> None:
        sock.setblocking(False)
        self._sock, self._api, self._log, self._load = sock, api, log, load
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
        self._packer = msgpack.Packer(use_bin_type=True, autoreset=True)
        self._out = bytearray()
        self._outlet = Outlet(self._notify)
        self._in_flight = 0
        self._held = 0
        """This client's part of the load."""
        self._room = trio.lowlevel.ParkingLot()
        self._to_write = trio.lowlevel.ParkingLot()
        self._closed = False

    async def run(self) -> None:
        """Until the client hangs up or sends what is no request."""
        self._api.runtime.after_dispatch.append(self.flush)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._closed = True
            self._outlet.close()
            self._hold(-self._held)
            self._api.runtime.after_dispatch.remove(self.flush)

    def close(self) -> None:
        self._closed = True
        self._sock.close()

    def flush(self) -> None:
        """Write what was gathered, as far as the kernel takes it."""
        if not self._out or self._closed:
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
        if self._out:
            self._to_write.unpark()
        else:
            self._outlet.drained()

    async def _read(self) -> None:
        try:
            while chunk := await self._receive():
                self._feed(chunk)
                while not self._take():
                    await self._wait_for_room()
            await self._last_answers()
        except Cut as cut:
            self._log.event("client.cut", reason=cut.code, detail=cut.why)
            self._say((RESPONSE, NOT_READ, _error(Refused(cut.code, cut.why)), None))
            self.flush()
            with trio.move_on_after(CLOSE_S):
                await self._last_answers()

    async def _receive(self) -> bytes:
        """The next bytes; none when the client is gone."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(RECEIVE_BYTES_MAX)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return b""  # it hung up on answers that it had not read

    def _feed(self, chunk: bytes) -> None:
        try:
            self._unpacker.feed(chunk)
        except msgpack.BufferFull:
            raise Cut("too_large", TOO_LARGE) from None

    def _take(self) -> bool:
        """Handle what was received, as far as there is room; whether that was all. Raises Cut."""
        done = False
        while not done and self._has_room():
            message = self._next()
            done = message is None
            if message is not None:
                self._handle(*message)
        self.flush()
        return done

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

    async def _last_answers(self) -> None:
        """A client may end its output and still read what it asked for."""
        while self._held:
            await self._room.park()

    def _has_room(self) -> bool:
        return not self._held or (self._has_own_room() and self._load.held < CLIENTS_BYTES_MAX)

    def _has_own_room(self) -> bool:
        return self._in_flight < CLIENT_REQUESTS_MAX and self._held < CLIENT_BYTES_MAX

    async def _wait_for_room(self) -> None:
        while not self._has_room():
            await (self._load.room if self._has_own_room() else self._room).park()

    def _hold(self, size: int) -> None:
        self._held += size
        self._load.held += size
        if size < 0:
            self._room.unpark()
            self._load.room.unpark_all()

    def _handle(self, message: object, size: int) -> None:
        match message:
            case [0, int(number), str(method), params]:
                self._in_flight += 1
                self._hold(size)
                answer = partial(self._answer, number, size)
                call(self._api, method, params, answer, self._outlet)
            case [2, str(), _]:
                pass  # notifications are allowed, and none means anything yet
            case _:
                raise Cut("invalid", "a message that is no MessagePack-RPC request")

    def _answer(self, number: int, size: int, outcome: object) -> None:
        if self._closed:
            return
        self._in_flight -= 1
        if isinstance(outcome, Refused):
            self._say((RESPONSE, number, _error(outcome), None))
        else:
            self._say((RESPONSE, number, None, outcome))
        self._hold(-size)

    def _notify(self, method: str, params: dict[str, object]) -> bool:
        """Tell what was not asked for, unless the client is behind with reading."""
        if len(self._out) >= CLIENT_NOTICE_BYTES_MAX or self._load.held >= CLIENTS_BYTES_MAX:
            return False
        self._say((NOTIFICATION, method, (params,)))
        self._to_write.unpark()
        return True

    def _say(self, message: tuple[object, ...]) -> None:
        packed = self._packer.pack(message)
        self._out += packed
        self._hold(len(packed))

    async def _write(self) -> None:
        while True:
            while not self._out:
                await self._to_write.park()
            await trio.lowlevel.wait_writable(self._sock)
            self.flush()


def _error(refused: Refused) -> dict[str, object]:
    return {
        "code": refused.code,
        "message": refused.message,
        "hint": refused.hint,
        "retryable": refused.retryable,
    }


def _same_user(sock: socket.socket) -> bool:
    """Whether the client runs as this daemon's user, or as root."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the socket's mode has to do
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (0, os.getuid())


def _remove_stale(path: Path) -> None:
    """Make room for a socket file. Raises FileExistsError when what is there is somebody's."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} is there and is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    raise FileExistsError(f"another daemon listens at {path}")
