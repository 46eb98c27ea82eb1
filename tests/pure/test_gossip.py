"""Gossip: what somebody holds reaches everybody, once, as its author signed it; and everything is bounded."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.config import Config
from protocol.effects import Disconnect, Effect, Invalidated, Send
from protocol.errors import Fault
from protocol.gossip import Gossip, Held, Stream, StreamId, Want
from protocol.inputs import Invalidate, Put
from protocol.invalidation import Invalidation
from protocol.limits import (
    GOSSIP_AHEAD_MAX,
    GOSSIP_ANSWER_BYTES_MAX,
    GOSSIP_KEPT_BYTES_MAX,
    GOSSIP_STREAMS_MAX,
    GOSSIP_WANT_MAX,
    HEARTBEAT_STREAMS_MAX,
)
from protocol.membership.record import Heartbeat
from protocol.turn import Say, Turn
from protocol.types import CommitNumber, Instant, LinkId, NodeId
from protocol.wire.envelope import Envelope
from protocol.wire.fields import Head
from protocol.wire.frames import HEADER

from .rig import Peer, Rig, heartbeat, of, payloads, said

numbers = st.lists(st.integers(1, 12), max_size=20)


def fed(came: list[int]) -> Stream:
    stream = Stream(0)
    for number in came:
        stream.take(number)
    return stream


# One stream


@given(numbers.flatmap(lambda came: st.tuples(st.just(came), st.permutations(came))))
def test_a_stream_is_the_set_of_what_came(orders: tuple[list[int], list[int]]) -> None:
    """In whatever order: what it has, how far, and what is lacking."""
    came = set(orders[0])
    for stream in map(fed, orders):
        assert [number for number in range(1, 20) if stream.has(number)] == sorted(came)
        assert stream.top == max(came, default=0)
        assert stream.missing(15) == [number for number in range(1, 16) if number not in came]
        assert not stream.has(stream.head + 1)


@given(numbers, st.integers(0, 15))
def test_what_is_given_up_counts_as_had(came: list[int], head: int) -> None:
    """How many that were is told; what came beyond is kept."""
    stream = fed(came)
    lacking = stream.missing(head)
    assert stream.skip_to(head) == len(lacking)
    assert not stream.has(stream.head + 1)
    assert [number for number in range(1, 20) if stream.has(number)] == sorted({*came, *range(1, head + 1)})


def test_a_gap_is_given_up_when_too_much_lies_beyond_it() -> None:
    """The next gap is waited for again."""
    stream = Stream(0)
    for number in range(GOSSIP_AHEAD_MAX):
        stream.take(10 + 2 * number)
    assert (stream.head, stream.has(9)) == (0, False)
    stream.take(10 + 2 * GOSSIP_AHEAD_MAX)
    assert (stream.head, stream.has(9), stream.has(11)) == (10, True, False)


def test_questions_are_bounded() -> None:
    """In numbers, and in how far beyond the head they look; to give up very much takes no time."""
    stream = fed([2])
    assert stream.missing(2**62) == [1, *range(3, GOSSIP_WANT_MAX + 2)]
    stream = fed(list(range(2, GOSSIP_AHEAD_MAX + 1)))
    assert stream.missing(2**62) == [1]
    assert stream.skip_to(2**62) == 2**62 - (GOSSIP_AHEAD_MAX - 1)


# All streams of a node

ME: StreamId = (NodeId(b"m" * 32), 1)
AUTHOR = NodeId(b"a" * 32)
STREAM: StreamId = (AUTHOR, 5)
ONE, OTHER = LinkId(1), LinkId(2)


class Talk:
    """Gossip without a node round it."""

    def __init__(self) -> None:
        self.config = Config("me", "me:1")
        self.gossip = Gossip(self.config, ME)
        self.now_s = 0.0

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, 0)

    def turn(self) -> Turn:
        return Turn(self.now, CommitNumber(1))

    def keep(self, *messages: int, stream: StreamId = STREAM, frame: bytes = b"frame") -> None:
        for number in messages:
            self.gossip.keep(self.now, *stream, number, frame)

    def announced(self, *streams: Head, link: LinkId = ONE) -> None:
        self.gossip.announced(self.turn(), link, list(streams))

    def asked(self, seconds: float) -> list[tuple[LinkId, list[int]]]:
        """Time passes; the questions that were asked meanwhile."""
        until_s, turn = self.now_s + seconds, self.turn()
        while (due_s := max(self.gossip.deadline_s, self.now_s)) <= until_s:
            self.now_s = due_s
            turn.now = self.now
            self.gossip.tick(turn)
        self.now_s = until_s
        says = [say for say in turn.effects if isinstance(say, Say)]
        return [(say.links[0], say.payload.numbers) for say in says if isinstance(say.payload, Want)]

    def handed_on(self, *messages: int, stream: StreamId = STREAM) -> list[Send]:
        turn = self.turn()
        self.gossip.on_want(turn, ONE, Want(*stream, list(messages)))
        return [effect for effect in turn.effects if isinstance(effect, Send)]


def test_what_does_not_come_by_itself_is_asked_for() -> None:
    """After a moment of grace, and of whoever announced it last; nothing that came meanwhile."""
    talk = Talk()
    talk.announced((*STREAM, 3))
    assert talk.asked(talk.config.gossip_grace_s - 0.01) == []
    talk.keep(2)
    assert talk.asked(0.02) == [(ONE, [1, 3])]

    talk = Talk()
    talk.announced((*STREAM, 3))
    talk.announced((*STREAM, 3), link=OTHER)
    assert talk.asked(0.1) == [(OTHER, [1, 2, 3])]

    talk = Talk()
    talk.announced((*STREAM, 3))
    talk.keep(1, 2, 3)
    assert talk.asked(1.0) == []
    assert talk.gossip.deadline_s == float("inf")


def test_a_question_without_answer_is_repeated_and_then_given_up() -> None:
    """Also when it is announced again meanwhile. What is lacking then counts as had: it is left to sync."""
    talk = Talk()
    talk.keep(1, 3)
    talk.announced((*STREAM, 4))
    wait_s = talk.config.gossip_grace_s
    for _ in range(talk.config.gossip_tries):
        assert talk.asked(wait_s - 0.01) == []
        talk.announced((*STREAM, 4))
        assert talk.asked(0.02) == [(ONE, [2, 4])]
        wait_s = talk.config.gossip_retry_s - 0.01
    assert (talk.gossip.lost, talk.gossip.has(*STREAM, 4)) == (0, False)
    assert talk.asked(10.0) == []
    assert (talk.gossip.lost, talk.gossip.has(*STREAM, 4)) == (2, True)


def test_news_of_a_stream_begins_its_questions_anew() -> None:
    """While it moves on it is not given up; an older announcement changes nothing."""
    talk = Talk()
    talk.announced((*STREAM, 2))
    for top in range(3, 20):
        assert talk.asked(talk.config.gossip_retry_s) != []
        talk.announced((*STREAM, top))
        talk.announced((*STREAM, 1), link=OTHER)
    assert [link for link, _ in talk.asked(10.0)] == [ONE] * talk.config.gossip_tries
    assert talk.gossip.lost == 19


def test_nobody_is_asked_whose_link_is_gone() -> None:
    """Until somebody announces it again."""
    talk = Talk()
    talk.announced((*STREAM, 1))
    talk.gossip.link_down(ONE)
    assert talk.asked(1.0) == []
    talk.announced((*STREAM, 1), link=OTHER)
    assert talk.asked(1.0)[0] == (OTHER, [1])


def test_a_new_stream_is_wanted_from_its_beginning_or_not_far_back() -> None:
    """What a peer heard lately may have been said to us, too; what it held before we met is left to sync."""
    talk = Talk()
    talk.announced((*STREAM, 2))
    assert talk.asked(0.1) == [(ONE, [1, 2])]

    talk = Talk()
    talk.announced((*STREAM, 500))
    assert talk.asked(0.1) == [(ONE, list(range(500 - GOSSIP_WANT_MAX + 1, 501)))]

    talk = Talk()
    talk.gossip.on_held(talk.turn(), ONE, Held([(*STREAM, 2)]))
    assert talk.asked(0.1) == []
    talk.gossip.on_held(talk.turn(), ONE, Held([(*STREAM, 4)]))
    assert talk.asked(0.1) == [(ONE, [3, 4])]


def test_a_new_link_is_told_how_far_all_streams_are_complete() -> None:
    """Our own among them; not what lies beyond a gap: that the peer may still want."""
    talk = Talk()
    talk.keep(1, 2, stream=ME)
    talk.gossip.on_held(talk.turn(), ONE, Held([(*STREAM, 3)]))
    talk.keep(4, 6)
    turn = talk.turn()
    talk.gossip.link_up(turn, OTHER)
    assert turn.effects == [Say((OTHER,), Held([(*STREAM, 4), (*ME, 2)]))]


def test_a_stream_that_moved_is_announced_for_a_while() -> None:
    """With its highest number."""
    talk = Talk()
    talk.keep(1, 3)
    talk.now_s = talk.config.head_announce_s
    assert talk.gossip.to_announce(talk.now) == [(*STREAM, 3)]
    talk.now_s += 0.01
    assert talk.gossip.to_announce(talk.now) == []
    talk.keep(2)
    assert talk.gossip.to_announce(talk.now) == [(*STREAM, 3)]


def test_streams_that_do_not_fit_wait_for_the_next_heartbeat() -> None:
    """All have their turn before the first comes again."""
    talk = Talk()
    for n in range(2 * HEARTBEAT_STREAMS_MAX):
        talk.keep(1, stream=(NodeId(bytes([n]) * 32), 1))
    one, other = (talk.gossip.to_announce(talk.now) for _ in range(2))
    assert len(one) == len(other) == HEARTBEAT_STREAMS_MAX
    assert len({*one, *other}) == 2 * HEARTBEAT_STREAMS_MAX
    assert talk.gossip.to_announce(talk.now) == one


def test_what_is_kept_is_bounded() -> None:
    """The oldest goes first; that it was heard is not forgotten."""
    talk, frame = Talk(), bytes(GOSSIP_KEPT_BYTES_MAX // 8)
    talk.keep(*range(1, 9), frame=frame)
    assert len(talk.handed_on(1)) == 1
    talk.keep(9, frame=frame)
    assert [len(talk.handed_on(number)) for number in (1, 2, 9)] == [0, 1, 1]
    assert talk.gossip.has(*STREAM, 1)


def test_an_answer_is_bounded_and_goes_to_the_one_who_asked() -> None:
    """In the order of the question, as bulk; what is not held is passed over."""
    talk = Talk()
    talk.keep(1, 2, 4)
    assert talk.handed_on(4, 3, 1, 77) == [Send((ONE,), b"frame", bulk=True)] * 2
    assert talk.handed_on(1, stream=(AUTHOR, 6)) == []

    talk.keep(*range(5, 15), frame=bytes(GOSSIP_ANSWER_BYTES_MAX // 4))
    assert len(talk.handed_on(*range(5, 15))) == 4


def test_two_runs_of_an_author_are_followed() -> None:
    """A later run takes the place of the older of them; what was said before that is not asked for any more."""
    talk = Talk()
    for run in (5, 7, 6):
        talk.keep(1, stream=(AUTHOR, run))
    assert [talk.gossip.has(AUTHOR, run, 1) for run in (5, 6, 7)] == [False, True, True]
    talk.announced((AUTHOR, 5, 3))
    talk.gossip.on_held(talk.turn(), ONE, Held([(AUTHOR, 4, 3)]))
    assert talk.asked(1.0) == []
    assert [stream for *stream, _ in talk.gossip.to_announce(talk.now)] == [[AUTHOR, 7], [AUTHOR, 6]]


def test_a_stream_that_is_forgotten_is_not_wanted() -> None:
    """Nor announced."""
    talk = Talk()
    talk.announced((AUTHOR, 5, 3))
    talk.keep(3, stream=(AUTHOR, 5))
    talk.keep(1, stream=(AUTHOR, 6))
    talk.keep(1, stream=(AUTHOR, 7))
    assert talk.asked(1.0) == []
    assert [run for _, run, _ in talk.gossip.to_announce(talk.now)] == [6, 7]


def test_streams_are_bounded() -> None:
    """One author too many is heard, and not handed on."""
    talk = Talk()
    for n in range(GOSSIP_STREAMS_MAX - 1):
        talk.gossip._streams[NodeId(n.to_bytes(32, "big")), 1] = Stream(0)
    talk.keep(1)
    talk.announced((*STREAM, 1))
    assert (talk.handed_on(1), talk.asked(1.0), talk.gossip.to_announce(talk.now)) == ([], [], [])


def test_nobody_else_says_how_far_we_have_spoken() -> None:
    """Our next number follows our last, whatever a peer claims to hold of us."""
    talk = Talk()
    talk.keep(1, stream=ME)
    talk.announced((*ME, 9))
    talk.gossip.on_held(talk.turn(), ONE, Held([(*ME, 9)]))
    assert talk.asked(10.0) == []
    assert talk.gossip.next_number() == 2


# In a node

B, C, D = Peer("b"), Peer("c"), Peer("d")
SUBJECT = Invalidation(b"key", False)


def linked(*peers: Peer) -> Rig:
    """A node with members whose links are settled."""
    rig = Rig().start()
    for peer in peers:
        rig.join(peer)
    return rig


def heard(effects: list[Effect]) -> list[NodeId]:
    return [told.node for told in of(effects, Invalidated)]


def forged(envelope: bytes) -> bytes:
    """With a signature that is not its author's."""
    body = msgspec.msgpack.decode(envelope, type=Envelope).body
    return msgspec.msgpack.encode(Envelope(body, bytes(64)))


