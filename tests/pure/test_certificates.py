"""Chains of certificates: what proves membership, and the many things that do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import BasicConstraints, load_der_x509_certificate
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Fault, RemoteFault
from protocol.identity.certificates import (
    Chain,
    PathTooLong,
    _builder,
    _issuing,
    _key_usage,
    _leaf,
    _name,
    cluster_id_of,
    cluster_of,
    found,
    from_pem,
    issue,
    leaf_identity,
    to_pem,
    verify_chain,
    verify_issuing,
)
from protocol.limits import CERTIFICATE_BYTES_MAX, CREDENTIAL_CERTIFICATES_MAX, PATH_LENGTH_MAX
from protocol.types import Grant

from .samples import ALICE_GRANT, BOB_GRANT, CLUSTER_KEY, STRANGER, STRANGER_GRANT, key

CLUSTER = cluster_id_of(CLUSTER_KEY.node_id)


def line_of_inviters() -> list[Grant]:
    """Node 1 founds the cluster, each node invites the next, until one may not any more."""
    grants = [ALICE_GRANT]
    for number in range(1, 100):
        try:
            grants.append(issue(key(number).private, grants[-1].issuing, key(number + 1).node_id))
        except PathTooLong:
            return grants
    raise AssertionError("the line has no end")


LINE = line_of_inviters()


def test_sixteen_members_in_a_line_are_all_good() -> None:
    """Each chain and each issuing chain proves its node, down to the last that is allowed."""
    assert len(LINE) == PATH_LENGTH_MAX
    assert len(LINE[-1].chain) <= CREDENTIAL_CERTIFICATES_MAX
    for number, grant in enumerate(LINE, start=1):
        assert verify_chain(grant.chain, CLUSTER) == key(number).node_id
        assert verify_issuing(grant.issuing, CLUSTER) == key(number).node_id
        assert leaf_identity(grant.chain[0], CLUSTER) == key(number).node_id


def test_the_last_of_the_line_cannot_invite() -> None:
    """Somebody nearer to the root must."""
    with pytest.raises(PathTooLong):
        issue(key(len(LINE)).private, LINE[-1].issuing, key(99).node_id)


def test_asked_again_an_inviter_gives_the_same_bytes() -> None:
    """Nothing in a certificate depends on a clock or on chance."""
    assert issue(key(1).private, ALICE_GRANT.issuing, key(2).node_id) == BOB_GRANT
    assert found(CLUSTER_KEY.private, key(1).node_id) == ALICE_GRANT


def test_chains_survive_their_files() -> None:
    """PEM there and back gives the same bytes."""
    assert from_pem(to_pem(LINE[3].chain)) == LINE[3].chain
    assert cluster_of(LINE[3].chain) == CLUSTER


def forged_below(inviter: int, chain: Chain) -> Chain:
    """A newcomer's chain, signed by a member with a certificate with which it may not sign."""
    honest = issue(key(inviter).private, ALICE_GRANT.issuing, key(50).node_id)
    return (honest.chain[0], *chain)


ROOT = ALICE_GRANT.chain[-1]
ROOT_NAME = load_der_x509_certificate(ROOT).subject


def beyond_its_path() -> Chain:
    """A member that may make no inviters has made one, and that one a member."""
    narrow = _issuing(CLUSTER_KEY.private, ROOT_NAME, _name("narrow"), key(9).node_id, 0)
    wide = _issuing(key(9).private, _name("narrow"), _name("wide"), key(10).node_id, 5)
    return issue(key(10).private, (wide, narrow, ROOT), key(11).node_id).chain


def own_root() -> Chain:
    """A stranger's root, and a leaf below it that names our cluster."""
    root = _issuing(key(9).private, ROOT_NAME, ROOT_NAME, key(9).node_id, 16)
    return (_leaf(key(9).private, ROOT_NAME, key(10).node_id, CLUSTER), root)


def without_the_right_to_sign() -> Chain:
    """A certificate authority by its constraints, but not by its key's usage."""
    name = _name("unsigning")
    weak = (
        _builder(CLUSTER_KEY.private, ROOT_NAME, name, key(9).node_id)
        .add_extension(BasicConstraints(ca=True, path_length=3), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .sign(CLUSTER_KEY.private, None)
    )
    leaf = _leaf(key(9).private, name, key(10).node_id, CLUSTER)
    return (leaf, weak.public_bytes(Encoding.DER), ROOT)


LEAF, *REST = BOB_GRANT.chain
BAD_CHAINS: dict[str, Callable[[], Chain]] = {
    "no certificate": lambda: (),
    "a leaf alone": lambda: (LEAF,),
    "a root alone": lambda: BOB_GRANT.chain[-1:],
    "no root": lambda: BOB_GRANT.chain[:-1],
    "no inviter": lambda: (LEAF, BOB_GRANT.chain[-1]),
    "swapped": lambda: (REST[0], LEAF, *REST[1:]),
    "backwards": lambda: BOB_GRANT.chain[::-1],
    "an issuing chain": lambda: BOB_GRANT.issuing,
    "a leaf as issuer": lambda: forged_below(2, BOB_GRANT.chain),
    "another member's leaf": lambda: (ALICE_GRANT.chain[0], *REST),
    "another cluster": lambda: STRANGER.credential,
    "another cluster's root": lambda: (*BOB_GRANT.chain[:-1], STRANGER.credential[-1]),
    "more inviters than a certificate allows": beyond_its_path,
    "a root of its own making": own_root,
    "an issuer that may not sign": without_the_right_to_sign,
    "a leaf for another cluster": lambda: (
        _leaf(CLUSTER_KEY.private, ROOT_NAME, key(9).node_id, STRANGER.cluster_id),
        ROOT,
    ),
    "junk": lambda: (b"junk", b"junk"),
}


@pytest.mark.parametrize("case", BAD_CHAINS)
def test_what_proves_nothing(case: str) -> None:
    """Refused as NOT_A_MEMBER, whatever is wrong."""
    with pytest.raises(RemoteFault) as refused:
        verify_chain(BAD_CHAINS[case](), CLUSTER)
    assert refused.value.fault == Fault.NOT_A_MEMBER


def test_what_is_too_large_is_not_even_read() -> None:
    """Nor is a chain that is too long; and another cluster's right to invite is none here."""
    for chain, why in (
        ((LEAF, bytes(CERTIFICATE_BYTES_MAX + 1)), "too large"),
        ((LEAF,) * (CREDENTIAL_CERTIFICATES_MAX + 1), "a chain of 19"),
        (STRANGER_GRANT.issuing, "another cluster"),
    ):
        with pytest.raises(RemoteFault, match=why):
            verify_issuing(chain, CLUSTER)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.data())
def test_a_changed_chain_proves_nothing_new(data: st.DataObject) -> None:
    """Any byte of any certificate changed, or noise in its place: refused, or it proves what it proved.

    (A signature's DER has a count of unused bits that not every reader looks at.)
    """
    which = data.draw(st.integers(0, len(BOB_GRANT.chain) - 1))
    der = bytearray(BOB_GRANT.chain[which])
    if data.draw(st.booleans()):
        der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        der[:] = data.draw(st.binary(max_size=100))
    chain = (*BOB_GRANT.chain[:which], bytes(der), *BOB_GRANT.chain[which + 1 :])
    try:
        proved = verify_chain(chain, CLUSTER)
    except RemoteFault as fault:
        assert fault.fault == Fault.NOT_A_MEMBER
    else:
        assert proved == key(2).node_id
