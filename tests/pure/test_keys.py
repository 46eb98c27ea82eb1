"""Keys: weak and non-canonical ones are refused, checked against the arithmetic of the curve itself."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from protocol.identity.keys import NodeKey, is_strong, verify

from .samples import ALICE, BOB, CLUSTER_KEY, key

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)
Point = tuple[int, int]
IDENTITY = (0, 1)


def add(a: Point, b: Point) -> Point:
    """Edwards addition (RFC 8032, 5.1.4), in affine coordinates."""
    t = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + t, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, P)
    return x % P, y % P


def points_with(y: int) -> list[Point]:
    """The points with this y coordinate (RFC 8032, 5.1.3)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    roots = {r % P for r in (root, -root, root * SQRT_MINUS_1, -root * SQRT_MINUS_1) if r * r % P == square}
    return [(x, y) for x in sorted(roots)]


def small_order_points() -> list[Point]:
    """All eight: l times any point (l: the order of the main group) leaves its part in the group of eight."""
    order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 50):
        for point in points_with(y):
            torsion = multiple(order, point)
            found = {multiple(n, torsion) for n in range(8)}
            if len(found) == 8:
                return sorted(found)
    raise AssertionError("no point of order 8")


def multiple(n: int, point: Point) -> Point:
    total = IDENTITY
    while n:
        total, point, n = (add(total, point) if n & 1 else total), add(point, point), n >> 1
    return total


def encoded(y: int, sign: int) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


def test_points_of_small_order_are_weak() -> None:
    """All eight, with either sign bit; a good key beside them is strong."""
    points = small_order_points()
    assert all(multiple(8, point) == IDENTITY for point in points)
    assert not any(is_strong(encoded(y, sign)) for _, y in points for sign in (0, 1))
    assert is_strong(ALICE.node_id)


@pytest.mark.parametrize("sign", [0, 1])
def test_encodings_that_are_not_canonical_are_refused(sign: int) -> None:
    """y and y + p are the same point: only the smaller may name it."""
    assert not any(is_strong(encoded(y, sign)) for y in range(P, 2**255))
    assert is_strong(encoded(P - 2, sign))


def test_a_weak_key_signs_nothing() -> None:
    """Under the identity point one fixed signature is good for every message; OpenSSL itself accepts it."""
    weak, forged = encoded(1, 0), encoded(1, 0) + bytes(32)
    Ed25519PublicKey.from_public_bytes(weak).verify(forged, b"any message")
    assert not verify(weak, forged, b"any message")


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_signature_is_good_for_one_key_and_one_message(message: bytes, other: bytes) -> None:
    """And for nothing else."""
    signature = ALICE.sign(message)
    assert ALICE.verify(ALICE.node_id, signature, message)
    assert ALICE.verify(ALICE.node_id, signature, other) == (message == other)
    assert not ALICE.verify(BOB.node_id, signature, message)


@given(st.binary(max_size=40), st.binary(max_size=80))
def test_noise_verifies_nothing(node_id: bytes, signature: bytes) -> None:
    """Bytes of any length for the key and the signature are answered with False."""
    assert not verify(node_id, signature, b"")
    assert not verify(ALICE.node_id, signature, b"")


def test_a_key_survives_its_file() -> None:
    """PEM there and back; a key of another kind is a ValueError."""
    assert NodeKey.from_pem(key(1).to_pem()).node_id == key(1).node_id
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="not an Ed25519 key"):
        NodeKey.from_pem(other)


def test_a_member_vouches_for_members_only() -> None:
    """A chain vouches for the node that it names, not for its inviter."""
    assert ALICE.vouches(BOB.node_id, BOB.credential)
    assert not ALICE.vouches(ALICE.node_id, BOB.credential)
    assert not ALICE.vouches(BOB.node_id, (b"junk", b"junk"))
    assert (ALICE.cluster_id, ALICE.cluster_key) == (BOB.cluster_id, CLUSTER_KEY.node_id)
