"""The Python client library: `connect_sync()` talks to a daemon on this machine.

    with peernode.connect_sync() as node:
        node.put("greeting", b"hello", ttl=30)
        node.get("greeting").value

It needs nothing but a socket and msgpack, so that a command line built on it starts fast.
"""

from .errors import Conflict, NoDaemon, NotAllowed, NotFound, PeernodeError, TimedOut
from .finding import find_socket
from .sync import Cached, Client, Item, Notice, Notices, connect_sync

__all__ = [
    "Cached",
    "Client",
    "Conflict",
    "Item",
    "NoDaemon",
    "NotAllowed",
    "NotFound",
    "Notice",
    "Notices",
    "PeernodeError",
    "TimedOut",
    "connect_sync",
    "find_socket",
]
