"""What waits to be written to one peer: bounded, control before bulk.

Nobody ever waits for room here. Bulk that does not fit is shed (the peer sees a gap and pulls it later); a peer
that does not even take control messages is cut off. Whole frames are never split between writes of different
classes, so control overtakes bulk between frames.
"""

from __future__ import annotations

from collections import deque

from ..limits import LINK_CONTROL_BYTES_MAX, LINK_QUEUE_BYTES_MAX, SEND_BYTES_MAX


class Outbox:
    """One a link."""

    def __init__(self) -> None:
        self._control: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._control_bytes = self._bulk_bytes = 0
        self.shed = 0
        """Bulk frames that did not fit."""

    def __bool__(self) -> bool:
        return bool(self._control or self._bulk)

    def put(self, frame: bytes, *, bulk: bool) -> bool:
        """Queue a frame. False: the peer takes nothing at all and must go."""
        if bulk:
            if self._bulk_bytes + len(frame) > LINK_QUEUE_BYTES_MAX:
                self.shed += 1
                return True
            self._bulk.append(frame)
            self._bulk_bytes += len(frame)
            return True
        self._control.append(frame)
        self._control_bytes += len(frame)
        return self._control_bytes <= LINK_CONTROL_BYTES_MAX

    def close(self, last: bytes) -> None:
        """Forget what waits; `last` is all that is left to say."""
        self._bulk.clear()
        self._control.clear()
        self._control.append(last)

    def take(self) -> bytes:
        """What to write now, in one go."""
        frames: list[bytes] = []
        size = 0
        while self._control and size < SEND_BYTES_MAX:
            frames.append(self._control.popleft())
            self._control_bytes -= len(frames[-1])
            size += len(frames[-1])
        while self._bulk and size < SEND_BYTES_MAX:
            frames.append(self._bulk.popleft())
            self._bulk_bytes -= len(frames[-1])
            size += len(frames[-1])
        return b"".join(frames)
