"""The signed envelope and the registry: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.errors import Fault, RemoteFault
from protocol.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from protocol.membership.record import Goodbye
from protocol.replica.entry import Row
from protocol.replica.replica import Batch
from protocol.types import Payload
from protocol.wire.envelope import (
    DOMAIN,
    Envelope,
    Header,
    Sealer,
    check_header,
    check_signature,
    read_header,
)
from protocol.wire.frames import HEADER, Framer, Kind
from protocol.wire.registry import Registry, Route, Stream

from .samples import ALICE, BOB, COUNTER_MAX, REGISTRY, SAMPLES, STAMP_MAX, counters, payloads, stamps

encode = msgspec.msgpack.encode
GOODBYE = SAMPLES[Goodbye]


def opened(envelope: bytes, version: int = 1) -> tuple[Header, Payload]:
    """All that a receiver does with an envelope, in its order."""
    unopened = read_header(envelope)
    check_header(unopened, BOB.cluster_id)
    route = REGISTRY.find(unopened.header.type, version)
    check_signature(unopened, BOB)
    return unopened.header, REGISTRY.decode(route, unopened.header.payload)


def sealed(payload: Payload, seq: int = 3, hlc: int = 4) -> bytes:
    """An envelope of Alice, out of its frame."""
    return Sealer(ALICE, REGISTRY, version=1, run=2).seal(payload, seq, hlc)[HEADER.size :]


def signed(**changes: object) -> bytes:
    """An envelope whose header is what the test wants, with Alice's true signature."""
    header = Header(1, ALICE.cluster_id, 12, ALICE.node_id, 2, 3, 4, 0, msgspec.Raw(encode(GOODBYE)))
    fields = {name: changes.get(name, getattr(header, name)) for name in Header.__struct_fields__}
    body = encode(list(fields.values()) + list(changes.get("more", ())))  # type: ignore[call-overload]
    return encode(Envelope(body, ALICE.sign(DOMAIN + body)))


def refusal_of(envelope: bytes, version: int = 1) -> Fault:
    with pytest.raises(RemoteFault) as refused:
        opened(envelope, version)
    return refused.value.fault


@given(payloads, counters, stamps)
def test_what_is_sealed_is_opened(payload: Payload, seq: int, hlc: int) -> None:
    """decode(encode(x)) == x for every type of message, and the header says who, when and what."""
    header, found = opened(sealed(payload, seq, hlc))
    assert found == payload
    assert header == Header(
        v=1,
        cluster_id=ALICE.cluster_id,
        type=REGISTRY.route_of(payload).number,
        origin=ALICE.node_id,
        run=2,
        seq=seq,
        hlc=hlc,
        policy_epoch=0,
        payload=header.payload,
    )


def test_the_samples_are_every_message_of_this_build() -> None:
    """So that the test above and the golden files leave no type out."""
    assert set(SAMPLES) == {route.payload for route in REGISTRY.routes.values()}


def test_the_largest_fields_pass() -> None:
    """Each bound itself is allowed."""
    row = Row(COUNTER_MAX, COUNTER_MAX, bytes(KEY_BYTES_MAX), STAMP_MAX, bytes(VALUE_BYTES_MAX), COUNTER_MAX)
    batch = Batch(COUNTER_MAX, COUNTER_MAX, COUNTER_MAX, [row])
    assert opened(sealed(batch, COUNTER_MAX, STAMP_MAX))[1] == batch


