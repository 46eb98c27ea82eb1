"""The Python client library: `connect_sync()` talks to a daemon on this machine.

    with peernode.connect_sync() as node:
        node.put("greeting", b"hello", ttl=30)
        node.get("greeting").value

It needs nothing but a socket and msgpack, so that a command line built on it starts fast.
"""

from .bulk import NewItem
from .errors import Conflict, NoDaemon, NotAllowed, NotFound, PeernodeError, TimedOut, UnknownOutcome
from .finding import find_socket
from .lock import Lease
from .rpc import Notice
from .sync import Cached, Client, Item, Notices, connect_sync
from .transaction import Transaction

__all__ = [
    "Cached",
    "Client",
    "Conflict",
    "Item",
    "Lease",
    "NewItem",
    "NoDaemon",
    "NotAllowed",
    "NotFound",
    "Notice",
    "Notices",
    "PeernodeError",
    "TimedOut",
    "Transaction",
    "UnknownOutcome",
    "connect_sync",
    "find_socket",
]
