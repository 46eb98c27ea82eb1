"""The specification and the other READMEs against the code: their tables, and the worked example in hex.

What a table names must be so, and what must be complete is: messages, fields, faults, methods, error codes.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from peernode import limits as runtime_limits
from peernode.client.errors import EXIT_CODES
from peernode.local.methods import METHODS
from protocol import limits as protocol_limits
from protocol.effects import Entry
from protocol.errors import Fault
from protocol.identity import certificates
from protocol.identity.keys import Ed25519Keys, NodeKey
from protocol.identity.tickets import JoinChallenge, Ticket, challenge_answer
from protocol.keyspaces import DEFAULT_KEYSPACE, define
from protocol.membership.table import Table
from protocol.node import build_registry
from protocol.replica.entry import item_hash, to_row, version_text
from protocol.replica.replica import Batch
from protocol.types import node_text
from protocol.wire.envelope import Header, Sealer
from protocol.wire.frames import HEADER, Kind
from protocol.wire.hello import Handshake, Hello, close_frame

ROOT = Path(__file__).parents[1]
SPECIFICATION = (ROOT / "protocol" / "README.md").read_text()
RUNTIME = (ROOT / "peernode" / "README.md").read_text()

RUN = 1_700_000_000_000


# Tables


def rows_under(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a line that begins with `heading`, without its head."""
    section = re.split(rf"^{re.escape(heading)}.*\n", text, maxsplit=1, flags=re.MULTILINE)
    assert len(section) == 2, f"no line begins with {heading!r}"
    table = re.search(r"(?:^\|.*\n)+", section[1], re.MULTILINE)
    assert table, f"no table behind {heading!r}"
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names_under(text: str, heading: str) -> list[str]:
    return [row[0].strip("`") for row in rows_under(text, heading)]


def test_every_message_is_specified() -> None:
    """Number, name, stream, since and bulk of each message stand in its heading, its fields in order below."""
    specified = {
        heading: names_under(SPECIFICATION, f"### {heading}")
        for heading in re.findall(r"^### (\d+ .*)$", SPECIFICATION, re.MULTILINE)
    }

    assert specified == {
        f"{route.number} {route.payload.__name__} · {route.stream.value} · since {route.since}"
        + (" · bulk" if route.bulk else ""): list(route.payload.__struct_fields__)
        for route in sorted(build_registry().routes.values(), key=lambda route: route.number)
    }


@pytest.mark.parametrize(("heading", "struct"), [("**HELLO**", Hello), ("A message is a frame", Header)])
def test_the_outer_structures_are_specified(heading: str, struct: type[msgspec.Struct]) -> None:
    """The fields of HELLO and of the envelope's body, in order."""
    assert names_under(SPECIFICATION, heading) == list(struct.__struct_fields__)


def test_frame_kinds_are_specified() -> None:
    """Every kind of frame and its number."""
    rows = rows_under(SPECIFICATION, "`length` does not count")
    assert [(row[0], row[1]) for row in rows] == [(str(kind.value), kind.name) for kind in Kind]


def test_every_fault_is_specified() -> None:
    """A peer may be told any of them."""
    assert names_under(SPECIFICATION, "## Faults") == [fault.value for fault in Fault]


@pytest.mark.parametrize(("text", "heading"), [(SPECIFICATION, "## Limits"), (RUNTIME, "## Back-pressure")])
def test_limits_are_as_told(text: str, heading: str) -> None:
    """A limit in a document is the one in the code."""
    limits = vars(protocol_limits) | vars(runtime_limits)
    for name, value, *_ in rows_under(text, heading):
        assert value == str(limits[name.strip("`")]), name


def test_every_method_is_told() -> None:
    """Each method of the local socket, its parameters in their order; a `?` marks those that may be left out."""
    told = {row[0].strip("`"): row[1].strip("`") for row in rows_under(RUNTIME, "### Methods")}

    assert told == {
        name: ", ".join(
            field.name if field.required else f"{field.name}?"
            for field in msgspec.structs.fields(method.params)
        )
        for name, method in METHODS.items()
    }


