"""Locks and leases: lock.acquire, lock.renew, lock.release.

A lock is a key of the coordinated keyspace `locks`, and its value says who holds it, for how long, and with which
*fence*: a number that is higher than that of everybody who held it before. Every step is a transaction that depends
on the version that was read, so two never both get it. But a lease is a promise about time, and a holder may be
paused, or its clock stand still, while others think that its time is over: whatever the lock protects has to refuse
lower fences than the highest that it has seen. A lock without that protects nothing, which is why there is none to be
had here (Kleppmann, "How to do distributed locking", 2016).

No clocks are compared. Whoever wants a lock that is held watches it, and takes it over when it has stood unchanged
for longer than its lease, by the watcher's own monotonic clock; the holder counts from before it asked. A released
lock stays as a key without a holder, because its fence must not be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from protocol.commit.task import Committed, Conflicted, Found
from protocol.errors import Refused
from protocol.inputs import Assign, Created, CreateKeyspace, Expect, QuorumRead, Transact
from protocol.keyspaces import COORDINATED, Definition
from protocol.membership.table import State
from protocol.transactions import stamp_text
from protocol.types import node_text

from ..limits import LOCK_TTL_MS_MAX, LOCK_TTL_MS_MIN
from .api import Api
from .params import Params
from .txn import told

Answer = Callable[[object], None]
Then = Callable[[Found, "Lease"], None]

KEYSPACE = "locks"
TTL_MS = 10_000

Ttl = Annotated[int, msgspec.Meta(ge=LOCK_TTL_MS_MIN, le=LOCK_TTL_MS_MAX)]
Fence = Annotated[int, msgspec.Meta(ge=1)]


class LockAcquire(Params, frozen=True):
    name: bytes
    ttl_ms: Ttl = TTL_MS


class LockRenew(Params, frozen=True):
    """`fence`: as `lock.acquire` gave it; none: the last one that it gave for this name on this node."""

    name: bytes
    ttl_ms: Ttl = TTL_MS
    fence: Fence | None = None


class LockRelease(Params, frozen=True):
    name: bytes
    fence: Fence | None = None


class Lease(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a lock's key holds, as JSON. `holder` and `node`, name and id, are empty when nobody has it."""

    fence: int = 0
    holder: str = ""
    node: str = ""
    ttl_ms: int = 0
    renewed: int = 0


def acquire(api: Api, params: LockAcquire, answer: Answer) -> None:
    """Get it, or `conflict` with `retry_ms`: how long it is held at most, if it is not renewed."""
    name = params.name

    def judge(found: Found, lease: Lease) -> None:
        if lease.holder:
            left_s = api.locks.left_s(name, found.stamp, lease.ttl_ms / 1000, api.now().mono_s)
            if left_s > 0:
                answer(held(name, lease, left_s))
                return
        fence = max(lease.fence + 1, api.node.time.time_ms(api.now()))
        mine = Lease(fence, api.node.config.name, node_text(api.node.origin[0]), params.ttl_ms)

        def done() -> None:
            api.locks.took(name, fence)
            answer({"fence": fence})

        write(api, name, found, mine, done, answer)

    def begin() -> None:
        read(api, name, judge, answer)

    ensure_keyspace(api, begin, answer)


def renew(api: Api, params: LockRenew, answer: Answer) -> None:
    """Hold it for another `ttl_ms` from now."""

    def go_on(found: Found, lease: Lease) -> None:
        longer = msgspec.structs.replace(lease, ttl_ms=params.ttl_ms, renewed=lease.renewed + 1)
        write(api, params.name, found, longer, lambda: answer({"fence": lease.fence}), answer)

    with_own(api, params.name, params.fence, go_on, answer)


def release(api: Api, params: LockRelease, answer: Answer) -> None:
    def give_up(found: Found, lease: Lease) -> None:
        free = Lease(lease.fence)
        write(api, params.name, found, free, lambda: answer({"fence": lease.fence}), answer)

    with_own(api, params.name, params.fence, give_up, answer)


