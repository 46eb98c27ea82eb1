"""The states of members at one node, with members that tests speak for: what it sees and hears, put together."""

from __future__ import annotations

import pytest

from protocol.config import Config
from protocol.effects import (
    DialOutcome,
    Disconnect,
    Effect,
    Farewell,
    MemberChanged,
    Send,
)
from protocol.errors import Fault
from protocol.inputs import Leave, Probed, Tick
from protocol.membership.record import Goodbye, Heartbeat, MemberRecord
from protocol.wire.frames import HEADER

from .rig import Peer, Rig, dialled, of, payloads, said

B, C = Peer("b"), Peer("c")
WINDOW_S = Config("", "").refute_s + 0.01
BEAT = Heartbeat(0, 1, 1, 0, b"", [], [], [])


def with_b(*, reached: bool = True) -> Rig:
    """A node with one member, dialled at its own address (or not: then that address was never reached)."""
    rig = Rig().start()
    rig.join(B, dialled=B.address if reached else None)
    assert rig.state(B) == ("alive", "linked")
    return rig


def dead_b() -> Rig:
    rig = with_b()
    rig.lose(B)
    rig.dial_fails(B)
    rig.wait(WINDOW_S)
    rig.dial_fails(B)
    assert rig.state(B)[0] == "dead"
    return rig


def states(effects: list[Effect]) -> list[str]:
    return [change.state for change in of(effects, MemberChanged)]


# alive


def test_a_member_that_others_announce_is_alive_and_is_dialled() -> None:
    """A newer record was heard; who has the lower id dials at once, the other a little later."""
    rig = with_b()
    rig.receive(B, C.announces())
    assert rig.state(C) == ("alive", "announced")
    assert (C.address, C.node_id) in dialled(rig.wait(0.6))


def test_a_suspect_is_alive_when_it_is_heard() -> None:
    """Any byte will do."""
    rig = with_b()
    rig.wait(1.5)
    assert rig.state(B)[0] == "suspect"
    assert states(rig.receive(B, B.says(BEAT))) == ["alive"]


# suspect


def test_silence_makes_a_suspect_and_never_a_dead() -> None:
    """However long it lasts: the link is cut in the end and dialled anew, no more."""
    rig = with_b()
    assert states(rig.wait(1.1)) == []
    assert states(rig.wait(0.3)) == ["suspect"]
    effects = rig.wait(10)
    assert [cut.fault for cut in of(effects, Disconnect)] == [Fault.TIMEOUT]
    assert (B.address, B.node_id) in dialled(effects)
    for outcome in (DialOutcome.UNREACHABLE, DialOutcome.STALLED, DialOutcome.FAULT):
        rig.dial_fails(B, outcome)
        rig.wait(60)
    assert rig.state(B)[0] == "suspect"


def test_a_broken_link_makes_a_suspect_and_a_dial() -> None:
    """At once, in the same turn."""
    rig = with_b()
    effects = rig.lose(B)
    assert states(effects) == ["suspect"]
    assert dialled(effects) == [(B.address, B.node_id)]


def test_a_duplicate_link_that_ends_says_nothing_against_its_peer() -> None:
    """The peer kept another one."""
    assert states(with_b().lose(B, fault=Fault.DUPLICATE)) == []


@pytest.mark.parametrize("outcome", [o for o in DialOutcome if o is not DialOutcome.SELF])
def test_a_member_that_was_never_reached_is_a_suspect(outcome: DialOutcome) -> None:
    """Also if its address refuses connections: perhaps it is another machine that does."""
    rig = with_b()
    rig.receive(B, C.announces())
    rig.wait(0.6)
    for _ in range(3):
        rig.dial_fails(C, outcome)
        rig.wait(6)
    assert rig.state(C)[0] == "suspect"


# dead


def test_a_broken_link_and_a_refused_redial_make_a_dead() -> None:
    """At an address where this very run was reached before, and when nobody else is left to ask."""
    rig = with_b()
    rig.lose(B)
    assert states(rig.dial_fails(B)) == []
    assert of(rig.wait(WINDOW_S), MemberChanged) == [
        MemberChanged(B.node_id, "b", "dead", "closed: me (the link closed and b:1 refuses connections)")
    ]


@pytest.mark.parametrize("outcome", [DialOutcome.UNREACHABLE, DialOutcome.STALLED, DialOutcome.FAULT])
def test_no_other_failure_of_a_dial_makes_a_dead(outcome: DialOutcome) -> None:
    """A paused process, a full queue, a cut cable and a stranger at its address all look like this."""
    rig = with_b()
    rig.lose(B)
    rig.dial_fails(B, outcome)
    rig.wait(9)
    assert rig.state(B)[0] == "suspect"


def test_a_refusal_where_it_was_never_reached_makes_no_dead() -> None:
    """It dialled us (it may be behind NAT), or answered at another address, or in another run."""
    rig = with_b(reached=False)
    rig.lose(B)
    rig.dial_fails(B)
    rig.wait(9)
    assert rig.state(B)[0] == "suspect"

    rig = with_b()
    rig.receive(B, B.announces(1, address="moved:1"))
    rig.lose(B)
    rig.dial_fails(B, address="moved:1")
    rig.wait(9)
    assert rig.state(B)[0] == "suspect"

    rig = with_b()
    rig.receive(B, Peer("b", run=2_000).announces())
    rig.handle(Probed(B.address, B.node_id, B.run))
    rig.lose(B)
    rig.dial_fails(B)
    rig.wait(9)
    assert rig.state(B)[0] == "suspect"


