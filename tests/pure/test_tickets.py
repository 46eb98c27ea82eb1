"""Tickets: pasted by people, proven without being sent, good for one node on one connection."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Fault, Refused, RemoteFault
from protocol.identity.keys import NodeKey
from protocol.identity.tickets import (
    JoinChallenge,
    JoinGranted,
    JoinRequest,
    Ticket,
    TicketRow,
    accept_grant,
    challenge_answer,
    decode_challenge,
    decode_request,
    decode_verdict,
    judge,
    parse,
)

from .samples import ALICE, ALICE_GRANT, BOB_GRANT, CLUSTER_KEY, STRANGER, key

NOW_MS = 1_700_000_000_000
NONCE = bytes(range(16))
TICKET = Ticket(b"8 bytes.", b"sixteen  bytes..", CLUSTER_KEY.node_id, ("10.0.0.1:7000",))
ROW = TicketRow(TICKET.ticket_id, sha256(TICKET.secret).digest(), NOW_MS + 1_000, 2)
LEAF = ALICE.credential[0]

tickets = st.builds(
    Ticket,
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(max_size=20), max_size=8).map(tuple),
)


def request_of(
    joiner: NodeKey, ticket: Ticket = TICKET, challenge: JoinChallenge | None = None
) -> JoinRequest:
    """What a joiner answers to Alice's challenge."""
    challenge = challenge or JoinChallenge(1, 1, ALICE.credential, NONCE)
    return challenge_answer(ticket, joiner, challenge, challenge.chain[0], bytes(16))


def verdict(
    request: JoinRequest, row: TicketRow | None = ROW, nonce: bytes = NONCE, leaf: bytes = LEAF
) -> TicketRow | Refused:
    return judge(row, request, nonce, leaf, NOW_MS)


@given(tickets)
def test_a_ticket_survives_being_pasted(ticket: Ticket) -> None:
    """In capitals, broken over lines, with white space around it."""
    text = ticket.text()
    assert parse(text) == ticket
    assert parse(f" \n{text[:20].upper()}\r\n  {text[20:]}\t") == ticket


def test_a_mistyped_or_cut_ticket_is_noticed() -> None:
    """Each character exchanged, and each prefix; a last character may hold bits that say nothing."""
    text = TICKET.text()
    told = ("this ticket is mistyped or cut off", "paste the whole line that invite printed")
    for at in range(3, len(text)):
        other = "a" if text[at] != "a" else "b"
        wrong = parse(text[:at] + other + text[at + 1 :])
        assert at == len(text) - 1 or (isinstance(wrong, Refused) and (wrong.message, wrong.hint) == told)
        cut = parse(text[:at])
        assert isinstance(cut, Refused) and (cut.message, cut.hint) == told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pn2" + TICKET.text()[3:], "this ticket is of a newer version of peernode"),
        ("hello", "this is no ticket"),
        ("", "this is no ticket"),
    ],
)
def test_other_text_is_told_apart(text: str, message: str) -> None:
    """A newer ticket needs another answer than a wrong paste."""
    refused = parse(text)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.message) == ("invalid", message)


@given(st.text(), st.booleans())
def test_any_text_is_a_ticket_or_a_refusal(text: str, has_prefix: bool) -> None:
    """Nothing that is pasted raises."""
    assert isinstance(parse("pn1" + text if has_prefix else text), Refused)


def test_the_right_proof_uses_the_ticket_once() -> None:
    """One use less, and who it was; the same node again changes nothing, also when no use is left."""
    used = verdict(request_of(key(5)))
    assert used == TicketRow(ROW.ticket_id, ROW.secret_hash, ROW.expires_ms, 1, (key(5).node_id,))
    empty = msgspec.structs.replace(used, uses_left=0)
    assert verdict(request_of(key(5)), empty) == empty


PROOF = "no such ticket here: a ticket is good only at the member that made it"
SIGNATURE = "the joiner's key is weak or its signature is wrong"
GOOD = request_of(key(5))
WRONG_SECRET = msgspec.structs.replace(TICKET, secret=bytes(16))
REFUSALS: dict[str, tuple[str, Callable[[], TicketRow | Refused]]] = {
    "no such ticket": (PROOF, lambda: verdict(GOOD, None)),
    "the wrong secret": (PROOF, lambda: verdict(request_of(key(5), WRONG_SECRET))),
    "another connection's nonce": (PROOF, lambda: verdict(GOOD, nonce=bytes(16))),
    "another issuer's leaf": (PROOF, lambda: verdict(GOOD, leaf=BOB_GRANT.chain[0])),
    "another node's id": (
        PROOF,
        lambda: verdict(msgspec.structs.replace(GOOD, node_id=key(6).node_id)),
    ),
    "a changed nonce of the joiner": (PROOF, lambda: verdict(msgspec.structs.replace(GOOD, nonce=NONCE))),
    "a wrong signature": (SIGNATURE, lambda: verdict(msgspec.structs.replace(GOOD, signature=bytes(64)))),
    "used up": ("the ticket is used up", lambda: verdict(GOOD, msgspec.structs.replace(ROW, uses_left=0))),
    "expired": (
        "the ticket has expired",
        lambda: verdict(GOOD, msgspec.structs.replace(ROW, expires_ms=NOW_MS)),
    ),
    "expired, and the secret unknown": (
        PROOF,
        lambda: verdict(request_of(key(5), WRONG_SECRET), msgspec.structs.replace(ROW, expires_ms=NOW_MS)),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_use_is_refused(case: str) -> None:
    """With a reason; only who proves the secret learns that the ticket is expired or used up."""
    message, refused = REFUSALS[case]
    assert refused() == Refused("not_allowed", message, "on any member: peernode invite")


def test_a_joiner_proves_nothing_to_a_stranger() -> None:
    """Another cluster's member, or one who shows a certificate that the TLS connection was not made with."""
    with pytest.raises(RemoteFault, match="another cluster"):
        request_of(key(5), challenge=JoinChallenge(1, 1, STRANGER.credential, NONCE))
    stolen = JoinChallenge(1, 1, ALICE.credential, NONCE)
    with pytest.raises(RemoteFault, match="the TLS certificate is not the one of the challenge"):
        challenge_answer(TICKET, key(5), stolen, STRANGER.credential[0], bytes(16))


def test_a_joiner_takes_only_what_makes_itself_a_member() -> None:
    """Both chains must be good, of the ticket's cluster, and its own."""
    bob, chain, issuing = key(2).node_id, BOB_GRANT.chain, BOB_GRANT.issuing
    assert accept_grant(TICKET, bob, JoinGranted(chain, issuing, ())) == BOB_GRANT
    for bad in (
        JoinGranted(ALICE_GRANT.chain, issuing, ()),
        JoinGranted(chain, ALICE_GRANT.issuing, ()),
        JoinGranted(chain, (), ()),
        JoinGranted(chain, (b"junk", *issuing[1:]), ()),
        JoinGranted(chain, (issuing[0], b"junk", issuing[-1]), ()),
        JoinGranted(chain, chain, ()),
    ):
        with pytest.raises(RemoteFault) as refused:
            accept_grant(TICKET, bob, bad)
        assert refused.value.fault == Fault.NOT_A_MEMBER


@given(st.binary(max_size=150), st.sampled_from([decode_challenge, decode_request, decode_verdict]))
def test_noise_is_no_join_message(noise: bytes, decode: Callable[[bytes], object]) -> None:
    """Whatever a stranger sends is MALFORMED."""
    with pytest.raises(RemoteFault) as refused:
        decode(noise)
    assert refused.value.fault == Fault.MALFORMED
