"""What a voter has promised, voted and learned of transactions, and how long each of that is kept.

A record lives from the first promise until everybody who may ask for the outcome knows it; that of a committed
transaction whose client gave its request a name lives on for as long as the client may repeat it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from ..clock import HybridClock, stamp_ms
from ..effects import RecordRow
from ..limits import (
    OUTCOME_SEEN_S,
    REQUEST_ITEMS_KEPT_MAX,
    REQUESTS_KEPT_MS,
    STATE_KEYS_MAX,
    TXNS_FORGOTTEN_MAX,
)
from ..turn import Turn
from .messages import State
from .post import Post
from .recovery import FIRST_BALLOT
from .transaction import TXN_RECORD, Header, Instance, Record, TxnId


class Records(Mapping[TxnId, Record]):
    """One for each transaction, durable before anything that depends on it is said (see post.py)."""

    def __init__(self, clock: HybridClock, post: Post, rank: Callable[[Header], int]) -> None:
        self._clock, self._post, self._rank = clock, post, rank
        self._records: dict[TxnId, Record] = {}
        self._requests: dict[bytes, TxnId] = {}
        """What was voted YES for and may still commit, or has committed, by the name that its client gave it."""
        self._unforgotten: dict[TxnId, float] = {}
        """Decided, and not known to everybody yet, and since when, oldest first."""
        self._kept: OrderedDict[TxnId, None] = OrderedDict()
        """Committed, and forgotten but for their requests."""
        self._forgotten: OrderedDict[TxnId, bool] = OrderedDict()
        """Outcomes for steps that were still on their way when it was forgotten. A restart ends all links, so this
        need not outlive it."""

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[TxnId]:
        return iter(self._records)

    def __getitem__(self, txid: TxnId) -> Record:
        return self._records[txid]

    def load(self, stored: Iterable[bytes]) -> None:
        """Take up what is stored, in the place of all that is in memory."""
        decode = msgspec.msgpack.Decoder(Record).decode
        records = [decode(record) for record in stored]
        self._records = {record.header.txid: record for record in records}
        self._requests.clear()
        self._kept.clear()
        self._unforgotten = {record.header.txid: 0.0 for record in records if record.outcome is not None}
        for record in records:
            self._note_request(record)

    def start(self, turn: Turn) -> None:
        """What was decided, and not known to everybody, when this node stopped counts from now on."""
        self._unforgotten = dict.fromkeys(self._unforgotten, turn.now.mono_s)

    def clear(self, turn: Turn) -> None:
        """Delete all that is stored."""
        for txid in self._records:
            turn.stage(RecordRow(TXN_RECORD, _key(txid), None))
        if self._records:  # else nothing is staged, and what waits for that to be durable would wait for ever
            self._post.staged(turn)
        self.load([])

    def instance(self, header: Header, index: int) -> Instance:
        """What was promised about one shard so far."""
        record = self._records.get(header.txid)
        return record.instances[index] if record is not None else Instance()

    def named(self, request: bytes | None) -> Record | None:
        """What this request was voted YES for, or has committed as."""
        txid = self._requests.get(request) if request is not None else None
        return self._records[txid] if txid is not None else None

    def outcome_of(self, txid: TxnId) -> bool | None:
        """Whether it committed; None: not known here, or no more."""
        record = self._records.get(txid)
        return record.outcome if record is not None else self._forgotten.get(txid)

    def in_doubt(self) -> Iterator[Record]:
        return (record for record in self._records.values() if record.outcome is None)

    @property
    def unvoted(self) -> list[Header]:
        """What was promised here, and neither voted on nor decided."""
        return [record.header for record in self.in_doubt() if not record.has_voted]

    def is_contested(self, txid: TxnId) -> bool:
        """Whether somebody set out to finish it: then its coordinator may not have asked all who take part."""
        record = self._records.get(txid)
        return record is not None and any(one.promised >= FIRST_BALLOT for one in record.instances)

    def overdue(self, turn: Turn) -> list[Record]:
        """Decided long ago, and nobody has said that all know it: whoever was to see to that is gone."""
        found: list[Record] = []
        for txid, since_s in self._unforgotten.items():
            waited_s = turn.now.mono_s - since_s
            if waited_s < OUTCOME_SEEN_S:
                break
            record = self._records[txid]
            if waited_s >= OUTCOME_SEEN_S * (1 + self._rank(record.header)):
                found.append(record)
        return found

    def states(self, txid: TxnId | None) -> Iterator[State]:
        """What this voter knows of one transaction, or of all in doubt."""
        one = self._records.get(txid) if txid is not None else None
        wanted = self.in_doubt() if txid is None else filter(None, [one])
        for record in wanted:
            keys = [slot for slot, _ in record.locked[:STATE_KEYS_MAX]]
            yield State(record.header, record.instances, record.outcome, keys)

    def store(self, turn: Turn, record: Record) -> None:
        txid = record.header.txid
        self._records[txid] = record
        if record.outcome is not None:
            self._unforgotten.setdefault(txid, turn.now.mono_s)
        self._note_request(record)
        turn.stage(RecordRow(TXN_RECORD, _key(txid), msgspec.msgpack.encode(record)))
        self._post.staged(turn)

    def forget(self, turn: Turn, txid: TxnId) -> None:
        """No node will ask for this outcome again; the client may, as long as its request is kept."""
        record = self._records.get(txid)
        if record is None or record.outcome is None:
            return
        self._unforgotten.pop(txid, None)
        if record.outcome and record.header.request is not None:
            self._kept.setdefault(txid)  # told so by everybody who decided it
        else:
            self._drop(turn, record)
        while self._kept and self._is_stale(turn, self._records[next(iter(self._kept))].header):
            self._drop(turn, self._records[self._kept.popitem(last=False)[0]])

    def commits_of(self, keyspace: int) -> list[tuple[Header, bool]]:
        """What has committed in a keyspace and is remembered, and whether only for its request."""
        return [
            (record.header, txid not in self._unforgotten)
            for txid, record in self._records.items()
            if record.outcome and any(keyspace == k for k, _ in record.header.shards)
        ]

    def adopt(self, turn: Turn, header: Header, *, is_known: bool) -> None:
        """It has committed where this store did not vote: somebody may ask for its outcome, until `is_known` to all,
        and its request must not be carried out again."""
        self.store(turn, Record(header, [], fresh(header).instances, True))
        if is_known:
            self.forget(turn, header.txid)

    def drop_unvoted(self, turn: Turn, txid: TxnId) -> None:
        """Nobody has voted on it either, or knows an outcome."""
        record = self._records.get(txid)
        if record is not None and record.outcome is None and not record.has_voted:
            self.drop_doubtful(turn, txid)

    def drop_doubtful(self, turn: Turn, txid: TxnId) -> None:
        """As if this store had never heard of it."""
        request = self._records.pop(txid).header.request
        if request is not None and self._requests.get(request) == txid:
            del self._requests[request]
        turn.stage(RecordRow(TXN_RECORD, _key(txid), None))
        self._post.staged(turn)

    def _is_stale(self, turn: Turn, header: Header) -> bool:
        age_ms = self._clock.time.time_ms(turn.now) - stamp_ms(header.stamp)
        return age_ms > REQUESTS_KEPT_MS or len(self._kept) > REQUEST_ITEMS_KEPT_MAX

    def _drop(self, turn: Turn, record: Record) -> None:
        txid, request = record.header.txid, record.header.request
        assert record.outcome is not None
        del self._records[txid]
        if request is not None and self._requests.get(request) == txid:
            del self._requests[request]
        turn.stage(RecordRow(TXN_RECORD, _key(txid), None))
        self._forgotten[txid] = record.outcome
        if len(self._forgotten) > TXNS_FORGOTTEN_MAX:
            self._forgotten.popitem(last=False)

    def _note_request(self, record: Record) -> None:
        request, txid = record.header.request, record.header.txid
        if not request:
            return
        if record.outcome or (record.is_prepared and request not in self._requests):
            self._requests[request] = txid
        elif record.outcome is False and self._requests.get(request) == txid:
            del self._requests[request]


def fresh(header: Header) -> Record:
    """Nothing promised yet."""
    return Record(header, [], [Instance()] * len(header.shards))


def _key(txid: TxnId) -> bytes:
    return msgspec.msgpack.encode(txid)
