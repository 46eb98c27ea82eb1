"""Golden files: the bytes of every message, of every version, as the first build that had it wrote them.

A file is never changed: a build that writes or reads other bytes does not speak that version any more. For a
new message (or version) add a sample, then write the missing files, and only those, with

    bin/test tests/pure/test_golden.py --write-golden
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from protocol.config import Config
from protocol.errors import Fault
from protocol.identity import tickets
from protocol.identity.tickets import (
    JoinChallenge,
    JoinGranted,
    JoinRefused,
    Ticket,
    challenge_answer,
    decode_challenge,
    decode_request,
    decode_verdict,
)
from protocol.types import Payload
from protocol.wire.envelope import Sealer, check_signature, read_header
from protocol.wire.frames import Framer, Kind, frame
from protocol.wire.hello import Close, Hello, Signed, close_frame, read_close

from .samples import ALICE, BOB, BOB_GRANT, CLUSTER_KEY, REGISTRY, SAMPLES, hello, key
from .test_hello import alice

FOLDER = Path(__file__).parent / "golden"


class Golden(NamedTuple):
    """A value, how this build writes it and how it reads it."""

    value: object
    written: bytes
    read: Callable[[bytes], object]


def content(kind: Kind, framed: bytes) -> bytes:
    """What is in the one frame that these bytes are."""
    ((found, payload),) = Framer().feed(framed)
    assert found is kind
    return payload


def read_message(framed: bytes) -> Payload:
    unopened = read_header(content(Kind.ENVELOPE, framed))
    check_signature(unopened, BOB)
    header = unopened.header
    return REGISTRY.decode(REGISTRY.find(header.type, header.v), header.payload)


def read_hello(framed: bytes) -> Hello:
    signed = msgspec.msgpack.decode(content(Kind.HELLO, framed), type=Signed)
    return msgspec.msgpack.decode(signed.body, type=Hello)


def join(message: object, decode: Callable[[bytes], object]) -> Golden:
    return Golden(message, frame(Kind.JOIN, tickets.encode(message)), lambda b: decode(content(Kind.JOIN, b)))


TICKET = Ticket(b"8 bytes.", b"sixteen  bytes..", CLUSTER_KEY.node_id, ("10.0.0.1:7000", "[::1]:7000"))
CHALLENGE = JoinChallenge(1, 1, ALICE.credential, bytes(16))
REQUEST = challenge_answer(TICKET, key(2), CHALLENGE, ALICE.credential[0], bytes(range(16)))
CLOSE = Close("quota", "more than 10000 messages a second")
GOLDEN: dict[str, Golden] = {
    "v1/hello.bin": Golden(hello(), alice().hello(), read_hello),
    "v1/close.bin": Golden(
        CLOSE, close_frame(ALICE, Fault.QUOTA, CLOSE.text), lambda b: read_close(content(Kind.CLOSE, b))
    ),
    "v1/join-challenge.bin": join(CHALLENGE, decode_challenge),
    "v1/join-request.bin": join(REQUEST, decode_request),
    "v1/join-granted.bin": join(
        JoinGranted(BOB_GRANT.chain, BOB_GRANT.issuing, ("10.0.0.1:7000",)), decode_verdict
    ),
    "v1/join-refused.bin": join(JoinRefused("not_allowed", "the ticket is used up"), decode_verdict),
    "v1/ticket.txt": Golden(TICKET, TICKET.text().encode(), lambda b: tickets.parse(b.decode())),
}
for version in range(1, Config("", "").protocol_max + 1):
    for number, route in REGISTRY.routes.items():
        if route.since <= version:
            sample = SAMPLES[route.payload]
            GOLDEN[f"v{version}/{number:03}-{route.payload.__name__.lower()}.bin"] = Golden(
                sample, Sealer(ALICE, REGISTRY, version, run=1_000).seal(sample, 5, 6), read_message
            )


@pytest.mark.parametrize("name", GOLDEN)
def test_this_build_writes_the_same_bytes(name: str, request: pytest.FixtureRequest) -> None:
    """Byte for byte, signatures and certificates included."""
    path = FOLDER / name
    if request.config.getoption("--write-golden") and not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(GOLDEN[name].written)
    assert path.read_bytes() == GOLDEN[name].written


@pytest.mark.parametrize("name", GOLDEN)
def test_this_build_reads_the_old_bytes(name: str) -> None:
    """And finds the same value in them."""
    golden = GOLDEN[name]
    assert golden.read((FOLDER / name).read_bytes()) == golden.value


def test_no_file_is_left_over() -> None:
    """A message that is gone from the registry, or renamed, still has its file: that breaks old peers."""
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert files == set(GOLDEN)
