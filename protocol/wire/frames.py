"""Frames: `u32 length | u8 kind | bytes`, the outermost layer of the wire.

`length` is big-endian and counts the bytes after the kind. A length beyond `FRAME_BYTES_MAX` is refused when
its header is seen, before anything is buffered for it.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from ..errors import Fault, RemoteFault
from ..limits import FRAME_BYTES_MAX

HEADER = Struct(">IB")


class Kind(IntEnum):
    """What a frame holds. The formats of HELLO and CLOSE are the same in all versions; JOIN is for joiners."""

    HELLO = 0
    ENVELOPE = 1
    CLOSE = 2
    JOIN = 3


def frame(kind: Kind, payload: bytes) -> bytes:
    """One frame, ready to be written."""
    assert len(payload) <= FRAME_BYTES_MAX, len(payload)
    return HEADER.pack(len(payload), kind) + payload


class Framer:
    """Cuts a stream of bytes into frames, however the bytes were split on their way."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[tuple[Kind, bytes]]:
        """The frames that are complete now. Raises RemoteFault TOO_LARGE or MALFORMED."""
        self._buffer += chunk
        frames = []
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            length, kind = HEADER.unpack_from(self._buffer, start)
            if length > FRAME_BYTES_MAX:
                raise RemoteFault(
                    Fault.TOO_LARGE, f"a frame of {length} bytes; the limit is {FRAME_BYTES_MAX}"
                )
            if kind > Kind.JOIN:
                raise RemoteFault(Fault.MALFORMED, f"a frame of unknown kind {kind}")
            end = start + HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((Kind(kind), bytes(self._buffer[start + HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames
