"""What a client wants done, and what it is told in the end."""

from __future__ import annotations

from typing import Literal

import msgspec

from .transaction import Shard, Slot, TxnId


class Check(msgspec.Struct, frozen=True):
    """What must be so: the key has this version (`stamp`), this `value`, is absent, or is there at all."""

    slot: Slot
    kind: Literal["version", "value", "absent", "present"]
    stamp: int = 0
    value: bytes = b""

    def holds(self, found: Found) -> bool:
        match self.kind:
            case "version":
                return found.stamp == self.stamp and found.value is not None
            case "value":
                return found.value == self.value
            case "absent":
                return found.value is None
            case "present":
                return found.value is not None


class Found(msgspec.Struct, frozen=True):
    """What is there: 0 and None where nothing ever was, a stamp and None where it was deleted."""

    stamp: int
    value: bytes | None


class Change(msgspec.Struct, frozen=True):
    """A write; None deletes."""

    slot: Slot
    value: bytes | None


class Task(msgspec.Struct, frozen=True):
    """All or nothing. Answered by `Committed`, `Conflicted`, `Undecided` or `Refused` within `timeout_s`."""

    ref: object
    checks: tuple[Check, ...]
    changes: tuple[Change, ...]
    timeout_s: float
    request: bytes | None = None
    succession: Shard | None = None
    """The shard whose voters it replaces: its only change is the successor."""

    @property
    def slots(self) -> set[Slot]:
        return {check.slot for check in self.checks} | {change.slot for change in self.changes}


class ReadTask(msgspec.Struct, frozen=True):
    """The newest committed values at one moment. Answered by a map of `Found` by slot, or `Refused`."""

    ref: object
    slots: tuple[Slot, ...]
    timeout_s: float


class InquiryTask(msgspec.Struct, frozen=True):
    """What members know of a transaction, or (None) of all in doubt. Answered by their `State`s by node, after
    `timeout_s` by those that came."""

    ref: object
    txid: TxnId | None
    timeout_s: float


class Committed(msgspec.Struct, frozen=True):
    """Decided, for good: every change has this stamp as its version."""

    txid: TxnId
    stamp: int


class Conflicted(msgspec.Struct, frozen=True):
    """A check does not hold; this is what was found. Nothing was changed."""

    found: tuple[tuple[Slot, Found], ...]


class Undecided(msgspec.Struct, frozen=True):
    """It may have been committed or may still be, or not: ask for this transaction later."""

    txid: TxnId
