"""A goodbye is answered however it was heard, so that nobody who leaves waits in vain."""

from __future__ import annotations

from protocol.membership.record import Goodbye

from .rig import Peer, Rig, said

B, C = Peer("b"), Peer("c")


def test_a_goodbye_that_another_member_hands_on_first_is_acknowledged_to_its_author() -> None:
    """When all leave at once, records overtake each other: the author's own copy is then no news any more."""
    rig = Rig().start()
    rig.join(B)
    rig.join(C)
    goodbye = B.announces(1, left=True)

    first = said(rig.receive(C, goodbye))
    second = said(rig.receive(B, goodbye))

    acknowledged = ((rig.links["b"],), Goodbye(B.run, 1))
    assert [message for message in (*first, *second) if isinstance(message[1], Goodbye)] == [acknowledged]
