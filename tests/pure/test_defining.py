"""Creating and dropping keyspaces on one node, and whom it makes a voter."""

from __future__ import annotations

import pytest

from protocol.commit.task import Undecided
from protocol.effects import Entry
from protocol.errors import Refused
from protocol.inputs import Created, CreateKeyspace, DropKeyspace, Dropped, Put, Written
from protocol.keyspaces import COORDINATED, LWW, SYSTEM_KEYSPACE, Definition, define, encode
from protocol.limits import KEYSPACES_MAX
from protocol.replica.entry import Row
from protocol.replica.messages import Batch, Pull
from protocol.replica.settling import Identity
from protocol.types import NodeId, node_text
from protocol.voters import Voter

from .rig import EPOCH_MS, Peer, Rig, outcomes, payloads, store_id

B, C, D, E = (Peer(name) for name in "bcde")


def rig_with(*peers: Peer, **config: object) -> Rig:
    """A new node that has met these members, and is settled."""
    rig = Rig(**config).start(*(["seed:1"] if peers else []))
    for peer in peers:
        rig.join(peer)
        rig.measure(peer)
    return rig


def create(rig: Rig, name: str = "bank", policy: str = COORDINATED, *voters: str) -> Created | Refused:
    """Ask, and let it become durable."""
    return answer(rig, CreateKeyspace("create", name, policy, voters))


def answer(rig: Rig, request: CreateKeyspace | DropKeyspace | Put) -> object:
    (outcome,) = outcomes([*rig.handle(request), *rig.commit()])
    return outcome


def made(outcome: object) -> Definition:
    assert isinstance(outcome, Created), outcome
    assert outcome.is_new
    return outcome.definition


def code(outcome: object) -> str:
    assert isinstance(outcome, Refused), outcome
    return outcome.code


def voter(peer: Peer) -> Voter:
    return Voter(peer.node_id, store_id(peer.name))


def own(rig: Rig) -> Voter:
    return Voter(rig.keys.node_id, store_id("me"))


def heard(author: Peer, *definitions: Definition) -> bytes:
    """Definitions that another node has made."""
    rows = [
        Row(seq, SYSTEM_KEYSPACE, definition.key, EPOCH_MS << 16, encode(definition))
        for seq, definition in enumerate(definitions, 1)
    ]
    return author.says(Batch(1, 1, len(rows), rows))


# One node


def test_a_definition_is_answered_when_it_is_durable() -> None:
    """Before that nobody sees it; then it goes out to the others, and is found by the next start."""
    rig = rig_with(B)
    assert rig.handle(CreateKeyspace("create", "plain", LWW))[-1].rows  # type: ignore[union-attr]
    assert rig.node.replica.keyspaces.all() == []
    effects = rig.commit()
    definition = define("plain")
    assert outcomes(effects) == [Created(definition, is_new=True)]
    (batch,) = payloads(effects, Batch)
    assert isinstance(batch, Batch)
    assert [(row.keyspace, row.key, row.value) for row in batch.rows] == [
        (SYSTEM_KEYSPACE, definition.key, encode(definition))
    ]
    again = Rig(disk=rig.disk, identity=Identity(2, 1, 1, store_id("me")))
    assert again.node.replica.keyspaces.all() == [definition]


def test_definitions_are_no_records_of_users() -> None:
    """They are neither counted, nor part of the content digest, nor listed."""
    rig = rig_with()
    empty = rig.node.replica.tally.durable
    bank = made(create(rig))
    assert rig.node.replica.tally.durable == empty
    assert isinstance(answer(rig, DropKeyspace("drop", "bank", bank.id)), Dropped)
    assert rig.node.replica.tally.durable == empty
    for name in ("default", "bank"):
        page = rig.node.scan(name, b"", None, 10, rig.now)
        assert not isinstance(page, Refused)
        assert page.items == []


