"""Voters that were drawn into finishing a transaction, never voted on it, and were not told how it ended.

Whoever finishes a transaction asks all its voters for promises, also those whom PREPARE never reached. Only voters
that voted, and the coordinator, may do that: the outcome is not forgotten before they know it. A voter that merely
promised may come back when all is forgotten, and could not tell that from a transaction that nobody ever voted on; if
it set out to finish it, it would decide anew. So it only asks, and when no voter at all has a vote or an outcome,
nothing is left to be decided: it drops what it had promised.
"""

from __future__ import annotations

from collections.abc import Callable

from ..turn import Turn
from ..types import NodeId
from .messages import Ask, Promise
from .ports import Electorate
from .post import Post
from .transaction import Header, TxnId

QUESTION = 0
"""The ballot of the votes: nothing is promised for it."""


class Stragglers:
    """`nobody` is called when no voter has voted on a transaction, or knows its outcome."""

    def __init__(self, electorate: Electorate, post: Post, nobody: Callable[[Turn, TxnId], None]) -> None:
        self._electorate, self._post, self._nobody = electorate, post, nobody
        self._waiting: dict[TxnId, set[tuple[int, NodeId]]] = {}
        """Which voters of which shards have not answered yet."""
        self._last: set[TxnId] = set()

    def look(self, turn: Turn, headers: list[Header]) -> None:
        """Called now and then with all that was promised here and not voted on. What was there last time is old."""
        old = [header for header in headers if header.txid in self._last]
        self._last = {header.txid for header in headers}
        self._waiting = {header.txid: self._others(header) for header in old}
        for header in old:
            for index, voter in sorted(self._waiting[header.txid]):
                self._post.send(voter, Ask(header, index, QUESTION))
            self._end_if_answered(turn, header.txid)

    def on_promise(self, turn: Turn, sender: NodeId, step: Promise) -> None:
        """An answer. Who has a vote sees to it that the transaction ends, and tells everybody."""
        if step.ballot == QUESTION and step.vote is None and step.txid in self._waiting:
            self._waiting[step.txid].discard((step.shard, sender))
            self._end_if_answered(turn, step.txid)

    def _others(self, header: Header) -> set[tuple[int, NodeId]]:
        voters = map(self._electorate.voters, header.shards)
        return {(index, voter) for index, some in enumerate(voters) for voter in some} - {
            (index, self._post.me) for index in range(len(header.shards))
        }

    def _end_if_answered(self, turn: Turn, txid: TxnId) -> None:
        if not self._waiting[txid]:
            del self._waiting[txid]
            self._nobody(turn, txid)
