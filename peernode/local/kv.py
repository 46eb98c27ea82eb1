"""Store methods: kv.put, get, delete, mput, mget, scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from protocol.clock import stamp_ms
from protocol.commit.task import Committed, Conflicted, Found
from protocol.effects import Entry
from protocol.errors import Refused
from protocol.inputs import ACKS_WAIT_MS, Barrier, Delete, Nothing, Put, PutMany, QuorumRead, Written
from protocol.keyspaces import DEFAULT_KEYSPACE
from protocol.limits import BATCH_ITEMS_MAX, SCAN_BYTES_MAX, SCAN_ITEMS_MAX
from protocol.replica.entry import row_bytes, version_text
from protocol.replica.replica import Page
from protocol.transactions import stamp_text

from .api import Api
from .params import Params, as_bytes, each
from .txn import conflict, told
from .views import item_view, name_of, version_of

Answer = Callable[[object], None]

Acks = Annotated[int, msgspec.Meta(ge=0, le=4096)]
Milliseconds = Annotated[int, msgspec.Meta(ge=1)]


class KvPut(Params, frozen=True):
    key: bytes
    value: bytes
    keyspace: str = DEFAULT_KEYSPACE
    ttl_ms: int | None = None
    if_version: str | None = None
    if_absent: bool = False
    durability: Literal["disk", "memory"] = "disk"
    acks: Acks = 0
    acks_wait_ms: Milliseconds = ACKS_WAIT_MS
    request_id: bytes | None = None


class KvGet(Params, frozen=True):
    key: bytes
    keyspace: str = DEFAULT_KEYSPACE
    level: str = "local"


class KvDelete(Params, frozen=True):
    key: bytes
    keyspace: str = DEFAULT_KEYSPACE
    if_version: str | None = None
    acks: Acks = 0
    acks_wait_ms: Milliseconds = ACKS_WAIT_MS
    request_id: bytes | None = None


class MputItem(Params, frozen=True):
    key: bytes
    value: bytes
    ttl_ms: int | None = None


class KvMput(Params, frozen=True):
    items: Annotated[list[MputItem], msgspec.Meta(min_length=1, max_length=BATCH_ITEMS_MAX)]
    keyspace: str = DEFAULT_KEYSPACE
    acks: Acks = 0
    acks_wait_ms: Milliseconds = ACKS_WAIT_MS
    request_id: bytes | None = None

    @classmethod
    def _named(cls, params: object) -> dict[str, object]:
        return each(super()._named(params), "items", MputItem.read)


class KvMget(Params, frozen=True):
    keys: Annotated[list[bytes], msgspec.Meta(max_length=SCAN_ITEMS_MAX)]
    keyspace: str = DEFAULT_KEYSPACE
    level: str = "local"

    @classmethod
    def _named(cls, params: object) -> dict[str, object]:
        return each(super()._named(params), "keys", as_bytes)


class KvScan(Params, frozen=True):
    prefix: bytes = b""
    after: bytes | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = SCAN_ITEMS_MAX
    keyspace: str = DEFAULT_KEYSPACE


def put(api: Api, params: KvPut, answer: Answer) -> None:
    is_conditional = params.if_absent or params.if_version is not None

    def reply(outcome: object) -> None:
        match outcome:
            case Written():
                result: dict[str, object] = {"version": version_text(outcome.entry), "token": api.token()}
                answer(result | {"decided": "local"} if is_conditional else result)
            case Committed():
                answer({"version": stamp_text(outcome.stamp), "token": api.token()})
            case Conflicted() if params.if_absent and params.if_version is None:
                answer(msgspec.structs.replace(conflict(api, outcome), code="exists"))
            case _:
                answer(told(api, outcome))

    api.dispatch(
        Put(
            reply,
            params.keyspace,
            params.key,
            params.value,
            params.ttl_ms,
            params.if_version,
            params.if_absent,
            params.acks,
            params.acks_wait_ms,
            params.request_id,
            in_memory=params.durability == "memory",
        )
    )


def get(api: Api, params: KvGet, answer: Answer) -> None:
    key = params.key
    if params.level != "local":
        get_voted(api, params, answer)
        return

    def reply(_: object = None) -> None:
        found = api.node.get(params.keyspace, key, api.now())
        if found is None:
            answer(not_found(key))
        else:
            answer(item_view(api, found) if isinstance(found, Entry) else found)

    if api.node.is_staged(params.keyspace, key):
        api.dispatch(Barrier(reply))
    else:
        reply()


def delete(api: Api, params: KvDelete, answer: Answer) -> None:
    def reply(outcome: object) -> None:
        match outcome:
            case Written():
                answer({"deleted": True, "version": version_text(outcome.entry)})
            case Committed():
                answer({"deleted": True, "version": stamp_text(outcome.stamp)})
            case Nothing() | Conflicted() if params.if_version is None:
                answer({"deleted": False})
            case _:
                answer(told(api, outcome))

    api.dispatch(
        Delete(
            reply,
            params.keyspace,
            params.key,
            params.if_version,
            params.acks,
            params.acks_wait_ms,
            params.request_id,
        )
    )


def mput(api: Api, params: KvMput, answer: Answer) -> None:
    """One atomic batch on this node."""

    def reply(outcome: object) -> None:
        if isinstance(outcome, Written):
            versions = [version_text(entry) for entry in outcome.entries]
            answer({"versions": versions, "token": api.token()})
        elif isinstance(outcome, Committed):
            versions = [stamp_text(outcome.stamp)] * len(params.items)
            answer({"versions": versions, "token": api.token()})
        else:
            answer(told(api, outcome))

    items = tuple((item.key, item.value, item.ttl_ms) for item in params.items)
    api.dispatch(PutMany(reply, params.keyspace, items, params.acks, params.acks_wait_ms, params.request_id))


def mget(api: Api, params: KvMget, answer: Answer) -> None:
    """As many as fit into one answer; keys that did not are not in it, and `next` counts those that are."""
    if params.level != "local":
        mget_voted(api, params, answer)
        return
    keys = params.keys

    def reply(_: object = None) -> None:
        items: list[dict[str, object]] = []
        size = 0
        for key in keys:
            found = api.node.get(params.keyspace, key, api.now())
            if isinstance(found, Refused):
                answer(found)
                return
            size += row_bytes(found) if found is not None else len(key)
            if items and size > SCAN_BYTES_MAX:
                break
            items.append({"key": key, "missing": True} if found is None else listed(api, found))
        answer({"items": items, "next": len(items) if len(items) < len(keys) else None})

    if any(api.node.is_staged(params.keyspace, key) for key in keys):
        api.dispatch(Barrier(reply))
    else:
        reply()


def scan(api: Api, params: KvScan, answer: Answer) -> None:
    page = api.node.scan(params.keyspace, params.prefix, params.after, params.limit, api.now())
    if isinstance(page, Page):
        answer({"items": [listed(api, entry) for entry in page.items], "next": page.next})
    else:
        answer(page)


def listed(api: Api, entry: Entry) -> dict[str, object]:
    """Shorter than `item_view`: a thousand of these are built in one go."""
    item: dict[str, object] = {"key": entry.key, "value": entry.value, "version": version_of(api, entry)}
    if entry.expires_ms:
        item["expires_in_ms"] = max(0, entry.expires_ms - api.node.time.time_ms(api.now()))
    return item


def get_voted(api: Api, params: KvGet, answer: Answer) -> None:
    """The newest version that a majority of the voters has: no commit that ended before is missed."""

    def reply(outcome: object) -> None:
        if not isinstance(outcome, dict):
            answer(outcome)
            return
        (found,) = outcome.values()
        answer(not_found(params.key) if found.value is None else voted_view(api, params, found))

    ask_voters(api, params, (params.key,), reply, answer)


def mget_voted(api: Api, params: KvMget, answer: Answer) -> None:
    """A snapshot: all keys as they were at one moment."""

    def reply(outcome: object) -> None:
        if not isinstance(outcome, dict):
            answer(outcome)
            return
        found = {key: value for (_, key), value in outcome.items()}
        size = sum(len(key) + len(value.value or b"") for key, value in found.items())
        if size > SCAN_BYTES_MAX:
            answer(
                Refused(
                    "too_large",
                    f"a snapshot of {size} bytes; the limit is {SCAN_BYTES_MAX}",
                    "ask for fewer keys",
                )
            )
            return
        answer({"items": [voted_item(key, found[key]) for key in params.keys], "next": None})

    if params.keys:
        ask_voters(api, params, tuple(params.keys), reply, answer)
    else:
        answer({"items": [], "next": None})


def ask_voters(
    api: Api, params: KvGet | KvMget, keys: tuple[bytes, ...], reply: Answer, answer: Answer
) -> None:
    if params.level == "quorum":
        api.dispatch(QuorumRead(reply, tuple((params.keyspace, key) for key in keys)))
    else:
        answer(
            Refused("invalid", f"level {params.level!r}", "local is this node's copy, quorum asks the voters")
        )


def voted_view(api: Api, params: KvGet, found: Found) -> dict[str, object]:
    """`origin` is told where this node's copy is of the same version."""
    copy = api.node.get(params.keyspace, params.key, api.now())
    is_same = isinstance(copy, Entry) and copy.hlc == found.stamp
    return {
        "value": found.value,
        "version": stamp_text(found.stamp),
        "modified_ms": stamp_ms(found.stamp),
        "origin": name_of(api, copy.node) if is_same and isinstance(copy, Entry) else None,
        "expires_in_ms": None,
    }


def voted_item(key: bytes, found: Found) -> dict[str, object]:
    if found.value is None:
        return {"key": key, "missing": True}
    return {"key": key, "value": found.value, "version": stamp_text(found.stamp)}


def not_found(key: bytes) -> Refused:
    return Refused("not_found", f"no key {key.decode(errors='backslashreplace')!r} here")
