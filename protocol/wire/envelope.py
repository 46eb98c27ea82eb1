"""The signed envelope: every message travels in one and is vouched for by its author.

`msgpack [body: bin, sig: bin64]`, where `body` is the msgpack array of `Header` and
`sig = Ed25519(key, b"peernode/env/v1\\0" + body)`. The transmitted bytes are what is signed, verified and
relayed: nothing is ever encoded again. Opening goes from cheap to dear, and the caller may look at the
header (already seen? a member?) before it pays for the signature.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..errors import Fault, RemoteFault
from ..types import ClusterId, Keys, NodeId, Payload
from .fields import Counter, Id32, Stamp
from .frames import Kind, frame
from .registry import Registry

DOMAIN = b"peernode/env/v1\0"


class Header(msgspec.Struct, frozen=True, array_like=True):
    """The body of an envelope; the payload stays raw until the signature is known to be good."""

    v: Annotated[int, msgspec.Meta(ge=1, le=255)]
    cluster_id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    type: Annotated[int, msgspec.Meta(ge=0, le=(1 << 16) - 1)]
    origin: Id32
    run: Counter
    seq: Counter
    hlc: Stamp
    policy_epoch: Counter
    payload: msgspec.Raw


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    body: bytes
    sig: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Unopened(msgspec.Struct, frozen=True):
    """An envelope whose header was read and whose signature was not checked yet."""

    header: Header
    envelope: Envelope
    raw: bytes

    @property
    def origin(self) -> NodeId:
        return NodeId(self.header.origin)

    @property
    def frame(self) -> bytes:
        """The bytes as they came, to be handed on: what the author signed is never encoded again."""
        return frame(Kind.ENVELOPE, self.raw)


_encode = msgspec.msgpack.Encoder().encode
_envelopes = msgspec.msgpack.Decoder(Envelope)
_headers = msgspec.msgpack.Decoder(Header)


class Sealer:
    """Seals the messages of one run of one node in one protocol version."""

    def __init__(self, keys: Keys, registry: Registry, version: int, run: int) -> None:
        self._keys, self._registry, self._version, self._run = keys, registry, version, run

    def seal(self, payload: Payload, seq: int, hlc: int) -> bytes:
        """A signed frame, ready to be sent to any number of links."""
        body = _encode(
            Header(
                v=self._version,
                cluster_id=self._keys.cluster_id,
                type=self._registry.route_of(payload).number,
                origin=self._keys.node_id,
                run=self._run,
                seq=seq,
                hlc=hlc,
                policy_epoch=0,
                payload=msgspec.Raw(_encode(payload)),
            )
        )
        return frame(Kind.ENVELOPE, _encode(Envelope(body, self._keys.sign(DOMAIN + body))))


def read_header(envelope_bytes: bytes) -> Unopened:
    """The outer shape only. Raises RemoteFault MALFORMED."""
    try:
        envelope = _envelopes.decode(envelope_bytes)
        return Unopened(_headers.decode(envelope.body), envelope, envelope_bytes)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as why:
        raise RemoteFault(Fault.MALFORMED, f"envelope: {why}") from None


def check_header(unopened: Unopened, cluster_id: ClusterId) -> None:
    """Raises RemoteFault WRONG_CLUSTER."""
    header = unopened.header
    if header.cluster_id != cluster_id:
        raise RemoteFault(Fault.WRONG_CLUSTER, f"a message for cluster {header.cluster_id.hex()}")


def check_signature(unopened: Unopened, keys: Keys) -> None:
    """Raises RemoteFault BAD_SIGNATURE."""
    envelope = unopened.envelope
    if not keys.verify(unopened.origin, envelope.sig, DOMAIN + envelope.body):
        raise RemoteFault(Fault.BAD_SIGNATURE, f"the signature of a message of type {unopened.header.type}")
