"""The fault point: from which peers a daemon hears nothing, for tests that cut links on purpose. Off by default.

It exists only where the environment variable PEERNODE_FAULTS names a file, `{"deaf_to": ["HOST:PORT", ...]}`: the
peers, by the address that they announce, whose packets are to be lost on their way here. The file is read at
the start, so that a restart does not heal a cut, and again by the method `faults.reload` of the local socket.

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
import json
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

FAULTS_VARIABLE = "PEERNODE_FAULTS"

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"""Linux; the socket module does not name them."""

RETURN, DROP = 0x06, 0
DROP_ALL = struct.pack("HBBI", RETURN, 0, 0, DROP)
"""A classic BPF program of one instruction: return 0, which is how many bytes of a packet are kept."""


class FaultsError(Exception):
    """The file cannot be read, or this system cannot cut."""


class Socket(Protocol):
    """As much of a socket as is needed here: trio's and the standard library's both have it."""

    def fileno(self) -> int: ...
    def setsockopt(self, level: int, option: int, value: bytes | int, /) -> None: ...


class FaultPoint:
    """Watches the sockets of all links and dials, and keeps deaf those of the peers that the file names.

    Raises FaultsError where the file says what cannot be done.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._watched: dict[Socket, Callable[[], str | None]] = {}
        self._deaf: set[Socket] = set()
        self.deaf_to: frozenset[str] = frozenset()
        self.reload()

    def reload(self) -> None:
        """Do what the file says now; a missing one says nothing. Raises FaultsError and changes nothing."""
        deaf_to = read_file(self._file)
        if deaf_to and not can_cut():
            raise FaultsError("this system cannot cut links: it has no socket filters (Linux has them)")
        self.deaf_to = deaf_to
        self.refresh()

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
            elif (address() in self.deaf_to) != (sock in self._deaf):
                self._switch(sock)

    def _switch(self, sock: Socket) -> None:
        if sock in self._deaf:
            hear(sock)
            self._deaf.remove(sock)
        else:
            hear_nothing(sock)
            self._deaf.add(sock)


def read_file(file: Path) -> frozenset[str]:
    """The addresses in it. Raises FaultsError."""
    try:
        content = json.loads(file.read_text())
        addresses = content["deaf_to"]
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise TypeError("deaf_to is a list of addresses")
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FaultsError(f"{FAULTS_VARIABLE} names {file}, which cannot be used: {error!r}") from None
    return frozenset(addresses)


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
