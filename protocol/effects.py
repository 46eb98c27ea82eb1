"""What a node wants done: the closed union `Effect`, and the rows it wants stored.

Order is a duty: the runtime performs effects in the order in which they stand, and may drop or delay
none but `Send`. Rows of one `Stage` are stored together or not at all.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .errors import Fault
from .types import CommitNumber, LinkId, NodeId


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One version of one key: the unit that is stored, sent and compared.

    `(node, lineage, seq)` is the dot: it names this entry for ever. An instance without references to
    containers is invisible to the garbage collector (100,000 cached entries cost no pause).
    """

    keyspace: int
    key: bytes
    hlc: int
    node: NodeId
    lineage: int
    seq: int
    value: bytes | None  # None: a delete
    expires_ms: int = 0  # absolute, 0: never

    @property
    def version(self) -> tuple[int, bytes, int, int]:
        """A total order over all entries of a cluster: the larger wins."""
        return (self.hlc, self.node, self.lineage, self.seq)

    def live_at(self, time_ms: int) -> bool:
        return self.value is not None and (self.expires_ms == 0 or self.expires_ms > time_ms)


class HeadRow(msgspec.Struct, frozen=True, gc=False):
    """All that `(node, lineage)` wrote up to `head` is covered by what this store holds."""

    node: NodeId
    lineage: int
    head: int


class MarkRow(msgspec.Struct, frozen=True, gc=False):
    """A single named value of this node, such as its clock's high-water mark."""

    name: str
    value: bytes


class RecordRow(msgspec.Struct, frozen=True, gc=False):
    """A small record of one kind (`member`, `ticket`); None deletes it."""

    kind: str
    key: bytes
    value: bytes | None


StoreRow = Entry | HeadRow | MarkRow | RecordRow


class Stage(msgspec.Struct, frozen=True):
    """Store `rows` durably, in one transaction; then answer `Durable(number)` or `PersistFailed(number)`.

    Groups are committed in the order of their numbers. When one fails, every later one that is already
    staged fails with it: they were decided on top of rows that do not exist.
    """

    number: CommitNumber
    rows: tuple[StoreRow, ...]


class Send(msgspec.Struct, frozen=True):
    """Queue one frame on some links. Bulk may be shed when a link is full: sync brings it later."""

    links: tuple[LinkId, ...]
    frame: bytes
    bulk: bool = False


class Dial(msgspec.Struct, frozen=True):
    """Connect to `address`; answer `LinkUp`, `Probed` or `DialFailed`. `node` None: whoever is there.

    A connection that is not made within `patience_s` is UNREACHABLE. A probe only proves that the node
    answers there (within `patience_s` again), then hangs up.
    """

    address: str
    node: NodeId | None
    patience_s: float
    probe: bool = False


class DialOutcome(StrEnum):
    """Why a dial led to no link."""

    REFUSED = "refused"  # nothing listens there
    UNREACHABLE = "unreachable"  # no answer at all, or no way there
    STALLED = "stalled"  # connected, and then nothing, or a reset
    STRANGER = "stranger"  # another member is there
    FAULT = "fault"  # somebody is there, but it does not let us in
    SELF = "self"  # it is our own address


class Disconnect(msgspec.Struct, frozen=True):
    """Tell the peer why, then close the link. No `LinkDown` follows for it."""

    link: LinkId
    fault: Fault
    detail: str


class Reply(msgspec.Struct, frozen=True):
    """The answer to the local request that came with `ref`."""

    ref: object
    outcome: object


class MemberChanged(msgspec.Struct, frozen=True):
    """A member is new, or its state is another than before."""

    node: NodeId
    name: str
    state: str
    why: str


class Synced(msgspec.Struct, frozen=True):
    """A sync session with this peer is complete: all it held at the cut is held here."""

    node: NodeId
    rows: int


class Invalidated(msgspec.Struct, frozen=True, gc=False):
    """Another node says that what is cached under this key (or keys of this glob) is stale."""

    node: NodeId
    subject: bytes
    is_glob: bool


class Said(msgspec.Struct, frozen=True):
    """Something for the log: a stable event name and fields."""

    event: str
    fields: tuple[tuple[str, str], ...]


class Farewell(msgspec.Struct, frozen=True):
    """The goodbye is said and acknowledged (or the time for it is over): the process may end."""


Effect = Send | Dial | Disconnect | Stage | Reply | MemberChanged | Synced | Invalidated | Said | Farewell
