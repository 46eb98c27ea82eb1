"""MessagePack-RPC as a client speaks it, without a socket: requests become bytes, bytes become answers.

An answer that nobody waits for any more is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgpack

from .errors import from_answer

ANSWER_BYTES_MAX = 16 << 20
REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2


class Notice(NamedTuple):
    """Something that the daemon told unasked."""

    method: str
    params: dict[str, Any]


class Calls:
    """Of one connection: what is still to be sent, and what came. `after`: the last number of an earlier one."""

    def __init__(self, after: int = 0) -> None:
        self.unsent = bytearray()
        self.answers: dict[int, Any] = {}
        self._awaited: set[int] = set()
        self.last_number = after
        self._unpacker = msgpack.Unpacker(raw=False, max_buffer_size=ANSWER_BYTES_MAX, max_ext_len=0)

    def queue(self, method: str, params: dict[str, Any]) -> int:
        """A request, to be sent with what is sent next; its number is the answer's. Nothing is said of a None."""
        self.last_number += 1
        given = {name: value for name, value in params.items() if value is not None}
        self.unsent += msgpack.packb((REQUEST, self.last_number, method, [given]))
        self._awaited.add(self.last_number)
        return self.last_number

    def take(self, number: int) -> Any:
        """An answer that has come; an error is a PeernodeError."""
        self._awaited.discard(number)
        return self.answers.pop(number)

    def forget(self, numbers: Iterable[int]) -> None:
        """Nobody waits for the answers to these any more."""
        for number in numbers:
            self._awaited.discard(number)
            self.answers.pop(number, None)

    def feed(self, chunk: bytes) -> list[Notice]:
        """Take up what came. Raises PeernodeError when the daemon has complained about the connection."""
        notices: list[Notice] = []
        self._unpacker.feed(chunk)
        for message in self._unpacker:
            match message:
                case [1, 0, dict(error), _]:
                    raise from_answer(error)
                case [1, int(number), error, result]:
                    if number in self._awaited:
                        self.answers[number] = from_answer(error) if isinstance(error, dict) else result
                case [2, str(method), [dict(params)]]:
                    notices.append(Notice(method, params))
        return notices
