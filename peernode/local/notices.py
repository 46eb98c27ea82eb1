"""What a client hears without asking again: subscriptions, and the way out that those of one connection share.

A client that does not read makes nobody wait. What does not fit is not kept but counted, and once the client reads
again it hears `lagged` with the number of what it lost, in the place where that is missing.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import Refused

from ..limits import CLIENT_SUBSCRIPTIONS_MAX

Send = Callable[[str, dict[str, object]], bool]
"""Sends a notification (method, params); False when there is no room for it."""


class Subscription:
    """One stream of notifications. `on_close` is called when the client is gone."""

    def __init__(self, number: int, send: Send) -> None:
        self.number = number
        self.on_close: Callable[[], object] = lambda: None
        self._send = send
        self._lost = 0

    def tell(self, method: str, **params: object) -> None:
        """Send it, or count it as lost."""
        if not (self.tell_lost() and self._send(method, {"subscription": self.number, **params})):
            self._lost += 1

    def tell_lost(self) -> bool:
        """Whether the client now knows of everything that it lost."""
        if self._lost and self._send("lagged", {"subscription": self.number, "lost": self._lost}):
            self._lost = 0
        return not self._lost


class Outlet:
    """All subscriptions of one connection."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._open: list[Subscription] = []

    def subscribe(self) -> Subscription | Refused:
        """A new subscription, numbered within the connection, unless there are too many."""
        if len(self._open) >= CLIENT_SUBSCRIPTIONS_MAX:
            text = f"{CLIENT_SUBSCRIPTIONS_MAX} subscriptions are open on this connection"
            return Refused("overloaded", text)
        self._open.append(Subscription(len(self._open) + 1, self._send))
        return self._open[-1]

    def drained(self) -> None:
        """The client has read everything: tell it what it lost."""
        for subscription in self._open:
            subscription.tell_lost()

    def close(self) -> None:
        """The client is gone."""
        for subscription in self._open:
            subscription.on_close()
        self._open.clear()
