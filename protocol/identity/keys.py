"""Node keys: an Ed25519 key is an identity, its public half is the node's id.

Public keys of small order and encodings that are not canonical are refused wherever a key is taken in: with the
identity point as key one fixed signature verifies a good part of all messages.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import RemoteFault
from ..types import ClusterId, Grant, NodeId
from . import certificates

KEY_BYTES = 32
FIELD_PRIME = 2**255 - 19
SIGN_BIT = 1 << 255
ORDER_8_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER_Y = frozenset((0, 1, FIELD_PRIME - 1, ORDER_8_Y, FIELD_PRIME - ORDER_8_Y))
"""The y coordinates of the eight points whose order divides 8."""


class NodeKey:
    """A private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self.private = private
        self.node_id = NodeId(private.public_key().public_bytes_raw())

    @classmethod
    def from_seed(cls, seed: bytes) -> NodeKey:
        """A key from 32 random bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_pem(cls, pem: bytes) -> NodeKey:
        """Raises ValueError when this is no Ed25519 key."""
        private = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")
        return cls(private)

    def to_pem(self) -> bytes:
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


class Ed25519Keys:
    """A member's keys: `protocol.types.Keys` for the daemon."""

    def __init__(self, key: NodeKey, grant: Grant) -> None:
        self._key, self._issuing = key, grant.issuing
        self.node_id = key.node_id
        self.credential = grant.chain
        self.cluster_id: ClusterId = certificates.cluster_of(grant.chain)
        self.cluster_key = certificates.public_key_of(grant.chain[-1])
        self.sign = key.sign

    def verify(self, node_id: NodeId, signature: bytes, message: bytes) -> bool:
        return verify(node_id, signature, message)

    def vouches(self, node_id: NodeId, credential: tuple[bytes, ...]) -> bool:
        try:
            return certificates.verify_chain(credential, self.cluster_id) == node_id
        except RemoteFault:
            return False

    def issue(self, node_id: NodeId) -> Grant:
        """Certificates that make `node_id` a member. Raises PathTooLong."""
        return certificates.issue(self._key.private, self._issuing, node_id)


def is_strong(public: bytes) -> bool:
    """Whether these bytes are a canonical encoding of a point that is not of small order."""
    if len(public) != KEY_BYTES:
        return False
    y = int.from_bytes(public, "little") & ~SIGN_BIT
    return y < FIELD_PRIME and y not in SMALL_ORDER_Y


def verify(node_id: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this key signed this message; a weak key signs nothing."""
    if not is_strong(node_id):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(node_id).verify(signature, message)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True
