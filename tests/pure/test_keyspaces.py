"""What a name means: definitions, their ids, and the table of those that are stored."""

from __future__ import annotations

from hashlib import blake2b
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Refused
from protocol.keyspaces import COORDINATED, Definition, Keyspaces, decode, define, encode
from protocol.limits import KEY_BYTES_MAX, KEYSPACE_CHARS_MAX, VOTERS_MAX
from protocol.types import NodeId
from protocol.voters import Voter

VOTERS = [Voter(NodeId(bytes([n]) * 32), bytes([n]) * 16) for n in range(VOTERS_MAX + 2)]
BANK = define("bank", COORDINATED, VOTERS[:3])
OTHER_BANK = define("bank", COORDINATED, VOTERS[1:4])
PLAIN = define("plain")


def table(*definitions: Definition) -> Keyspaces:
    keyspaces = Keyspaces()
    for definition in definitions:
        keyspaces.note(definition.key, encode(definition))
    return keyspaces


def stored(name: object, policy: object, parameters: object) -> tuple[bytes, bytes]:
    """What somebody writes into the hidden keyspace, under the very key that it hashes to."""
    value = msgspec.msgpack.encode((name, policy, parameters))
    digest = blake2b(value, digest_size=8, person=b"pn/keyspace").digest()
    keyspace = int.from_bytes(digest, "big") >> 1
    return str(name).encode() + b"\0" + keyspace.to_bytes(8, "big"), value


def refusal(meaning: Definition | Refused) -> str:
    assert isinstance(meaning, Refused)
    return meaning.code


# Ids


def test_ids_are_the_same_in_every_build() -> None:
    """They are stored and sent: they may never change."""
    assert define("default").id == 4874831202962543107
    assert BANK.id == 1952815917945093934


def test_everything_enters_the_id() -> None:
    """Two definitions never mix their data."""
    restored = Voter(VOTERS[0].node, b"another store id")
    definitions = [
        BANK,
        OTHER_BANK,
        define("bank"),
        define("bank", "fww"),
        define("bank2", COORDINATED, VOTERS[:3]),
        define("bank", COORDINATED, VOTERS[:1]),
        define("bank", COORDINATED, [restored]),
    ]
    assert len({definition.id for definition in definitions}) == len(definitions)


def test_the_order_of_voters_does_not_matter() -> None:
    """They are a set, told in the order of their ids."""
    for voters in permutations(VOTERS[:3]):
        assert define("bank", COORDINATED, voters) == BANK
    assert [voter.node[0] for voter in BANK.voters] == [0, 1, 2]


def test_the_longest_name_has_room_in_a_key() -> None:
    """In whatever script."""
    assert len(define("\U0001f600" * KEYSPACE_CHARS_MAX).key) <= KEY_BYTES_MAX


# What is stored


@given(st.text(min_size=1, max_size=9).filter(str.isprintable), st.sampled_from([0, 1, 3, 5, 7]))
def test_a_definition_survives_the_store(name: str, voters: int) -> None:
    """And hashes to its key."""
    definition = define(name, COORDINATED, VOTERS[:voters]) if voters else define(name)
    assert decode(definition.key, encode(definition)) == definition
    assert stored("bank", COORDINATED, {"voters": BANK.voters}) == (BANK.key, encode(BANK))


NO_DEFINITIONS = {
    "dropped": (BANK.key, None),
    "nothing": (BANK.key, b""),
    "no MessagePack": (BANK.key, b"\xc1"),
    "another's key": (OTHER_BANK.key, encode(BANK)),
    "a longer value": (BANK.key, encode(BANK) + b"\x00"),
    "a number for a name": stored(1, "lww", {}),
    "no name": stored("", "lww", {}),
    "a long name": stored("n" * (KEYSPACE_CHARS_MAX + 1), "lww", {}),
    "a name that clears the screen": stored("\x1b[2J", "lww", {}),
    "an lww keyspace with voters": stored("bank", "lww", {"voters": BANK.voters}),
    "a coordinated one without": stored("bank", COORDINATED, {}),
    "two voters": stored("bank", COORDINATED, {"voters": VOTERS[:2]}),
    "nine voters": stored("bank", COORDINATED, {"voters": VOTERS[:9]}),
    "one voter three times": stored("bank", COORDINATED, {"voters": VOTERS[:1] * 3}),
    "voters out of order": stored("bank", COORDINATED, {"voters": BANK.voters[::-1]}),
    "a voter without a store": stored("bank", COORDINATED, {"voters": [(bytes(32), b"")]}),
    "a parameter of nobody": stored("bank", COORDINATED, {"voters": BANK.voters, "more": 1}),
}


