"""The self-signed member record and the other membership messages.

A record is what a node says of itself; nobody else can say it. It travels as its author's envelope, forwarded
unchanged, with the certificates that prove the author's membership, so that a node that never met the
author can check both. `(run, incarnation)` orders the records of one node: the run is new at every start,
the incarnation rises when the record changes within a run (it is the envelope's `seq`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..config import Config
from ..limits import (
    ADDRESS_CHARS_MAX,
    CERTIFICATE_BYTES_MAX,
    CREDENTIAL_CERTIFICATES_MAX,
    HEARTBEAT_ECHOES_MAX,
    HEARTBEAT_HEADS_MAX,
    HEARTBEAT_REPORTS_MAX,
    HEARTBEAT_STREAMS_MAX,
    NAME_CHARS_MAX,
    TAG_CHARS_MAX,
    TAGS_MAX,
    VOIDED_MAX,
)
from ..types import Keys, Payload
from ..voters import STORE_ID_BYTES
from ..wire.fields import Counter, Head, Stamp
from ..wire.registry import Route, Stream
from .evidence import Report

Text = Annotated[str, msgspec.Meta(max_length=TAG_CHARS_MAX)]
Certificate = Annotated[bytes, msgspec.Meta(max_length=CERTIFICATE_BYTES_MAX)]


class MemberRecord(Payload, frozen=True):
    """A member about itself."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX, pattern=r"^[a-z0-9-]+\Z")]
    address: Annotated[str, msgspec.Meta(max_length=ADDRESS_CHARS_MAX + 6)]
    software: Text
    protocol_min: Annotated[int, msgspec.Meta(ge=1, le=255)]
    protocol_max: Annotated[int, msgspec.Meta(ge=1, le=255)]
    started_ms: Counter
    left: bool
    tags: Annotated[list[tuple[Text, Text]], msgspec.Meta(max_length=TAGS_MAX)]
    credential: Annotated[list[Certificate], msgspec.Meta(max_length=CREDENTIAL_CERTIFICATES_MAX)]
    voided: Annotated[list[tuple[Counter, Stamp]], msgspec.Meta(max_length=VOIDED_MAX)]
    """(lineage, stamp): its entries of this lineage with later stamps came from a wrong clock."""
    store_id: Annotated[bytes, msgspec.Meta(min_length=STORE_ID_BYTES, max_length=STORE_ID_BYTES)]
    """Names its store: a new one has forgotten what the old one promised."""
    votes: bool
    """Whether it may be named a voter."""


def own_record(
    config: Config, keys: Keys, started_ms: int, voided: list[tuple[int, int]], store_id: bytes
) -> MemberRecord:
    """What this node says of itself at its start."""
    return MemberRecord(
        name=config.name,
        address=config.address,
        software=config.software,
        protocol_min=config.protocol_min,
        protocol_max=config.protocol_max,
        started_ms=started_ms,
        left=False,
        tags=list(config.tags),
        credential=list(keys.credential),
        voided=voided,
        store_id=store_id,
        votes=config.votes,
    )


class Heartbeat(Payload, frozen=True):
    """Still here: sent on every link, signed once a beat.

    `heads` are heads of the store that moved lately, `streams` numbers of gossip streams (author, run, number).
    An echo is (first 8 bytes of the neighbour's id, its `stamp_ms` that arrived last, how long ago it
    did): the neighbour reckons the round trip from it, and everybody else learns that it was heard. `steady_ms`: the
    author's steady clock (see clock.py). The `reports` take the place of all that the sender reported before.
    """

    incarnation: Counter
    stamp_ms: Counter
    steady_ms: Counter
    lag_ms: Counter
    table: Annotated[bytes, msgspec.Meta(max_length=16)]
    heads: Annotated[list[Head], msgspec.Meta(max_length=HEARTBEAT_HEADS_MAX)]
    streams: Annotated[list[Head], msgspec.Meta(max_length=HEARTBEAT_STREAMS_MAX)]
    echoes: Annotated[
        list[tuple[Annotated[bytes, msgspec.Meta(max_length=8)], Counter, Counter]],
        msgspec.Meta(max_length=HEARTBEAT_ECHOES_MAX),
    ]
    reports: Annotated[list[Report], msgspec.Meta(max_length=HEARTBEAT_REPORTS_MAX)]


class News(msgspec.Struct, frozen=True):
    """What the other parts of a node want told in its next heartbeat."""

    heads: list[Head]
    streams: list[Head]
    steady_ms: int
    lag_ms: int


class Goodbye(Payload, frozen=True):
    """The goodbye of the member that sends this link's peer away was heard."""

    run: Counter
    incarnation: Counter


ROUTES = (
    Route(10, MemberRecord, Stream.RECORD),
    Route(11, Heartbeat, Stream.LINK),
    Route(12, Goodbye, Stream.LINK),
)
