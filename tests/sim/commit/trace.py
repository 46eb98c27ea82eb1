"""A run in words: steps, rows and names short enough to be read by the thousand."""

from __future__ import annotations

import re
from itertools import pairwise

import msgspec

from protocol.clock import COUNTER_BITS
from protocol.commit.messages import Step
from protocol.commit.task import Committed, Conflicted, Found, Undecided
from protocol.commit.transaction import Header, Op, Record, Slot, TxnId
from protocol.effects import Entry, RecordRow, StoreRow
from protocol.epochs import place_of
from protocol.errors import Refused
from protocol.keyspaces import SYSTEM_KEYSPACE
from protocol.seats import SEAT_RECORD

from .checks import name_of


class Excerpt:
    """Of all lines of a run, those about one transaction, and what happened to nodes; without `txid` all."""

    def __init__(self, txid: str) -> None:
        self._names = {txid} if txid else set[str]()

    def has(self, line: str) -> bool:
        words = re.split(r"[ ,=\[\]]+", line)
        for name, stamp in pairwise(words):
            if name in self._names and stamp.startswith("@"):
                self._names.add(stamp)  # by which its entries are known
        return not self._names or " * " in line or not self._names.isdisjoint(words)


def told(step: Step) -> str:
    """One step, with what it says."""
    fields = {name: getattr(step, name) for name in step.__struct_fields__}
    return " ".join([type(step).__name__.upper(), *(_field_text(*field) for field in fields.items())])


def told_row(row: StoreRow) -> str:
    """One row that became durable."""
    if isinstance(row, Entry):
        if row.keyspace == SYSTEM_KEYSPACE:
            return f"successor of {place_of(row.key)}"
        return f"entry {row.keyspace}/{row.key.decode(errors='replace')}={_text(row.value)} {stamp_text(row.hlc)}"
    assert isinstance(row, RecordRow)
    if row.kind == SEAT_RECORD:
        return f"that it votes on {msgspec.msgpack.decode(row.key)}"
    if row.value is None:
        return f"nothing more of {name_of(msgspec.msgpack.decode(row.key, type=TxnId))}"
    record = msgspec.msgpack.decode(row.value, type=Record)
    instances = [f"vote={i.vote} promised={i.promised} accepted={i.accepted}" for i in record.instances]
    return f"record {name_of(record.header.txid)} outcome={record.outcome} {'; '.join(instances)}"


def stamp_text(stamp: int) -> str:
    """A stamp as the time since the start of the run, in ms, and the counter."""
    return f"@{(stamp >> COUNTER_BITS) % 1_000_000_000}.{stamp & 0xFFFF}" if stamp else "@0"


def _field_text(name: str, value: object) -> str:
    return f"{name}={value if name == 'number' else _text(value)}"


def _text(value: object) -> str:
    match value:
        case TxnId():
            return name_of(value)
        case Header():
            request = f" for {value.request.decode().strip('-')}" if value.request else ""
            return f"{name_of(value.txid)} {stamp_text(value.stamp)}{request}"
        case Op():
            base = "any" if value.base is None else stamp_text(value.base)
            return f"{value.key.decode(errors='replace')}:{base}" + (
                f"->{_text(value.value)}" if value.writes else ""
            )
        case Found():
            return f"{_text(value.value)} {stamp_text(value.stamp)}"
        case bytes():
            return value.decode(errors="replace")
        case list() | tuple():
            return "[" + ", ".join(map(_text, value)) + "]"
        case int() if value > 1 << 40:
            return stamp_text(value)
        case _:
            return str(value)


def answer_text(outcome: object) -> str:
    """What a client is told."""
    match outcome:
        case None:
            return "nothing"
        case dict():
            return ", ".join(f"{_slot(slot)}={_text(found)}" for slot, found in outcome.items())
        case Committed():
            return f"COMMITTED {name_of(outcome.txid)} {stamp_text(outcome.stamp)}"
        case Undecided():
            return f"UNDECIDED {name_of(outcome.txid)}"
        case Conflicted():
            return f"CONFLICT {', '.join(f'{_slot(slot)}={_text(found)}' for slot, found in outcome.found)}"
        case Refused():
            return f"REFUSED {outcome.code}"
        case _:
            return str(outcome)


def _slot(slot: Slot) -> str:
    return f"{slot[0]}/{_key(slot[1])}"


def _key(key: bytes) -> str:
    place = place_of(key)
    return key.decode() if place is None else f"successor{place}"
