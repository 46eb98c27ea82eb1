"""What clients of this node write: checked, put under a number, answered when it is durable here and as far as asked.

A write is answered when it is durable on this node, with `acks` when that many other members have said so, too. A
`request_id` makes a retry on this node harmless: its answer is stored in the same commit as its effect and given
again for ten minutes. (On another node a retry is a write of its own: there an old value could land over a newer
one.) Before the node is settled, requests wait (see settling.py).

A write that need not survive a power cut is answered at once. Its number and stamp are drawn from a block that was
reserved durably before, so that no later start gives them out again (`Replica.reserve`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import msgspec

from ..clock import ClusterTime
from ..config import Config
from ..effects import Entry, RecordRow, Reply
from ..errors import Refused
from ..inputs import (
    CreateKeyspace,
    Delete,
    DropKeyspace,
    Inquire,
    Nothing,
    Put,
    PutMany,
    QuorumRead,
    Transact,
    Written,
)
from ..keyspaces import LWW, Definition
from ..limits import (
    KEY_BYTES_MAX,
    REQUEST_ID_BYTES_MIN,
    REQUEST_ITEMS_KEPT_MAX,
    REQUESTS_KEPT_MS,
    TTL_MS_MAX,
    VALUE_BYTES_MAX,
    WRITES_WAITING_MAX,
)
from ..turn import Turn
from ..types import Instant
from .replica import Replica
from .settling import Settling
from .store import Slot, Store
from .sync import Sync

REQUEST_RECORD = "request"

Write = Put | PutMany | Delete
Request = Write | Transact | QuorumRead | Inquire | CreateKeyspace | DropKeyspace


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What is stored of a request that was carried out: the versions that it made."""

    at_ms: int
    entries: tuple[Entry, ...]


class Waiting(msgspec.Struct, frozen=True):
    """A write that other members must hold before it is answered."""

    ref: object
    outcome: Written
    acks: int
    until_s: float


