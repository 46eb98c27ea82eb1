"""One call of `Node.handle`, while it is being decided."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .effects import Disconnect, Effect, Reply, Said, StartAgain, StoreRow, Synced
from .errors import Fault
from .types import CommitNumber, Instant, LinkId, Payload


class Say(msgspec.Struct, frozen=True):
    """A message that is not signed yet: the node makes a `Send` of it when it may leave."""

    links: tuple[LinkId, ...]
    payload: Payload
    seq: int | None = None


Held = Reply | Say | Synced | StartAgain
"""What must not be said before everything staged so far is durable."""


class Turn:
    """What has been decided so far: the sub-protocols write here, the node reads it out at the end.

    `number` is the commit that the rows of this turn will be staged under, if there are any.
    """

    def __init__(self, now: Instant, number: CommitNumber) -> None:
        self.now = now
        self.number = number
        self.effects: list[Effect | Say] = []
        self.rows: list[StoreRow] = []
        self.held: list[Held] = []
        self.cut_links: dict[LinkId, str] = {}

    def say(self, links: Iterable[LinkId], payload: Payload, seq: int | None = None) -> None:
        """Send one message, signed once, on some links. `seq`: for streams other than the link's own."""
        links = tuple(links)
        if links:
            self.effects.append(Say(links, payload, seq))

    def stage(self, row: StoreRow) -> None:
        self.rows.append(row)

    def do(self, effect: Effect) -> None:
        self.effects.append(effect)

    def cut(self, link: LinkId, fault: Fault, detail: str, parting: bytes = b"") -> None:
        """Hang up on a peer; the node forgets the link before the turn is over."""
        self.effects.append(Disconnect(link, fault, detail, parting))
        self.cut_links[link] = detail

    def log(self, event: str, **fields: str) -> None:
        self.effects.append(Said(event, tuple(fields.items())))

    def reply_after_commit(self, ref: object, outcome: object) -> None:
        self.held.append(Reply(ref, outcome))

    def say_after_commit(self, links: Iterable[LinkId], payload: Payload) -> None:
        self.held.append(Say(tuple(links), payload))

    def do_after_commit(self, effect: Synced | StartAgain) -> None:
        self.held.append(effect)
