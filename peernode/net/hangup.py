"""How a connection is ended so that the peer still learns why.

Closing a socket with unread input makes the kernel reset the connection, and a reset throws away what the peer
has not read yet. So: last words, end of output, then read on for a moment until the peer hangs up too.
"""

from __future__ import annotations

import trio

from ..limits import CLOSE_S, RECEIVE_BYTES_MAX
from .tls import Stream


async def hang_up(stream: Stream, last: bytes) -> None:
    """Within CLOSE_S, whether the peer listens or not; also when the caller is being cancelled."""
    with trio.move_on_after(CLOSE_S, shield=True):
        try:
            if last:
                await stream.send_all(last)
                await _end(stream.transport_stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # it is gone already
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


async def turn_away(transport: trio.SocketStream, last: bytes) -> None:
    """The same for a connection without TLS, which the caller closes."""
    with trio.move_on_after(CLOSE_S):
        try:
            await transport.send_all(last)
            await _end(transport)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is gone already


async def _end(transport: trio.SocketStream) -> None:
    await transport.send_eof()
    while await transport.receive_some(RECEIVE_BYTES_MAX):
        pass
