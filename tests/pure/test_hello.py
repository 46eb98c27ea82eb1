"""The handshake: two ends agree on a version and on who they are, or both learn why not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Fault, RemoteFault
from protocol.identity.keys import Ed25519Keys
from protocol.limits import CLOSE_TEXT_CHARS_MAX
from protocol.types import NodeId, node_text
from protocol.wire.envelope import Sealer, read_header
from protocol.wire.frames import HEADER, Framer, Kind
from protocol.wire.hello import (
    HELLO_DOMAIN,
    Close,
    Confirm,
    Established,
    Handshake,
    Hello,
    Signed,
    close_frame,
    common_version,
    read_close,
)

from .samples import ALICE, BOB, REGISTRY, STRANGER, fault_of, hello

encode = msgspec.msgpack.encode


def end(keys: Ed25519Keys, peer: NodeId, mine: Hello | None = None, *, dialled: bool = False) -> Handshake:
    return Handshake(keys, REGISTRY, mine or hello(keys), peer, dialled=dialled)


def alice(mine: Hello | None = None, peer: NodeId = BOB.node_id) -> Handshake:
    return end(ALICE, peer, mine, dialled=True)


def bob(mine: Hello | None = None) -> Handshake:
    return end(BOB, ALICE.node_id, mine)


def take(handshake: Handshake, frame: bytes) -> tuple[bytes, Established | None]:
    """Give one whole frame to one end."""
    ((kind, payload),) = Framer().feed(frame)
    return handshake.receive(kind, payload)


def refusal(handshake: Handshake, frame: bytes) -> tuple[Fault, str]:
    with pytest.raises(RemoteFault) as refused:
        take(handshake, frame)
    return fault_of(refused.value)


def signed_hello(keys: Ed25519Keys, said: object) -> bytes:
    """A HELLO frame that says whatever the test wants, truly signed."""
    body = encode(said)
    payload = encode(Signed(body, keys.sign(HELLO_DOMAIN + body)))
    return HEADER.pack(len(payload), Kind.HELLO) + payload


def confirm(keys: Ed25519Keys, transcript: bytes = bytes(32), version: int = 1) -> bytes:
    return Sealer(keys, REGISTRY, version, run=1_000).seal(Confirm(transcript), 0, 0)


def true_transcript() -> bytes:
    """What Bob confirms to Alice."""
    proof, _ = take(bob(), alice().hello())
    confirmed = REGISTRY.decode(REGISTRY.routes[1], read_header(proof[HEADER.size :]).header.payload)
    assert isinstance(confirmed, Confirm)
    return confirmed.transcript


def test_both_ends_learn_who_is_there() -> None:
    """The highest common version, the peer's run, and its whole range for later error messages."""
    a, b = alice(hello(ALICE, 1, 3)), bob(hello(BOB, 2, 5, probe=True))
    from_a, _ = take(a, b.hello())
    from_b, _ = take(b, a.hello())

    assert take(a, from_b) == (b"", Established(BOB.node_id, 3, (2, 5), 1_000, 999, True))
    assert take(b, from_a) == (b"", Established(ALICE.node_id, 3, (1, 3), 1_000, 999, True))


def test_without_a_common_version_both_ends_name_both_ranges() -> None:
    """Each is told in words what the other speaks, whichever is the older."""
    a, b = alice(hello(ALICE, 1, 2)), bob(hello(BOB, 3, 4))
    ranges = {
        f"{node_text(ALICE.node_id)[:8]} speaks protocol versions 1 to 2",
        f"{node_text(BOB.node_id)[:8]} speaks protocol versions 3 to 4",
    }
    for fault, detail in (refusal(a, b.hello()), refusal(b, a.hello())):
        assert (fault, set(detail.split(", "))) == (Fault.UNSUPPORTED_VERSION, ranges)


versions = st.integers(1, 255)
ranges = st.tuples(versions, versions).map(sorted)


@given(ranges, ranges)
def test_the_common_version_is_the_highest_in_both_ranges(ours: list[int], theirs: list[int]) -> None:
    """And both ends compute the same one, or none."""
    mine, other = hello(ALICE, *ours), hello(BOB, *theirs)
    common = set(range(ours[0], ours[1] + 1)) & set(range(theirs[0], theirs[1] + 1))
    for pair in ((mine, other), (other, mine)):
        if common:
            assert common_version(*pair) == max(common)
        else:
            with pytest.raises(RemoteFault, match="unsupported_version"):
                common_version(*pair)


SHORT_NONCE = msgspec.structs.replace(hello(BOB), nonce=b"short")
REFUSED_HELLOS: dict[str, tuple[Fault, Callable[[], bytes]]] = {
    "of another cluster": (Fault.WRONG_CLUSTER, lambda: signed_hello(STRANGER, hello(STRANGER))),
    "of another node than the certificate": (
        Fault.NOT_A_MEMBER,
        lambda: signed_hello(BOB, msgspec.structs.replace(hello(BOB), node_id=STRANGER.node_id)),
    ),
    "signed by another": (Fault.BAD_SIGNATURE, lambda: signed_hello(STRANGER, hello(BOB))),
    "without a common version": (Fault.UNSUPPORTED_VERSION, lambda: signed_hello(BOB, hello(BOB, 7, 9))),
    "of version 0": (Fault.MALFORMED, lambda: signed_hello(BOB, hello(BOB, 0, 0))),
    "with a short nonce": (Fault.MALFORMED, lambda: signed_hello(BOB, SHORT_NONCE)),
    "that is no array": (Fault.MALFORMED, lambda: signed_hello(BOB, {"protocol_min": 1})),
    "that nests deep": (Fault.MALFORMED, lambda: signed_hello(BOB, msgspec.Raw(b"\x91" * 9_999 + b"\xc0"))),
}


