"""One connection to a daemon: MessagePack-RPC on a Unix socket, requests pipelined when there are many.

What is sent and what is read never wait for each other, so neither end can be stuck on the other's full buffer. After
a time-out the connection is closed: whether the request was carried out is not known, and a caller that goes on
should know that it has to begin anew.
"""

from __future__ import annotations

import select
import socket as sockets
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .errors import NoDaemon, PeernodeError, TimedOut
from .rpc import Calls, Notice

RECEIVE_BYTES = 64 * 1024
REQUESTS_MAX = 512
"""Under way at a time: as many as a daemon commits in one go."""
UNSENT_BYTES_MAX = 1 << 20
"""Requests that the daemon has not taken yet; then the next one waits."""


class Wire:
    """One connection. Not for use by several threads at once. Every call may raise PeernodeError."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self.path, self.timeout_s = path, timeout_s
        self._calls = Calls()
        self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def reconnect(self) -> None:
        """Begin anew, on a new connection: what was under way has no answer. Raises NoDaemon."""
        self.close()
        self._connect()

    # Calls

    def call(self, method: str, /, **params: Any) -> Any:
        """One request, one answer. Parameters that are None are left out."""
        answer = self.answer_to(self.ask(method, **params))
        if isinstance(answer, PeernodeError):
            raise answer
        return answer

    def call_many(self, requests: Iterable[tuple[str, dict[str, Any]]]) -> list[Any]:
        """Many requests, pipelined; the answers in their order, an error as a PeernodeError among them."""
        return list(self.stream(requests))

    def stream(self, requests: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Any]:
        """The same one by one. A request is taken when there is room: no more than a bounded part is ever held."""
        source = iter(requests)
        under_way: deque[int] = deque()
        try:
            while True:
                while self.has_room(len(under_way)) and (request := next(source, None)) is not None:
                    under_way.append(self._queue(*request))
                if not under_way:
                    return
                yield self.answer_to(under_way[0])
                under_way.popleft()
        finally:
            self.forget(under_way)

    # Pipelining by hand

    def ask(self, method: str, /, **params: Any) -> int:
        """Send a request without waiting; its number is for `answer_to`."""
        number = self._queue(method, params)
        self._send()
        return number

    def answer_to(self, number: int) -> Any:
        """Wait for the answer to a request; an error is returned as a PeernodeError."""
        try:
            self._wait_for(number)
        except BaseException:
            self.close()
            raise
        return self._calls.take(number)

    def forget(self, numbers: Iterable[int]) -> None:
        """Nobody waits for the answers to these any more."""
        self._calls.forget(numbers)

    def has_room(self, under_way: int) -> bool:
        """Whether to send one more request beside so many of the same kind; the first always."""
        return not under_way or (under_way < REQUESTS_MAX and len(self._calls.unsent) < UNSENT_BYTES_MAX)

    # Bytes

    def _connect(self) -> None:
        self._sock = sockets.socket(sockets.AF_UNIX)
        self._sock.settimeout(self.timeout_s)
        try:
            self._sock.connect(str(self.path))
        except OSError as error:
            self._sock.close()
            hint = "start one with: peernode run"
            raise NoDaemon(
                f"no daemon answers at {self.path} ({error.strerror or error})", hint=hint
            ) from None
        self._sock.setblocking(False)
        self._calls = Calls(after=self._calls.last_number)

    def _queue(self, method: str, params: dict[str, Any]) -> int:
        """Send it with whatever is sent next: many in one go cost the daemon one waking."""
        if self._sock.fileno() < 0:
            raise NoDaemon(f"this connection to {self.path} is closed", hint="connect again")
        return self._calls.queue(method, params)

    def _wait_for(self, number: int) -> None:
        until_s = time.monotonic() + self.timeout_s
        if number not in self._calls.answers:
            self._send()
        while number not in self._calls.answers:
            poller = select.poll()
            poller.register(self._sock, select.POLLIN | (select.POLLOUT if self._calls.unsent else 0))
            ready = poller.poll(max(0.0, until_s - time.monotonic()) * 1000)
            if not ready:
                message = f"no answer from {self.path} within {self.timeout_s:g} s"
                raise TimedOut(message, hint="the request may still be carried out", retryable=True)
            if ready[0][1] & select.POLLOUT:
                self._send()
            if ready[0][1] & ~select.POLLOUT:
                with suppress(BlockingIOError):
                    self._read()

    def _send(self) -> None:
        """As much as the kernel takes now."""
        try:
            while self._calls.unsent:
                del self._calls.unsent[: self._sock.send(self._calls.unsent)]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._calls.unsent.clear()  # reading will tell that it hung up, and perhaps why

    def _read(self) -> None:
        try:
            chunk = self._sock.recv(RECEIVE_BYTES)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise NoDaemon(f"the daemon at {self.path} hung up", hint="is it still running?")
        for notice in self._calls.feed(chunk):
            self._notified(notice)

    def _notified(self, notice: Notice) -> None:
        """Nobody listens on a connection that is for calls."""