def test_what_expires_in_the_hidden_keyspace_is_not_counted_either() -> None:
    """Somebody may write that: the digest of a node that hears of it must not move, also when its time is over."""
    rig = rig_with(B)
    before = rig.node.replica.tally.durable
    row = Row(1, SYSTEM_KEYSPACE, b"k", EPOCH_MS << 16, b"v", EPOCH_MS + 101_000)
    rig.receive(B, B.says(Batch(1, 1, 1, [row])))
    rig.wait(2.0)
    assert rig.node.replica.tally.durable == before


def test_the_same_definition_twice_is_one() -> None:
    """Also where the second request comes before the first is durable, or names the voters that were picked."""
    rig = rig_with()
    rig.handle(CreateKeyspace("first", "bank", COORDINATED))
    rig.handle(CreateKeyspace("second", "bank", COORDINATED))
    definition = define("bank", COORDINATED, [own(rig)])
    assert outcomes(rig.commit()) == [Created(definition, is_new=True), Created(definition, is_new=False)]
    for voters in ((), ("me",), (node_text(rig.keys.node_id),)):
        assert create(rig, "bank", COORDINATED, *voters) == Created(definition, is_new=False)


def test_a_name_is_free_as_soon_as_its_definition_is_being_dropped() -> None:
    """Requests are judged in their order, whatever is durable yet."""
    rig = rig_with()
    bank = made(create(rig))
    rig.handle(DropKeyspace("drop", "bank", bank.id))
    rig.handle(CreateKeyspace("create", "bank", LWW))
    assert outcomes(rig.commit()) == [Dropped(bank), Created(define("bank"), is_new=True)]
    assert rig.node.replica.keyspaces.all() == [define("bank")]


def test_a_name_that_means_something_else_is_taken() -> None:
    """Another policy, or other voters."""
    rig = rig_with(B, C, D)
    made(create(rig, "bank", COORDINATED, "me", "b", "c"))
    assert code(create(rig, "bank", LWW)) == "exists"
    assert code(create(rig, "bank", COORDINATED, "me", "b", "d")) == "exists"
    made(create(rig, "plain", LWW))
    assert code(create(rig, "plain", COORDINATED)) == "exists"


def test_a_name_that_is_in_use_is_taken_too() -> None:
    """Its keys would be out of reach, also those on their way to the disk; once they are deleted it is free."""
    rig = rig_with()
    rig.handle(Put("put", "bank", b"k", b"v"))
    rig.handle(CreateKeyspace("create", "bank", COORDINATED))
    written, refused = outcomes(rig.commit())
    assert isinstance(written, Written)
    assert code(refused) == code(create(rig)) == "exists"
    made(create(rig, "bank", LWW))


def test_a_definition_is_dropped_by_its_id() -> None:
    """And may be made again: it is the same one, with all its keys."""
    rig = rig_with()
    bank = made(create(rig))
    assert code(answer(rig, DropKeyspace("drop", "bank", bank.id + 1))) == "not_found"
    assert code(answer(rig, DropKeyspace("drop", "bnak", bank.id))) == "not_found"
    assert answer(rig, DropKeyspace("drop", "bank", bank.id)) == Dropped(bank)
    assert rig.node.replica.keyspaces.resolve("bank") == define("bank")
    assert code(answer(rig, DropKeyspace("drop", "bank", bank.id))) == "not_found"
    assert made(create(rig)) == bank


def test_what_was_not_stored_is_not_defined() -> None:
    """The client hears of it, and can ask again."""
    rig = rig_with()
    rig.handle(CreateKeyspace("create", "bank", COORDINATED))
    (refused,) = outcomes(rig.fail())
    assert code(refused) == "storage_full"
    assert rig.node.replica.keyspaces.all() == []
    made(create(rig))


