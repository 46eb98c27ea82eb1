"""The first write after a start: it waits until its number and its clock are known to be good."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.effects import Effect, Entry, Reply, Stage
from protocol.errors import Refused
from protocol.inputs import Delete, Put, PutMany, Written
from protocol.limits import WRITES_WAITING_MAX
from protocol.replica.messages import Holding, Pull
from protocol.replica.settling import Identity
from protocol.wire.fields import Head

from ..sim.swarm.fakes import Disk
from .rig import Peer, Rig, heartbeat, of, outcomes, payloads

B, C, D = Peer("b"), Peer("c"), Peer("d")
LAST, NOW = 100, 200
"""The run before this, and this."""
LINEAGE, STORE = 1, b"the store of old"


def folder(*peers: Peer) -> Disk:
    """What a node leaves behind that knew these members and wrote one entry."""
    rig = Rig(run=LAST, identity=Identity(LAST, 0, LINEAGE, STORE)).start()
    for peer in peers:
        rig.join(peer)
    rig.handle(put(b"before"))
    rig.commit()
    return rig.disk


def started(*peers: Peer) -> Rig:
    """The same node in its next run, with a link to each of them, and a write that waits."""
    rig = Rig(disk=folder(*peers), identity=Identity(NOW, LAST, LINEAGE, STORE)).start()
    for peer in peers:
        rig.link(peer)
    assert written(rig.handle(put())) == []
    return rig


def put(key: bytes = b"k") -> Put:
    return Put(key, "default", key, b"v")


def pull(known_run: int = LAST, *known: tuple[int, int], vector: list[Head] | None = None) -> Pull:
    return Pull(1, vector or [], known_run, list(known), None)


def written(effects: list[Effect]) -> list[Entry]:
    """The entries that are staged."""
    return [row for stage in of(effects, Stage) for row in stage.rows if isinstance(row, Entry)]


def dots(effects: list[Effect]) -> list[tuple[int, int]]:
    return [(entry.lineage, entry.seq) for entry in written(effects)]


# Waiting


def test_the_first_write_waits_for_a_word_and_for_clocks() -> None:
    """In whatever order they come; then it goes on where the last run stopped, and nothing waits any more."""
    rig = started(B)
    assert written(rig.receive(B, B.says(pull(LAST, (LINEAGE, 1))))) == []
    assert dots(rig.measure(B)) == [(LINEAGE, 2)]
    rig.lose(B)
    assert dots(rig.handle(put())) == [(LINEAGE, 3)]

    rig = started(B)
    assert written(rig.measure(B)) == []
    assert dots([*rig.receive(B, B.says(pull())), *rig.wait(0.3)]) == [(LINEAGE, 2)]


def test_most_clocks_must_be_measured() -> None:
    """Of three members two; of two both."""
    for peers, enough in (((B, C, D), 2), ((B, C), 2), ((B,), 1)):
        rig = started(*peers)
        rig.receive(B, B.says(pull()))
        counts = [len(written(rig.measure(peer))) for peer in peers]
        assert counts == [int(number == enough) for number in range(1, len(peers) + 1)]


def test_a_cluster_of_one_waits_for_nobody() -> None:
    """New or not: its numbers go on."""
    assert dots(Rig().start().handle(put())) == [(LINEAGE, 1)]
    rig = Rig(disk=folder(), identity=Identity(NOW, LAST, LINEAGE, STORE)).start()
    assert dots(rig.handle(put())) == [(LINEAGE, 2)]


def test_a_new_folder_waits_for_clocks_only() -> None:
    """Nobody can know numbers of it."""
    rig = Rig().start("seed:1")
    assert dots(rig.handle(put())) == []
    rig.join(B)
    assert dots(rig.measure(B)) == [(LINEAGE, 1)]


def test_no_write_waits_longer_than_that() -> None:
    """If nobody has confirmed its numbers, they begin anew: that costs little, the other could cost data."""
    rig = started(B)
    settle_s = rig.node.config.settle_s
    assert written(rig.wait(settle_s - 0.01)) == []
    assert rig.node.deadline_s <= rig.now_s + 0.01
    (entry,) = written(rig.wait(0.01))
    assert (entry.lineage != LINEAGE, entry.seq) == (True, 1)
    assert int.from_bytes(rig.disk.mark("lineage") or b"", "big") == entry.lineage
    assert dots(rig.handle(put())) == [(entry.lineage, 2)]


def test_a_confirmed_node_without_clocks_keeps_its_numbers() -> None:
    """When its patience is over; a new folder too."""
    rig = started(B)
    rig.receive(B, B.says(pull()))
    assert dots(rig.wait(rig.node.config.settle_s)) == [(LINEAGE, 2)]

    rig = Rig().start("seed:1")
    rig.handle(put())
    assert dots(rig.wait(rig.node.config.settle_s)) == [(LINEAGE, 1)]


# Contradiction


CONTRADICTIONS: dict[str, Callable[[bytes], Pull | Holding]] = {
    "a later entry": lambda me: pull(LAST, (LINEAGE, 2)),
    "an entry beyond a gap": lambda me: pull(LAST, (LINEAGE, 9), vector=[(me, LINEAGE, 1)]),
    "a later head": lambda me: pull(LAST, vector=[(me, LINEAGE, 2)]),
    "a later head that it holds": lambda me: Holding([(me, LINEAGE, 2)]),
    "a later run": lambda me: pull(LAST + 1, (LINEAGE, 1)),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
@pytest.mark.parametrize("is_late", [False, True])
def test_a_peer_that_knows_more_than_the_folder_begins_a_lineage(case: str, is_late: bool) -> None:
    """Before the first write, or after it: the folder is an old copy, its next numbers may be taken."""
    rig = started(B)
    if is_late:
        rig.receive(B, B.says(pull()))
        rig.measure(B)
        rig.commit()
        taken = rig.node.replica.own_head
        rig.receive(B, B.says(pull(LAST, (LINEAGE, taken + 1))))
    else:
        rig.receive(B, B.says(CONTRADICTIONS[case](rig.keys.node_id)), B.says(pull()))
        rig.measure(B)
    rig.wait(0.3)
    rig.handle(put(b"next"))
    rig.commit()
    entry = rig.node.get("default", b"next", rig.now)
    assert isinstance(entry, Entry)
    assert entry.lineage == rig.node.origin[1] != LINEAGE
    assert int.from_bytes(rig.disk.mark("lineage") or b"", "big") == entry.lineage


@pytest.mark.parametrize(
    "word",
    [
        pull(LAST, (LINEAGE, 1)),
        pull(LAST, (LINEAGE + 1, 9)),
        pull(LAST - 1, (LINEAGE, 1)),
    ],
)
def test_a_peer_that_knows_no_more_confirms(word: Pull) -> None:
    """The same, or less, or another lineage of ours."""
    rig = started(B)
    rig.receive(B, B.says(word))
    assert dots(rig.measure(B)) == [(LINEAGE, 2)]


@pytest.mark.parametrize("known_run", [0, NOW])
def test_a_peer_that_did_not_know_us_before_confirms_nothing(known_run: int) -> None:
    """It is new, or heard of us in this run first: what our last run wrote, it would not know. Nor does it deny."""
    rig = started(B, C)
    rig.receive(B, B.says(pull(known_run)))
    assert dots([*rig.measure(B), *rig.measure(C)]) == []
    assert dots([*rig.receive(C, C.says(pull())), *rig.wait(0.3)]) == [(LINEAGE, 2)]

    rig = started(B)
    rig.receive(B, B.says(pull(known_run)))
    (entry,) = written(rig.wait(rig.node.config.settle_s))
    assert (entry.lineage != LINEAGE, entry.seq) == (True, 1)


def test_two_lineages_of_one_node_never_meet() -> None:
    """They are drawn at random, also where a run is: a folder that is set back twice would count to the same one."""
    lineages = set()
    for peer in (B, C, D):
        rig = started(peer)
        rig.node.settling._random.seed(peer.name)
        (entry,) = written(rig.wait(rig.node.config.settle_s))
        lineages.add(entry.lineage)
    assert len(lineages) == 3


# What waits


def test_what_waits_is_carried_out_in_order() -> None:
    """All of it, before anything that comes later; each has its answer."""
    rig = started(B)
    rig.handle(PutMany(b"many", "default", ((b"1", b"", None), (b"2", b"", None))))
    rig.handle(Delete(b"delete", "default", b"k"))
    rig.receive(B, B.says(pull()))
    effects = rig.measure(B)
    assert [entry.key for entry in written(effects)] == [b"k", b"1", b"2", b"k"]
    assert [reply.ref for reply in of(rig.commit(), Reply)] == [b"k", b"many", b"delete"]

    rig = started(B)
    rig.receive(B, B.says(pull()))
    rig.now_s += rig.node.config.settle_s
    rig.handle(put(b"later"))
    assert [entry.key for entry in written(rig.wait(0.001))] == [b"k", b"later"]


def test_what_waits_is_judged_when_it_is_carried_out() -> None:
    """By what is known then."""
    rig = started(B)
    rig.handle(Put(b"judged", "default", b"k", b"v", if_absent=True))
    rig.receive(B, B.says(pull()))
    rig.measure(B)
    first, second = outcomes(rig.commit())
    assert isinstance(first, Written)
    assert isinstance(second, Refused) and second.code == "exists"


def test_not_too_many_wait() -> None:
    """One too many is told at once."""
    rig = started(B)
    rig.commit()
    answers = [rig.handle(put(b"%d" % number)) for number in range(WRITES_WAITING_MAX - 1)]
    assert not any(answers)
    (refused,) = outcomes(rig.handle(put()))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retryable) == ("overloaded", True)


def test_a_heartbeat_of_a_peer_may_contradict_too() -> None:
    """Whatever message brings its heads."""
    rig = started(B)
    rig.receive(B, B.says(heartbeat((rig.keys.node_id, LINEAGE, 2))), B.says(pull()))
    (entry,) = written(rig.measure(B))
    assert (entry.lineage != LINEAGE, entry.seq) == (True, 1)


def test_a_second_link_to_one_run_tells_the_same_as_the_first() -> None:
    """The first may break before it has told what was known of the run before: then nobody would ever confirm it."""
    rig = Rig().start("seed:1")
    before, now = Peer("again", run=1_000), Peer("again", run=2_000)
    rig.join(before)
    rig.lose(before)

    told = [pull.known_run for _ in range(2) for pull in pulls_on_a_new_link(rig, now)]
    assert told == [1_000, 1_000]


def pulls_on_a_new_link(rig: Rig, peer: Peer) -> list[Pull]:
    effects = [*rig.join(peer), *rig.wait(0.1)]
    rig.lose(peer)
    return payloads(effects, Pull)
