"""The fault point: what a daemon does wrong on purpose, for tests. Off by default.

It exists only where the environment variable PEERNODE_FAULTS names a file. The file is read at the start, so that a
restart does not heal a cut, and again by the method `faults.reload` of the local socket. In it:

- `{"deaf_to": ["HOST:PORT", ...]}`: the peers, by the address that they announce, whose packets are to be lost on
  their way here;
- `{"dies_on_vote": true}`: kill -9 of this daemon as soon as another node's YES arrives. That is between the two
  phases of a transaction that it coordinates: voters hold locks for it, and nobody knows how it ends.

A cut is made where the packets arrive: the kernel drops all of them at the socket (a socket filter whose only
instruction is "drop") before TCP sees them. Nothing is acknowledged then, connections are not established, a
FIN or a reset goes unheard: exactly what a broken path looks like, from both ends. The other common way, a
proxy that stops forwarding, lies three times: its kernel goes on acknowledging, so a cut looks like a peer that
has stalled; it accepts for a node that is dead, so nobody sees "connection refused"; and all links take a
detour also while nothing is wrong. Here links are always direct.

A cut that is heard of by nobody takes two: each of both nodes is told to be deaf to the other. One alone makes
a one-way cut, except that a dial of the peer is still answered until it has said who it is.

What is not filtered: the listener, since a knock does not tell whose it is. A pair that is cut both ways never
gets so far, as the end that dials is deaf to the answer. And a socket that is closed while it is filtered stays
deaf until the kernel forgets it, also when the cut heals earlier.
"""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from protocol.commit.messages import ROUTES, Steps, Vote
from protocol.wire.envelope import read_header

FAULTS_VARIABLE = "PEERNODE_FAULTS"

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"""Linux; the socket module does not name them."""

RETURN, DROP = 0x06, 0
DROP_ALL = struct.pack("HBBI", RETURN, 0, 0, DROP)
"""A classic BPF program of one instruction: return 0, which is how many bytes of a packet are kept."""


class FaultsError(Exception):
    """The file cannot be read, or this system cannot cut."""


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file asks for."""

    deaf_to: frozenset[str] = frozenset()
    dies_on_vote: bool = False


class Socket(Protocol):
    """As much of a socket as is needed here: trio's and the standard library's both have it."""

    def fileno(self) -> int: ...
    def setsockopt(self, level: int, option: int, value: bytes | int, /) -> None: ...


class FaultPoint:
    """Watches the sockets of all links and dials, and keeps deaf those of the peers that the file names.

    Looks into what arrives where the file asks to die of it. Raises FaultsError where the file says what cannot be
    done.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._watched: dict[Socket, Callable[[], str | None]] = {}
        self._deaf: set[Socket] = set()
        self.wanted = Wanted()
        self.reload()

    def reload(self) -> None:
        """Do what the file says now; a missing one says nothing. Raises FaultsError and changes nothing."""
        wanted = read_file(self._file)
        if wanted.deaf_to and not can_cut():
            raise FaultsError("this system cannot cut links: it has no socket filters (Linux has them)")
        self.wanted = wanted
        self.refresh()

    def received(self, envelopes: Iterable[bytes]) -> None:
        """Called before anybody else looks at them."""
        if self.wanted.dies_on_vote and any(map(has_yes, envelopes)):
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, sock: Socket, address: Callable[[], str | None]) -> None:
        """From now on until it is closed; `address` tells the peer's, as far as it is known by then."""
        self._watched[sock] = address
        self.refresh()

    def refresh(self) -> None:
        """Apply it to every open socket: an address is new, or is known only now."""
        for sock, address in list(self._watched.items()):
            if sock.fileno() < 0:
                del self._watched[sock]
                self._deaf.discard(sock)
            elif (address() in self.wanted.deaf_to) != (sock in self._deaf):
                self._switch(sock)

    def _switch(self, sock: Socket) -> None:
        if sock in self._deaf:
            hear(sock)
            self._deaf.remove(sock)
        else:
            hear_nothing(sock)
            self._deaf.add(sock)


def read_file(file: Path) -> Wanted:
    """What is in it; a missing one asks for nothing. Raises FaultsError."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Wanted)
    except FileNotFoundError:
        return Wanted()
    except (OSError, msgspec.MsgspecError) as error:
        raise FaultsError(f"{FAULTS_VARIABLE} names {file}, which cannot be used: {error!r}") from None


def has_yes(envelope: bytes) -> bool:
    """Whether a peer says YES to a transaction in it."""
    header = read_header(envelope).header
    if header.type != ROUTES[0].number:
        return False
    steps = msgspec.msgpack.decode(header.payload, type=Steps).steps
    return any(isinstance(step, Vote) and step.yes for step in steps)


def can_cut() -> bool:
    """Whether this system lets us filter a socket: tried, not guessed."""
    if sys.platform != "linux":
        return False  # the option numbers mean something else there
    with socket.socket() as probe:
        try:
            hear_nothing(probe)
        except OSError:
            return False
    return True


def hear_nothing(sock: Socket) -> None:
    """Drop every packet that arrives for this socket from now on. Raises OSError where that is not possible."""
    program = array.array("B", DROP_ALL)
    at, _ = program.buffer_info()
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, at))


def hear(sock: Socket) -> None:
    """Undo `hear_nothing`: what the peer sends again now gets through."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except OSError as error:
        if error.errno != errno.ENOENT:  # there was none
            raise
