"""What can happen to a node: the closed union `Event`, and how its answers to local requests look.

`ref` is whatever the runtime wants to find again in the `Reply`; the node never looks into it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .effects import DialOutcome, Entry
from .errors import Fault, Refused
from .identity.tickets import JoinRequest
from .keyspaces import Definition
from .types import CommitNumber, LinkId, NodeId
from .wire.hello import Established

ACKS_WAIT_MS = 4000
"""A little less than a client waits."""

INQUIRY_WAIT_MS = 1000
"""Whoever has not said by then what it knows is busy or gone."""


class Start(msgspec.Struct, frozen=True):
    """The listener is open: begin to dial. `seeds` are addresses, host:port."""

    seeds: tuple[str, ...] = ()


class Tick(msgspec.Struct, frozen=True, gc=False):
    """The deadline has come."""


class LinkUp(msgspec.Struct, frozen=True):
    """A handshake was completed. `dialled`: the address that we dialled; None: the peer dialled us."""

    link: LinkId
    established: Established
    dialled: str | None
    seed: bool = False  # the dial was to an address, not to a known member


class LinkDown(msgspec.Struct, frozen=True):
    """A link ended that we did not cut. `fault`: what the peer gave as the reason, if it did."""

    link: LinkId
    why: str
    fault: Fault | None = None


class Probed(msgspec.Struct, frozen=True):
    """A probe was answered."""

    address: str
    node: NodeId
    run: int


class DialFailed(msgspec.Struct, frozen=True):
    address: str
    node: NodeId | None
    outcome: DialOutcome
    detail: str
    probe: bool = False


class Received(msgspec.Struct, frozen=True):
    """Envelopes from one link, in order, as they came."""

    link: LinkId
    envelopes: tuple[bytes, ...]


class Durable(msgspec.Struct, frozen=True, gc=False):
    """Every `Stage` up to this number is stored for good."""

    number: CommitNumber


class PersistFailed(msgspec.Struct, frozen=True):
    """No `Stage` that is not yet durable was stored, nor will be."""

    why: str


class Put(msgspec.Struct, frozen=True):
    """Answered by `Written` or `Refused`. `if_version` and `if_absent` are judged by this node alone.

    `acks`: how many other members must hold it durably before it is answered, within `acks_wait_ms`.
    `request_id`: a repetition with the same one is answered like the first and not carried out again.
    """

    ref: object
    keyspace: str
    key: bytes
    value: bytes
    ttl_ms: int | None = None
    if_version: str | None = None
    if_absent: bool = False
    acks: int = 0
    acks_wait_ms: int = ACKS_WAIT_MS
    request_id: bytes | None = None
    in_memory: bool = False
    """Answered before it is durable: a power cut may lose it."""


class PutMany(msgspec.Struct, frozen=True):
    """All of (key, value, ttl_ms) in one commit, or none. Answered by `Written` or `Refused`."""

    ref: object
    keyspace: str
    items: tuple[tuple[bytes, bytes, int | None], ...]
    acks: int = 0
    acks_wait_ms: int = ACKS_WAIT_MS
    request_id: bytes | None = None


class Delete(msgspec.Struct, frozen=True):
    """Answered by `Written`, `Nothing` or `Refused`."""

    ref: object
    keyspace: str
    key: bytes
    if_version: str | None = None
    acks: int = 0
    acks_wait_ms: int = ACKS_WAIT_MS
    request_id: bytes | None = None


class Expect(msgspec.Struct, frozen=True):
    """What a transaction wants to find under a key of a coordinated keyspace."""

    keyspace: str
    key: bytes
    kind: Literal["version", "value", "absent", "present"]
    version: str = ""
    value: bytes = b""


class Assign(msgspec.Struct, frozen=True):
    """What it leaves there; None deletes."""

    keyspace: str
    key: bytes
    value: bytes | None


class Transact(msgspec.Struct, frozen=True):
    """All of it or nothing, in coordinated keyspaces. Answered by `Committed`, `Conflicted`, `Undecided` (see
    commit/task.py) or `Refused`. `refusal`: why it cannot be, if that is known already.
    """

    ref: object
    checks: tuple[Expect, ...]
    writes: tuple[Assign, ...]
    timeout_ms: int = ACKS_WAIT_MS
    request_id: bytes | None = None
    refusal: Refused | None = None


class QuorumRead(msgspec.Struct, frozen=True):
    """What these (keyspace, key) hold at one moment, as voters have it. Answered by a map of `Found` or `Refused`."""

    ref: object
    slots: tuple[tuple[str, bytes], ...]
    timeout_ms: int = ACKS_WAIT_MS


class Inquire(msgspec.Struct, frozen=True):
    """What linked members know of a transaction; None: of all that are in doubt. Answered by `State`s by node."""

    ref: object
    txid: str | None
    timeout_ms: int = INQUIRY_WAIT_MS


class CreateKeyspace(msgspec.Struct, frozen=True):
    """Answered by `Created` or `Refused`. `voters`: names or ids of members; none: they are picked."""

    ref: object
    name: str
    policy: str
    voters: tuple[str, ...] = ()


class SetVoters(msgspec.Struct, frozen=True):
    """Let others decide in a coordinated keyspace from now on: names or ids of members. Answered by `Elected` or
    `Refused`, or as `Transact` is. `force`: a majority of those who do is lost for good.
    """

    ref: object
    name: str
    voters: tuple[str, ...]
    force: bool = False
    timeout_ms: int = ACKS_WAIT_MS


class Elected(msgspec.Struct, frozen=True):
    """`is_new` is False when they were the voters before."""

    is_new: bool


class DropKeyspace(msgspec.Struct, frozen=True):
    """Answered by `Dropped` or `Refused`. What the keyspace holds stays, and comes back with its definition."""

    ref: object
    name: str
    id: int


class Barrier(msgspec.Struct, frozen=True):
    """Answered by `Settled` once everything staged by now is durable or has failed."""

    ref: object


class Invalidate(msgspec.Struct, frozen=True, gc=False):
    """Tell every other node that what it caches under this key (or keys of this glob) is stale."""

    subject: bytes
    is_glob: bool


class Join(msgspec.Struct, frozen=True):
    """More addresses to try."""

    seeds: tuple[str, ...]


class Leave(msgspec.Struct, frozen=True):
    """Hand over what peers lack (for `handover_s` at most), say goodbye, then `Farewell`."""

    handover_s: float
    goodbye_s: float


class CreateTicket(msgspec.Struct, frozen=True):
    """Answered by (Ticket, expires_ms) or `Refused`. `addresses`: where this node answers, beside its own."""

    ref: object
    ticket_id: bytes
    secret: bytes
    ttl_ms: int
    uses: int
    addresses: tuple[str, ...] = ()


class RevokeTicket(msgspec.Struct, frozen=True):
    """Answered by the id or `Refused`."""

    ref: object
    ticket_id: bytes


class Redeem(msgspec.Struct, frozen=True):
    """A joiner's request, over our nonce. Answered by `JoinGranted` or `Refused`."""

    ref: object
    request: JoinRequest
    nonce: bytes


class Written(msgspec.Struct, frozen=True):
    """The write is durable here, and as far as it was asked for. One entry for each key, in their order."""

    entries: tuple[Entry, ...]

    @property
    def entry(self) -> Entry:
        return self.entries[0]


class Created(msgspec.Struct, frozen=True):
    """The definition is durable here. `is_new`: it was not before."""

    definition: Definition
    is_new: bool


class Dropped(msgspec.Struct, frozen=True):
    """The definition is no more, durably here."""

    definition: Definition


class Nothing(msgspec.Struct, frozen=True):
    """There was nothing to delete."""


class Settled(msgspec.Struct, frozen=True):
    """The barrier is passed."""


Event = (
    Start
    | Tick
    | LinkUp
    | LinkDown
    | Probed
    | DialFailed
    | Received
    | Durable
    | PersistFailed
    | Put
    | PutMany
    | Delete
    | Transact
    | QuorumRead
    | Inquire
    | CreateKeyspace
    | SetVoters
    | DropKeyspace
    | Barrier
    | Invalidate
    | Join
    | Leave
    | CreateTicket
    | RevokeTicket
    | Redeem
)
