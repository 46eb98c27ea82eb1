"""HELLO, version negotiation and the closing word: what two ends of a fresh TLS connection say first.

Both ends send HELLO at once. Each picks the highest version that both ranges hold, by itself, and proves
with CONFIRM (the first envelope, in that version) that it saw the same two HELLOs: nobody in between can
talk the two down to an older version. A link is up only when the peer's CONFIRM was right. The formats of
HELLO and CLOSE never change, so that ends without a common version can still tell each other so. Fields may
be added at their end.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated

import msgspec

from ..errors import Fault, RemoteFault
from ..limits import CLOSE_TEXT_CHARS_MAX
from ..types import Keys, NodeId, Payload, node_text
from .envelope import Sealer, check_header, check_signature, read_header
from .fields import Counter, Id32
from .frames import Kind, frame
from .registry import Registry, Route, Stream

HELLO_DOMAIN = b"peernode/hello/v1\0"
CLOSE_DOMAIN = b"peernode/close/v1\0"


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Who I am, in which run, which versions I speak. `probe`: I only want to see that you answer."""

    protocol_min: Annotated[int, msgspec.Meta(ge=1, le=255)]
    protocol_max: Annotated[int, msgspec.Meta(ge=1, le=255)]
    cluster_id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    node_id: Id32
    run: Counter
    previous_run: Counter
    wall_ms: Counter
    nonce: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    probe: bool = False


class Close(msgspec.Struct, frozen=True, array_like=True):
    """Why the sender hangs up: a `Fault` and words for the log."""

    fault: Annotated[str, msgspec.Meta(max_length=64)]
    text: Annotated[str, msgspec.Meta(max_length=CLOSE_TEXT_CHARS_MAX)]


class Confirm(Payload, frozen=True):
    """The hash of both HELLOs as the sender saw them."""

    transcript: Id32


class Signed(msgspec.Struct, frozen=True, array_like=True):
    body: bytes
    sig: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Established(msgspec.Struct, frozen=True):
    """A link that is up: who is there, and in which version we talk."""

    peer: NodeId
    version: int
    protocol: tuple[int, int]
    run: int
    previous_run: int
    probe: bool


ROUTES = (Route(1, Confirm, Stream.LINK),)

_encode = msgspec.msgpack.encode
_signed = msgspec.msgpack.Decoder(Signed)
_hello = msgspec.msgpack.Decoder(Hello)
_close = msgspec.msgpack.Decoder(Close)


