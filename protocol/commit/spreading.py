"""Outcomes on their way to every voter, until each has it durably; then they are forgotten everywhere.

A voter keeps a transaction until it is told to forget it. That happens only when all who may ever ask know the
outcome: every voter that was asked to prepare. So nobody finds "never heard of it" where there had been a decision,
and no timer stands for that proof. Whoever decided sees to it; when that node is gone, a voter takes over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from ..config import Config
from ..limits import COMMIT_STEPS_MAX, OUTCOMES_OWED_MAX
from ..turn import Turn
from ..types import NodeId
from .messages import Forget, Known, Outcome
from .ports import Timers
from .post import Post
from .transaction import Header, Slot, TxnId


class Owed:
    """Who must still say that it knows: voters, and the coordinator if that is another one."""

    def __init__(
        self, header: Header, committed: bool, voters: Iterable[NodeId], others: set[NodeId]
    ) -> None:
        self.outcome = Outcome(header, committed)
        self.others = others - set(voters)
        self.all = frozenset(voters) | others
        self.waiting = set(self.all)


class Spreading:
    """`has_ended`: whether the run that began a transaction is known to be over, so that it asks for nothing."""

    def __init__(
        self, config: Config, post: Post, timers: Timers, has_ended: Callable[[TxnId], bool]
    ) -> None:
        self._config, self._post, self._timers, self._has_ended = config, post, timers, has_ended
        self._owed: OrderedDict[TxnId, Owed] = OrderedDict()
        self._later: dict[TxnId, set[Slot]] = {}
        self._known: dict[NodeId, list[TxnId]] = {}
        self._forget: dict[NodeId, list[TxnId]] = {}
        self._is_flush_due = self._is_reminder_due = False

    def __len__(self) -> int:
        return len(self._owed)

    def spreads(self, txid: TxnId) -> bool:
        return txid in self._owed

    def spread(
        self,
        turn: Turn,
        header: Header,
        committed: bool,
        voters: Iterable[NodeId],
        others: Iterable[NodeId] = (),
    ) -> None:
        owed = self._owe(turn, Owed(header, committed, voters, set(others)))
        for node in sorted(owed.waiting):
            self._post.send(node, owed.outcome)

    def spread_later(self, turn: Turn, header: Header, voters: Iterable[NodeId], slots: set[Slot]) -> None:
        """Tell of a commit, a moment behind its values: a voter that has them by then need not store its own."""
        self._owe(turn, Owed(header, True, voters, set()))
        self._later[header.txid] = slots
        if len(self._later) == 1:
            self._timers.after(turn.now, self._config.outcome_s, lambda _: self.hurry())

    def _owe(self, turn: Turn, owed: Owed) -> Owed:
        self._owed[owed.outcome.header.txid] = owed
        if len(self._owed) > OUTCOMES_OWED_MAX:
            self._owed.popitem(last=False)  # a voter sees to it
        self._remind_later(turn)
        return owed

    def hurry(self, slots: set[Slot] | None = None) -> None:
        """Somebody wants to lock these; None: it is time."""
        if slots is not None and all(slots.isdisjoint(locked) for locked in self._later.values()):
            return
        later, self._later = self._later, {}
        for owed in filter(None, map(self._owed.get, later)):
            for node in sorted(owed.waiting):
                self._post.send(node, owed.outcome)

    def acknowledge(self, turn: Turn, to: NodeId, txid: TxnId) -> None:
        """This node knows an outcome that it was told; said with others, once it is durable."""
        self._known.setdefault(to, []).append(txid)
        self._flush_later(turn)

    def failed(self) -> None:
        """What was staged is not stored: this node may not know what it was about to say that it knows."""
        self._known.clear()

    def on_known(self, turn: Turn, sender: NodeId, step: Known) -> None:
        for txid in step.txids:
            owed = self._owed.get(txid)
            if owed is None:
                continue
            owed.waiting.discard(sender)
            self._finish_if_known(turn, owed)

    def _finish_if_known(self, turn: Turn, owed: Owed) -> None:
        txid = owed.outcome.header.txid
        if owed.waiting <= owed.others and (not owed.waiting or self._has_ended(txid)):
            del self._owed[txid]
            for node in owed.all:
                self._forget.setdefault(node, []).append(txid)
            self._flush_later(turn)

    def linked(self, node: NodeId) -> None:
        """A peer is back: it may have missed something."""
        for owed in self._owed.values():
            if node in owed.waiting:
                self._post.send(node, owed.outcome)

    def _flush_later(self, turn: Turn) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._timers.after(turn.now, self._config.tidy_s, self._flush, coarse=True)

    def _flush(self, turn: Turn) -> None:
        self._is_flush_due = False
        known, self._known = self._known, {}
        forget, self._forget = self._forget, {}
        for node, txids in sorted(known.items()):
            for some in _pieces(txids):
                self._post.send_durably(node, Known(some))
        for node, txids in sorted(forget.items()):
            for some in _pieces(txids):
                self._post.send(node, Forget(some))

    def _remind_later(self, turn: Turn) -> None:
        if not self._is_reminder_due:
            self._is_reminder_due = True
            self._timers.after(turn.now, self._config.remind_s, self._remind, coarse=True)

    def _remind(self, turn: Turn) -> None:
        self._is_reminder_due = False
        for owed in list(self._owed.values())[:COMMIT_STEPS_MAX]:
            for node in sorted(owed.waiting):
                self._post.send(node, owed.outcome)
            self._finish_if_known(turn, owed)
        if self._owed:
            self._remind_later(turn)


def _pieces(txids: list[TxnId]) -> Iterable[list[TxnId]]:
    for start in range(0, len(txids), COMMIT_STEPS_MAX):
        yield txids[start : start + COMMIT_STEPS_MAX]