def test_exit_codes_are_as_told() -> None:
    """Every error code that has an exit code of its own; the others exit with 1."""
    told = {row[0].strip("`"): int(row[1]) for row in rows_under(RUNTIME, "### Errors")}

    assert {code: exit_code for code, exit_code in told.items() if exit_code != 1} == EXIT_CODES


# The worked example


def test_the_worked_example_is_what_the_code_makes() -> None:
    """Somebody who writes a second implementation compares with these bytes."""
    printed = "".join(told(name, value) for name, value in example().items())

    (shown,) = re.findall(r"^```text example\n(.*?)^```$", SPECIFICATION, re.MULTILINE | re.DOTALL)
    assert shown == printed


def told(name: str, value: bytes | str) -> str:
    """A value under its name, 64 characters a line."""
    text = value.hex() if isinstance(value, bytes) else value
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "".join(f"{name if at == 0 else '':<27}{line}\n" for at, line in enumerate(lines))


def example() -> dict[str, bytes | str]:
    """The bytes of the example, made from fixed seeds in the order in which they would be met."""
    cluster, key_a, key_b = (NodeKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
    grant_a = certificates.found(cluster.private, key_a.node_id)
    a = Ed25519Keys(key_a, grant_a)
    b = Ed25519Keys(key_b, a.issue(key_b.node_id))
    hello_a = Hello(1, 1, a.cluster_id, a.node_id, RUN, 0, RUN, bytes([6]) * 16)
    hello_b = Hello(1, 1, b.cluster_id, b.node_id, RUN, RUN - 1, RUN, bytes([7]) * 16)
    registry = build_registry()
    dialler = Handshake(a, registry, hello_a, b.node_id, dialled=True)
    listener = Handshake(b, registry, hello_b, a.node_id, dialled=False)
    frame_a, frame_b = dialler.hello(), listener.hello()
    confirm, _ = dialler.receive(Kind.HELLO, frame_b[HEADER.size :])
    listener.receive(Kind.HELLO, frame_a[HEADER.size :])
    _, established = listener.receive(Kind.ENVELOPE, confirm[HEADER.size :])
    assert established is not None and established.version == 1
    entry = Entry(define(DEFAULT_KEYSPACE).id, b"k", RUN << 16, a.node_id, RUN, 1, b"v")
    sealer = Sealer(a, registry, version=1, run=RUN)
    batch = sealer.seal(Batch(RUN, 1, 1, [to_row(entry)]), seq=1, hlc=entry.hlc)
    table = Table(lambda: (a.node_id, RUN, 0))
    ticket = Ticket(bytes([4]) * 8, bytes([5]) * 16, a.cluster_key, ("127.0.0.1:7755",))
    challenge = JoinChallenge(1, 1, grant_a.chain, bytes([8]) * 16)
    answer = challenge_answer(ticket, key_b, challenge, grant_a.chain[0], bytes([9]) * 16)
    return {
        "cluster public key": a.cluster_key,
        "cluster id": a.cluster_id,
        "A's node id": a.node_id,
        "the same for people": node_text(a.node_id),
        "B's node id": b.node_id,
        "sha256 of the root": sha256(grant_a.chain[-1]).digest(),
        "sha256 of A's leaf": sha256(grant_a.chain[0]).digest(),
        "sha256 of A's issuing": sha256(grant_a.issuing[0]).digest(),
        "sha256 of B's leaf": sha256(b.credential[0]).digest(),
        "HELLO of A (06.. nonce)": frame_a,
        "HELLO of B (07.. nonce)": frame_b,
        "CONFIRM of A": confirm,
        "CLOSE of A (timeout, bye)": close_frame(a, Fault.TIMEOUT, "bye"),
        "keyspace id of default": entry.keyspace.to_bytes(8, "big"),
        "BATCH of A: k = v": batch,
        "version of that entry": version_text(entry),
        "item hash": item_hash(entry).to_bytes(16, "big"),
        "table digest of A alone": digest_of(table),
        "ticket": ticket.text(),
        "its proof by B": answer.proof,
        "its signature by B": answer.signature,
    }


def digest_of(table: Table) -> bytes:
    table.note_change()
    return table.digest
