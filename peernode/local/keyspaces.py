"""Keyspace methods: making, listing, showing and dropping definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from protocol.errors import Refused
from protocol.inputs import Created, CreateKeyspace, DropKeyspace, Dropped
from protocol.keyspaces import LWW, Definition, id_text
from protocol.limits import VOTERS_MAX
from protocol.types import node_text
from protocol.voters import FIRST_EPOCH, Voter

from .api import Api
from .params import Params
from .views import name_of

Answer = Callable[[object], None]


class KeyspaceCreate(Params, frozen=True):
    """`voters`: names or ids of members; none: they are picked."""

    name: str
    policy: str = LWW
    voters: Annotated[tuple[str, ...], msgspec.Meta(max_length=VOTERS_MAX)] = ()


class KeyspaceShow(Params, frozen=True):
    name: str


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
    keyspaces = api.node.replica.keyspaces
    return {
        "name": definition.name,
        "id": id_text(definition.id),
        "policy": definition.policy,
        "voters": [voter_view(api, voter) for voter in definition.voters],
        "epoch": FIRST_EPOCH if definition.voters else None,
        "defined": keyspaces.by_id(definition.id) is not None,
        "conflict": len(keyspaces.named(definition.name)) > 1,
    }


def voter_view(api: Api, voter: Voter) -> dict[str, object]:
    """`has_store`: whether that member still has the store that was named; with another it is no voter."""
    return {
        "name": name_of(api, voter.node),
        "id": node_text(voter.node),
        "has_store": api.node.membership.store_of(voter.node) == voter.store,
    }