@pytest.mark.parametrize("case", NO_DEFINITIONS)
def test_what_is_no_definition_is_ignored(case: str) -> None:
    """Any member can write anything into the hidden keyspace; the definitions that are there stay."""
    key, value = NO_DEFINITIONS[case]
    assert decode(key, value) is None
    keyspaces = table(PLAIN)
    keyspaces.note(key, value)
    assert keyspaces.all() == [PLAIN]


@given(st.binary(max_size=12), st.none() | st.binary(max_size=12))
def test_the_table_takes_any_bytes(key: bytes, value: bytes | None) -> None:
    """They are what a peer sent."""
    keyspaces = table(BANK, PLAIN)
    keyspaces.note(key, value)
    keyspaces.note(key + PLAIN.key[-9:], value)
    assert (keyspaces.all(), keyspaces.by_id(PLAIN.id)) == ([BANK, PLAIN], PLAIN)


# Names


def test_a_name_without_a_definition_is_an_lww_keyspace() -> None:
    """The same as if somebody had created that: no data moves."""
    assert table().resolve("plain") == PLAIN == table(PLAIN).resolve("plain")


def test_a_name_means_its_one_definition() -> None:
    """Found by its id, too, and gone when it is dropped."""
    keyspaces = table(BANK)
    assert (keyspaces.resolve("bank"), keyspaces.by_id(BANK.id), len(keyspaces)) == (BANK, BANK, 1)
    keyspaces.note(BANK.key, None)
    assert (keyspaces.resolve("bank"), keyspaces.by_id(BANK.id)) == (define("bank"), None)


@pytest.mark.parametrize("dropped", [BANK, OTHER_BANK])
def test_a_name_with_two_definitions_means_neither_until_one_is_dropped(dropped: Definition) -> None:
    """Two creators did not hear each other; the ids are named, so that somebody can choose."""
    keyspaces = table(BANK, OTHER_BANK, PLAIN)
    meaning = keyspaces.resolve("bank")
    assert refusal(meaning) == "conflict"
    assert isinstance(meaning, Refused)
    assert all(f"{definition.id:016x}" in meaning.message for definition in (BANK, OTHER_BANK))
    assert "keyspace drop bank --id" in meaning.hint
    assert keyspaces.resolve("plain") == PLAIN

    keyspaces.note(dropped.key, None)
    (left,) = {BANK, OTHER_BANK} - {dropped}
    assert keyspaces.resolve("bank") == left


def test_a_name_with_very_many_definitions_is_refused_in_few_words() -> None:
    """Any member can make them."""
    keyspaces = table(*(define("bank", COORDINATED, [voter]) for voter in VOTERS))
    meaning = keyspaces.resolve("bank")
    assert isinstance(meaning, Refused)
    assert f"{len(VOTERS)} times" in meaning.message
    assert len(meaning.message) < 200


def test_a_policy_of_a_later_version_is_not_taken_for_another() -> None:
    """It is known by its hash and kept; only what it means is not known here."""
    key, value = stored("later", "fww", {"more": [1]})
    keyspaces = table()
    keyspaces.note(key, value)
    (definition,) = keyspaces.all()
    assert (definition.name, definition.policy, definition.key) == ("later", "fww", key)
    assert refusal(keyspaces.resolve("later")) == "unsupported_version"


@pytest.mark.parametrize("name", ["", "n" * (KEYSPACE_CHARS_MAX + 1), "a\0b", "a\nb", "\ud800"])
def test_what_can_be_no_name_means_nothing(name: str) -> None:
    """Neither an empty, a very long nor an unprintable one."""
    assert refusal(table().resolve(name)) in ("invalid", "too_large")