def test_a_definition_waits_until_the_node_is_settled() -> None:
    """It is an entry, with a number of this node."""
    rig = Rig().start("seed:1")
    assert outcomes(rig.handle(CreateKeyspace("create", "plain", LWW))) == []
    rig.join(B)
    rig.measure(B)
    assert made(outcomes(rig.commit())[0]) == define("plain")


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (CreateKeyspace("r", "", LWW), "invalid"),
        (CreateKeyspace("r", "a\nb", LWW), "invalid"),
        (CreateKeyspace("r", "n" * 200, LWW), "too_large"),
        (CreateKeyspace("r", "bank", "fww"), "invalid"),
        (CreateKeyspace("r", "bank", LWW, ("me",)), "invalid"),
        (CreateKeyspace("r", "bank", COORDINATED, ("me", "b")), "invalid"),
        (CreateKeyspace("r", "bank", COORDINATED, ("b", "b", "me")), "invalid"),
        (CreateKeyspace("r", "bank", COORDINATED, ("nobody",)), "not_found"),
    ],
)
def test_what_can_be_no_keyspace_is_refused(request_: CreateKeyspace, why: str) -> None:
    """With the reason, and without a trace."""
    rig = rig_with(B)
    assert code(answer(rig, request_)) == why
    assert list(rig.staged) == []


def test_there_are_not_too_many() -> None:
    """Every node holds all of them in memory."""
    rig = rig_with(B)
    rig.receive(B, heard(B, *(define(f"k{number}") for number in range(KEYSPACES_MAX))))
    rig.commit()
    assert code(create(rig, "one more", LWW)) == "overloaded"


# Two nodes


def test_two_creators_who_do_not_hear_each_other_are_found_out() -> None:
    """Then the name means neither: nothing is read or written until one is dropped; other names are as before."""
    rig = rig_with(B)
    mine, theirs = made(create(rig)), define("bank", COORDINATED, [voter(B)])
    rig.receive(B, heard(B, theirs))
    rig.commit()
    refusals = [
        answer(rig, Put("put", "bank", b"k", b"v")),
        rig.node.get("bank", b"k", rig.now),
        rig.node.scan("bank", b"", None, 10, rig.now),
    ]
    assert [code(refused) for refused in refusals] == ["conflict"] * 3
    assert not rig.node.is_staged("bank", b"k")
    assert code(create(rig)) == "exists"
    assert isinstance(answer(rig, Put("put", "default", b"k", b"v")), Written)

    answer(rig, DropKeyspace("drop", "bank", mine.id))
    assert rig.node.replica.keyspaces.resolve("bank") == theirs


def test_a_drop_that_another_node_did_counts_here() -> None:
    """It is an entry like any other."""
    rig = rig_with(B)
    rig.receive(B, heard(B, define("bank", COORDINATED, [voter(B)])))
    rig.commit()
    (definition,) = rig.node.replica.keyspaces.all()
    row = Row(2, SYSTEM_KEYSPACE, definition.key, (EPOCH_MS << 16) + 1, None)
    rig.receive(B, B.says(Batch(1, 2, 2, [row])))
    rig.commit()
    assert rig.node.replica.keyspaces.all() == []


# What becomes of writes


def test_a_write_to_a_coordinated_keyspace_is_not_decided_here() -> None:
    """Its voter is asked, and says nothing; a TTL and acks cannot be had there at all."""
    rig = rig_with(B)
    bank = made(create(rig, "bank", COORDINATED, "b"))
    rig.handle(Put("put", "bank", b"k", b"v", acks_wait_ms=300))
    (undecided,) = outcomes(rig.wait(1.0))
    assert isinstance(undecided, Undecided)
    assert code(answer(rig, Put("put", "bank", b"k", b"v", ttl_ms=1000))) == "invalid"
    assert code(answer(rig, Put("put", "bank", b"k", b"v", acks=1))) == "invalid"
    assert rig.disk.get(bank.id, b"k") is None


def test_a_write_that_waited_is_judged_by_what_its_keyspace_is_then() -> None:
    """Its definition came while the node settled."""
    rig = Rig().start("seed:1")
    rig.handle(Put("put", "bank", b"k", b"v", acks_wait_ms=300))
    rig.join(B)
    rig.receive(B, heard(B, define("bank", COORDINATED, [voter(B)])))
    rig.commit()
    assert outcomes([*rig.measure(B), *rig.commit()]) == []
    (undecided,) = outcomes(rig.wait(1.0))
    assert isinstance(undecided, Undecided)


