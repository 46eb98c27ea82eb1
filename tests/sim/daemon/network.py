"""A network in memory: trio sockets whose bytes arrive later, in order, or not while their path is cut.

What a daemon opens through `trio.socket` belongs to the host whose task opens it (`HOST`, inherited by every task of
that host). Each direction of a connection is a queue of (arrival, bytes) with a window; a cut path delivers nothing
until it is healed, as TCP would by sending again; a process that dies closes what it had open, and bytes for a closed
end are answered with a reset. Everything that is sent enters the trace with its length only: the bytes of TLS are
random.
"""

from __future__ import annotations

import socket as stdlib
from collections import deque
from contextvars import ContextVar
from hashlib import blake2b
from itertools import count
from random import Random

import trio
import trio.socket

WINDOW_BYTES = 64 * 1024
LATENCY_S = (0.0002, 0.004)
FIRST_FREE_PORT = 40_000

Address = tuple[str, int]

HOST: ContextVar[str] = ContextVar("HOST")
"""The ip of the host that the current task belongs to."""

EOF, RESET = b"", None
"""What may stand at the end of a queue instead of bytes."""


class Network(trio.abc.SocketFactory):
    """Everything between the hosts. `random` draws the latencies."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._cut: set[tuple[str, str]] = set()
        """(from, to)."""
        self.latency_s = LATENCY_S
        self._trace = blake2b(digest_size=16)
        self._ports = count(FIRST_FREE_PORT)
        self._open: dict[str, list[SimSocket]] = {}
        self.healed = trio.lowlevel.ParkingLot()
        self.listeners: dict[Address, SimSocket] = {}

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> SimSocket:
        opened = SimSocket(self, HOST.get())
        self._open.setdefault(opened.ip, []).append(opened)
        return opened

    def cut(self, one: str, other: str) -> None:
        """From now on nothing gets from one host to the other, either way."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, sender: str, receiver: str) -> None:
        self._cut.add((sender, receiver))
        self.note("cut", sender, receiver)

    def heal(self) -> None:
        self._cut.clear()
        self.note("heal")
        self.healed.unpark_all()

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing gets from one to the other."""
        return (one, other) in self._cut

    def process_died(self, ip: str) -> None:
        """The kernel of a host closes what its dead process had open."""
        self.note("died", ip)
        for opened in list(self._open.pop(ip, [])):
            opened.close()

    def forget(self, closed: SimSocket) -> None:
        if closed in self._open.get(closed.ip, []):
            self._open[closed.ip].remove(closed)

    def arrival_s(self) -> float:
        return trio.current_time() + self._random.uniform(*self.latency_s)

    def free_port(self) -> int:
        return next(self._ports)

    def note(self, *what: object) -> None:
        self._trace.update(repr((round(trio.current_time(), 6), *what)).encode())

    def trace(self) -> str:
        return self._trace.hexdigest()


class Direction:
    """One way of a connection."""

    def __init__(self, network: Network, sender: str, receiver: str) -> None:
        self._network, self.sender, self.receiver = network, sender, receiver
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._unread = 0
        self._last_s = 0.0
        self.is_refused = False
        """The receiving end is closed."""
        self.news, self.room = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()

    @property
    def is_full(self) -> bool:
        return self._unread >= WINDOW_BYTES

    @property
    def has_unread(self) -> bool:
        return self._unread > 0

    def send(self, chunk: bytes | None) -> int:
        """Queue what fits; EOF and RESET always do."""
        if chunk:
            chunk = chunk[: WINDOW_BYTES - self._unread]
        self._last_s = max(self._last_s, self._network.arrival_s())
        self._queue.append((self._last_s, chunk))
        self._unread += len(chunk or b"")
        self._network.note("send", self.sender, self.receiver, len(chunk) if chunk is not None else "reset")
        self.news.unpark_all()
        return len(chunk or b"")

    async def next(self, size: int, *, peek: bool) -> bytes:
        """Wait for bytes; b"" at the end. Raises ConnectionResetError."""
        while True:
            if not self._queue:
                await self.news.park()
            elif self._network.is_cut(self.sender, self.receiver):
                await self._network.healed.park()
            elif self._queue[0][0] > trio.current_time():
                await trio.sleep_until(self._queue[0][0])
            else:
                return self._take(size, peek=peek)
            if self.is_refused:
                raise trio.ClosedResourceError("this socket was closed")

    def _take(self, size: int, *, peek: bool) -> bytes:
        arrived_s, chunk = self._queue[0]
        if chunk is None:
            raise ConnectionResetError("reset by the peer")
        if chunk == EOF or peek:
            return chunk[:size]
        self._queue.popleft()
        if len(chunk) > size:
            self._queue.appendleft((arrived_s, chunk[size:]))
        self._unread -= len(chunk[:size])
        self.room.unpark_all()
        return chunk[:size]


class SimSocket(trio.socket.SocketType):
    """A TCP socket of one host."""

    def __init__(self, network: Network, ip: str) -> None:
        super().__init__()
        self._network, self.ip = network, ip
        self._local: Address = (ip, 0)
        self._remote: Address | None = None
        self._backlog: deque[SimSocket] | None = None
        self._knocks = trio.lowlevel.ParkingLot()
        self._in: Direction | None = None
        self._out: Direction | None = None
        self._is_closed = self._said_eof = False

    @property
    def family(self) -> stdlib.AddressFamily:
        return stdlib.AF_INET

    @property
    def type(self) -> stdlib.SocketKind:
        return stdlib.SOCK_STREAM

    @property
    def proto(self) -> int:
        return 0

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        return self._said_eof

    def fileno(self) -> int:
        return -1 if self._is_closed else 1

    def setsockopt(self, *_: object) -> None:
        pass

    def getsockname(self) -> Address:
        return self._local

    def getpeername(self) -> Address:
        if self._remote is None:
            raise OSError("not connected")
        return self._remote

    async def bind(self, address: Address) -> None:
        await trio.lowlevel.checkpoint()
        port = address[1] or self._network.free_port()
        if (self.ip, port) in self._network.listeners:
            raise OSError(f"{self.ip}:{port} is in use")
        self._local = (self.ip, port)

    def listen(self, backlog: int = 0) -> None:
        self._backlog = deque()
        self._network.listeners[self._local] = self

    async def accept(self) -> tuple[SimSocket, Address]:
        await trio.lowlevel.checkpoint()
        assert self._backlog is not None
        while not self._backlog:
            self._check_open()
            await self._knocks.park()
        accepted = self._backlog.popleft()
        return accepted, accepted.getpeername()

    async def connect(self, address: Address) -> None:
        target = address[0]
        while self._network.is_cut(self.ip, target) or self._network.is_cut(target, self.ip):
            await self._network.healed.park()
        await trio.sleep_until(self._network.arrival_s())
        listener = self._network.listeners.get((target, address[1]))
        if listener is None or listener._backlog is None:
            raise ConnectionRefusedError("connection refused")
        self._check_open()
        self._local = (self.ip, self._network.free_port())
        accepted = SimSocket(self._network, target)
        there = Direction(self._network, self.ip, target)
        back = Direction(self._network, target, self.ip)
        self._join(self._local, address, back, there)
        accepted._join(address, self._local, there, back)
        self._network._open.setdefault(target, []).append(accepted)
        self._network.note("connect", self.ip, target)
        listener._backlog.append(accepted)
        listener._knocks.unpark_all()

    def _join(self, local: Address, remote: Address, into: Direction, out: Direction) -> None:
        self._local, self._remote, self._in, self._out = local, remote, into, out

    async def recv(self, size: int, flags: int = 0) -> bytes:
        await trio.lowlevel.checkpoint()
        self._check_open()
        assert self._in is not None
        return await self._in.next(size, peek=bool(flags & stdlib.MSG_PEEK))

    async def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        await trio.lowlevel.checkpoint()
        self._check_open()
        out, into = self._out, self._in
        assert out is not None and into is not None
        while out.is_full and not out.is_refused:
            await out.room.park()
            self._check_open()
        if out.is_refused:
            into.send(RESET)
            raise BrokenPipeError("the peer closed the connection")
        return out.send(bytes(data))

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        while self._out is not None and self._out.is_full and not self._out.is_refused:
            await self._out.room.park()
            self._check_open()

    def shutdown(self, how: int) -> None:
        if self._out is not None and not self._said_eof:
            self._said_eof = True
            self._out.send(EOF)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._network.forget(self)
        if self._backlog is not None:
            self._network.listeners.pop(self._local, None)
            self._knocks.unpark_all()
        if self._in is not None and self._out is not None:
            self._in.is_refused = True
            self._out.send(RESET if self._in.has_unread else EOF)
            for lot in (self._in.news, self._in.room, self._out.room):
                lot.unpark_all()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this socket was closed")
