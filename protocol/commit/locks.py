"""Locks of prepared transactions: shared for checks, exclusive for writes. Nobody waits in here."""

from __future__ import annotations

from collections.abc import Iterable

from .transaction import Op, Slot, TxnId


class Locks:
    """Held from a YES until the outcome is known. They are not stored: records of votes are, and bring them back."""

    def __init__(self) -> None:
        self._holders: dict[Slot, dict[TxnId, bool]] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def in_the_way(self, slot: Slot, *, writes: bool) -> TxnId | None:
        """A transaction that somebody who checks (or writes) this key must wait for."""
        for txid, is_exclusive in self._holders.get(slot, {}).items():
            if writes or is_exclusive:
                return txid
        return None

    def take(self, txid: TxnId, wanted: Iterable[tuple[Slot, Op]]) -> None:
        for slot, op in wanted:
            self._holders.setdefault(slot, {})[txid] = op.writes

    def release(self, txid: TxnId, held: Iterable[tuple[Slot, Op]]) -> None:
        for slot, _ in held:
            holders = self._holders.get(slot)
            if holders is not None and holders.pop(txid, None) is not None and not holders:
                del self._holders[slot]
