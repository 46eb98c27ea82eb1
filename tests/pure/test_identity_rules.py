"""One key, one folder, one process: when a peer comes under an older run, or a node is known under a later one."""

from __future__ import annotations

from random import Random

from protocol.effects import Disconnect, Effect, Halt, MarkRow, Stage, StartAgain
from protocol.errors import Fault
from protocol.inputs import Put
from protocol.replica.replica import LINEAGE_MARK
from protocol.replica.settling import RUN_MARK, STORE_ID_MARK, Identity, next_identity

from ..sim.swarm.fakes import Disk
from .rig import EPOCH_MS, Peer, Rig, of, said

B, C = Peer("b", run=2_000), Peer("c")
OLD_B = Peer("b", run=1_000)
RUN, LINEAGE = 5, 1
LATER = Peer("me", run=9)
"""This node in a later run, as it was before its folder was set back."""


def linked(*peers: Peer) -> Rig:
    disk = Disk()
    disk.apply((mark(RUN_MARK, RUN - 1), mark(LINEAGE_MARK, LINEAGE)))
    rig = Rig(disk=disk, identity=started(disk, RUN)).start()
    for peer in peers:
        rig.join(peer)
    return rig


def mark(name: str, number: int) -> MarkRow:
    return MarkRow(name, number.to_bytes(8, "big"))


def started(disk: Disk, wall_ms: int) -> Identity:
    identity, rows = next_identity(disk, wall_ms, Random(1))
    disk.apply(rows)
    return identity


def ends(effects: list[Effect]) -> list[tuple[int, Fault]]:
    return [(cut.link, cut.fault) for cut in of(effects, Disconnect)]


def marks(effects: list[Effect]) -> dict[str, int]:
    """The counters that are staged."""
    rows = [row for stage in of(effects, Stage) for row in stage.rows if isinstance(row, MarkRow)]
    return {
        row.name: int.from_bytes(row.value, "big") for row in rows if row.name in (RUN_MARK, LINEAGE_MARK)
    }


# The numbers of the next run


def test_a_run_is_later_than_all_before_whatever_the_clock_says() -> None:
    """It is the time of its start, or one more than the last; the lineage stays."""
    disk = Disk()
    first = started(disk, EPOCH_MS)
    store = first.store_id
    assert first == Identity(EPOCH_MS, 0, EPOCH_MS, store)
    assert started(disk, EPOCH_MS + 7) == Identity(EPOCH_MS + 7, EPOCH_MS, EPOCH_MS, store)
    assert started(disk, 1) == Identity(EPOCH_MS + 8, EPOCH_MS + 7, EPOCH_MS, store)


def test_nothing_is_said_under_numbers_that_are_not_stored() -> None:
    """What was not stored is given out again."""
    disk = Disk()
    first, rows = next_identity(disk, EPOCH_MS, Random(1))
    assert next_identity(disk, EPOCH_MS, Random(1))[0] == first
    assert rows == (
        mark(RUN_MARK, first.run),
        mark(LINEAGE_MARK, first.lineage),
        MarkRow(STORE_ID_MARK, first.store_id),
    )


# A peer under an older run


def test_a_peer_under_an_older_run_is_told_the_later_one() -> None:
    """In the words of its own record, before the link is closed; nothing else changes."""
    rig = linked(B)
    rig.lose(B)
    (cut,) = of(effects := rig.link(OLD_B), Disconnect)
    assert (cut.link, cut.fault) == (rig.links["b"], Fault.STALE_RUN)
    assert cut.parting == rig.member(B).frame
    assert said(effects) == []
    assert (rig.member(B).run, rig.node.membership.contacts.links()) == (2_000, [])
    assert rig.receive(OLD_B, OLD_B.announces()) == []


def test_a_run_that_was_only_heard_of_counts_too() -> None:
    """Somebody handed its record on."""
    rig = linked(C)
    rig.receive(C, B.announces())
    assert ends(rig.link(OLD_B)) == [(rig.links["b"], Fault.STALE_RUN)]


def test_a_peer_under_the_same_or_a_later_run_is_welcome() -> None:
    """It lost its link, or started again."""
    for peer in (B, Peer("b", run=3_000)):
        rig = linked(B)
        rig.lose(B)
        assert ends(rig.link(peer)) == []
        assert rig.node.membership.contacts.links() == [rig.links["b"]]


def test_a_peer_that_is_there_twice_is_called_a_copy() -> None:
    """While the later run is linked and heard; once that is silent, this may be what became of it."""
    rig = linked(B)
    link = rig.links["b"]
    rig.wait(1.0)
    assert ends(rig.link(OLD_B)) == [(rig.links["b"], Fault.CLONED)]
    assert rig.node.membership.contacts.links() == [link]

    rig.wait(0.5)
    assert ends(rig.link(OLD_B)) == [(rig.links["b"], Fault.STALE_RUN)]


# This node under an older run


def test_a_node_that_is_known_under_a_later_run_begins_anew() -> None:
    """Once that run is stored: so its next one is later still."""
    rig = linked(B)
    effects = rig.receive(B, LATER.announces())
    assert (marks(effects)[RUN_MARK], of(effects, StartAgain)) == (LATER.run, [])
    assert len(of(rig.commit(), StartAgain)) == 1
    identity = started(rig.disk, 1)
    assert (identity.run, identity.previous_run) == (LATER.run + 1, LATER.run)


def test_its_numbers_begin_anew_too() -> None:
    """Its folder is an old copy, and the run that it is told now would hide that from its next start."""
    rig = linked(B)
    rig.handle(Put(None, "default", b"k", b"v"))
    rig.receive(B, LATER.announces())
    rig.commit()
    identity = started(rig.disk, 1)
    assert identity.lineage != LINEAGE
    assert (rig.keys.node_id, identity.lineage) not in rig.disk.coverage()


def test_it_goes_on_when_that_cannot_be_stored() -> None:
    """Until it is told again."""
    rig = linked(B)
    rig.receive(B, LATER.announces())
    assert of(rig.fail(), StartAgain) == []
    rig.receive(B, LATER.announces())
    assert len(of(rig.commit(), StartAgain)) == 1


def test_its_own_record_of_this_run_or_an_older_one_is_no_news() -> None:
    """Peers send their whole table."""
    rig = linked(B)
    for run in (RUN, RUN - 1):
        assert rig.receive(B, Peer("me", run=run).announces(incarnation=9)) == []


def test_nobody_else_says_under_which_run_it_is_known() -> None:
    """A record that it did not sign ends the link."""
    rig = linked(B)
    forged = LATER.announces()[:-1] + b"?"
    effects = rig.receive(B, forged)
    assert [fault for _, fault in ends(effects)] == [Fault.BAD_SIGNATURE]
    assert marks(effects) == {}


def test_a_node_that_is_called_a_copy_halts() -> None:
    """For good: only its operator can tell which of the two is the right one."""
    rig = linked(B)
    (halt,) = of(rig.lose(B, "another process has this key", Fault.CLONED), Halt)
    assert halt.why == "this node's folder is used twice: another process has this key"
    for fault in (None, *Fault):
        if fault is not Fault.CLONED:
            assert of(linked_and_lost(fault), Halt) == []


def linked_and_lost(fault: Fault | None) -> list[Effect]:
    rig = linked(B)
    return rig.lose(B, "", fault)
