"""The message registry: which types exist, since which version, and how each is treated.

Every sub-protocol owns the rows of its messages; `protocol.node` joins them into one `Registry`. Adding a
message is a row and a handler in one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from ..errors import Fault, RemoteFault
from ..types import Payload


class Stream(Enum):
    """Within what the `seq` of an envelope counts."""

    LINK = "link"  # only rises within one class (bulk or not) on one link; the origin is the peer itself
    GOSSIP = "gossip"  # contiguous for each (origin, run); may be relayed
    RECORD = "record"  # the incarnation: a later one replaces an earlier one; may be relayed


class Route(msgspec.Struct, frozen=True):
    """One type of message."""

    number: int
    payload: type[Payload]
    stream: Stream
    since: int = 1
    bulk: bool = False
    """May be shed when a link is full."""


class Registry:
    """All routes of one build."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = {route.number: route for route in routes}
        self._by_payload = {route.payload: route for route in self.routes.values()}
        self._decoders: dict[int, msgspec.msgpack.Decoder[Payload]] = {
            route.number: msgspec.msgpack.Decoder(route.payload) for route in self.routes.values()
        }
        assert len(self._by_payload) == len(self.routes)

    def route_of(self, payload: Payload) -> Route:
        return self._by_payload[type(payload)]

    def find(self, message_type: int, version: int) -> Route:
        """The route of a type in an agreed version. Raises RemoteFault UNKNOWN_TYPE."""
        route = self.routes.get(message_type)
        if route is None or route.since > version:
            raise RemoteFault(Fault.UNKNOWN_TYPE, f"message type {message_type} is not in version {version}")
        return route

    def decode(self, route: Route, raw: msgspec.Raw) -> Payload:
        """The typed payload, bounds checked. Raises RemoteFault MALFORMED."""
        try:
            return self._decoders[route.number].decode(raw)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as why:
            raise RemoteFault(Fault.MALFORMED, f"{route.payload.__name__}: {why}") from None