def test_an_lww_keyspace_that_is_created_keeps_its_keys() -> None:
    """It was the same before, only nobody had said so."""
    rig = rig_with()
    answer(rig, Put("put", "plain", b"k", b"v"))
    made(create(rig, "plain", LWW))
    found = rig.node.get("plain", b"k", rig.now)
    assert isinstance(found, Entry)
    assert found.value == b"v"


# Voters


def test_three_are_picked_by_their_ids() -> None:
    """Those with the lowest: whoever creates it at the same time elsewhere picks the same."""
    rig = rig_with(B, C, D, E)
    all_five = sorted([own(rig), *(voter(peer) for peer in (B, C, D, E))])
    assert made(create(rig)).voters == tuple(all_five[:3])
    assert made(create(rig, "two")).voters == made(create(rig, "three")).voters


@pytest.mark.parametrize("peers", [(), (B,)])
def test_one_is_picked_where_there_are_fewer_than_three(peers: tuple[Peer, ...]) -> None:
    """This node: two voters are no better than one."""
    rig = rig_with(*peers)
    assert made(create(rig)).voters == (own(rig),)


def test_who_declines_is_not_picked() -> None:
    """Not even this node; a cluster of which fewer than three vote has one voter."""
    rig = rig_with(B, C, D, votes=False)
    assert set(made(create(rig)).voters) == {voter(peer) for peer in (B, C, D)}
    rig.receive(B, B.announces(1, votes=False))
    rig.receive(C, C.announces(1, votes=False))
    assert made(create(rig, "one")).voters == (voter(D),)
    for name in ("me", "b"):
        assert code(create(rig, "other", COORDINATED, name)) == "unavailable"


def test_who_is_not_alive_is_not_picked() -> None:
    """And where three are wanted, two are not enough; somebody may still name one."""
    rig = rig_with(B, C)
    rig.lose(B)
    assert code(create(rig)) == "unavailable"
    assert code(create(rig, "bank", COORDINATED, "b")) == "unavailable"
    assert made(create(rig, "bank", COORDINATED, "c")).voters == (voter(C),)


def test_who_has_left_is_not_counted() -> None:
    """A cluster of three that one has left is one of two."""
    rig = rig_with(B, C)
    rig.receive(B, B.announces(1, left=True))
    assert made(create(rig)).voters == (own(rig),)


def test_voters_are_named_by_name_or_id() -> None:
    """Or by as much of an id as `members` shows."""
    rig = rig_with(B, C, D)
    names = ("b", node_text(C.node_id), node_text(D.node_id)[:8])
    assert set(made(create(rig, "bank", COORDINATED, *names)).voters) == {voter(B), voter(C), voter(D)}


def test_a_name_that_two_members_have_is_not_enough() -> None:
    """Names are labels."""
    rig = rig_with(B, C)
    rig.receive(C, C.announces(1, name="b"))
    assert code(create(rig, "bank", COORDINATED, "b")) == "invalid"
    assert made(create(rig, "bank", COORDINATED, node_text(C.node_id))).voters == (voter(C),)


def test_a_node_that_nobody_has_confirmed_is_not_picked() -> None:
    """It may be an old copy: then its store would be another one as soon as it meets somebody."""
    disk = rig_with(B, C, D).disk
    rig = Rig(disk=disk, identity=Identity(2, 1, 1, store_id("me"))).start()
    rig.wait(rig.node.config.settle_s)
    for peer in (B, C, D):
        rig.join(peer)
    assert set(made(create(rig)).voters) == {voter(peer) for peer in (B, C, D)}
    assert code(create(rig, "mine", COORDINATED, "me")) == "unavailable"
    rig.receive(B, B.says(Pull(1, [], 1, [], None)))
    assert made(create(rig, "mine", COORDINATED, "me")).voters == (own(rig),)


def test_a_voter_is_its_store_too() -> None:
    """As its record says it now."""
    rig = rig_with(B)
    rig.receive(B, B.announces(1, store_id=b"another store id"))
    expected = (Voter(NodeId(B.node_id), b"another store id"),)
    assert made(create(rig, "bank", COORDINATED, "b")).voters == expected
