"""The results of a dial, told apart on real sockets: a verdict may rest on them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from peernode.net.dialler import DialError, connect, outcome_of
from protocol.effects import DialOutcome
from protocol.errors import Fault, RemoteFault

PATIENCE_S = 0.3


async def result_of(address: str) -> DialOutcome:
    """What comes of a dial that must fail."""
    with pytest.raises(DialError) as failed:
        await connect(address, PATIENCE_S)
    return failed.value.outcome


@contextmanager
def full_listener() -> Iterator[int]:
    """A port whose backlog is full: the kernel drops further SYNs, as a lost host does."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def closed_port() -> int:
    with socket.socket() as once:
        once.bind(("127.0.0.1", 0))
        port: int = once.getsockname()[1]
    return port


class Names(trio.abc.HostnameResolver):
    """Every name has the addresses that it is made with."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self._addresses = addresses

    async def getaddrinfo(self, *_: object, **__: object) -> list[tuple[object, ...]]:  # type: ignore[override]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in self._addresses]

    async def getnameinfo(self, *_: object, **__: object) -> tuple[str, str]:  # type: ignore[override]
        raise NotImplementedError


@pytest.mark.trio
async def test_a_closed_port_is_refused() -> None:
    """The kernel of that machine says so: nothing listens."""
    assert await result_of(f"127.0.0.1:{closed_port()}") is DialOutcome.REFUSED


@pytest.mark.trio
async def test_a_connection_that_is_not_made_in_time_is_unreachable() -> None:
    """No answer to a SYN, within the patience of this dial."""
    with full_listener() as port, trio.fail_after(10):
        assert await result_of(f"127.0.0.1:{port}") is DialOutcome.UNREACHABLE


@pytest.mark.trio
async def test_a_name_is_refused_only_when_all_its_addresses_refuse() -> None:
    """One that is not reached may be the one where the member listens."""
    port = closed_port()
    trio.socket.set_custom_hostname_resolver(Names(("127.0.0.1", port), ("255.255.255.255", port)))
    assert await result_of("name.invalid:1") is DialOutcome.UNREACHABLE

    trio.socket.set_custom_hostname_resolver(Names(("127.0.0.1", port), ("127.0.0.1", closed_port())))
    assert await result_of("name.invalid:1") is DialOutcome.REFUSED


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.SELF, DialOutcome.SELF),
        (Fault.WRONG_PEER, DialOutcome.STRANGER),
        (Fault.NOT_A_MEMBER, DialOutcome.FAULT),
        (Fault.UNSUPPORTED_VERSION, DialOutcome.FAULT),
    ],
)
def test_what_a_refused_handshake_says(fault: Fault, outcome: DialOutcome) -> None:
    """Another member at the address is not the member that was dialled; whom it will not let in, it may be."""
    assert outcome_of(RemoteFault(fault, "for a test")) is outcome
