"""The fault point against the real kernel: what a cut looks like from both ends, and when it applies."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from peernode.daemon.faults import FaultPoint, FaultsError, can_cut, hear, hear_nothing

from ..waiting import wait_until

pytestmark = pytest.mark.skipif(not can_cut(), reason="this system has no socket filters")

PEER, OTHER = "127.0.0.1:7001", "127.0.0.1:7002"
UNACKED = 24
"""Where `tcpi_unacked` stands in the kernel's struct tcp_info."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def pair(listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    with socket.create_connection(listener.getsockname()) as one, listener.accept()[0] as other:
        one.settimeout(10)
        other.settimeout(10)
        yield one, other


def unacked(sock: socket.socket) -> int:
    """Segments that the peer's kernel has not acknowledged."""
    found: tuple[int] = struct.unpack_from(
        "I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), UNACKED
    )
    return found[0]


def test_a_cut_stops_the_acknowledgements_too(pair: tuple[socket.socket, socket.socket]) -> None:
    """What is sent to a deaf socket is neither delivered nor acknowledged; healed, it arrives by itself."""
    one, other = pair
    one.sendall(b"before ")
    assert other.recv(100) == b"before "
    wait_until(lambda: unacked(one) == 0, what="the acknowledgement of a link that is not cut")

    hear_nothing(other)
    one.sendall(b"during")
    assert select.select([other], [], [], 0.5) == ([], [], [])
    assert unacked(one) == 1

    hear(other)
    assert other.recv(100) == b"during"
    wait_until(lambda: unacked(one) == 0, what="the acknowledgement")


def test_a_deaf_socket_does_not_hear_a_hang_up(pair: tuple[socket.socket, socket.socket]) -> None:
    """The end of the peer's process is lost like everything else, and heard after the cut."""
    one, other = pair
    hear_nothing(other)
    one.close()
    assert select.select([other], [], [], 0.3) == ([], [], [])

    hear(other)
    assert other.recv(100) == b""


def test_a_dial_into_a_cut_is_not_answered(listener: socket.socket) -> None:
    """Deaf before it connects, a socket neither connects to a listener nor is refused by a closed port."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refusing = closed.getsockname()
    assert (dial(listener.getsockname(), 5), dial(refusing, 5)) == ("connected", "refused")

    assert (dial(listener.getsockname(), 0.3, is_deaf=True), dial(refusing, 0.3, is_deaf=True)) == (
        "no answer",
        "no answer",
    )


def dial(address: tuple[str, int], patience_s: float, *, is_deaf: bool = False) -> str:
    with socket.socket() as sock:
        if is_deaf:
            hear_nothing(sock)
        sock.settimeout(patience_s)
        try:
            sock.connect(address)
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "no answer"
        return "connected"


class Ear:
    """A datagram socket that is watched, and a way to see whether it hears."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.sock = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        self.sock.bind(("127.0.0.1", 0))
        self.address: str | None = None

    @property
    def hears(self) -> bool:
        with socket.socket(type=socket.SOCK_DGRAM) as mouth:
            mouth.sendto(b"x", self.sock.getsockname())
        ready, _, _ = select.select([self.sock], [], [], 0.05)
        return bool(ready) and self.sock.recv(1) == b"x"


@pytest.fixture
def ears() -> Iterator[list[Ear]]:
    with contextlib.ExitStack() as stack:
        yield [Ear(stack) for _ in range(2)]


def write(file: Path, *deaf_to: str) -> None:
    file.write_text(json.dumps({"deaf_to": deaf_to}))


def test_the_file_rules_at_the_start_and_at_each_reload(tmp_path: Path, ears: list[Ear]) -> None:
    """Only sockets of the peers that the file names are deaf, whether they were open before it or not."""
    file = tmp_path / "faults.json"
    write(file, PEER)
    point = FaultPoint(file)
    point.watch(ears[0].sock, lambda: PEER)
    point.watch(ears[1].sock, lambda: OTHER)
    assert [ear.hears for ear in ears] == [False, True]

    write(file, OTHER)
    point.reload()
    assert [ear.hears for ear in ears] == [True, False]

    file.unlink()
    point.reload()
    assert [ear.hears for ear in ears] == [True, True]


def test_a_peer_whose_address_is_learned_later_is_cut_then(tmp_path: Path, ears: list[Ear]) -> None:
    """A link can be older than the knowledge of its peer's address."""
    file = tmp_path / "faults.json"
    write(file, PEER)
    point = FaultPoint(file)
    late = ears[0]
    point.watch(late.sock, lambda: late.address)
    assert late.hears

    late.address = PEER
    point.refresh()
    assert not late.hears


def test_a_socket_that_is_closed_while_deaf_is_forgotten(tmp_path: Path, ears: list[Ear]) -> None:
    """Healing does not touch it, and heals the others."""
    file = tmp_path / "faults.json"
    write(file, PEER)
    point = FaultPoint(file)
    for ear in ears:
        point.watch(ear.sock, lambda: PEER)
    assert [ear.hears for ear in ears] == [False, False]
    ears[0].sock.close()

    write(file)
    point.reload()
    assert ears[1].hears


@pytest.mark.parametrize(
    "content", ["", "[]", '{"deaf": []}', '{"deaf_to": "127.0.0.1:7001"}', '{"deaf_to": [7001]}']
)
def test_a_file_that_means_nothing_changes_nothing(tmp_path: Path, ears: list[Ear], content: str) -> None:
    """It is refused with its name, at the start as at a reload, and what was cut stays cut."""
    file = tmp_path / "faults.json"
    write(file, PEER)
    point = FaultPoint(file)
    point.watch(ears[0].sock, lambda: PEER)
    file.write_text(content)

    with pytest.raises(FaultsError, match=r"faults\.json"):
        point.reload()
    with pytest.raises(FaultsError, match=r"faults\.json"):
        FaultPoint(file)
    assert (point.wanted.deaf_to, ears[0].hears) == (frozenset((PEER,)), False)