def test_a_message_crosses_a_node_as_its_author_signed_it() -> None:
    """Announced in the next heartbeat, and handed to whoever asks, byte for byte; nobody is sent it unasked."""
    rig = linked(B, C)
    message = B.says(SUBJECT, seq=1)
    effects = rig.receive(B, message)
    assert (heard(effects), of(effects, Send)) == ([B.node_id], [])

    beats = [beat.streams for beat in payloads(rig.wait(0.3), Heartbeat) if isinstance(beat, Heartbeat)]
    assert beats[0] == [(B.node_id, B.run, 1)]
    (send,) = of(rig.receive(C, C.says(Want(B.node_id, B.run, [1]))), Send)
    assert (send.links, send.frame[HEADER.size :], send.bulk) == ((rig.links["c"],), message, True)


def test_a_message_comes_over_a_third_node() -> None:
    """Its author cannot reach us: a peer announces it, is asked, and brings it."""
    rig = linked(B)
    rig.receive(B, C.announces())
    rig.receive(B, B.says(heartbeat(streams=[(C.node_id, C.run, 1)])))
    assert payloads(rig.wait(0.1), Want) == [Want(C.node_id, C.run, [1])]
    effects = rig.receive(B, C.says(SUBJECT, seq=1))
    assert (heard(effects), of(effects, Disconnect)) == ([C.node_id], [])