class Handshake:
    """One end of it. Order of calls: `hello`, then `receive` for each frame until it returns `Established`.

    `peer` is the node id that the peer's certificate proves. `dialled`: we opened the connection.
    """

    def __init__(self, keys: Keys, registry: Registry, mine: Hello, peer: NodeId, *, dialled: bool) -> None:
        self._keys, self._registry = keys, registry
        self._mine, self._peer, self._dialled = mine, peer, dialled
        self._my_body = _encode(mine)
        self._theirs: Hello | None = None
        self._transcript = b""
        self.version = 0

    def hello(self) -> bytes:
        """Our HELLO, to be sent first."""
        signature = self._keys.sign(HELLO_DOMAIN + self._my_body)
        return frame(Kind.HELLO, _encode(Signed(self._my_body, signature)))

    def receive(self, kind: Kind, payload: bytes) -> tuple[bytes, Established | None]:
        """What to send now, and the result once there is one. Raises RemoteFault."""
        if kind is Kind.CLOSE:
            close = read_close(payload)
            raise RemoteFault(as_fault(close.fault), f"the peer hung up: {close.text}")
        if self._theirs is None and kind is Kind.HELLO:
            return self._on_hello(payload), None
        if self._theirs is not None and kind is Kind.ENVELOPE:
            return b"", self._on_confirm(payload, self._theirs)
        raise RemoteFault(Fault.MALFORMED, f"a frame of kind {kind.name} in the middle of the handshake")

    def _on_hello(self, payload: bytes) -> bytes:
        signed, theirs = _read_hello(payload)
        if theirs.cluster_id != self._keys.cluster_id:
            raise RemoteFault(Fault.WRONG_CLUSTER, f"the peer is of cluster {theirs.cluster_id.hex()}")
        if theirs.node_id != self._peer:
            raise RemoteFault(Fault.NOT_A_MEMBER, "the HELLO names another node than the certificate")
        if theirs.node_id == self._keys.node_id:
            raise RemoteFault(Fault.SELF, "this is our own address")
        if not self._keys.verify(self._peer, signed.sig, HELLO_DOMAIN + signed.body):
            raise RemoteFault(Fault.BAD_SIGNATURE, "the signature of the HELLO")
        self.version = common_version(self._mine, theirs)
        self._theirs = theirs
        ours_first = (self._my_body, signed.body) if self._dialled else (signed.body, self._my_body)
        self._transcript = sha256(b"peernode/transcript/v1\0" + b"".join(map(_sized, ours_first))).digest()
        sealer = Sealer(self._keys, self._registry, self.version, self._mine.run)
        return sealer.seal(Confirm(self._transcript), seq=0, hlc=0)

    def _on_confirm(self, payload: bytes, theirs: Hello) -> Established:
        unopened = read_header(payload)
        check_header(unopened, self._keys.cluster_id)
        route = self._registry.find(unopened.header.type, self.version)
        if route.payload is not Confirm or unopened.origin != self._peer:
            raise RemoteFault(Fault.BAD_TRANSCRIPT, "the first message was not CONFIRM")
        check_signature(unopened, self._keys)
        confirm = self._registry.decode(route, unopened.header.payload)
        assert isinstance(confirm, Confirm)
        if confirm.transcript != self._transcript:
            raise RemoteFault(Fault.BAD_TRANSCRIPT, "the peer saw other HELLOs than we did")
        if unopened.header.v != self.version:
            raise RemoteFault(
                Fault.UNSUPPORTED_VERSION,
                f"CONFIRM is of version {unopened.header.v}, not {self.version}: {_ranges(self._mine, theirs)}",
            )
        return Established(
            peer=self._peer,
            version=self.version,
            protocol=(theirs.protocol_min, theirs.protocol_max),
            run=theirs.run,
            previous_run=theirs.previous_run,
            probe=self._mine.probe or theirs.probe,
        )


def common_version(mine: Hello, theirs: Hello) -> int:
    """The highest version in both ranges. Raises RemoteFault UNSUPPORTED_VERSION naming both."""
    highest = min(mine.protocol_max, theirs.protocol_max)
    if highest < max(mine.protocol_min, theirs.protocol_min):
        raise RemoteFault(Fault.UNSUPPORTED_VERSION, _ranges(mine, theirs))
    return highest


def _ranges(mine: Hello, theirs: Hello) -> str:
    return f"{_range_text(mine)}, {_range_text(theirs)}"


def _range_text(hello: Hello) -> str:
    name = node_text(hello.node_id)[:8]
    return f"{name} speaks protocol versions {hello.protocol_min} to {hello.protocol_max}"


def close_frame(keys: Keys, fault: Fault, text: str) -> bytes:
    """The last frame on a link that we cut."""
    body = _encode(Close(fault.value, text[:CLOSE_TEXT_CHARS_MAX]))
    return frame(Kind.CLOSE, _encode(Signed(body, keys.sign(CLOSE_DOMAIN + body))))


def read_close(payload: bytes) -> Close:
    """The peer's closing word; for the log only, so its signature decides nothing. Raises RemoteFault."""
    try:
        return _close.decode(_signed.decode(payload).body)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as why:
        raise RemoteFault(Fault.MALFORMED, f"CLOSE: {why}") from None


def as_fault(name: str) -> Fault:
    """A fault by the name that a peer gave; names of later versions count as MALFORMED."""
    return Fault(name) if name in Fault.__members__.values() else Fault.MALFORMED


def _read_hello(payload: bytes) -> tuple[Signed, Hello]:
    try:
        signed = _signed.decode(payload)
        return signed, _hello.decode(signed.body)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as why:
        raise RemoteFault(Fault.MALFORMED, f"HELLO: {why}") from None


def _sized(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body
