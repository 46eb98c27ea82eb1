"""Certificates: how a cluster key makes members, and members make members.

A chain is DER, leaf first, root last. The root is the cluster key's own certificate; a member has two from its
inviter, both for its one key: a leaf, which it shows, and an issuing one, with which it invites. Every step
down shortens the path that may follow; at its end somebody nearer to the root must invite. Nothing in a
certificate depends on a clock or on chance: asked again, an inviter gives the same bytes again. Removal is by
key, so validity runs from 1970 to 9999.

`verify_chain` and `verify_issuing` are for bytes from strangers: whatever they are, they return the node id that
the chain proves or raise RemoteFault NOT_A_MEMBER.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import Fault, RemoteFault
from ..limits import CERTIFICATE_BYTES_MAX, CREDENTIAL_CERTIFICATES_MAX, PATH_LENGTH_MAX
from ..types import ClusterId, Grant, NodeId, node_text

NOT_BEFORE = datetime(1970, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

Chain = tuple[bytes, ...]


class PathTooLong(Exception):
    """This member is too many inviters away from the cluster key to invite another one."""


def cluster_id_of(cluster_key: bytes) -> ClusterId:
    """The id of the cluster that this public key founded."""
    return ClusterId(sha256(b"peernode/cluster/v1\0" + cluster_key).digest()[:16])


def found(cluster_key: Ed25519PrivateKey, first: NodeId) -> Grant:
    """The root, and the first member's certificates."""
    public = cluster_key.public_key().public_bytes_raw()
    name = _name(f"{cluster_id_of(public).hex()} root")
    root = _issuing(cluster_key, name, name, public, PATH_LENGTH_MAX)
    return issue(cluster_key, (root,), first)


def issue(issuer: Ed25519PrivateKey, issuing: Chain, joiner: NodeId) -> Grant:
    """A joiner's certificates, below our own issuing chain. Raises PathTooLong."""
    certificate = x509.load_der_x509_certificate(issuing[0])
    path_length = _constraints(certificate).path_length or 0
    if path_length < 1:
        raise PathTooLong("too many inviters between this member and the cluster key; invite elsewhere")
    cluster = cluster_of(issuing)
    leaf = _leaf(issuer, certificate.subject, joiner, cluster)
    name = _name(f"{node_text(joiner)} issuer")
    own_issuing = _issuing(issuer, certificate.subject, name, joiner, path_length - 1)
    return Grant((leaf, *issuing), (own_issuing, *issuing))


def verify_chain(chain: Chain, cluster: ClusterId) -> NodeId:
    """Whose membership the chain proves. Raises RemoteFault NOT_A_MEMBER, whatever the bytes are."""
    try:
        return _leaf_identity(_verified(chain, cluster, leaves=1), cluster)
    except DECODE_ERRORS as why:
        raise RemoteFault(Fault.NOT_A_MEMBER, f"a certificate that proves nothing: {why}") from None


def verify_issuing(chain: Chain, cluster: ClusterId) -> NodeId:
    """Who may invite by this chain. Raises RemoteFault NOT_A_MEMBER, whatever the bytes are."""
    try:
        return NodeId(_public(_verified(chain, cluster, leaves=0)))
    except DECODE_ERRORS as why:
        raise RemoteFault(Fault.NOT_A_MEMBER, f"a certificate that proves nothing: {why}") from None


def leaf_identity(leaf: bytes, cluster: ClusterId) -> NodeId:
    """Whom a leaf names whose chain OpenSSL has verified. Raises RemoteFault NOT_A_MEMBER."""
    try:
        return _leaf_identity(x509.load_der_x509_certificate(leaf), cluster)
    except DECODE_ERRORS as why:
        raise RemoteFault(Fault.NOT_A_MEMBER, f"a certificate that proves nothing: {why}") from None


def cluster_of(chain: Chain) -> ClusterId:
    """The cluster of a chain that is known to be good."""
    return cluster_id_of(public_key_of(chain[-1]))


