"""Keyspace methods: making, listing, showing and dropping definitions, exchanging voters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from protocol.commit.task import Committed, Conflicted
from protocol.epochs import Successor
from protocol.errors import Refused
from protocol.inputs import (
    ACKS_WAIT_MS,
    Barrier,
    Created,
    CreateKeyspace,
    DropKeyspace,
    Dropped,
    Elected,
    QuorumRead,
    SetVoters,
)
from protocol.keyspaces import LWW, Definition, id_text
from protocol.limits import VOTERS_MAX
from protocol.membership.table import State
from protocol.types import node_text
from protocol.voters import Voter

from .api import Api
from .params import Params
from .txn import told
from .views import name_of

Answer = Callable[[object], None]


class KeyspaceCreate(Params, frozen=True):
    """`voters`: names or ids of members; none: they are picked."""

    name: str
    policy: str = LWW
    voters: Annotated[tuple[str, ...], msgspec.Meta(max_length=VOTERS_MAX)] = ()


class KeyspaceShow(Params, frozen=True):
    name: str


class KeyspaceVoters(Params, frozen=True):
    """`voters`: names or ids of members, all that shall vote; none: nothing is changed."""

    name: str
    voters: Annotated[tuple[str, ...], msgspec.Meta(max_length=VOTERS_MAX)] = ()
    force: bool = False
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = ACKS_WAIT_MS


class KeyspaceDrop(Params, frozen=True):
    name: str
    id: str


def create(api: Api, params: KeyspaceCreate, answer: Answer) -> None:
    def reply(outcome: object) -> None:
        if isinstance(outcome, Created):
            answer({**keyspace_view(api, outcome.definition), "created": outcome.is_new})
        else:
            answer(outcome)

    api.dispatch(CreateKeyspace(reply, params.name, params.policy, params.voters))


def list_all(api: Api, _: Params, answer: Answer) -> None:
    """Those that have a definition; two of one name are in conflict."""
    answer([keyspace_view(api, definition) for definition in api.node.replica.keyspaces.all()])


def show(api: Api, params: KeyspaceShow, answer: Answer) -> None:
    """What a name means, whether it has a definition or not."""
    meant = api.node.replica.keyspaces.resolve(params.name)
    answer(keyspace_view(api, meant) if isinstance(meant, Definition) else meant)


def voters(api: Api, params: KeyspaceVoters, answer: Answer) -> None:
    """Who decides there; or let others. Then it is answered when a majority of those do."""
    if not params.voters:
        show(api, KeyspaceShow(params.name), answer)
        return

    def reply(outcome: object) -> None:
        if isinstance(outcome, Elected | Committed):
            api.dispatch(Barrier(ask_them))
        elif isinstance(outcome, Conflicted):
            text = "somebody else has exchanged these voters just now"
            answer(Refused("conflict", text, f"peernode keyspace voters {params.name} shows them"))
        else:
            answer(told(api, outcome))

    def ask_them(_: object) -> None:
        api.dispatch(QuorumRead(done, ((params.name, b"?"),), params.timeout_ms))

    def done(outcome: object) -> None:
        if isinstance(outcome, Refused):
            text = "they are exchanged, but no majority of the new voters has caught up with those before them yet"
            answer(Refused("timeout", text, f"peernode keyspace show {params.name}", retryable=True))
        else:
            show(api, KeyspaceShow(params.name), answer)

    wanted = SetVoters(reply, params.name, params.voters, params.force, params.timeout_ms)
    api.dispatch(wanted)


def drop(api: Api, params: KeyspaceDrop, answer: Answer) -> None:
    def reply(outcome: object) -> None:
        is_done = isinstance(outcome, Dropped)
        answer({"name": params.name, "id": params.id, "dropped": True} if is_done else outcome)

    try:
        keyspace = int(params.id, 16)
    except ValueError:
        answer(Refused("invalid", f"{params.id!r} is no id of a keyspace", "peernode keyspace ls shows them"))
        return
    api.dispatch(DropKeyspace(reply, params.name, keyspace))


def keyspace_view(api: Api, definition: Definition) -> dict[str, object]:
    keyspaces, seats = api.node.replica.keyspaces, api.node.transactions.seats
    epoch = seats.epoch(definition.id)
    return {
        "name": definition.name,
        "id": id_text(definition.id),
        "policy": definition.policy,
        "voters": [voter_view(api, voter) for voter in voters_of(api, definition)],
        "epoch": epoch if definition.voters else None,
        "forced": forced_view(api, seats.successor(definition.id)),
        "defined": keyspaces.by_id(definition.id) is not None,
        "conflict": len(keyspaces.named(definition.name)) > 1,
    }


def voters_of(api: Api, definition: Definition) -> tuple[Voter, ...]:
    """Those of now; those that are named where it is not made yet."""
    seats = api.node.transactions.seats
    return seats.named((definition.id, seats.epoch(definition.id))) or definition.voters


def forced_view(api: Api, successor: Successor | None) -> dict[str, object] | None:
    """What may be lost, where a majority of the voters before was."""
    if successor is None or successor.forced is None:
        return None
    forced = successor.forced
    return {
        "at_ms": forced.at_ms,
        "by": forced.by,
        "lost": [name_of(api, voter.node) for voter in forced.lost],
    }


def voter_view(api: Api, voter: Voter) -> dict[str, object]:
    """`has_store`: whether that member still has the store that was named; with another it is no voter."""
    member = api.node.membership.table.members.get(voter.node)
    is_self = voter.node == api.node.origin[0]
    return {
        "name": name_of(api, voter.node),
        "id": node_text(voter.node),
        "state": State.ALIVE.value if is_self else member.state.value if member is not None else None,
        "has_store": api.node.membership.store_of(voter.node) == voter.store,
    }
