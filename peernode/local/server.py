"""The Unix socket: MessagePack-RPC, pipelined, bounded.

Every request that one read brings is handled in one go and answered with one write. A client that asks for more
than it reads is not read from until it catches up; nobody else notices. Garbage ends the connection of
the client that sent it. This is a local face, so it may use raw non-blocking socket calls.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import msgpack
import trio

from protocol.errors import Refused

from ..limits import CLIENT_BYTES_MAX, CLIENT_REQUESTS_MAX, CLIENTS_MAX, MESSAGE_BYTES_MAX, RECEIVE_BYTES_MAX
from ..log import Log
from .api import Api
from .methods import call

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
PARSE_ERRORS = (ValueError, TypeError, RecursionError, msgpack.UnpackException)


def open_listener(path: Path) -> socket.socket:
    """Bind the socket file, mode 0600. Takes the place of one that nobody answers at.

    Raises FileExistsError when another daemon listens there.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
            raise FileExistsError(f"another daemon listens at {path}")
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(128)
    listener.setblocking(False)
    return listener


async def serve(listener: socket.socket, api: Api, log: Log) -> None:
    """Accept clients until cancelled."""
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
            client = Client(accepted, api, log)
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


class Client:
    """One connection: requests in, answers gathered, one write when a dispatch or a burst is over."""

    def __init__(self, sock: socket.socket, api: Api, log: Log) -> None:
        sock.setblocking(False)
        self._sock, self._api, self._log = sock, api, log
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=True,
            max_buffer_size=MESSAGE_BYTES_MAX,
            max_ext_len=0,
            max_array_len=4096,
            max_map_len=4096,
        )
        self._packer = msgpack.Packer(use_bin_type=True, autoreset=True)
        self._out = bytearray()
        self._in_flight = 0
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
        except ConnectionError:
            pass  # it went away
        finally:
            self._closed = True
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
            self._out.clear()
            return
        del self._out[:sent]
        if self._out:
            self._to_write.unpark()

    async def _read(self) -> None:
        while True:
            while self._in_flight >= CLIENT_REQUESTS_MAX or len(self._out) >= CLIENT_BYTES_MAX:
                await self._room.park()
            await trio.lowlevel.wait_readable(self._sock)
            try:
                chunk = self._sock.recv(RECEIVE_BYTES_MAX)
            except BlockingIOError:
                continue
            if not chunk or not self._take(chunk):
                return
            self.flush()

    def _take(self, chunk: bytes) -> bool:
        """Handle every complete request; False when the client must go."""
        try:
            self._unpacker.feed(chunk)
            for message in self._unpacker:
                if not self._handle(message):
                    return self._give_up("invalid", "a message that is no MessagePack-RPC request")
        except msgpack.BufferFull:
            return self._give_up("too_large", f"a request of more than {MESSAGE_BYTES_MAX} bytes")
        except PARSE_ERRORS as error:
            return self._give_up("invalid", f"bytes that are no MessagePack: {error}")
        return True

    def _handle(self, message: object) -> bool:
        match message:
            case [0, int(number), str(method), params]:
                self._in_flight += 1
                call(self._api, method, params, lambda outcome: self._answer(number, outcome))
                return True
            case [2, str(), _]:
                return True  # notifications are allowed, and none means anything yet
        return False

    def _answer(self, number: int, outcome: object) -> None:
        self._in_flight -= 1
        if self._closed:
            return
        if isinstance(outcome, Refused):
            self._out += self._packer.pack((RESPONSE, number, _error(outcome), None))
        else:
            self._out += self._packer.pack((RESPONSE, number, None, outcome))
        self._room.unpark()

    def _give_up(self, code: str, why: str) -> bool:
        """Tell the client why its connection ends; 0 stands for a request that was never read."""
        self._log.event("client.cut", reason=code, detail=why)
        self._out += self._packer.pack((RESPONSE, 0, _error(Refused(code, why)), None))
        self.flush()
        return False

    async def _write(self) -> None:
        while True:
            while not self._out:
                await self._to_write.park()
            await trio.lowlevel.wait_writable(self._sock)
            self.flush()
            self._room.unpark()


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