def test_an_answered_probe_counts_as_reached() -> None:
    """A member that dialled us is probed at its address, and asked again later if it did not answer."""
    rig = Rig().start()
    assert (B.address, B.node_id) in dialled(rig.join(B), probe=True)
    rig.dial_fails(B, probe=True)
    probes = []
    for _ in range(10):
        rig.wait(0.6)
        probes.append(len(dialled(rig.receive(B, B.says(BEAT)), probe=True)))
    assert probes == [0] * 8 + [1, 0]
    rig.handle(Probed(B.address, B.node_id, B.run))
    rig.lose(B)
    rig.dial_fails(B)
    rig.wait(WINDOW_S)
    assert rig.state(B)[0] == "dead"


def test_what_was_reached_is_forgotten_at_a_restart() -> None:
    """The members of the last run are suspects, not alive; a refusal proves nothing about this run."""
    rig = with_b()
    rig.wait(1)
    again = Rig(disk=rig.disk, run=2).start()
    assert again.state(B) == ("suspect", "not reached since this node started")
    again.dial_fails(B)
    assert again.state(B)[0] == "suspect"


def test_the_dead_are_dialled_for_ever_and_alive_when_linked() -> None:
    """At a low rate: a split heals by itself."""
    rig = dead_b()
    for _ in range(20):
        assert (B.address, B.node_id) in dialled(rig.wait(2.6))
        rig.dial_fails(B)
    assert states(rig.link(B)) == ["alive"]


def test_a_restart_under_a_new_run_is_alive_again() -> None:
    """Heard from anybody; a late record of the old run changes nothing."""
    rig = dead_b()
    rig.join(C)
    rig.receive(C, Peer("b", run=2_000).announces())
    assert rig.state(B) == ("alive", "announced")
    rig.receive(C, Peer("b", run=1_500).announces(5, left=True))
    assert rig.state(B) == ("alive", "announced")


# left


def test_left_is_what_a_member_says_of_itself() -> None:
    """It is told that we heard it; the end of its link and refused dials change nothing more."""
    rig = with_b()
    effects = rig.receive(B, B.announces(1, left=True))
    assert states(effects) == ["left"]
    assert payloads(effects, Goodbye) == [Goodbye(B.run, 1)]
    rig.lose(B)
    rig.dial_fails(B)
    assert rig.state(B) == ("left", "it said goodbye")
    rig.link(newer := Peer("b", run=2_000))
    rig.receive(newer, newer.announces())
    assert rig.state(B) == ("alive", "linked")


def test_a_goodbye_ends_when_all_heard_it_or_time_is_over() -> None:
    """The record says `left`, signed; Farewell comes once, with the last acknowledgement."""
    rig = with_b()
    rig.join(C)
    effects = rig.handle(Leave(0, 5))
    (record,) = payloads(effects, MemberRecord)
    assert isinstance(record, MemberRecord) and record.left
    assert of(rig.receive(B, B.says(Goodbye(1, 1))), Farewell) == []
    rig.lose(C)
    assert of(rig.wait(0.3), Farewell) != []

    rig = with_b()
    rig.handle(Leave(0, 5))
    assert of(rig.wait(4.9), Farewell) == []
    assert of(rig.wait(0.4), Farewell) != []


# The node itself


def test_a_node_that_was_late_credits_its_peers() -> None:
    """Three seconds in which this process did not run are not three seconds of silence."""
    rig = with_b()
    rig.wait(0.5)
    rig.now_s += 3
    assert states(rig.handle(Tick())) == []
    assert states(rig.wait(1)) == ["suspect"]


def test_a_message_is_signed_once_however_many_links_it_goes_to() -> None:
    """One heartbeat a beat, for all."""
    rig = Rig().start()
    for name in "bcdefg":
        rig.join(Peer(name))
    before = rig.keys.signatures
    beats = [(links, beat) for links, beat in said(rig.wait(0.25)) if isinstance(beat, Heartbeat)]
    assert [len(links) for links, _ in beats] == [6]
    assert rig.keys.signatures == before + 1


def test_a_record_is_handed_on_as_it_came() -> None:
    """Once, to all but the one that brought it, byte for byte: also with fields of a later version."""
    rig = with_b()
    rig.join(C)
    news = Peer("d").announces_more("a field of a later version")
    sends = of(rig.receive(B, news), Send)
    assert [(send.links, send.frame[HEADER.size :]) for send in sends] == [((rig.links["c"],), news)]
    assert rig.member(Peer("d")).record == Peer("d").record()
    assert of(rig.receive(C, news), Send) == []


def test_a_record_without_a_certificate_of_the_cluster_is_refused() -> None:
    """Whoever hands it on is cut off, and nothing of it is kept."""
    rig = with_b()
    (cut,) = of(rig.receive(B, C.announces(credential=[b"forged"])), Disconnect)
    assert cut.fault == Fault.NOT_A_MEMBER
    assert C.node_id not in rig.node.membership.table.members


def test_a_table_that_differs_for_longer_is_sent_again() -> None:
    """At most once a second: a record that was lost on a link comes after all."""
    rig = with_b()
    counts = []
    for _ in range(9):
        rig.wait(0.25)
        counts.append(len(payloads(rig.receive(B, B.says(BEAT)), MemberRecord)))
    assert counts == [0, 0, 0, 0, 2, 0, 0, 0, 0]
