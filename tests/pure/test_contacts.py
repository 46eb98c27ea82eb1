"""One link a pair: whoever dials, in whatever order it comes up, both ends keep the same one."""

from __future__ import annotations

from random import Random

import pytest

from protocol.config import Config
from protocol.effects import DialOutcome, Disconnect
from protocol.errors import Fault
from protocol.inputs import DialFailed, Join, Start
from protocol.limits import SEEDS_MAX
from protocol.membership.contacts import Contacts
from protocol.turn import Turn
from protocol.types import CommitNumber, Instant, LinkId, NodeId

from .rig import Peer, Rig, dialled

LOW, HIGH = NodeId(b"a" * 32), NodeId(b"b" * 32)
BY_LOW, BY_HIGH = LinkId(1), LinkId(2)
ORDERS = ((BY_LOW, BY_HIGH), (BY_HIGH, BY_LOW))
"""Two links of one pair, named by who dialled (each end has numbers of its own; here they are the same)."""


class End:
    """One end of a pair: its contacts, and the links that it has not cut."""

    def __init__(self, me: NodeId, peer: NodeId) -> None:
        self.contacts = Contacts(Config("me", "me:1"), me, Random(1))
        self._me, self._peer = me, peer
        self.open: set[LinkId] = set()

    def up(self, link: LinkId, at_s: float = 0.0, run: int = 1, dialler: NodeId | None = None) -> Turn:
        turn = Turn(Instant(at_s, 0), CommitNumber(1))
        dialler = dialler or (LOW if link == BY_LOW else HIGH)
        self.open.add(link)
        self.contacts.link_up(turn, link, self._peer, run, "there:1" if dialler == self._me else None)
        self.open -= {effect.link for effect in turn.effects if isinstance(effect, Disconnect)}
        return turn


@pytest.mark.parametrize("at_low", ORDERS)
@pytest.mark.parametrize("at_high", ORDERS)
def test_simultaneous_dials_leave_the_link_of_the_lower_id(
    at_low: tuple[LinkId, ...], at_high: tuple[LinkId, ...]
) -> None:
    """At both ends, in whatever order each sees the two come up."""
    low, high = End(LOW, HIGH), End(HIGH, LOW)
    for link in at_low:
        low.up(link)
    for link in at_high:
        high.up(link)
    assert low.open == high.open == {BY_LOW}
    assert low.contacts.links() == high.contacts.links() == [BY_LOW]


def test_the_other_link_is_cut_as_a_duplicate() -> None:
    """So that the peer does not take its end for a crash."""
    low = End(LOW, HIGH)
    low.up(BY_HIGH)
    (cut,) = low.up(BY_LOW).effects
    assert isinstance(cut, Disconnect)
    assert (cut.link, cut.fault) == (BY_HIGH, Fault.DUPLICATE)


@pytest.mark.parametrize("dialler", [LOW, HIGH])
def test_a_second_dial_of_the_same_end_wins(dialler: NodeId) -> None:
    """It would not have dialled had its first link still been up there."""
    for end in (End(LOW, HIGH), End(HIGH, LOW)):
        end.up(LinkId(3), dialler=dialler)
        end.up(again := LinkId(4), dialler=dialler)
        assert end.open == {again}


def test_a_link_that_takes_the_place_of_a_silent_one_wins() -> None:
    """Whoever dialled; while the first is heard it does not."""
    low = End(LOW, HIGH)
    low.up(BY_LOW)
    low.up(BY_HIGH, at_s=1.0)
    assert low.open == {BY_LOW}
    low.up(BY_HIGH, at_s=1.3)
    assert low.open == {BY_HIGH}


def test_a_link_of_a_newer_run_wins_and_one_of_an_older_loses() -> None:
    """The process at the other end of the older one is gone."""
    low = End(LOW, HIGH)
    low.up(BY_LOW, run=5)
    low.up(BY_HIGH, run=6)
    assert low.open == {BY_HIGH}
    low.up(BY_LOW, run=5)
    assert low.open == {BY_HIGH}


def test_the_higher_id_leaves_the_lower_one_time_to_dial() -> None:
    """One handshake a pair, mostly."""
    for me, peer, due_s in ((LOW, HIGH, 10.0), (HIGH, LOW, 10.5)):
        contacts = End(me, peer).contacts
        contacts.know(peer, 10.0)
        assert contacts.deadline_s == due_s
        contacts.know(peer, 10.0, at_once=True)
        assert contacts.deadline_s == 10.0


def test_a_pause_between_dials_grows_to_its_bound_and_no_further() -> None:
    """And no two pauses are the same: a restarted cluster does not dial in step."""
    rig = Rig()
    rig.handle(Start(("seed:1",)))
    pauses = []
    for _ in range(20):
        before_s = rig.now_s
        rig.handle(DialFailed("seed:1", None, DialOutcome.REFUSED, "test"))
        while ("seed:1", None) not in dialled(rig.wait(0.05)):
            pass
        pauses.append(rig.now_s - before_s)
    assert pauses[0] < 0.25
    assert max(pauses) <= rig.node.config.redial_max_s + 0.1
    assert len({round(pause, 1) for pause in pauses[8:]}) > 6


def test_a_seed_is_not_dialled_while_its_node_is_linked() -> None:
    """Its address is remembered, and tried again once the link is gone; our own address is dropped."""
    rig = Rig()
    assert dialled(rig.handle(Start(("seed:1", "me:1")))) == [("seed:1", None), ("me:1", None)]
    rig.handle(DialFailed("me:1", None, DialOutcome.SELF, "test"))
    rig.link(peer := Peer("b"), dialled="seed:1", seed=True)
    assert dialled(rig.wait(9)) == []
    assert dialled(rig.lose(peer)) == [("seed:1", None)]


def test_seeds_are_bounded_and_survive_a_crash() -> None:
    """A node that is killed before it met anybody finds its cluster again."""
    rig = Rig()
    rig.start("seed:1")
    assert dialled(Rig(disk=rig.disk).handle(Start())) == [("seed:1", None)]
    rig.handle(Join(tuple(f"{n}:1" for n in range(SEEDS_MAX + 9))))
    assert len(rig.node.membership.contacts.seeds) == SEEDS_MAX