def with_own(api: Api, name: bytes, fence: int | None, then: Then, answer: Answer) -> None:
    """Go on if the lock is still held with this fence."""
    wanted = fence or api.locks.fence_of(name)

    def check(found: Found, lease: Lease) -> None:
        if lease.holder and lease.fence == wanted:
            then(found, lease)
            return
        by = f"{lease.holder} holds it with the fence {lease.fence}" if lease.holder else "nobody holds it"
        text = f"the lock {shown(name)} is not held with the fence {wanted or '(none was given)'}: {by}"
        answer(Refused("conflict", text, "stop what it protects, and acquire it again"))

    read(api, name, check, answer)


def ensure_keyspace(api: Api, then: Callable[[], None], answer: Answer) -> None:
    """The first lock of a cluster makes the keyspace, where most members agree by being there.

    A side of a split that is the smaller one makes none: both sides would give the same lock away.
    """
    meant = api.node.replica.keyspaces.resolve(KEYSPACE)
    if isinstance(meant, Refused):
        answer(meant)
        return
    if api.node.replica.keyspaces.by_id(meant.id) is not None:
        then()
        return
    states = [member.state for member in api.node.membership.table.members.values()]
    here = 1 + sum(state is State.ALIVE for state in states)
    there = 1 + sum(state is not State.LEFT for state in states)
    if 2 * here <= there:
        text = f"there is no keyspace {KEYSPACE!r} yet, and of {there} members only {here} are alive"
        hint = f"wait for them, or make it: peernode keyspace create {KEYSPACE} --policy {COORDINATED} --voters A,B,C"
        answer(Refused("unavailable", text, hint, retryable=True))
        return

    def made(outcome: object) -> None:
        if isinstance(outcome, Created):
            then()
        else:
            answer(outcome)

    api.dispatch(CreateKeyspace(made, KEYSPACE, COORDINATED))


def read(api: Api, name: bytes, then: Then, answer: Answer) -> None:
    """What the lock's key holds now."""

    def reply(outcome: object) -> None:
        if not isinstance(outcome, dict):
            answer(outcome)
            return
        (found,) = outcome.values()
        lease = lease_of(found)
        if lease is None:
            text = f"the key {shown(name)} in the keyspace {KEYSPACE} holds something that is no lock"
            answer(Refused("invalid", text, f"delete it: peernode del --keyspace {KEYSPACE} KEY"))
        else:
            then(found, lease)

    if isinstance(meant := api.node.replica.keyspaces.resolve(KEYSPACE), Definition) and not meant.voters:
        answer(Refused("not_found", "no lock was ever acquired in this cluster"))
    else:
        api.dispatch(QuorumRead(reply, ((KEYSPACE, name),)))


def write(
    api: Api, name: bytes, found: Found, lease: Lease, done: Callable[[], None], answer: Answer
) -> None:
    """Replace what was found, if it is still there."""

    def reply(outcome: object) -> None:
        if isinstance(outcome, Committed):
            done()
        elif isinstance(outcome, Conflicted):
            answer(Refused("conflict", f"somebody else took {shown(name)} just now", retryable=True))
        else:
            answer(told(api, outcome))

    unchanged = (
        Expect(KEYSPACE, name, "absent")
        if found.value is None
        else Expect(KEYSPACE, name, "version", version=stamp_text(found.stamp))
    )
    value = msgspec.json.encode(lease)
    api.dispatch(Transact(reply, (unchanged,), (Assign(KEYSPACE, name, value),)))


def held(name: bytes, lease: Lease, left_s: float) -> Refused:
    details = (("holder", lease.holder), ("fence", lease.fence), ("retry_ms", max(1, round(left_s * 1000))))
    text = f"the lock {shown(name)} is held on {lease.holder} with the fence {lease.fence}"
    return Refused("conflict", text, "try again later", retryable=True, details=details)


def lease_of(found: Found) -> Lease | None:
    """None: that is no lock's value."""
    if found.value is None:
        return Lease()
    try:
        return msgspec.json.decode(found.value, type=Lease)
    except msgspec.MsgspecError:
        return None


def shown(name: bytes) -> str:
    return repr(name.decode(errors="backslashreplace"))