class Writing:
    """All writes of one node's clients. `coordinate` takes those that voters decide."""

    def __init__(
        self,
        config: Config,
        replica: Replica,
        sync: Sync,
        settling: Settling,
        time: ClusterTime,
        store: Store,
        coordinate: Callable[[Turn, Write, Definition], None],
    ) -> None:
        self._config, self._replica, self._sync = config, replica, sync
        self._settling, self._time, self._coordinate = settling, time, coordinate
        decode = msgspec.msgpack.Decoder(Result).decode
        stored = {request: decode(result) for request, result in store.records(REQUEST_RECORD).items()}
        self._results = OrderedDict(sorted(stored.items(), key=lambda item: item[1].at_ms))
        self._kept_items = sum(len(result.entries) for result in stored.values())
        self._unsettled: deque[tuple[Request, Callable[[Turn, Any], None]]] = deque()
        self._staged_requests: list[bytes] = []
        self._waiting: list[Waiting] = []

    @property
    def deadline_s(self) -> float:
        times = [waiting.until_s for waiting in self._waiting]
        if self._unsettled:
            times.append(self._settling.until_s)
        return min(times, default=float("inf"))

    @property
    def wants_confirmation(self) -> bool:
        """Whether other members shall say at once that they hold our entries."""
        return bool(self._waiting)

    def write(self, turn: Turn, write: Write) -> None:
        self.when_settled(turn, write, self._carry_out)

    def when_settled(self, turn: Turn, request: Request, carry_out: Callable[[Turn, Any], None]) -> None:
        """Carry a request out, or let it wait until the node is settled."""
        if not self._unsettled and self._settling.is_over(turn):
            carry_out(turn, request)
        elif len(self._unsettled) < WRITES_WAITING_MAX:
            self._unsettled.append((request, carry_out))
        else:
            refusal = Refused("overloaded", "too many writes wait", retryable=True)
            turn.reply_after_commit(request.ref, refusal)

    def tick(self, turn: Turn) -> None:
        """Carry out what waited for the node to settle; give up what waited too long for others."""
        if self._unsettled and self._settling.is_over(turn):
            while self._unsettled:
                request, carry_out = self._unsettled.popleft()
                carry_out(turn, request)
        self.check(turn)

    def check(self, turn: Turn) -> None:
        """Answer the writes that enough others hold by now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for write in waiting:
            last = write.outcome.entries[-1]
            holders = self._sync.holders((last.node, last.lineage), last.seq)
            if holders >= write.acks and self._replica.is_durable(last):
                turn.do(Reply(write.ref, write.outcome))
            elif turn.now.mono_s >= write.until_s:
                turn.do(Reply(write.ref, too_few(holders, write.acks)))
            else:
                self._waiting.append(write)

    def committed(self) -> None:
        self._staged_requests.clear()

    def failed(self, turn: Turn, refusal: Refused) -> None:
        """Nothing of what is staged was stored."""
        for request in self._staged_requests:
            lost_result = self._results.pop(request, None)
            self._kept_items -= len(lost_result.entries) if lost_result is not None else 0
        self._staged_requests.clear()
        lost = [write for write in self._waiting if not self._replica.is_durable(write.outcome.entries[-1])]
        self._waiting = [write for write in self._waiting if write not in lost]
        for write in lost:
            turn.do(Reply(write.ref, refusal))

    def _carry_out(self, turn: Turn, write: Write) -> None:
        keyspace = self._replica.keyspaces.resolve(write.keyspace)
        refusal = check_write(write)
        if refusal is not None or isinstance(keyspace, Refused):
            turn.reply_after_commit(write.ref, refusal or keyspace)
        elif keyspace.policy == LWW:
            self._write_here(turn, write, keyspace.id)
        else:
            self._coordinate(turn, write, keyspace)

    def _write_here(self, turn: Turn, write: Write, keyspace: int) -> None:
        """The policy of most: this node takes it, whatever others do."""
        time_ms = self._time.time_ms(turn.now)
        slots = [(keyspace, key) for key in keys_of(write)]
        refusal = self._replica.refuse(slots[0], *conditions_of(write), time_ms)
        known = self._results.get(write.request_id) if write.request_id else None
        if known is not None and [(e.keyspace, e.key) for e in known.entries] == slots:
            self._answer(turn, write, Written(known.entries))
        elif refusal is not None:
            turn.reply_after_commit(write.ref, refusal)
        elif write.acks > self._sync.peers:
            turn.reply_after_commit(write.ref, too_few_members(self._sync.peers, write.acks))
        elif isinstance(write, Delete) and not self._replica.exists(slots[0], time_ms):
            turn.reply_after_commit(write.ref, Nothing())
        else:
            entries = tuple(self._stage(turn, write, slots, time_ms))
            self._keep_result(turn, write.request_id, entries)
            self._answer(turn, write, Written(entries))

    def _stage(self, turn: Turn, write: Write, slots: list[Slot], time_ms: int) -> list[Entry]:
        if isinstance(write, Delete):
            return [self._replica.put(turn, slots[0], None, 0)]
        items = [(write.value, write.ttl_ms)] if isinstance(write, Put) else [i[1:] for i in write.items]
        return [
            self._replica.put(turn, slot, value, time_ms + ttl_ms if ttl_ms else 0)
            for slot, (value, ttl_ms) in zip(slots, items, strict=True)
        ]

    def _answer(self, turn: Turn, write: Write, outcome: Written) -> None:
        if isinstance(write, Put) and write.in_memory and write.acks == 0:
            self._answer_early(turn, write.ref, outcome)
        elif write.acks == 0:
            turn.reply_after_commit(write.ref, outcome)
        else:
            until_s = turn.now.mono_s + write.acks_wait_ms / 1000
            self._waiting.append(Waiting(write.ref, outcome, write.acks, until_s))

    def _answer_early(self, turn: Turn, ref: object, outcome: Written) -> None:
        """Before it is durable, if a later start is known to skip its number and its stamp."""
        if self._replica.is_reserved(outcome.entry):
            turn.do(Reply(ref, outcome))
        else:
            turn.reply_after_commit(ref, outcome)
        self._replica.reserve(turn)

    def _keep_result(self, turn: Turn, request: bytes | None, entries: tuple[Entry, ...]) -> None:
        if request is None:
            return
        while self._results and self._is_old(next(iter(self._results.values())), turn.now):
            oldest, dropped = self._results.popitem(last=False)
            self._kept_items -= len(dropped.entries)
            turn.stage(RecordRow(REQUEST_RECORD, oldest, None))
        bare = tuple(msgspec.structs.replace(entry, value=None) for entry in entries)
        replaced = self._results.pop(request, Result(0, ()))  # one id may be used for other keys
        self._kept_items -= len(replaced.entries)
        result = self._results[request] = Result(turn.now.wall_ms, bare)
        self._kept_items += len(bare)
        self._staged_requests.append(request)
        turn.stage(RecordRow(REQUEST_RECORD, request, msgspec.msgpack.encode(result)))

    def _is_old(self, result: Result, now: Instant) -> bool:
        return self._kept_items >= REQUEST_ITEMS_KEPT_MAX or now.wall_ms - result.at_ms > REQUESTS_KEPT_MS


def keys_of(write: Write) -> list[bytes]:
    return [item[0] for item in write.items] if isinstance(write, PutMany) else [write.key]


def conditions_of(write: Write) -> tuple[str | None, bool]:
    """`if_version` and `if_absent`; a batch has no conditions."""
    match write:
        case Put():
            return write.if_version, write.if_absent
        case Delete():
            return write.if_version, False
        case PutMany():
            return None, False


def check_write(write: Write) -> Refused | None:
    """The bounds of one write."""
    if write.request_id is not None and len(write.request_id) < REQUEST_ID_BYTES_MIN:
        return Refused("invalid", f"a request_id has at least {REQUEST_ID_BYTES_MIN} random bytes")
    items: list[tuple[bytes, bytes, int | None]]
    match write:
        case Put():
            items = [(write.key, write.value, write.ttl_ms)]
        case PutMany():
            items = list(write.items)
        case Delete():
            items = [(write.key, b"", None)]
    return next((refusal for item in items if (refusal := check_item(*item)) is not None), None)


def check_item(key: bytes, value: bytes, ttl_ms: int | None) -> Refused | None:
    if not key:
        return Refused("invalid", "the key is empty")
    if len(key) > KEY_BYTES_MAX:
        return Refused("too_large", f"the key has {len(key)} bytes; the limit is {KEY_BYTES_MAX}")
    if len(value) > VALUE_BYTES_MAX:
        return Refused("too_large", f"the value has {len(value)} bytes; the limit is {VALUE_BYTES_MAX}")
    if ttl_ms is not None and not 0 < ttl_ms <= TTL_MS_MAX:
        return Refused("invalid", f"a TTL of {ttl_ms} ms; it must be above 0 and at most {TTL_MS_MAX}")
    return None


def too_few(holders: int, acks: int) -> Refused:
    return Refused(
        "timeout",
        f"written here and on {holders} other members, not on {acks}",
        "it stays written and spreads by itself; ask for fewer acks, or look at: peernode members",
    )


def too_few_members(peers: int, acks: int) -> Refused:
    return Refused(
        "unavailable",
        f"nothing was written: {acks} acks were asked for, and {peers} other members are linked",
        "ask for fewer acks, or look at: peernode members",
        retryable=True,
    )


def storage_full(why: str) -> Refused:
    return Refused(
        "storage_full",
        f"nothing was written: {why}",
        "free space on the daemon's disk, then try again; reads and membership go on",
        retryable=True,
    )
