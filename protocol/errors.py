"""What can go wrong, by whose fault.

`RemoteFault` is raised while judging bytes from elsewhere; the node turns it into a cut link and a counter,
never into a crash. A local fault is a bug: an `AssertionError`. What a client of the local socket may
expect (`not_found`, `conflict` ...) are values, not exceptions: see `Refused`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Fault(StrEnum):
    """Why a peer was refused or cut off: named in the log, counted in `status`, told to the peer."""

    MALFORMED = "malformed"  # bytes that are no message of ours
    TOO_LARGE = "too_large"  # a frame beyond FRAME_BYTES_MAX
    UNSUPPORTED_VERSION = "unsupported_version"  # no common version, or a message of one that was not agreed
    UNKNOWN_TYPE = "unknown_type"  # a message type that the agreed version does not have
    WRONG_CLUSTER = "wrong_cluster"
    NOT_A_MEMBER = "not_a_member"  # no certificate, a foreign one, or one that does not prove what it should
    BAD_SIGNATURE = "bad_signature"
    BAD_TRANSCRIPT = "bad_transcript"  # the two HELLOs were not the same on both ends
    REPLAYED = "replayed"  # a sequence number that does not rise
    SELF = "self"  # we dialled ourselves
    WRONG_PEER = "wrong_peer"  # somebody else answers at a member's address
    DUPLICATE = "duplicate"  # a second link to the same peer
    STALE_RUN = "stale_run"  # a node that comes under an older run than it had before: it is told which
    CLONED = "cloned"  # two processes under one key at the same time
    QUOTA = "quota"  # more frames than a link may send
    STUCK = "stuck"  # the peer does not read what we must tell it
    TIMEOUT = "timeout"  # the handshake took too long
    REFUSED_TICKET = "refused_ticket"


class RemoteFault(Exception):
    """The peer broke the protocol. Nothing of what it sent was stored."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail


class Refused(msgspec.Struct, frozen=True, gc=False):
    """An expected refusal of a local request: `code` is one of the contract's error codes."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    details: tuple[tuple[str, object], ...] = ()
    """What belongs to some codes: the versions seen, the id of a transaction."""
