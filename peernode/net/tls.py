"""TLS as peers use it: 1.3 only, both ends show a certificate of this cluster, nobody else's counts.

Three contexts that never change. The first byte of a connection chooses between them before the handshake
(never SNI: a context that is exchanged there keeps the verify mode of the first). Names are not checked by
OpenSSL but by `leaf_identity`: an id is a key. No session tickets, so no resumption.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import trio

from protocol.errors import Fault, RemoteFault
from protocol.identity.certificates import leaf_identity
from protocol.types import ClusterId, NodeId

ALPN = "peernode/1"

Stream = trio.SSLStream[trio.SocketStream]


class Contexts:
    """`chain`: PEM of our leaf and the certificates above it; `key`: PEM of our key; `root`: PEM of the anchor."""

    def __init__(self, chain: Path, key: Path, root: str) -> None:
        self.accept = _context(ssl.PROTOCOL_TLS_SERVER, chain, key)
        self.accept.verify_mode = ssl.CERT_REQUIRED
        self.accept.load_verify_locations(cadata=root)
        self.dial = _context(ssl.PROTOCOL_TLS_CLIENT, chain, key)
        self.dial.load_verify_locations(cadata=root)
        self.enrol = _context(ssl.PROTOCOL_TLS_SERVER, chain, key)
        """For joiners: they have no certificate yet and must prove a ticket inside."""
        self.enrol.verify_mode = ssl.CERT_NONE


def joiner_context() -> ssl.SSLContext:
    """What a joiner dials with: it knows no certificate yet, the ticket tells it whom to believe."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_NONE
    return context


def peer_of(stream: Stream, cluster: ClusterId) -> NodeId:
    """Whom the peer's certificate proves, after the handshake. Raises RemoteFault."""
    if stream.selected_alpn_protocol() != ALPN:
        raise RemoteFault(Fault.NOT_A_MEMBER, f"the peer does not speak {ALPN}")
    leaf = stream.getpeercert(binary_form=True)
    if leaf is None:
        raise RemoteFault(Fault.NOT_A_MEMBER, "the peer showed no certificate")
    return leaf_identity(leaf, cluster)


def _context(protocol: int, chain: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.set_alpn_protocols([ALPN])
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    else:
        context.verify_mode = ssl.CERT_REQUIRED
    if chain is not None:
        context.load_cert_chain(chain, key)
    return context