@pytest.mark.parametrize("case", REFUSED_HELLOS)
def test_a_hello_is_refused(case: str) -> None:
    """Each with the name of what is wrong with it."""
    fault, frame = REFUSED_HELLOS[case]
    assert refusal(alice(), frame())[0] == fault


def test_we_notice_that_we_dialled_ourselves() -> None:
    """Our own certificate and our own HELLO at the other end: the address is ours."""
    assert refusal(alice(peer=ALICE.node_id), end(ALICE, ALICE.node_id).hello())[0] == Fault.SELF


def test_a_replayed_hello_cannot_talk_two_ends_down() -> None:
    """Bob's HELLO of the time when he spoke version 1 only: he sees that Alice confirms another one."""
    a, b = alice(hello(ALICE, 1, 2)), bob(hello(BOB, 1, 2))
    old = signed_hello(BOB, hello(BOB, 1, 1))
    from_a, _ = take(a, old)
    from_b, _ = take(b, a.hello())
    assert a.version == 1
    assert refusal(b, from_a)[0] == Fault.BAD_TRANSCRIPT
    assert refusal(a, from_b)[0] == Fault.BAD_TRANSCRIPT


REFUSED_CONFIRMS: dict[str, tuple[Fault, Callable[[], bytes]]] = {
    "of other HELLOs": (Fault.BAD_TRANSCRIPT, lambda: confirm(BOB)),
    "that is our own, reflected": (Fault.BAD_TRANSCRIPT, lambda: confirm(ALICE, true_transcript())),
    "of another cluster": (Fault.WRONG_CLUSTER, lambda: confirm(STRANGER)),
    "in a version that was not agreed": (
        Fault.UNSUPPORTED_VERSION,
        lambda: confirm(BOB, true_transcript(), 2),
    ),
    "replaced by a second HELLO": (Fault.MALFORMED, lambda: bob().hello()),
    "replaced by a CLOSE": (Fault.QUOTA, lambda: close_frame(BOB, Fault.QUOTA, "enough")),
}


@pytest.mark.parametrize("case", REFUSED_CONFIRMS)
def test_a_confirm_is_refused(case: str) -> None:
    """A link is up only when the peer proved that it saw the same two HELLOs, in the version of both."""
    fault, frame = REFUSED_CONFIRMS[case]
    a = alice()
    take(a, bob().hello())
    assert refusal(a, frame())[0] == fault


def test_nothing_comes_before_hello() -> None:
    """An envelope or a joiner's message as the first frame is no handshake."""
    for kind in (Kind.ENVELOPE, Kind.JOIN):
        with pytest.raises(RemoteFault, match=f"malformed: a frame of kind {kind.name} in the middle"):
            alice().receive(kind, b"")


def test_fields_that_a_later_version_adds_to_hello_are_ignored() -> None:
    """And they are part of the transcript: the bytes are hashed, not what was understood of them."""
    a, b = alice(), bob()
    longer = signed_hello(BOB, [*msgspec.msgpack.decode(encode(hello(BOB))), "new"])
    from_a, _ = take(a, longer)
    take(b, a.hello())
    assert refusal(b, from_a)[0] == Fault.BAD_TRANSCRIPT


def test_the_closing_word_is_read() -> None:
    """With the reason, words for the log in bounds, and a reason of a later version taken as malformed."""
    ((kind, payload),) = Framer().feed(close_frame(BOB, Fault.STUCK, "x" * 9_999))
    assert (kind, read_close(payload)) == (Kind.CLOSE, Close("stuck", "x" * CLOSE_TEXT_CHARS_MAX))
    unknown = encode(Signed(encode(["invented_later", "why"]), bytes(64)))
    with pytest.raises(RemoteFault, match="malformed: the peer hung up: why"):
        alice().receive(Kind.CLOSE, unknown)


@given(st.sampled_from(Kind), st.binary(max_size=200), st.booleans())
def test_noise_establishes_nothing(kind: Kind, noise: bytes, greeted: bool) -> None:
    """Whatever comes as HELLO, CONFIRM or CLOSE raises RemoteFault, before and after the peer's HELLO."""
    a = alice()
    if greeted:
        take(a, bob().hello())
    with pytest.raises(RemoteFault):
        a.receive(kind, noise)


def test_a_cut_or_changed_handshake_is_never_accepted() -> None:
    """HELLO and CONFIRM cut at every byte and with every byte changed."""
    a, b = alice(), bob()
    take(a, b.hello())
    proof, _ = take(b, a.hello())
    for whole, is_greeted in ((b.hello(), False), (proof, True)):
        payload = whole[HEADER.size :]
        for at, byte in enumerate(payload):
            for bad in (payload[:at], payload[:at] + bytes([byte ^ 1]) + payload[at + 1 :]):
                victim = alice()
                if is_greeted:
                    take(victim, b.hello())
                with pytest.raises(RemoteFault):
                    victim.receive(Kind.ENVELOPE if is_greeted else Kind.HELLO, bad)
