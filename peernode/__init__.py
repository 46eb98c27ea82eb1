"""peernode: a handful of machines as one cluster, with no leader and no server to run.

Importing this package is cheap on purpose: the daemon's libraries load only when it runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client as Client
    from .client import Conflict as Conflict
    from .client import PeernodeError as PeernodeError
    from .client import UnknownOutcome as UnknownOutcome
    from .client import connect_sync as connect_sync
    from .concurrent import TrioClient as TrioClient
    from .concurrent import connect as connect

MODULES = {
    "Client": "client",
    "Conflict": "client",
    "PeernodeError": "client",
    "TrioClient": "concurrent",
    "UnknownOutcome": "client",
    "connect": "concurrent",
    "connect_sync": "client",
}
__all__ = list(MODULES)


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
