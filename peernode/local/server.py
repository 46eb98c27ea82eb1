"""The Unix socket, where clients of this machine come in: one task serves them all.

Their connections are watched by one epoll, and trio watches that: to wake a task costs more than to answer a request,
so it is paid once for everybody who has something to say, and after a round there is another look before the task
goes to sleep again, because a client that was answered often has its next request ready. A round is one burst: what
it stages goes to the store in one go, and each client gets its answers in one write. This is a local face, so it may
use raw non-blocking socket calls.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import trio

from ..limits import CLIENTS_MAX, CLIENTS_TURN_S, CLOSE_S
from ..log import Log
from .api import Api
from .client import Client
from .readiness import READ, Readiness

ACCEPT_AGAIN_S = 0.1


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


async def serve(listener: socket.socket, api: Api, log: Log) -> None:
    """Accept and serve clients until cancelled."""
    async with trio.open_nursery() as nursery:
        clients = Clients(listener, api, log, nursery)
        nursery.start_soon(clients.serve_waiting)
        await clients.serve()


class Clients:
    """All connections. `held`: bytes of requests without an answer, and of answers not yet read."""

    def __init__(self, listener: socket.socket, api: Api, log: Log, nursery: trio.Nursery) -> None:
        self._listener, self.api, self.log, self._nursery = listener, api, log, nursery
        self.held = 0
        self._open: set[Client] = set()
        self._answered: list[Client] = []
        self._waiting: dict[Client, None] = {}  # in the order in which they came
        self._room = trio.lowlevel.ParkingLot()
        self._readiness = Readiness()
        self._ready: dict[int, Callable[[int], None]] = {}

    async def serve(self) -> None:
        self.api.runtime.after_dispatch.append(self.flush)
        self.watch(self._listener, 0, READ, self._accept)
        try:
            while True:
                await trio.lowlevel.wait_readable(self._readiness.fileno())
                until_s = trio.current_time() + CLIENTS_TURN_S
                while self._serve_round() and trio.current_time() < until_s:
                    pass
        finally:
            self.api.runtime.after_dispatch.remove(self.flush)
            for client in list(self._open):
                client.close()
            self._readiness.close()

    async def serve_waiting(self) -> None:
        """Go on with clients that have asked for more than there was room for."""
        while True:
            ready = [client for client in self._waiting if client.has_room()]
            if not ready:
                await self._room.park()
                continue
            with self.api.runtime.burst:
                for client in ready:
                    del self._waiting[client]
                    client.go_on()
            self.flush()
            await trio.lowlevel.checkpoint()

    def flush(self) -> None:
        """Write what was answered."""
        while self._answered:
            answered, self._answered = self._answered, []
            for client in answered:
                client.flush()

    def _serve_round(self) -> bool:
        """Whether anybody had something to say."""
        ready = self._readiness.poll(0)
        with self.api.runtime.burst:
            for number, events in ready:
                self._ready[number](events)
        self.flush()
        return bool(ready)

    # What a client tells of itself

    def watch(self, sock: socket.socket, before: int, events: int, ready: Callable[[int], None]) -> None:
        """`ready` is called when a socket can be read or written; `before`: for which of it it was watched."""
        number = sock.fileno()
        if not events:
            self._readiness.unregister(number)
            del self._ready[number]
        elif before:
            self._readiness.modify(number, events)
        else:
            self._readiness.register(number, events)
            self._ready[number] = ready

    def hold(self, size: int) -> None:
        self.held += size
        if size < 0 and self._waiting:
            self._room.unpark()

    def answered(self, client: Client) -> None:
        """It has something to write."""
        self._answered.append(client)

    def waits(self, client: Client) -> None:
        """It has requests for which there is no room yet."""
        self._waiting[client] = None
        self._room.unpark()

    def cut(self, client: Client) -> None:
        """It gets a moment to read why."""
        self._nursery.start_soon(self._close_later, client)

    def closed(self, client: Client) -> None:
        self._open.discard(client)
        self._waiting.pop(client, None)

    async def _close_later(self, client: Client) -> None:
        await trio.sleep(CLOSE_S)
        client.close()

    # New clients

    def _accept(self, _: int) -> None:
        try:
            accepted, _address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self.log.warning("client.not_accepted", why=str(error))
            self.watch(self._listener, READ, 0, self._accept)
            self._nursery.start_soon(self._accept_later)
            return
        if not _same_user(accepted):
            self.log.warning("client.refused", why="another user's process")
            accepted.close()
        elif len(self._open) == CLIENTS_MAX:
            accepted.close()
        else:
            self._open.add(Client(accepted, self))

    async def _accept_later(self) -> None:
        """Out of file descriptors: some will be freed."""
        await trio.sleep(ACCEPT_AGAIN_S)
        self.watch(self._listener, 0, READ, self._accept)


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
