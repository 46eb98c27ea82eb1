"""The vocabulary that every file of `protocol/` shares. Values only: nothing here decides anything."""

from __future__ import annotations

from base64 import b32decode, b32encode
from functools import lru_cache
from typing import NewType, Protocol

import msgspec

NodeId = NewType("NodeId", bytes)  # the 32-byte Ed25519 public key of a node
ClusterId = NewType("ClusterId", bytes)  # 16 bytes derived from the cluster's public key
LinkId = NewType("LinkId", int)  # local number of one authenticated connection, never reused within a run
CommitNumber = NewType("CommitNumber", int)  # local number of one staged group of rows, rises by one


class Instant(msgspec.Struct, frozen=True, gc=False):
    """One reading of both clocks, taken by the runtime in one place."""

    mono_s: float  # monotonic seconds: all time-outs
    wall_ms: int  # wall clock milliseconds since 1970: stamps of entries only


class Grant(msgspec.Struct, frozen=True):
    """What makes a node a member, in chains of certificates: leaf first, root last."""

    chain: tuple[bytes, ...]  # shown to prove membership
    issuing: tuple[bytes, ...]  # used to make further members


class Keys(Protocol):
    """What a node can do with its own key and what it can check of others.

    Ed25519 and X.509 in the daemon (`protocol.identity.keys`); the simulator has a faster one that
    refuses forgeries just the same.
    """

    node_id: NodeId
    cluster_id: ClusterId
    cluster_key: bytes
    credential: tuple[bytes, ...]
    """Proof that this node is a member, to be shown to nodes that never met it."""

    def sign(self, message: bytes) -> bytes: ...
    def verify(self, node_id: NodeId, signature: bytes, message: bytes) -> bool: ...
    def vouches(self, node_id: NodeId, credential: tuple[bytes, ...]) -> bool:
        """Whether `credential` proves that `node_id` is a member of this cluster."""
        ...

    def issue(self, node_id: NodeId) -> Grant:
        """What makes `node_id` a member: the same bytes each time it is asked."""
        ...


@lru_cache(maxsize=4096)  # in every version that is told: base32 would cost more than the rest of it
def node_text(node_id: bytes) -> str:
    """A node id for people: 52 characters of base32 in lower case."""
    return b32encode(node_id).decode().rstrip("=").lower()


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """Base of all message payloads: a msgpack array; unknown fields at its end are ignored and relayed."""


def node_of(text: str) -> NodeId:
    """The node id that `node_text` wrote so. Raises ValueError."""
    node = b32decode(text.upper() + "=" * (-len(text) % 8))
    if len(node) != 32:
        raise ValueError(f"{text!r} is no node id")
    return NodeId(node)
