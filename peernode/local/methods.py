"""The method table: what a client of this machine may ask, independent of how it asked.

Each method is a row: its name, the shape of its parameters, and a function that answers now or later. `answer`
takes either a result (plain maps, lists, bytes, numbers) or a `Refused`. Expected failures are values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from protocol.errors import Refused
from protocol.inputs import Join, Leave

from ..daemon.faults import FaultsError
from ..limits import CLOSE_WAIT_S, HANDOVER_S
from . import cache, keyspaces, kv, locks, members, txn
from .api import Api
from .notices import Outlet
from .params import NoParams, Params
from .tickets import TicketCreate, TicketRevoke, create_ticket, list_tickets, revoke_ticket
from .views import health_view, status_view, sync_view

Answer = Callable[[object], None]


class ClusterJoin(Params, frozen=True):
    seeds: list[str]


def api_info(api: Api, _: NoParams, answer: Answer) -> None:
    answer({"version": api.version, "protocol": api.protocol, "methods": sorted(methods_of(api))})


def node_status(api: Api, _: NoParams, answer: Answer) -> None:
    answer(status_view(api))


def node_health(api: Api, _: NoParams, answer: Answer) -> None:
    answer(health_view(api))


def sync_status(api: Api, _: NoParams, answer: Answer) -> None:
    answer(sync_view(api))


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
    deaf_to = sorted(faults.wanted.deaf_to)
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
    "members.list": Method(NoParams, members.list_all),
    "members.subscribe": Subscribing(NoParams, members.subscribe),
    "kv.put": Method(kv.KvPut, kv.put),
    "kv.get": Method(kv.KvGet, kv.get),
    "kv.delete": Method(kv.KvDelete, kv.delete),
    "kv.mput": Method(kv.KvMput, kv.mput),
    "kv.mget": Method(kv.KvMget, kv.mget),
    "kv.scan": Method(kv.KvScan, kv.scan),
    "keyspace.create": Method(keyspaces.KeyspaceCreate, keyspaces.create),
    "keyspace.list": Method(NoParams, keyspaces.list_all),
    "keyspace.show": Method(keyspaces.KeyspaceShow, keyspaces.show),
    "keyspace.voters": Method(keyspaces.KeyspaceVoters, keyspaces.voters),
    "keyspace.drop": Method(keyspaces.KeyspaceDrop, keyspaces.drop),
    "txn.commit": Method(txn.TxnCommit, txn.commit),
    "txn.status": Method(txn.TxnStatus, txn.status),
    "txn.list": Method(txn.TxnList, txn.list_doubtful),
    "lock.acquire": Method(locks.LockAcquire, locks.acquire),
    "lock.renew": Method(locks.LockRenew, locks.renew),
    "lock.release": Method(locks.LockRelease, locks.release),
    "sync.status": Method(NoParams, sync_status),
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
