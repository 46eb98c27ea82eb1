"""Join tickets: a secret that is used and never sent.

A ticket names its issuer's addresses and the cluster key, so the joiner can tell the true cluster from any other
before it says anything. It proves the secret by an HMAC over both nonces, the hash of the TLS leaf it
talks to and its own node id: an answer is worth nothing on another connection or for another node. The issuer
keeps only the secret's hash, the uses left and who used it; the same node may use it again and gets the
same certificates. Only one who proves the secret learns that a ticket is expired or used up.
"""

from __future__ import annotations

import hmac
from base64 import b32decode, b32encode
from hashlib import sha256
from typing import Annotated

import msgspec

from ..errors import Fault, Refused, RemoteFault
from ..limits import (
    ADDRESS_CHARS_MAX,
    CERTIFICATE_BYTES_MAX,
    CREDENTIAL_CERTIFICATES_MAX,
    TICKET_ADDRESSES_MAX,
)
from ..types import Grant, NodeId
from . import certificates
from .keys import NodeKey, is_strong, verify

PREFIX = "pn1"
PROOF_DOMAIN = b"peernode/join/v1\0"
SIGNATURE_DOMAIN = b"peernode/join-sig/v1\0"

Bytes8 = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Version = Annotated[int, msgspec.Meta(ge=1, le=255)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Addresses = Annotated[
    tuple[Annotated[str, msgspec.Meta(max_length=ADDRESS_CHARS_MAX + 6)], ...],
    msgspec.Meta(max_length=TICKET_ADDRESSES_MAX),
]
Chain = Annotated[
    tuple[Annotated[bytes, msgspec.Meta(max_length=CERTIFICATE_BYTES_MAX)], ...],
    msgspec.Meta(max_length=CREDENTIAL_CERTIFICATES_MAX),
]


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What is pasted on the new machine."""

    ticket_id: Bytes8
    secret: Bytes16
    cluster_key: Bytes32
    addresses: Addresses

    def text(self) -> str:
        packed = msgspec.msgpack.encode(self)
        return PREFIX + b32encode(packed + _checksum(packed)).decode().rstrip("=").lower()


class JoinChallenge(msgspec.Struct, frozen=True, array_like=True, tag="challenge"):
    """The issuer: here are my certificates, prove the secret over this nonce."""

    protocol_min: Version
    protocol_max: Version
    chain: Chain
    nonce: Bytes16


class JoinRequest(msgspec.Struct, frozen=True, array_like=True, tag="request"):
    """The joiner: I know the secret, and I hold this node's key."""

    ticket_id: Bytes8
    node_id: Bytes32
    nonce: Bytes16
    proof: Bytes32
    signature: Bytes64


class JoinGranted(msgspec.Struct, frozen=True, array_like=True, tag="granted"):
    """The issuer: you are a member; these members may be asked for the rest."""

    chain: Chain
    issuing: Chain
    addresses: Addresses


class JoinRefused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    code: Text
    message: Text


class TicketRow(msgspec.Struct, frozen=True, array_like=True):
    """What the issuer stores of a ticket."""

    ticket_id: bytes
    secret_hash: bytes
    expires_ms: int
    uses_left: int
    used_by: tuple[bytes, ...] = ()

    def is_live(self, wall_ms: int) -> bool:
        """Whether a joiner may still be answered: also one that has used it and lost the answer."""
        return wall_ms < self.expires_ms and (self.uses_left > 0 or bool(self.used_by))


encode = msgspec.msgpack.encode
_challenges = msgspec.msgpack.Decoder(JoinChallenge)
_requests = msgspec.msgpack.Decoder(JoinRequest)
_verdicts: msgspec.msgpack.Decoder[JoinGranted | JoinRefused] = msgspec.msgpack.Decoder(
    JoinGranted | JoinRefused
)
_tickets = msgspec.msgpack.Decoder(Ticket)
_DECODE_ERRORS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


def parse(text: str) -> Ticket | Refused:
    """Read a pasted ticket; white space and capitals do no harm."""
    compact = "".join(text.split()).lower()
    if not compact.startswith("pn"):
        return Refused(
            "invalid", "this is no ticket", "a ticket begins with pn1; make one with: peernode invite"
        )
    if not compact.startswith(PREFIX):
        return Refused(
            "invalid", "this ticket is of a newer version of peernode", "upgrade this machine's peernode"
        )
    body = compact.removeprefix(PREFIX).upper()
    try:
        raw = b32decode(body + "=" * (-len(body) % 8))
        packed, checksum = raw[:-4], raw[-4:]
        if not hmac.compare_digest(checksum, _checksum(packed)):
            raise ValueError("checksum")
        return _tickets.decode(packed)
    except _DECODE_ERRORS:
        return Refused(
            "invalid", "this ticket is mistyped or cut off", "paste the whole line that invite printed"
        )


def decode_challenge(payload: bytes) -> JoinChallenge:
    """Raises RemoteFault MALFORMED."""
    try:
        return _challenges.decode(payload)
    except _DECODE_ERRORS as why:
        raise RemoteFault(Fault.MALFORMED, f"join challenge: {why}") from None


def decode_request(payload: bytes) -> JoinRequest:
    """Raises RemoteFault MALFORMED."""
    try:
        return _requests.decode(payload)
    except _DECODE_ERRORS as why:
        raise RemoteFault(Fault.MALFORMED, f"join request: {why}") from None


def decode_verdict(payload: bytes) -> JoinGranted | JoinRefused:
    """Raises RemoteFault MALFORMED."""
    try:
        return _verdicts.decode(payload)
    except _DECODE_ERRORS as why:
        raise RemoteFault(Fault.MALFORMED, f"join verdict: {why}") from None


def challenge_answer(
    ticket: Ticket, key: NodeKey, challenge: JoinChallenge, tls_leaf: bytes, nonce: bytes
) -> JoinRequest:
    """The joiner's proof, once the other end is known to be of the ticket's cluster. Raises RemoteFault."""
    certificates.verify_chain(challenge.chain, certificates.cluster_id_of(ticket.cluster_key))
    if challenge.chain[0] != tls_leaf:
        raise RemoteFault(Fault.NOT_A_MEMBER, "the TLS certificate is not the one of the challenge")
    said = _said(challenge.nonce, nonce, tls_leaf, key.node_id)
    proof = _proof(sha256(ticket.secret).digest(), said)
    return JoinRequest(ticket.ticket_id, key.node_id, nonce, proof, key.sign(SIGNATURE_DOMAIN + said + proof))


def accept_grant(ticket: Ticket, node_id: NodeId, granted: JoinGranted) -> Grant:
    """The certificates, checked: they must be ours and of the ticket's cluster. Raises RemoteFault."""
    cluster = certificates.cluster_id_of(ticket.cluster_key)
    if certificates.verify_chain(granted.chain, cluster) != node_id:
        raise RemoteFault(Fault.NOT_A_MEMBER, "the granted certificate is for another node")
    if certificates.verify_issuing(granted.issuing, cluster) != node_id:
        raise RemoteFault(Fault.NOT_A_MEMBER, "the granted issuing certificate is for another node")
    return Grant(granted.chain, granted.issuing)


def judge(
    row: TicketRow | None, request: JoinRequest, nonce: bytes, own_leaf: bytes, wall_ms: int
) -> TicketRow | Refused:
    """The ticket after this use, or why not."""
    said = _said(nonce, request.nonce, own_leaf, request.node_id)
    expected = _proof(row.secret_hash if row is not None else bytes(32), said)
    if not hmac.compare_digest(expected, request.proof) or row is None:
        return _no("no such ticket here: a ticket is good only at the member that made it")
    signed = SIGNATURE_DOMAIN + said + request.proof
    if not is_strong(request.node_id) or not verify(request.node_id, request.signature, signed):
        return _no("the joiner's key is weak or its signature is wrong")
    if wall_ms >= row.expires_ms:
        return _no("the ticket has expired")
    if request.node_id in row.used_by:
        return row
    if row.uses_left < 1:
        return _no("the ticket is used up")
    used_by = (*row.used_by, request.node_id)
    return msgspec.structs.replace(row, uses_left=row.uses_left - 1, used_by=used_by)


def _no(message: str) -> Refused:
    return Refused("not_allowed", message, "on any member: peernode invite")


def _said(issuer_nonce: bytes, joiner_nonce: bytes, leaf: bytes, node_id: bytes) -> bytes:
    return PROOF_DOMAIN + issuer_nonce + joiner_nonce + sha256(leaf).digest() + node_id


def _proof(secret_hash: bytes, said: bytes) -> bytes:
    return hmac.digest(secret_hash, said, "sha256")


def _checksum(packed: bytes) -> bytes:
    return sha256(b"peernode/ticket/v1\0" + packed).digest()[:4]
