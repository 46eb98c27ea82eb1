"""The method table: what a client of this machine may ask, independent of how it asked.

Each method is a row: its name, the shape of its parameters, and a function that answers now or later. `answer`
takes either a result (plain maps, lists, bytes, numbers) or a `Refused`. Expected failures are values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from protocol.effects import Entry
from protocol.errors import Refused
from protocol.inputs import Barrier, Delete, Join, Leave, Nothing, Put, Written
from protocol.limits import SCAN_ITEMS_MAX
from protocol.replica.entry import DEFAULT_KEYSPACE, version_text
from protocol.replica.replica import Page

from ..daemon.faults import FaultsError
from ..limits import CLOSE_WAIT_S, HANDOVER_S
from . import cache
from .api import Api
from .notices import Outlet
from .params import NoParams, Params
from .tickets import TicketCreate, TicketRevoke, create_ticket, list_tickets, revoke_ticket
from .views import health_view, item_view, members_view, status_view

Answer = Callable[[object], None]


class KvPut(Params, frozen=True):
    key: bytes
    value: bytes
    keyspace: str = DEFAULT_KEYSPACE
    ttl_ms: int | None = None
    if_version: str | None = None
    if_absent: bool = False
    durability: str = "disk"


class KvGet(Params, frozen=True):
    key: bytes
    keyspace: str = DEFAULT_KEYSPACE
    level: str = "local"


class KvDelete(Params, frozen=True):
    key: bytes
    keyspace: str = DEFAULT_KEYSPACE
    if_version: str | None = None


class KvScan(Params, frozen=True):
    prefix: bytes = b""
    after: bytes | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = SCAN_ITEMS_MAX
    keyspace: str = DEFAULT_KEYSPACE


class ClusterJoin(Params, frozen=True):
    seeds: list[str]


def api_info(api: Api, _: NoParams, answer: Answer) -> None:
    answer({"version": api.version, "protocol": api.protocol, "methods": sorted(methods_of(api))})


def node_status(api: Api, _: NoParams, answer: Answer) -> None:
    answer(status_view(api))


def node_health(api: Api, _: NoParams, answer: Answer) -> None:
    answer(health_view(api))


def members_list(api: Api, _: NoParams, answer: Answer) -> None:
    answer(members_view(api))


def kv_put(api: Api, params: KvPut, answer: Answer) -> None:
    if params.durability not in ("disk", "memory"):
        answer(Refused("invalid", f"durability {params.durability!r}; it is memory or disk"))
        return
    is_conditional = params.if_absent or params.if_version is not None

    def reply(outcome: object) -> None:
        if isinstance(outcome, Written):
            result: dict[str, object] = {"version": version_text(outcome.entry), "token": api.token()}
            answer(result | {"decided": "local"} if is_conditional else result)
        else:
            answer(outcome)

    api.dispatch(
        Put(
            reply,
            params.keyspace,
            params.key,
            params.value,
            params.ttl_ms,
            params.if_version,
            params.if_absent,
        )
    )


def kv_get(api: Api, params: KvGet, answer: Answer) -> None:
    if params.level != "local":
        answer(Refused("invalid", f"level {params.level!r}; an lww keyspace is read locally"))
        return
    key = params.key

    def reply(_: object = None) -> None:
        found = api.node.get(params.keyspace, key, api.now())
        if found is None:
            answer(Refused("not_found", f"no key {key.decode(errors='backslashreplace')!r} here"))
        else:
            answer(item_view(api, found) if isinstance(found, Entry) else found)

    if api.node.is_staged(params.keyspace, key):
        api.dispatch(Barrier(reply))
    else:
        reply()


def kv_delete(api: Api, params: KvDelete, answer: Answer) -> None:
    def reply(outcome: object) -> None:
        match outcome:
            case Written(entry):
                answer({"deleted": True, "version": version_text(entry)})
            case Nothing():
                answer({"deleted": False})
            case _:
                answer(outcome)

    api.dispatch(Delete(reply, params.keyspace, params.key, params.if_version))


def kv_scan(api: Api, params: KvScan, answer: Answer) -> None:
    page = api.node.scan(params.keyspace, params.prefix, params.after, params.limit, api.now())
    if isinstance(page, Page):
        items = [
            {"key": entry.key, "value": entry.value, "version": version_text(entry)} for entry in page.items
        ]
        answer({"items": items, "next": page.next})
    else:
        answer(page)


def cluster_join(api: Api, params: ClusterJoin, answer: Answer) -> None:
    try:
        seeds = tuple(api.checked_address(seed) for seed in params.seeds)
    except ValueError as error:
        answer(Refused("invalid", str(error)))
        return
    api.dispatch(Join(seeds))
    answer({"seeds": list(seeds)})


def cluster_leave(api: Api, _: NoParams, answer: Answer) -> None:
    answer({})
    api.dispatch(Leave(HANDOVER_S, CLOSE_WAIT_S))


def faults_reload(api: Api, _: NoParams, answer: Answer) -> None:
    faults = api.runtime.faults
    assert faults is not None
    try:
        faults.reload()
    except FaultsError as error:
        answer(Refused("unavailable", str(error)))
        return
    deaf_to = sorted(faults.deaf_to)
    api.runtime.log.event("faults.loaded", deaf_to=", ".join(deaf_to) or "nobody")
    answer({"deaf_to": deaf_to})


class Method(msgspec.Struct, frozen=True):
    params: type[Params]
    call: Callable[[Api, Any, Answer], None]


class Subscribing(msgspec.Struct, frozen=True):
    """A method that may go on telling the client after its answer."""

    params: type[Params]
    call: Callable[[Api, Any, Answer, Outlet], None]


METHODS: dict[str, Method | Subscribing] = {
    "api.info": Method(NoParams, api_info),
    "node.status": Method(NoParams, node_status),
    "node.health": Method(NoParams, node_health),
    "members.list": Method(NoParams, members_list),
    "kv.put": Method(KvPut, kv_put),
    "kv.get": Method(KvGet, kv_get),
    "kv.delete": Method(KvDelete, kv_delete),
    "kv.scan": Method(KvScan, kv_scan),
    "cache.put": Method(cache.CachePut, cache.put),
    "cache.get": Method(cache.CacheKey, cache.get),
    "cache.delete": Method(cache.CacheKey, cache.delete),
    "cache.invalidate": Method(cache.CacheInvalidate, cache.invalidate),
    "cache.clear": Method(NoParams, cache.clear),
    "cache.stats": Method(NoParams, cache.stats),
    "cache.subscribe": Subscribing(cache.CacheSubscribe, cache.subscribe),
    "ticket.create": Method(TicketCreate, create_ticket),
    "ticket.list": Method(NoParams, list_tickets),
    "ticket.revoke": Method(TicketRevoke, revoke_ticket),
    "cluster.join": Method(ClusterJoin, cluster_join),
    "cluster.leave": Method(NoParams, cluster_leave),
}


FAULT_METHODS = METHODS | {"faults.reload": Method(NoParams, faults_reload)}
"""The table of a daemon that a test may make deaf."""


def methods_of(api: Api) -> dict[str, Method | Subscribing]:
    return METHODS if api.runtime.faults is None else FAULT_METHODS


def call(api: Api, name: str, params: object, answer: Answer, outlet: Outlet) -> None:
    """Look the method up, check the parameters, and let it answer; what it tells later goes to `outlet`."""
    method = methods_of(api).get(name)
    if method is None:
        answer(Refused("unknown_method", f"there is no method {name!r}", "api.info lists the methods"))
        return
    try:
        checked = method.params.read(params)
    except (msgspec.ValidationError, TypeError) as error:
        answer(Refused("invalid", f"{name}: {error}"))
        return
    if isinstance(method, Subscribing):
        method.call(api, checked, answer, outlet)
    else:
        method.call(api, checked, answer)
