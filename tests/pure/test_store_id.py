"""The id of a node's store: when it stays, when it is another one, and from when on a voter may rely on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.effects import Effect
from protocol.inputs import Join, Put, Tick
from protocol.membership.record import MemberRecord
from protocol.replica.messages import Pull
from protocol.replica.replica import LINEAGE_MARK
from protocol.replica.settling import STORE_ID_MARK, Identity

from ..sim.swarm.fakes import Disk
from .rig import Peer, Rig, payloads

B, C = Peer("b"), Peer("c")
LAST, NOW, LINEAGE = 100, 200, 1
STORE = b"the store of old"


def folder(*peers: Peer) -> Disk:
    """What a node leaves behind that knew these members and wrote one entry."""
    rig = Rig(run=LAST, identity=Identity(LAST, 0, LINEAGE, STORE)).start()
    for peer in peers:
        rig.join(peer)
    rig.handle(Put(None, "default", b"k", b"v"))
    rig.commit()
    return rig.disk


def started(*peers: Peer) -> Rig:
    """The same node in its next run, linked to each of them."""
    rig = Rig(disk=folder(*peers), identity=Identity(NOW, LAST, LINEAGE, STORE)).start()
    for peer in peers:
        rig.link(peer)
    return rig


def pull(known_run: int = LAST, *known: tuple[int, int]) -> Pull:
    return Pull(1, [], known_run, list(known), None)


def is_kept(rig: Rig) -> bool:
    return rig.node.settling.store_id == STORE and rig.disk.mark(STORE_ID_MARK) in (None, STORE)


def told(effects: list[Effect]) -> list[bytes]:
    """The store ids in the records that leave."""
    records = payloads(effects, MemberRecord)
    return [record.store_id for record in records if isinstance(record, MemberRecord)]


# It stays


def test_a_new_folder_has_one_and_is_confirmed() -> None:
    """Nothing was ever promised under it. It is what the first record says."""
    rig = Rig(identity=Identity(NOW, 0, LINEAGE, STORE)).start("seed:1")
    assert rig.node.settling.is_confirmed
    assert told(rig.link(B)) == [STORE]


def test_a_restart_keeps_it_and_waits_for_a_word() -> None:
    """Of any peer that knew an earlier run of it; one that did not cannot tell."""
    rig = started(B, C)
    rig.receive(B, B.says(pull(0)))
    assert (is_kept(rig), rig.node.settling.is_confirmed) == (True, False)
    rig.receive(C, C.says(pull(LAST, (LINEAGE, 1))))
    assert (is_kept(rig), rig.node.settling.is_confirmed) == (True, True)


def test_a_cluster_of_one_confirms_itself() -> None:
    """There is nobody else who could know more."""
    rig = started()
    assert (is_kept(rig), rig.node.settling.is_confirmed) == (True, True)


def test_an_isolated_start_keeps_it() -> None:
    """Its lineage is new by caution; its promises stand, once somebody comes and confirms them."""
    rig = started(B)
    rig.lose(B)
    rig.handle(Put(None, "default", b"k", b"v"))
    rig.wait(rig.node.config.settle_s)
    assert rig.node.origin[1] != LINEAGE
    assert (is_kept(rig), rig.node.settling.is_confirmed) == (True, False)
    rig.link(B)
    rig.receive(B, B.says(pull(LAST, (LINEAGE, 1))))
    assert (is_kept(rig), rig.node.settling.is_confirmed) == (True, True)


def test_a_mended_clock_keeps_it() -> None:
    """What was written with wrong stamps is written again; nothing is forgotten by that."""
    rig = Rig(identity=Identity(NOW, 0, LINEAGE, STORE)).start()
    rig.handle(Put(None, "default", b"k", b"v"))
    rig.commit()
    rig.join(B)
    rig.measure(B, ahead_ms=-1_200_000)
    rig.handle(Tick())
    rig.commit()
    assert rig.node.origin[1] != LINEAGE
    assert is_kept(rig)


# It is another one


CONTRADICTIONS: dict[str, Callable[[Rig], list[Effect]]] = {
    "a later entry": lambda rig: rig.receive(B, B.says(pull(LAST, (LINEAGE, 2)))),
    "a later run": lambda rig: rig.receive(B, B.says(pull(LAST + 1, (LINEAGE, 1)))),
    "a record of a later run": lambda rig: rig.receive(B, Peer("me", NOW + 1).announces()),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_an_old_copy_gets_a_new_one(case: str) -> None:
    """Durable in the same commit as the new lineage, then told to all; from then on it can be relied on."""
    rig = started(B, C)
    rig.commit()
    assert told(CONTRADICTIONS[case](rig)) == []
    store_id = rig.node.settling.store_id
    assert (store_id != STORE, rig.node.settling.is_confirmed) == (True, False)
    assert told(rig.commit()) == [store_id]
    assert rig.disk.mark(STORE_ID_MARK) == store_id
    assert rig.disk.mark(LINEAGE_MARK) == rig.node.origin[1].to_bytes(8, "big")
    assert rig.node.settling.is_confirmed


def test_a_late_contradiction_counts_too() -> None:
    """A peer that is no better informed had confirmed what is wrong."""
    rig = started(B, C)
    rig.receive(B, B.says(pull(LAST, (LINEAGE, 1))))
    assert rig.node.settling.is_confirmed
    rig.receive(C, C.says(pull(LAST + 1, (LINEAGE, 1))))
    assert not rig.node.settling.is_confirmed
    assert not is_kept(rig)


def test_the_same_news_from_all_peers_makes_one_new_store() -> None:
    """And one new lineage: everybody knows the later run."""
    rig = started(B, C)
    rig.receive(B, B.says(pull(LAST + 1)))
    made = rig.node.settling.store_id, rig.node.origin
    rig.receive(C, C.says(pull(LAST + 1)))
    assert (rig.node.settling.store_id, rig.node.origin) == made


def test_two_copies_of_one_folder_never_get_the_same() -> None:
    """They are drawn at random."""
    found = set()
    for seed in range(3):
        rig = started(B)
        rig.node.settling._random.seed(seed)
        rig.receive(B, B.says(pull(LAST + 1)))
        found.add(rig.node.settling.store_id)
    assert len(found) == 3


def test_a_full_disk_does_not_bring_the_old_one_back() -> None:
    """It is not relied on before it is stored, and stored as soon as that works: the next start finds no old copy."""
    rig = started(B)
    rig.commit()
    rig.receive(B, B.says(pull(LAST + 1)))
    store_id, lineage = rig.node.settling.store_id, rig.node.origin[1]
    assert told(rig.fail()) == []
    rig.handle(Join(("another:1",)))
    assert told(rig.commit()) == []
    assert (rig.disk.mark(STORE_ID_MARK), rig.node.settling.is_confirmed) == (None, False)

    effects = rig.wait(rig.node.config.redial_max_s + 0.1)
    assert told(effects) == [store_id]
    assert rig.node.settling.is_confirmed
    assert rig.disk.mark(STORE_ID_MARK) == store_id
    assert rig.disk.mark(LINEAGE_MARK) == lineage.to_bytes(8, "big")
