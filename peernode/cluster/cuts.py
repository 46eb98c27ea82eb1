"""Which pairs do not hear each other, and how their daemons are told.

A cut is a pair of names; a partition is all pairs across its groups. Each of both daemons is told by its file to
be deaf to the other's address (see peernode/daemon/faults.py, which drops what arrives).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from itertools import combinations

from ..client import PeernodeError
from .errors import ClusterError
from .node import Node
from .state import Cut, State, write


def pair(one: str, other: str) -> Cut:
    """Raises ClusterError for a node and itself."""
    if one == other:
        raise ClusterError(f"{one} cannot be cut from itself", code="invalid")
    return frozenset((one, other))


def partition(groups: Sequence[Collection[str]], everybody: Iterable[str]) -> set[Cut]:
    """All pairs across groups. Nodes in no group are together a further one: nobody connects two sides.

    Raises ClusterError when a node is named twice, or when there is only one group.
    """
    named = [name for group in groups for name in group]
    for name in named:
        if named.count(name) > 1:
            raise ClusterError(f"{name} is named twice", code="invalid")
    rest = [name for name in everybody if name not in named]
    sides = [group for group in (*groups, rest) if group]
    if len(sides) < 2:
        hint = "name two groups, such as: peernode cluster partition n1,n2 n3"
        raise ClusterError("all nodes are in one group", code="invalid", hint=hint)
    return {pair(one, other) for left, right in combinations(sides, 2) for one in left for other in right}


def change(state: State, wanted: set[Cut]) -> None:
    """Let exactly these be cut. When a daemon refuses, all is as it was, as far as the others can be told.

    Raises ClusterError.
    """
    before, state.cuts = state.cuts, wanted
    changed = sorted({name for cut in before ^ wanted for name in cut})
    try:
        tell(state, changed)
    except PeernodeError:
        state.cuts = before
        for name in changed:
            with suppress(PeernodeError):
                tell(state, [name])
        raise


def tell(state: State, names: Iterable[str]) -> None:
    """Let these nodes know whom they do not hear. One that does not run reads it at its start."""
    for name in names:
        node = state.nodes[name]
        deaf_to = write_faults(state, node)
        if node.state == "running":
            _reload(state, node, deaf_to)


def write_faults(state: State, node: Node) -> list[str]:
    """The file that the daemon reads. Returns the addresses in it."""
    deaf_to = [state.nodes[other].address for other in state.cut_from(node.name)]
    write(node.faults, {"deaf_to": deaf_to})
    return deaf_to


def _reload(state: State, node: Node, deaf_to: list[str]) -> None:
    try:
        with node.connect() as client:
            client.call("faults.reload")
    except PeernodeError as error:
        if error.code != "unknown_method":
            raise ClusterError(f"{node.name} cannot be cut: {error.message}", hint=error.hint) from None
        if deaf_to:
            hint = state.command(f"restart {node.name}")
            raise ClusterError(f"{node.name} was started by hand and cannot be cut", hint=hint) from None
