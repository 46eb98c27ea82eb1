"""Cache methods: this node's local TTL cache, and the invalidations that every node hears."""

from __future__ import annotations

from collections.abc import Callable

import trio

from protocol.effects import Invalidated
from protocol.errors import Refused
from protocol.inputs import Invalidate
from protocol.invalidation import Glob
from protocol.limits import KEY_BYTES_MAX
from protocol.replica.writing import check_item
from protocol.types import NodeId

from ..cache import Cached
from ..limits import (
    TTL_CACHE_DEFAULT_TTL_MS,
    TTL_CACHE_SWEEP_S,
)
from .api import Api
from .notices import Outlet
from .params import NoParams, Params
from .views import name_of

Answer = Callable[[object], None]


class CachePut(Params, frozen=True):
    key: bytes
    value: bytes
    ttl_ms: int = TTL_CACHE_DEFAULT_TTL_MS


class CacheKey(Params, frozen=True):
    key: bytes


class CacheInvalidate(Params, frozen=True):
    """A key, or all keys that match a pattern. `local`: only on this node."""

    key: bytes | None = None
    pattern: bytes | None = None
    local: bool = False


class CacheSubscribe(Params, frozen=True):
    """Without a pattern: every invalidation."""

    pattern: bytes | None = None


def put(api: Api, params: CachePut, answer: Answer) -> None:
    refusal = check_item(params.key, params.value, params.ttl_ms)
    if refusal is None:
        api.cache.put(params.key, params.value, params.ttl_ms / 1000, api.now().mono_s)
    answer(refusal or {})


def get(api: Api, params: CacheKey, answer: Answer) -> None:
    now_s = api.now().mono_s
    found = api.cache.get(params.key, now_s)
    if found is None:
        key = params.key.decode(errors="backslashreplace")
        answer(Refused("not_found", f"nothing is cached here under {key!r}"))
    else:
        answer({"value": found.value, "expires_in_ms": expires_in_ms(found, now_s)})


def expires_in_ms(cached: Cached, now_s: float) -> int:
    """Above 0 as long as it is served."""
    return max(1, round((cached.expires_s - now_s) * 1000))


def delete(api: Api, params: CacheKey, answer: Answer) -> None:
    answer({"deleted": api.cache.delete(params.key, api.now().mono_s)})


def clear(api: Api, _: NoParams, answer: Answer) -> None:
    answer({"removed": api.cache.clear()})


def stats(api: Api, _: NoParams, answer: Answer) -> None:
    cache, counts = api.cache, api.cache.counts
    lookups = counts.hits + counts.misses
    answer(
        {
            "entries": len(cache),
            "entries_max": cache.entries_max,
            "bytes": cache.bytes_held,
            "bytes_max": cache.bytes_max,
            "hits": counts.hits,
            "misses": counts.misses,
            "hit_rate": round(counts.hits / lookups, 4) if lookups else 0.0,
            "evictions": counts.evictions,
            "expired": counts.expired,
            "invalidations": counts.invalidations,
            "invalidated": counts.invalidated,
            "emptied": counts.emptied,
            "subscriptions": len(api.cache_subscriptions),
        }
    )


def invalidate(api: Api, params: CacheInvalidate, answer: Answer) -> None:
    """Here at once; every other node is told, and nobody waits for it."""
    if (params.key is None) == (params.pattern is None):
        answer(Refused("invalid", "give either a key or a pattern"))
        return
    is_glob = params.key is None
    subject = (params.pattern if is_glob else params.key) or b""
    if (refusal := check_length("pattern" if is_glob else "key", subject)) is not None:
        answer(refusal)
        return
    removed = drop(api, api.node.origin[0], subject, is_glob)
    if not params.local:
        api.dispatch(Invalidate(subject, is_glob))
    answer({"removed": removed})


def subscribe(api: Api, params: CacheSubscribe, answer: Answer, outlet: Outlet) -> None:
    """The client hears `cache.invalidated` {subscription, key or pattern, origin}, after what it names is dropped.

    With a pattern it hears of keys that match, and of every pattern that may share a key with its own.
    """
    if params.pattern is not None and (refusal := check_length("pattern", params.pattern)) is not None:
        answer(refusal)
        return
    subscription = outlet.subscribe()
    if isinstance(subscription, Refused):
        answer(subscription)
        return
    api.cache_subscriptions[subscription] = None if params.pattern is None else Glob(params.pattern)
    subscription.on_close = lambda: api.cache_subscriptions.pop(subscription)
    answer({"subscription": subscription.number})


def check_length(what: str, subject: bytes) -> Refused | None:
    if 0 < len(subject) <= KEY_BYTES_MAX:
        return None
    return Refused("invalid", f"the {what} has {len(subject)} bytes; it has 1 to {KEY_BYTES_MAX}")


def drop(api: Api, origin: NodeId, subject: bytes, is_glob: bool) -> int:
    """Drop what is stale and tell those who want to know; returns how many entries were dropped."""
    now_s = api.now().mono_s
    glob = Glob(subject) if is_glob else None
    removed = api.cache.invalidate(subject, now_s) if glob is None else api.cache.invalidate_glob(glob, now_s)
    told = {"key" if glob is None else "pattern": subject, "origin": name_of(api, origin)}
    for subscription, wanted in api.cache_subscriptions.items():
        if wanted is None or (wanted.matches(subject) if glob is None else wanted.may_meet(glob)):
            subscription.tell("cache.invalidated", **told)
    return removed


def follow(api: Api) -> None:
    """From now on hear what other nodes call stale."""

    def hear(stale: Invalidated) -> None:
        drop(api, stale.node, stale.subject, stale.is_glob)

    api.runtime.on_invalidated.append(hear)


async def clean_up(api: Api) -> None:
    """Drop what has expired, until cancelled."""
    while True:
        await trio.sleep(TTL_CACHE_SWEEP_S)
        while api.cache.sweep(api.now().mono_s):
            await trio.lowlevel.checkpoint()
