"""What a simulated node stands on: keys that are quick and still refuse forgeries, and a disk that forgets.

`Disk` is what survives a crash: rows get there by `apply` only, so whatever a node decided and the disk did not
take is gone, as un-synced writes are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from hashlib import blake2b

from protocol.effects import Entry, HeadRow, MarkRow, RecordRow, StoreRow
from protocol.replica.coverage import NOTHING, Coverage
from protocol.replica.store import Origin, Slot
from protocol.types import ClusterId, Grant, NodeId


class Authority:
    """Knows every node's secret: the stand-in for mathematics."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self.cluster_id = ClusterId(self._hash(b"cluster", b"", 16))

    def sign(self, node_id: NodeId, message: bytes) -> bytes:
        return self._hash(b"sign" + node_id, message, 64)

    def credential(self, node_id: NodeId) -> tuple[bytes, ...]:
        return (self._hash(b"member", node_id, 32),)

    def node_id(self, name: str) -> NodeId:
        return NodeId(self._hash(b"id", name.encode(), 32))

    def _hash(self, purpose: bytes, message: bytes, size: int) -> bytes:
        return blake2b(message, digest_size=size, key=blake2b(self._seed + purpose).digest()).digest()


class FakeKeys:
    """`protocol.types.Keys` for the simulator."""

    def __init__(self, authority: Authority, name: str) -> None:
        self._authority = authority
        self.node_id = authority.node_id(name)
        self.cluster_id = authority.cluster_id
        self.cluster_key = authority.cluster_id * 2
        self.credential = authority.credential(self.node_id)

    def sign(self, message: bytes) -> bytes:
        return self._authority.sign(self.node_id, message)

    def verify(self, node_id: NodeId, signature: bytes, message: bytes) -> bool:
        return self._authority.sign(node_id, message) == signature

    def vouches(self, node_id: NodeId, credential: tuple[bytes, ...]) -> bool:
        return self._authority.credential(node_id) == credential

    def issue(self, node_id: NodeId) -> Grant:
        return Grant(self._authority.credential(node_id), ())


class Disk:
    """Durable rows of one node; implements `protocol.replica.store.Store`."""

    def __init__(self) -> None:
        self.entries: dict[Slot, Entry] = {}
        self._by_origin: dict[Origin, dict[int, Slot]] = {}
        self._coverage: dict[Origin, Coverage] = {}
        self._marks: dict[str, bytes] = {}
        self._records: dict[str, dict[bytes, bytes]] = {}

    def copy(self) -> Disk:
        """A backup."""
        return deepcopy(self)

    def apply(self, rows: tuple[StoreRow, ...]) -> None:
        """Store one group: all of it is durable afterwards."""
        for row in rows:
            match row:
                case Entry():
                    self._put(row)
                case HeadRow(node, lineage, head, beyond):
                    self._coverage[node, lineage] = Coverage(head, beyond)
                case MarkRow(name, value):
                    self._marks[name] = value
                case RecordRow(kind, key, None):
                    self._records.get(kind, {}).pop(key, None)
                case RecordRow(kind, key, bytes(value)):
                    self._records.setdefault(kind, {})[key] = value

    def _put(self, entry: Entry) -> None:
        slot = (entry.keyspace, entry.key)
        old = self.entries.get(slot)
        if old is not None:
            numbered = self._by_origin[old.node, old.lineage]
            if numbered.get(old.seq) == slot:  # else one number stands for two writes: the checks will tell
                del numbered[old.seq]
        self.entries[slot] = entry
        self._by_origin.setdefault((entry.node, entry.lineage), {})[entry.seq] = slot

    def get(self, keyspace: int, key: bytes) -> Entry | None:
        return self.entries.get((keyspace, key))

    def scan(self, keyspace: int, prefix: bytes, after: bytes | None) -> Iterator[Entry]:
        for slot in sorted(self.entries):
            if slot[0] == keyspace and slot[1].startswith(prefix) and (after is None or slot[1] > after):
                yield self.entries[slot]

    def by_origin(self, origin: Origin, after_seq: int) -> Iterator[Entry]:
        slots = self._by_origin.get(origin, {})
        for seq in sorted(slots):
            if seq > after_seq:
                yield self.entries[slots[seq]]

    def top(self, origin: Origin) -> int:
        return max(self._by_origin.get(origin, {}), default=0)

    def expiring(self, after_ms: int, until_ms: int) -> Iterator[Entry]:
        for entry in list(self.entries.values()):
            if entry.value is not None and max(after_ms, 0) < entry.expires_ms <= until_ms:
                yield entry

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        yield

    def coverage(self) -> dict[Origin, Coverage]:
        known: dict[Origin, Coverage] = dict.fromkeys(self._by_origin, NOTHING)
        return known | self._coverage

    def mark(self, name: str) -> bytes | None:
        return self._marks.get(name)

    def records(self, kind: str) -> dict[bytes, bytes]:
        return dict(self._records.get(kind, {}))
