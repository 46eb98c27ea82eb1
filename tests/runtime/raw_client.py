"""A client of the local socket that may say anything: bytes out, MessagePack messages in."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgpack

ANSWER_BYTES_MAX = 16 << 20


class RawClient:
    """One blocking connection, with a deadline on every read and write."""

    def __init__(self, path: Path, timeout_s: float = 10.0) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout_s)
        self.sock.connect(str(path))
        self._unpacker = msgpack.Unpacker(raw=False, max_buffer_size=ANSWER_BYTES_MAX)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, raw: bytes) -> None:
        """What the daemon takes of it: one that hangs up meanwhile may still have said why."""
        try:
            self.sock.sendall(raw)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def ask(self, method: str, params: object = None, number: int = 1) -> list[Any]:
        """One request, and its whole answer: [1, number, error, result]."""
        self.send(request(method, params, number))
        answer = self.receive()
        assert answer is not None, "the daemon hung up"
        return answer

    def receive(self) -> list[Any] | None:
        """The next message; None when the daemon has hung up."""
        while True:
            for message in self._unpacker:
                return list(message)
            try:
                chunk = self.sock.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            self._unpacker.feed(chunk)

    def receive_all(self) -> list[list[Any]]:
        """Everything until the daemon hangs up."""
        messages = []
        while (message := self.receive()) is not None:
            messages.append(message)
        return messages


def request(method: str, params: object = None, number: int = 1) -> bytes:
    """One request as bytes. `params`: a map, or a list by position."""
    given = params if isinstance(params, list) else [params or {}]
    packed: bytes = msgpack.packb([0, number, method, given])
    return packed
