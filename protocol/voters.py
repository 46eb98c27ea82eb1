"""Voters: members that decide together what is written to a coordinated keyspace.

A *voter* is a member together with the store that it has: whoever lost its disk, or came back with an old copy of it,
has forgotten what it promised, and is not the voter that was named.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from .errors import Refused
from .limits import VOTERS_MAX
from .types import NodeId

STORE_ID_BYTES = 16

FIRST_EPOCH = 1
"""Of the voters that a definition names."""


class Voter(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A member, as long as it has this store."""

    node: Annotated[NodeId, msgspec.Meta(min_length=32, max_length=32)]
    store: Annotated[bytes, msgspec.Meta(min_length=STORE_ID_BYTES, max_length=STORE_ID_BYTES)]


def check_voters(voters: Iterable[Voter]) -> Refused | None:
    """Their number: an odd one, for an even one survives no more than one less."""
    nodes = [voter.node for voter in voters]
    if len(nodes) % 2 == 0 or len(nodes) > VOTERS_MAX:
        numbers = ", ".join(str(number) for number in range(1, VOTERS_MAX, 2))
        return Refused("invalid", f"{len(nodes)} voters", f"name {numbers} or {VOTERS_MAX} of them")
    if len(set(nodes)) < len(nodes):
        return Refused("invalid", "a voter is named twice")
    return None
