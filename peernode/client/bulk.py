"""Many keys at once: cut into batches that fit the daemon's bounds, several of them under way.

A batch of writes is atomic, all of them together are not. Each goes under a request id of its own, made at random, so
that it can be sent again when the daemon had no room for it or went away in the middle: what was carried out is not
done twice, and nothing that somebody else wrote meanwhile is overwritten. That ends when there was no progress for
as long as the client waits for an answer.

The batches of a connection are carried out in order. Sent again alone, one would overtake its place: so no key is in
two of those that are under way.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import NoDaemon, PeernodeError

if TYPE_CHECKING:
    from .wire import Wire

KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 256 * 1024
TTL_MS_MAX = 100 * 365 * 24 * 3600 * 1000
"""What a daemon takes. The client may not import the daemon's own bounds, so a test compares them."""

BATCH_ITEMS_MAX = 200
BATCH_BYTES_MAX = 256 * 1024
"""Of one request, unless one item is larger: small enough for the daemon to serve others in between."""
ITEM_BYTES = 40
"""What an item takes in a request beside its key and value, at most."""
BATCHES_MAX = 16
"""Under way at a time."""
KEYS_MAX = 200
"""Of one request to read: most answers then come whole."""
PAUSE_S = 0.05
REQUEST_ID_BYTES = 16


class NewItem(NamedTuple):
    """One write. Without `ttl_ms` it stays for ever."""

    key: bytes
    value: bytes
    ttl_ms: int | None = None

    @property
    def size(self) -> int:
        return len(self.key) + len(self.value) + ITEM_BYTES


class Batch(NamedTuple):
    """Writes of one request."""

    items: list[NewItem]
    keys: set[bytes]
    request_id: bytes


def beyond(item: NewItem) -> PeernodeError | None:
    """Why no daemon takes this item."""
    key, value, ttl_ms = item
    if not key:
        return PeernodeError("the key is empty", code="invalid")
    if len(key) > KEY_BYTES_MAX:
        return PeernodeError(f"the key has {len(key)} bytes; the limit is {KEY_BYTES_MAX}", code="too_large")
    if len(value) > VALUE_BYTES_MAX:
        text = f"the value has {len(value)} bytes; the limit is {VALUE_BYTES_MAX}"
        return PeernodeError(text, code="too_large")
    if ttl_ms is not None and not 0 < ttl_ms <= TTL_MS_MAX:
        return PeernodeError(f"a TTL of {ttl_ms} ms; the limit is {TTL_MS_MAX}", code="invalid")
    return None


def put_batches(
    node: Wire, items: Iterable[NewItem], *, keyspace: str | None = None, acks: int | None = None
) -> Iterator[tuple[list[NewItem], list[str]]]:
    """Write them, in order; each batch and its versions when it is written. Items must be within the limits.

    Raises PeernodeError for the first batch that is refused for good: those behind it may be written or not.
    """
    options = {"keyspace": keyspace, "acks": acks, "acks_wait_ms": acks_wait_ms(node, acks)}
    writes = Writes(node, options)
    try:
        for batch in batches(items):
            while not writes.takes(batch):
                yield writes.settle()
            writes.begin(batch)
        while writes.under_way:
            yield writes.settle()
    finally:
        node.forget(number for number, _ in writes.under_way)


def batches(items: Iterable[NewItem]) -> Iterator[Batch]:
    """Cut into pieces that are good for one request."""
    gathered: list[NewItem] = []
    size = 0
    for item in items:
        if gathered and (len(gathered) == BATCH_ITEMS_MAX or size + item.size > BATCH_BYTES_MAX):
            yield batch_of(gathered)
            gathered, size = [], 0
        gathered.append(item)
        size += item.size
    if gathered:
        yield batch_of(gathered)


def batch_of(items: list[NewItem]) -> Batch:
    return Batch(items, {item.key for item in items}, os.urandom(REQUEST_ID_BYTES))


class Writes:
    """Batches under way on one connection, each with the number of its last request."""

    def __init__(self, node: Wire, options: dict[str, Any]) -> None:
        self._node, self._options = node, options
        self.under_way: deque[tuple[int, Batch]] = deque()

    def takes(self, batch: Batch) -> bool:
        """Whether it may be sent now; the first always."""
        has_room = len(self.under_way) < BATCHES_MAX and self._node.has_room(len(self.under_way))
        return has_room and all(batch.keys.isdisjoint(other.keys) for _, other in self.under_way)

    def begin(self, batch: Batch) -> None:
        self.under_way.append((self._ask(batch), batch))

    def settle(self) -> tuple[list[NewItem], list[str]]:
        """Wait until the first of them is written."""
        until_s = time.monotonic() + self._node.timeout_s
        while True:
            number, batch = self.under_way[0]
            try:
                answer = self._node.answer_to(number)
            except NoDaemon:
                self._reconnect(until_s)
                continue
            if isinstance(answer, PeernodeError):
                self._try_again(answer, batch, until_s)
                continue
            self.under_way.popleft()
            return batch.items, list(answer["versions"])

    def _try_again(self, refused: PeernodeError, batch: Batch, until_s: float) -> None:
        """Raises the refusal when that would not help."""
        if not refused.retryable or refused.code == "unavailable" or time.monotonic() > until_s:
            raise refused
        time.sleep(PAUSE_S)
        self.under_way[0] = (self._ask(batch), batch)

    def _reconnect(self, until_s: float) -> None:
        """Connect again, and send again all that is under way. Raises NoDaemon."""
        while True:
            try:
                self._node.reconnect()
                self.under_way = deque((self._ask(batch), batch) for _, batch in self.under_way)
                return
            except NoDaemon:
                if time.monotonic() > until_s:
                    raise
                time.sleep(PAUSE_S)

    def _ask(self, batch: Batch) -> int:
        items = [packed(item) for item in batch.items]
        return self._node.ask("kv.mput", items=items, request_id=batch.request_id, **self._options)


def packed(item: NewItem) -> dict[str, object]:
    given: dict[str, object] = {"key": item.key, "value": item.value}
    return given if item.ttl_ms is None else given | {"ttl_ms": item.ttl_ms}


def acks_wait_ms(node: Wire, acks: int | None) -> int | None:
    """How long a daemon may wait for other members: a little less than the client waits for the daemon."""
    return max(1, round(node.timeout_s * 800)) if acks else None


def get_batches(
    node: Wire, keys: Iterable[bytes], *, keyspace: str | None = None
) -> Iterator[list[dict[str, Any]]]:
    """What is held under these keys, in their order, an answer each time it comes."""
    under_way: deque[tuple[int, Sequence[bytes]]] = deque()

    def ask(wanted: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        return node.ask("kv.mget", keys=wanted, keyspace=keyspace), wanted

    source = iter(keys)
    try:
        while True:
            while len(under_way) < BATCHES_MAX and (some := list(islice(source, KEYS_MAX))):
                under_way.append(ask(some))
            if not under_way:
                return
            number, wanted = under_way[0]
            answer = node.answer_to(number)
            under_way.popleft()
            if isinstance(answer, PeernodeError):
                raise answer
            if answer["next"] is not None:  # what did not fit into the answer comes before all others
                under_way.appendleft(ask(wanted[answer["next"] :]))
            yield answer["items"]
    finally:
        node.forget(number for number, _ in under_way)
