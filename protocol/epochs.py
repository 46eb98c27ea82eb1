"""Epochs: who votes on a coordinated keyspace now, and who did before.

The voters that a definition names are those of the first epoch. Each later epoch begins with a *successor*: the
voters that the epoch before it has agreed on, in a transaction like any other (see commit/succession.py), or that
somebody has put in their place when a majority of them was lost for good. Successors are entries of the hidden
keyspace, so every member learns them; none is ever deleted, because a transaction is finished by the voters of its
own epoch.
"""

from __future__ import annotations

import msgspec

from .voters import FIRST_EPOCH, Voter, check_voters

MARK = b"\0"
"""Keys of successors begin with it; those of definitions begin with a name, which is printable."""

INTEGER_BYTES = 8


class Forced(msgspec.Struct, frozen=True, array_like=True):
    """A lost majority: what only `lost` had, writes and transactions in doubt, may be gone. `by`: a node's name."""

    at_ms: int
    by: str
    lost: tuple[Voter, ...]


class Successor(msgspec.Struct, frozen=True, array_like=True):
    """Who votes in an epoch, by node id. `forced`: the epoch before it did not agree on them."""

    voters: tuple[Voter, ...]
    forced: Forced | None = None


class Epochs:
    """All successors that are stored here."""

    def __init__(self) -> None:
        self._known: dict[int, dict[int, Successor]] = {}

    def note(self, key: bytes, value: bytes | None) -> None:
        """What stands now under a key of the hidden keyspace that begins with `MARK`."""
        place, successor = place_of(key), decode(value)
        if place is not None and successor is not None:
            self._known.setdefault(place[0], {})[place[1]] = successor

    def current(self, keyspace: int) -> int:
        """The latest epoch that is known here."""
        known = self._known.get(keyspace)
        return max(known) if known else FIRST_EPOCH

    def successor(self, keyspace: int, epoch: int) -> Successor | None:
        """What began an epoch; None: it is the first, or is not known here."""
        return self._known.get(keyspace, {}).get(epoch)

    def all(self) -> list[tuple[int, int]]:
        """(keyspace, epoch) of all successors."""
        return [(keyspace, epoch) for keyspace, known in self._known.items() for epoch in known]

    def advanced(self) -> list[tuple[int, int]]:
        """(keyspace, its latest epoch) of all whose voters were ever changed."""
        return [(keyspace, max(known)) for keyspace, known in sorted(self._known.items())]


def successor_key(keyspace: int, epoch: int) -> bytes:
    """Where it stands in the hidden keyspace what begins this epoch."""
    return MARK + keyspace.to_bytes(INTEGER_BYTES, "big") + epoch.to_bytes(INTEGER_BYTES, "big")


def place_of(key: bytes) -> tuple[int, int] | None:
    """(keyspace, epoch) of such a key."""
    if len(key) != len(MARK) + 2 * INTEGER_BYTES or not key.startswith(MARK):
        return None
    keyspace, epoch = key[1 : 1 + INTEGER_BYTES], key[1 + INTEGER_BYTES :]
    return int.from_bytes(keyspace, "big"), int.from_bytes(epoch, "big")


def encode(successor: Successor) -> bytes:
    return msgspec.msgpack.encode(successor)


def decode(value: bytes | None) -> Successor | None:
    """None where there is none, or none that is sound."""
    if value is None:
        return None
    try:
        successor = _decoder.decode(value)
    except msgspec.MsgspecError:
        return None
    is_sound = check_voters(successor.voters) is None and list(successor.voters) == sorted(successor.voters)
    return successor if is_sound else None


_decoder = msgspec.msgpack.Decoder(Successor)
