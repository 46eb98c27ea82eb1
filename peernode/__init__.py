"""peernode: a handful of machines as one cluster, with no leader and no server to run.

Importing this package is cheap on purpose: the daemon's libraries load only when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client as Client
    from .client import connect_sync as connect_sync

__all__ = ["Client", "connect_sync"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
