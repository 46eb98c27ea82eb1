"""What nodes say to each other about transactions: many steps, of many transactions, under one signature.

Steps that are made in one turn for one peer leave as one `Steps` message; peers that get the same steps share it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ..limits import (
    COMMIT_STATES_MAX,
    COMMIT_STEPS_MAX,
    ORIGINS_MAX,
    READ_KEYS_MAX,
    STATE_KEYS_MAX,
    SURVEY_COMMITS_MAX,
    SURVEY_VALUES_MAX,
    TXN_OPS_MAX,
    TXN_SHARDS_MAX,
)
from ..types import Payload
from ..wire.fields import Counter, Head, KeyBytes, Stamp, ValueBytes
from ..wire.registry import Route, Stream
from .transaction import Header, Instance, Ops, Request, Shard, TxnId

Index = Annotated[int, msgspec.Meta(ge=0, le=255)]
"""Which of the shards of a header."""


Heads = Annotated[list[Head], msgspec.Meta(max_length=ORIGINS_MAX)]
"""What is covered of each origin: see replica/coverage.py."""


class Prepare(Payload, frozen=True, tag=1):
    """Lock these, and say whether you can. `ops` stand in the order of the shards."""

    header: Header
    ops: list[Ops]


class Vote(Payload, frozen=True, tag=2):
    """A durable answer to PREPARE. `why` and `seen` tell why not: (place of the operation, newest stamp there)."""

    txid: TxnId
    shard: Index
    yes: bool
    why: Annotated[str, msgspec.Meta(max_length=16)] = ""
    seen: Annotated[tuple[tuple[Counter, Stamp], ...], msgspec.Meta(max_length=TXN_OPS_MAX)] = ()


class Waiting(Payload, frozen=True, tag=3):
    """No vote yet: another transaction holds a lock. Binds to nothing."""

    txid: TxnId
    shard: Index


class Abstain(Payload, frozen=True, tag=4):
    """No vote from here: this store is no voter of that shard, or not yet. Binds to nothing."""

    txid: TxnId
    shard: Index


class Accept(Payload, frozen=True, tag=5):
    """Take this as the shard's answer, unless you have promised a higher ballot."""

    header: Header
    shard: Index
    ballot: Counter
    prepared: bool


class Accepted(Payload, frozen=True, tag=6):
    txid: TxnId
    shard: Index
    ballot: Counter
    prepared: bool


class Ask(Payload, frozen=True, tag=7):
    """Promise to take part in no lower ballot, and tell what you have taken so far. Ballot 0: only tell."""

    header: Header
    shard: Index
    ballot: Counter


class Promise(Payload, frozen=True, tag=8):
    txid: TxnId
    shard: Index
    ballot: Counter
    vote: bool | None
    accepted: tuple[Counter, bool] | None


class Outrun(Payload, frozen=True, tag=9):
    """A higher ballot was promised."""

    txid: TxnId
    shard: Index
    promised: Counter


class Outcome(Payload, frozen=True, tag=10):
    """How it ended, for good."""

    header: Header
    committed: bool


class Known(Payload, frozen=True, tag=11):
    """The outcomes of these are durable here."""

    txids: Annotated[list[TxnId], msgspec.Meta(max_length=COMMIT_STEPS_MAX)]


class Forget(Payload, frozen=True, tag=12):
    """Every voter knows the outcomes of these: nobody will ask again."""

    txids: Annotated[list[TxnId], msgspec.Meta(max_length=COMMIT_STEPS_MAX)]


class Read(Payload, frozen=True, tag=13):
    """Which versions do you hold? Answered when no transaction in doubt writes to them.

    `request`: for which the reader wants to know, too, whether a transaction may have committed.
    """

    number: Counter
    shard: Shard
    keys: Annotated[list[KeyBytes], msgspec.Meta(max_length=READ_KEYS_MAX)]
    request: Request | None = None


class Values(Payload, frozen=True, tag=14):
    """(stamp, value) for each key in question, as far as they fit; 0: nothing was ever there; value None: deleted.

    `repeated`: a transaction for that request is in doubt here, or has committed (its outcome goes before).
    """

    number: Counter
    values: Annotated[list[tuple[Stamp, ValueBytes | None]], msgspec.Meta(max_length=READ_KEYS_MAX)]
    repeated: bool = False


class Inquire(Payload, frozen=True, tag=15):
    """What do you know of this transaction? None: of all that are in doubt."""

    number: Counter
    txid: TxnId | None


class State(Payload, frozen=True):
    """What a node knows of a transaction. `instances`: its own, empty where it only coordinates. `keys`: some of what
    it locks."""

    header: Header
    instances: Annotated[list[Instance], msgspec.Meta(max_length=TXN_SHARDS_MAX)]
    outcome: bool | None
    keys: Annotated[list[tuple[Counter, KeyBytes]], msgspec.Meta(max_length=STATE_KEYS_MAX)]


class Report(Payload, frozen=True, tag=16):
    """Everything that the sender knows and was asked for, the oldest first, as far as it fits."""

    number: Counter
    states: Annotated[list[State], msgspec.Meta(max_length=COMMIT_STATES_MAX)]


class Survey(Payload, frozen=True, tag=17):
    """The sender is to vote on `shard`, in the place of the recipient or together with it: what does it have to know?

    `after`: go on behind this transaction.
    """

    shard: Shard
    after: TxnId | None


class Surveyed(Payload, frozen=True, tag=18):
    """Nothing will be prepared here in the epoch before that of `shard` any more, and nothing is in doubt.

    `commits`: what has committed in the keyspace, by transaction id, and whether everybody who may ask knows; in that
    case it is told for its request alone, which must not be done again. `next`: the last of them, if there are more;
    else the rest is told, too. `heads`: what the sender covers; `values`: what else it holds of the keyspace, as
    (key, stamp, value). Who covers the one and takes over the other has all its values. `is_seated`: the sender votes
    on `shard` already, and has learned all that there is to learn.
    """

    shard: Shard
    commits: Annotated[list[tuple[Header, bool]], msgspec.Meta(max_length=SURVEY_COMMITS_MAX)]
    next: TxnId | None
    heads: Heads
    values: Annotated[
        list[tuple[KeyBytes, Stamp, ValueBytes | None]], msgspec.Meta(max_length=SURVEY_VALUES_MAX)
    ]
    is_seated: bool = False


class Lapsed(Payload, frozen=True, tag=19):
    """The epoch of that shard is over, and this is not among its commits, nor will it ever be."""

    txid: TxnId
    shard: Index


Step = (
    Prepare
    | Vote
    | Waiting
    | Abstain
    | Accept
    | Accepted
    | Ask
    | Promise
    | Outrun
    | Outcome
    | Known
    | Forget
    | Read
    | Values
    | Inquire
    | Report
    | Survey
    | Surveyed
    | Lapsed
)


class Steps(Payload, frozen=True):
    """Steps of transactions, in the order in which they were taken."""

    steps: Annotated[list[Step], msgspec.Meta(max_length=COMMIT_STEPS_MAX)]


ROUTES = (Route(50, Steps, Stream.LINK),)

Reason = Literal["conflict", "stale", "locked", "repeated", "ballot", "epoch", "late", "clock"]
"""Why a voter says NO: another version than the base is there; the stamp is not above what is there; a lock; the
request belongs to another transaction; a later ballot was promised before the vote; other voters have taken over; the
transaction is too old; its stamp lies in the future."""
