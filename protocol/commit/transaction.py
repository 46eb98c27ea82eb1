"""What a transaction is, and the few rules about it that everybody applies alike.

A *shard* is one coordinated keyspace in one epoch: its voters are fixed. A transaction has operations in one or more
shards, all under one *stamp*: the version that each key it writes will have. A stamp is drawn from the coordinator's
clock; voters refuse one that is not above what they hold, so the stamps of a key rise in the order of its commits,
and the newest version of an ordinary replicated entry is the newest commit, too.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from ..keyspaces import SYSTEM_KEYSPACE
from ..limits import REQUEST_ID_BYTES_MAX, REQUEST_ID_BYTES_MIN, TXN_OPS_MAX, TXN_SHARDS_MAX
from ..types import NodeId, Payload, node_of, node_text
from ..wire.fields import Counter, Id32, KeyBytes, Stamp, ValueBytes

Shard = tuple[Counter, Counter]
"""(keyspace, epoch)."""

Request = Annotated[bytes, msgspec.Meta(min_length=REQUEST_ID_BYTES_MIN, max_length=REQUEST_ID_BYTES_MAX)]

Slot = tuple[int, bytes]
"""(keyspace, key)."""


TXN_RECORD = "txn"
"""The kind of a voter's stored records."""


class TxnId(NamedTuple):
    """Names one attempt to commit, for ever: the counter belongs to one run of one coordinator."""

    node: Id32
    run: Counter
    counter: Counter

    def __str__(self) -> str:
        return f"{node_text(self.node)}.{self.run:x}.{self.counter:x}"

    @classmethod
    def parse(cls, text: str) -> TxnId | None:
        """None: that is no such name."""
        try:
            node, run, counter = text.split(".")
            return cls(node_of(node), int(run, 16), int(counter, 16))
        except ValueError:
            return None


class Op(Payload, frozen=True, gc=False):
    """A check of one key, a write to it, or both.

    `base`: the newest version that may be there, as its stamp; 0: none; None: whatever is there. `value` None: it
    deletes.
    """

    key: KeyBytes
    base: Stamp | None
    writes: bool
    value: ValueBytes | None = None


Ops = Annotated[list[Op], msgspec.Meta(max_length=TXN_OPS_MAX)]


class Header(Payload, frozen=True):
    """What travels with every step of a transaction, so that whoever hears of it can help to finish it.

    `request`: the client's own name for what it wants, the same over all its retries. `succession`: it makes other
    voters the successors of those of its only shard; what it writes stands in the hidden keyspace.
    """

    txid: TxnId
    stamp: Stamp
    request: Request | None
    shards: Annotated[list[Shard], msgspec.Meta(min_length=1, max_length=TXN_SHARDS_MAX)]
    succession: bool = False

    def slot(self, index: int, op: Op) -> Slot:
        """What an operation of one of the shards is about."""
        return SYSTEM_KEYSPACE if self.succession else self.shards[index][0], op.key


class Instance(Payload, frozen=True):
    """What one voter has promised about one shard of one transaction.

    The question that is put to the vote is whether the shard is prepared. `vote` is the voter's own answer, given at
    ballot 0 at most once (None: not given); `accepted` is (ballot, is prepared) of the highest later ballot.
    """

    vote: bool | None = None
    promised: Counter = 0
    accepted: tuple[Counter, bool] | None = None


class Record(Payload, frozen=True):
    """All that a voter stores of a transaction. `ops` is empty where it did not vote YES.

    `outcome`: whether it committed; None: in doubt. `instances` and `ops` stand in the order of the shards.
    """

    header: Header
    ops: list[list[Op]]
    instances: list[Instance]
    outcome: bool | None = None

    @property
    def is_prepared(self) -> bool:
        """Whether it holds locks: this voter said YES and does not know the outcome."""
        return self.outcome is None and any(instance.vote for instance in self.instances)

    @property
    def has_voted(self) -> bool:
        return any(instance.vote is not None for instance in self.instances)

    @property
    def locked(self) -> list[tuple[Slot, Op]]:
        """What this voter locks while it is in doubt: the operations of the shards where it said YES."""
        return [
            (self.header.slot(index, op), op)
            for index, (instance, ops) in enumerate(zip(self.instances, self.ops, strict=False))
            if instance.vote
            for op in ops
        ]


def majority(voters: int) -> int:
    """How many are a strict majority."""
    return voters // 2 + 1


def slots_of(header: Header, ops: list[list[Op]]) -> list[tuple[Slot, Op]]:
    """All operations, each with what it is about; none where no operations are known."""
    return [(header.slot(index, op), op) for index, some in enumerate(ops) for op in some]


def coordinator_of(header: Header) -> NodeId:
    return NodeId(header.txid.node)