def public_key_of(der: bytes) -> bytes:
    return _public(x509.load_der_x509_certificate(der))


def to_pem(chain: Chain) -> bytes:
    loaded = (x509.load_der_x509_certificate(der) for der in chain)
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in loaded)


def from_pem(pem: bytes) -> Chain:
    return tuple(
        certificate.public_bytes(Encoding.DER) for certificate in x509.load_pem_x509_certificates(pem)
    )


DECODE_ERRORS = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What reading a stranger's certificate may raise."""


def _leaf(issuer: Ed25519PrivateKey, issuer_name: x509.Name, node: NodeId, cluster: ClusterId) -> bytes:
    uri = x509.UniformResourceIdentifier(_uri(cluster, node))
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _builder(issuer, issuer_name, _name(node_text(node)), node)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(issuer, None)
        .public_bytes(Encoding.DER)
    )


def _issuing(
    issuer: Ed25519PrivateKey, issuer_name: x509.Name, name: x509.Name, public: bytes, path_length: int
) -> bytes:
    return (
        _builder(issuer, issuer_name, name, public)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(issuer, None)
        .public_bytes(Encoding.DER)
    )


def _builder(
    issuer: Ed25519PrivateKey, issuer_name: x509.Name, name: x509.Name, public: bytes
) -> x509.CertificateBuilder:
    key = Ed25519PublicKey.from_public_bytes(public)
    serial = sha256(
        b"peernode/serial/v1\0" + issuer_name.public_bytes() + name.public_bytes() + public
    ).digest()
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer_name)
        .subject_name(name)
        .public_key(key)
        .serial_number(int.from_bytes(serial[:16], "big") >> 1 | 1)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(above, critical=False)
    )


def _verified(chain: Chain, cluster: ClusterId, leaves: int) -> x509.Certificate:
    """The first certificate of a chain that holds up to this cluster's root; the first `leaves` cannot issue."""
    if not 2 <= len(chain) <= CREDENTIAL_CERTIFICATES_MAX:
        raise RemoteFault(Fault.NOT_A_MEMBER, f"a chain of {len(chain)} certificates")
    if any(len(der) > CERTIFICATE_BYTES_MAX for der in chain):
        raise RemoteFault(Fault.NOT_A_MEMBER, "a certificate that is too large")
    certificates = [x509.load_der_x509_certificate(der) for der in chain]
    for depth, (below, above) in enumerate(
        zip(certificates, [*certificates[1:], certificates[-1]], strict=True)
    ):
        below.verify_directly_issued_by(above)
        if depth >= leaves:
            _check_issuing(below, depth - leaves)
    if cluster_id_of(_public(certificates[-1])) != cluster:
        raise RemoteFault(Fault.NOT_A_MEMBER, "a certificate of another cluster")
    return certificates[0]


def _check_issuing(certificate: x509.Certificate, below: int) -> None:
    """`below`: how many issuing certificates stand between this one and the leaf."""
    constraints = _constraints(certificate)
    if not constraints.ca or constraints.path_length is None or constraints.path_length < below:
        raise RemoteFault(Fault.NOT_A_MEMBER, "an issuing certificate that may not issue this")
    if not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
        raise RemoteFault(Fault.NOT_A_MEMBER, "an issuing certificate without the right to sign")
    _public(certificate)


def _leaf_identity(leaf: x509.Certificate, cluster: ClusterId) -> NodeId:
    node = NodeId(_public(leaf))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if uris != [_uri(cluster, node)] or _constraints(leaf).ca:
        raise RemoteFault(Fault.NOT_A_MEMBER, "a leaf that names another node or another cluster")
    return node


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value


def _public(certificate: x509.Certificate) -> bytes:
    from .keys import is_strong

    key = certificate.public_key()
    public = key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else b""
    if not is_strong(public):
        raise RemoteFault(Fault.NOT_A_MEMBER, "a certificate for a key that is weak or not Ed25519")
    return public


def _uri(cluster: ClusterId, node: NodeId) -> str:
    return f"peernode://{cluster.hex()}/{node_text(node)}"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
