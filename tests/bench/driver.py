"""The client of all measurements: as thin as Python allows, and the same for every server.

One process, one epoll loop, raw non-blocking sockets. Each connection sends `depth` requests in one write, waits for
as many answers, and sends the next ones. Answers are counted by the bytes that they begin with (see wires.py) and an
error among them ends the benchmark.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Protocol

from .wires import Request, joined

RECEIVE_BYTES = 1 << 18
PATIENCE_S = 30.0


class WrongAnswer(Exception):
    """A server answered with an error, or not at all."""


class Connection:
    """`batches`: what it sends, one batch after another, `depth` requests each."""

    def __init__(self, path: Path, like: Request, batches: Iterator[bytes], depth: int) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.sock.setblocking(False)
        self._mark, self._error = like.mark, like.error
        self._keep = len(like.mark) - 1
        """So much of what came before is looked at again: a mark may come in two pieces."""
        assert len(like.error) <= len(like.mark)
        self._batches, self._depth = batches, depth
        self._tail = b""
        self.awaited = 0

    def send(self) -> None:
        """Send the next batch."""
        batch = next(self._batches)
        if self.sock.send(batch) != len(batch):
            raise WrongAnswer("the socket does not take one batch whole")
        self.awaited = self._depth

    def receive(self) -> int:
        """How many answers have come."""
        chunk = self.sock.recv(RECEIVE_BYTES)
        if not chunk:
            raise WrongAnswer("the server hung up")
        chunk = self._tail + chunk
        if self._error in chunk:
            raise WrongAnswer(repr(chunk[:300]))
        came = chunk.count(self._mark)
        self._tail = chunk[-self._keep :]
        self.awaited -= came
        return came


class Connecting(Protocol):
    """What the driver needs of a connection."""

    sock: socket.socket
    awaited: int

    def send(self) -> None: ...
    def receive(self) -> int: ...


class Drive:
    """All connections of one measurement."""

    def __init__(self, connections: Iterable[Connecting]) -> None:
        self._epoll = select.epoll()
        self._connections = {connection.sock.fileno(): connection for connection in connections}
        for connection in self._connections.values():
            self._epoll.register(connection.sock, select.EPOLLIN)

    def run(self, seconds: float) -> int:
        """Keep the server busy for so long; how many answers came."""
        answers = 0
        for connection in self._connections.values():
            if not connection.awaited:
                connection.send()
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            answers += self._step(again=True)
        return answers

    def run_once(self) -> None:
        """One batch a connection, and all its answers."""
        for connection in self._connections.values():
            connection.send()
        self.finish()

    def finish(self) -> None:
        """Take the answers that are still due."""
        while any(connection.awaited for connection in self._connections.values()):
            self._step(again=False)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.sock.close()
        self._epoll.close()

    def _step(self, *, again: bool) -> int:
        answers = 0
        ready = self._epoll.poll(PATIENCE_S)
        if not ready:
            raise WrongAnswer(f"no answer within {PATIENCE_S:g} s")
        for number, _ in ready:
            connection = self._connections[number]
            answers += connection.receive()
            if again and not connection.awaited:
                connection.send()
        return answers


@contextmanager
def driving(path: Path, requests: Sequence[Request], clients: int = 1, depth: int = 1) -> Iterator[Drive]:
    """The sequence of requests begins anew when it ends."""
    batches = [joined(requests[start : start + depth]) for start in range(0, len(requests), depth)]
    rings = [islice(cycle(batches), number * len(batches) // clients, None) for number in range(clients)]
    drive = Drive(Connection(path, requests[0], ring, depth) for ring in rings)
    try:
        yield drive
        drive.finish()
    finally:
        drive.close()
