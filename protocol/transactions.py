"""Coordinated writes at the door of the node: what clients ask for becomes tasks of `protocol.commit`.

A write to a coordinated keyspace is a transaction of its keys. Nothing is voted on, and no outcome taken in, before
this node is settled: until then it may not number what it writes (see replica/settling.py), and others repeat what
goes unanswered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import HybridClock
from .commit.commit import Commit
from .commit.messages import Steps
from .commit.task import Change, Check, InquiryTask, ReadTask, Task
from .commit.transaction import TXN_RECORD, TxnId
from .config import Config
from .electing import Electing
from .errors import Refused
from .inputs import Assign, Delete, Expect, Inquire, Put, PutMany, QuorumRead, SetVoters, Transact
from .keyspaces import COORDINATED, Definition
from .ledger import Ledger
from .limits import READ_KEYS_MAX, REQUEST_ID_BYTES_MIN, TXN_BYTES_MAX, TXN_OPS_MAX, TXN_SHARDS_MAX
from .membership.membership import Membership
from .membership.table import State
from .replica.replica import Replica
from .replica.settling import Identity, Settling
from .replica.store import Slot, Store
from .replica.writing import Write, check_item
from .seats import SEAT_RECORD, Seats
from .turn import Turn
from .types import CommitNumber, NodeId

if TYPE_CHECKING:
    from random import Random


class Transactions:
    """What `Node` knows of coordinated writes."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        replica: Replica,
        settling: Settling,
        membership: Membership,
        clock: HybridClock,
        store: Store,
        random: Random,
    ) -> None:
        me = replica.me[0]
        self._config, self._identity, self._me = config, identity, me
        self._replica, self._settling, self._membership, self._store = replica, settling, membership, store
        self._store_id = identity.store_id
        self._is_started = False
        self.seats = Seats(me, replica.keyspaces, settling, store.records(SEAT_RECORD))
        self.commit = Commit(
            config,
            me,
            identity.run,
            clock,
            Ledger(replica, store),
            self.seats,
            random,
            lambda node: up.link if (up := membership.contacts.up(node)) is not None else None,
            membership.is_heard,
            self._has_ended,
            store.records(TXN_RECORD).values(),
        )

        self.electing = Electing(config, replica, membership, clock.time, self.seats, self.commit)

    @property
    def deadline_s(self) -> float:
        if self._is_started:
            return self.commit.deadline_s
        return self._settling.until_s if self._has_duties else float("inf")

    # What clients ask for, once the node is settled

    def write(self, turn: Turn, write: Write, keyspace: Definition) -> None:
        """A write of one keyspace. Answered by `Committed`, `Conflicted`, `Undecided` or `Refused`."""
        self._begin(turn, transaction_of(write, keyspace.name))

    def transact(self, turn: Turn, transact: Transact) -> None:
        self._begin(turn, transact)

    def read(self, turn: Turn, read: QuorumRead) -> None:
        slots = [check_item(key, b"", None) or self._slot(keyspace, key) for keyspace, key in read.slots]
        refusal = next((slot for slot in slots if isinstance(slot, Refused)), None)
        if len(slots) > READ_KEYS_MAX:
            refusal = Refused("too_large", f"{len(slots)} keys in one read; the limit is {READ_KEYS_MAX}")
        if refusal is not None:
            turn.reply_after_commit(read.ref, refusal)
            return
        self._start(turn)
        wanted = tuple(slot for slot in slots if not isinstance(slot, Refused))
        self.commit.read(turn, ReadTask(read.ref, tuple(dict.fromkeys(wanted)), read.timeout_ms / 1000))

    def inquire(self, turn: Turn, inquire: Inquire) -> None:
        txid = TxnId.parse(inquire.txid) if inquire.txid is not None else None
        if inquire.txid is not None and txid is None:
            text = f"{inquire.txid!r} is no id of a transaction"
            turn.reply_after_commit(inquire.ref, Refused("invalid", text, "peernode txn list shows them"))
            return
        self._start(turn)
        members = [node for node, _ in self._membership.contacts.linked()]
        self.commit.inquire(turn, InquiryTask(inquire.ref, txid, inquire.timeout_ms / 1000), members)

    def set_voters(self, turn: Turn, wanted: SetVoters) -> None:
        self._start(turn)
        self.electing.set_voters(turn, wanted)

    # What the node lives through

    def on_steps(self, turn: Turn, sender: NodeId, steps: Steps) -> None:
        if self._settling.is_over(turn):
            self._disown_if_renewed(turn)
            self._start(turn)
            self.commit.receive(turn, sender, steps)

    def tick(self, turn: Turn) -> None:
        self._disown_if_renewed(turn)
        if not self._is_started and self._has_duties and self._settling.is_over(turn):
            self._start(turn)
        if self._is_started:
            self.commit.tick(turn)

    def failed(self, turn: Turn) -> None:
        self.seats.load(self._store.records(SEAT_RECORD))
        self.commit.failed(turn, self._store.records(TXN_RECORD).values())

    def committed(self, turn: Turn, number: CommitNumber) -> None:
        self.commit.committed(turn, number)

    def _disown_if_renewed(self, turn: Turn) -> None:
        """Before anything is learned as the voter that this store is from now on."""
        if self._settling.store_id != self._store_id:
            self._store_id = self._settling.store_id
            self.commit.disown(turn)

    @property
    def _has_duties(self) -> bool:
        """Whether there is anything to see to before somebody asks."""
        return bool(self.commit.voter.records or self.seats.to_install())

    def _start(self, turn: Turn) -> None:
        if not self._is_started:
            self._is_started = True
            self.commit.start(turn)

    def _has_ended(self, txid: TxnId) -> bool:
        node = NodeId(txid.node)
        if node == self._me:
            return txid.run < self._identity.run
        member = self._membership.table.members.get(node)
        return member is not None and (member.state is State.LEFT or member.run > txid.run)

    def _begin(self, turn: Turn, transact: Transact) -> None:
        task = self._task(transact)
        if isinstance(task, Refused):
            turn.reply_after_commit(transact.ref, task)
        else:
            self._start(turn)
            self.commit.begin(turn, task)

    def _task(self, transact: Transact) -> Task | Refused:
        refusal = check_size(transact)
        if refusal is not None:
            return refusal
        checks: list[Check] = []
        changes: list[Change] = []
        for one in ops_of(transact):
            slot = self._slot(one.keyspace, one.key)
            if isinstance(slot, Refused):
                return slot
            if isinstance(one, Assign):
                changes.append(Change(slot, one.value))
                continue
            stamp = stamp_of(one.version) if one.kind == "version" else 0
            if stamp is None:
                return Refused("invalid", f"{one.version!r} is no version of a key in {one.keyspace!r}")
            checks.append(Check(slot, one.kind, stamp, one.value))
        if len({change.slot for change in changes}) < len(changes):
            return Refused("invalid", "a key is written twice in one transaction")
        slots = [check.slot for check in checks] + [change.slot for change in changes]
        if len({slot[0] for slot in slots}) > TXN_SHARDS_MAX:
            return Refused("too_large", f"a transaction spans at most {TXN_SHARDS_MAX} keyspaces")
        return Task(
            transact.ref, tuple(checks), tuple(changes), transact.timeout_ms / 1000, transact.request_id
        )

    def _slot(self, name: str, key: bytes) -> Slot | Refused:
        keyspace = self._replica.keyspaces.resolve(name)
        if isinstance(keyspace, Refused):
            return keyspace
        if keyspace.policy != COORDINATED:
            text = f"the keyspace {name!r} is {keyspace.policy}: no voters decide there"
            return Refused(
                "invalid", text, f"peernode keyspace create NAME --policy {COORDINATED} makes one with voters"
            )
        return keyspace.id, key