def test_a_message_that_comes_again_is_dropped_before_its_signature_is_looked_at() -> None:
    """By whatever way: a copy with a bad signature costs nothing and harms nobody."""
    rig = linked(B, C)
    message = B.says(SUBJECT, seq=1)
    rig.receive(B, message)
    assert rig.receive(C, message, forged(message)) == []
    assert rig.node.gossip.duplicates == 2


def test_a_forged_message_ends_the_link_that_brought_it() -> None:
    """Whoever hands on vouches for having looked; the true one comes all the same, by another way."""
    rig = linked(B, C, D)
    message = B.says(SUBJECT, seq=1)
    link = rig.links["c"]
    (cut,) = of(rig.receive(C, forged(message)), Disconnect)
    assert (cut.link, cut.fault) == (link, Fault.BAD_SIGNATURE)
    assert heard(rig.receive(D, message)) == [B.node_id]


def test_a_message_of_somebody_unknown_is_passed_over() -> None:
    """Its author's record has not come yet; once it has, the message is taken."""
    rig = linked(B)
    message = C.says(SUBJECT, seq=1)
    assert rig.receive(B, message) == []
    rig.receive(B, C.announces())
    assert heard(rig.receive(B, message)) == [C.node_id]


@pytest.mark.parametrize("bringer", [B, C])
def test_messages_are_taken_in_any_order(bringer: Peer) -> None:
    """They come by several ways, and again when they are asked for: a number that goes back is no replay here."""
    rig = linked(B, C)
    rig.receive(B, B.says(Held([(B.node_id, B.run, 0)])))
    assert [heard(rig.receive(bringer, B.says(SUBJECT, seq=seq))) for seq in (3, 1, 2)] == [[B.node_id]] * 3


def test_our_own_messages_are_one_stream() -> None:
    """Numbered from 1 whatever they say, kept as they were signed, and told to a new peer."""
    rig = linked(B)
    sent = of(rig.handle(Invalidate(b"key", False)), Send)
    rig.handle(Put(None, "default", b"k", b"v"))
    sent += of(rig.commit(), Send)

    effects = rig.join(C)
    assert Held([(rig.keys.node_id, 1, 2)]) in [payload for _, payload in said(effects)]
    kept = of(rig.receive(C, C.says(Want(rig.keys.node_id, 1, [1, 2]))), Send)
    assert [send.frame for send in kept] == [send.frame for send in sent]
