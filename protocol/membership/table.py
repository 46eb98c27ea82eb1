"""The member table: for each other node its newest record, its state, and what was seen of it from here.

What leads from state to state is told at the head of `verdicts.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from hashlib import blake2b

import msgspec

from ..limits import MEMBERS_MAX
from ..types import NodeId
from ..wire.envelope import read_header
from ..wire.frames import HEADER
from .evidence import Doubt
from .record import MemberRecord


class State(StrEnum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


class Member(msgspec.Struct):
    """One row of the table."""

    node: NodeId
    run: int
    incarnation: int
    record: MemberRecord
    frame: bytes  # the record's envelope, to be handed on as it is
    state: State
    why: str
    since_ms: int
    reached: tuple[int, str] | None = None  # the run that answered us, and the address where it did
    probe_s: float = 0.0  # its address is not probed before this time
    life_s: float = 0.0  # its last sign of life to us; before the first one, when we came to know it
    was_met: bool = False  # this run was heard by us
    rtt_ms: float | None = None  # its least round trip lately
    doubt: Doubt | None = None
    earlier_run: int = 0  # the latest run that we had heard of before this one

    @property
    def order(self) -> tuple[int, int]:
        return (self.run, self.incarnation)


def encode_member(member: Member) -> bytes:
    """What is stored of a member; `decode_member` reads it."""
    return msgspec.msgpack.encode((member.frame, member.state, member.why, member.since_ms))


def decode_member(stored: bytes) -> Member:
    """A member as the last run knew it. Nobody was reached in this run yet, so nobody is alive for sure."""
    frame, state, why, since_ms = msgspec.msgpack.decode(stored, type=tuple[bytes, State, str, int])
    header = read_header(frame[HEADER.size :]).header
    record = _records.decode(header.payload)
    if state is State.ALIVE:
        state = State.SUSPECT
    return Member(NodeId(header.origin), header.run, header.seq, record, frame, state, why, since_ms)


_records = msgspec.msgpack.Decoder(MemberRecord)


class Table:
    """All members but this node itself; `own` tells its id, run and incarnation for the digest."""

    def __init__(self, own: Callable[[], tuple[NodeId, int, int]]) -> None:
        self.members: dict[NodeId, Member] = {}
        self._own = own
        self.digest = b""

    @property
    def is_full(self) -> bool:
        return len(self.members) >= MEMBERS_MAX

    def note_change(self) -> None:
        """Compute the digest anew: equal on two nodes iff both know the same records."""
        orders = [(member.node, *member.order) for member in self.members.values()]
        hashed = blake2b(digest_size=16, person=b"pn/members")
        for node, run, incarnation in sorted([*orders, self._own()]):
            hashed.update(node + run.to_bytes(8, "big") + incarnation.to_bytes(8, "big"))
        self.digest = hashed.digest()