def transaction_of(write: Write, keyspace: str) -> Transact:
    """A write as the transaction that it is in a coordinated keyspace."""
    checks: list[Expect] = []
    if isinstance(write, PutMany):
        writes = [Assign(keyspace, key, value) for key, value, _ in write.items]
    else:
        writes = [Assign(keyspace, write.key, write.value if isinstance(write, Put) else None)]
        if write.if_version is not None:
            checks.append(Expect(keyspace, write.key, "version", version=write.if_version))
        elif isinstance(write, Delete):
            checks.append(Expect(keyspace, write.key, "present"))
        elif write.if_absent:
            checks.append(Expect(keyspace, write.key, "absent"))
    return Transact(
        write.ref, tuple(checks), tuple(writes), write.acks_wait_ms, write.request_id, _what_it_lacks(write)
    )


def ops_of(transact: Transact) -> tuple[Expect | Assign, ...]:
    return (*transact.checks, *transact.writes)


def check_size(transact: Transact) -> Refused | None:
    """The bounds of a transaction."""
    if transact.refusal is not None:
        return transact.refusal
    if transact.request_id is not None and len(transact.request_id) < REQUEST_ID_BYTES_MIN:
        return Refused("invalid", f"a request_id has at least {REQUEST_ID_BYTES_MIN} random bytes")
    ops = len(transact.checks) + len(transact.writes)
    if ops == 0:
        return Refused("invalid", "a transaction without checks and writes")
    if ops > TXN_OPS_MAX:
        return Refused("too_large", f"{ops} checks and writes in one transaction; the limit is {TXN_OPS_MAX}")
    for one in ops_of(transact):
        refusal = check_item(one.key, one.value or b"", None)
        if refusal is not None:
            return refusal
    size = sum(len(write.key) + len(write.value or b"") for write in transact.writes)
    size += sum(len(check.key) for check in transact.checks)
    if size > TXN_BYTES_MAX:
        return Refused("too_large", f"a transaction of {size} bytes; the limit is {TXN_BYTES_MAX}")
    return None


def stamp_text(stamp: int) -> str:
    """The version of a key in a coordinated keyspace: whoever stored it, it is the same."""
    return f"{stamp:x}"


def stamp_of(text: str) -> int | None:
    """None: that is no version."""
    try:
        return int(text, 16)
    except ValueError:
        return None


def _what_it_lacks(write: Write) -> Refused | None:
    """What a coordinated keyspace does not do."""
    items = write.items if isinstance(write, PutMany) else ()
    if any(ttl_ms for *_, ttl_ms in items) or (isinstance(write, Put) and write.ttl_ms):
        return Refused("invalid", "a TTL is for keyspaces of the policy lww")
    if write.acks:
        text = "acks are for keyspaces of the policy lww; here a majority of the voters holds it"
        return Refused("invalid", text, "leave out acks")
    return None