NESTED = b"\x91" * 100_000 + b"\xc0"
REFUSALS: dict[str, tuple[Fault, Callable[[], bytes]]] = {
    "another cluster": (Fault.WRONG_CLUSTER, lambda: signed(cluster_id=bytes(16))),
    "another author": (Fault.BAD_SIGNATURE, lambda: signed(origin=BOB.node_id)),
    "no such type": (Fault.UNKNOWN_TYPE, lambda: signed(type=9999)),
    "version 0": (Fault.MALFORMED, lambda: signed(v=0)),
    "version 256": (Fault.MALFORMED, lambda: signed(v=256)),
    "a negative run": (Fault.MALFORMED, lambda: signed(run=-1)),
    "a seq beyond 63 bits": (Fault.MALFORMED, lambda: signed(seq=2**63)),
    "a stamp beyond 62 bits": (Fault.MALFORMED, lambda: signed(hlc=2**62)),
    "NaN for a number": (Fault.MALFORMED, lambda: signed(seq=float("nan"))),
    "a short id": (Fault.MALFORMED, lambda: signed(origin=ALICE.node_id[:31])),
    "text for bytes": (Fault.MALFORMED, lambda: signed(cluster_id="x" * 16)),
    "an ext type for a number": (Fault.MALFORMED, lambda: signed(seq=msgspec.msgpack.Ext(1, b"\x01"))),
    "a timestamp for a number": (
        Fault.MALFORMED,
        lambda: signed(seq=msgspec.msgpack.Ext(-1, bytes(4))),
    ),
    "NaN in the payload": (Fault.MALFORMED, lambda: signed(payload=[float("nan"), 1])),
    "a map for the payload": (Fault.MALFORMED, lambda: signed(payload={"run": 1, "incarnation": 1})),
    "a payload that ends early": (Fault.MALFORMED, lambda: signed(payload=[1])),
    "a deep payload": (Fault.MALFORMED, lambda: signed(payload=msgspec.Raw(NESTED))),
    "a deep unknown field": (Fault.MALFORMED, lambda: signed(payload=msgspec.Raw(b"\x93\x01\x01" + NESTED))),
    "a deep field behind the header": (Fault.MALFORMED, lambda: signed(more=[msgspec.Raw(NESTED)])),
    "a short signature": (Fault.MALFORMED, lambda: encode([b"body", bytes(63)])),
    "bytes behind the envelope": (Fault.MALFORMED, lambda: signed() + b"\0"),
    "a list of 4 billion": (Fault.MALFORMED, lambda: signed(payload=msgspec.Raw(b"\xdd\xff\xff\xff\xff"))),
    "nothing": (Fault.MALFORMED, lambda: b""),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_have_names(case: str) -> None:
    """Each way to be wrong has its own fault."""
    fault, envelope = REFUSALS[case]
    assert refusal_of(envelope()) == fault


def test_a_type_is_unknown_before_the_version_that_brings_it() -> None:
    """A registry row says since which version a message exists; two rows for one type are a bug."""
    registry = Registry((Route(12, Goodbye, Stream.LINK, since=2),))
    with pytest.raises(RemoteFault, match="unknown_type: message type 12 is not in version 1"):
        registry.find(12, 1)
    assert registry.find(12, 2).payload is Goodbye


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=lambda sample: type(sample).__name__)
def test_unknown_fields_at_the_end_are_ignored(sample: Payload) -> None:
    """A later build may add fields: to the payload, and to the header."""
    number = REGISTRY.route_of(sample).number
    longer = [*msgspec.msgpack.decode(encode(sample)), "new", {"of": "any type"}, msgspec.msgpack.Ext(5, b"")]
    assert opened(signed(type=number, payload=longer, more=["new"]))[1] == sample


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=lambda sample: type(sample).__name__)
def test_a_cut_or_changed_envelope_is_never_accepted(sample: Payload) -> None:
    """Cut at every byte and with every byte changed, a signed frame raises RemoteFault and nothing else."""
    envelope = sealed(sample)
    for at, byte in enumerate(envelope):
        refusal_of(envelope[:at])
        for other in {byte ^ 1, byte ^ 0x80, 0xC0} - {byte}:
            refusal_of(envelope[:at] + bytes([other]) + envelope[at + 1 :])


@given(payloads, st.data())
def test_a_changed_frame_is_no_message_of_its_author(payload: Payload, data: st.DataObject) -> None:
    """Also its five header bytes: the frame is refused, unfinished, or of another kind, but never opened."""
    whole = Sealer(ALICE, REGISTRY, version=1, run=2).seal(payload, 3, 4)
    at = data.draw(st.integers(0, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    with pytest.raises(RemoteFault):
        for kind, envelope in Framer().feed(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]):
            if kind is Kind.ENVELOPE:
                opened(envelope)
        raise RemoteFault(Fault.MALFORMED, "no envelope came out")


@given(st.binary(max_size=200))
@example(encode([encode([]), bytes(64)]))
def test_noise_is_no_envelope(noise: bytes) -> None:
    """Whatever the bytes are, reading the header of an envelope raises RemoteFault MALFORMED."""
    assert refusal_of(noise) == Fault.MALFORMED


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=9), st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
)


@given(
    st.sampled_from(list(REGISTRY.routes.values())),
    st.one_of(st.binary(max_size=60), json_like.map(encode)),
)
def test_any_payload_is_a_message_or_a_fault(route: Route, raw: bytes) -> None:
    """Decoding gives a payload within its bounds, which survives a round trip, or raises RemoteFault."""
    try:
        payload = REGISTRY.decode(route, msgspec.Raw(raw))
    except RemoteFault as fault:
        assert fault.fault == Fault.MALFORMED
    else:
        assert REGISTRY.decode(route, msgspec.Raw(encode(payload))) == payload
