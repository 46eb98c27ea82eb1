"""Asking all members what they know of transactions: of one, or of those in doubt.

No node knows all of it: a voter knows its own votes and what it was told, a coordinator what it is waiting for. So
everybody who is linked is asked, and whoever does not answer in time is simply missing in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..effects import Reply
from ..limits import COMMIT_STATES_MAX, INQUIRIES_MAX
from ..turn import Turn
from ..types import NodeId
from .messages import Inquire, Report, State
from .ports import Timers
from .post import Post
from .task import InquiryTask
from .transaction import TxnId

States = Callable[[TxnId | None], Iterable[State]]
"""What this node knows of one transaction, or of all that are in doubt."""


class Inquiry:
    def __init__(self, task: InquiryTask, asked: set[NodeId]) -> None:
        self.task, self.open = task, asked
        self.found: dict[NodeId, tuple[State, ...]] = {}


class Inquiries:
    """All that clients of this node have asked and peers have not answered yet."""

    def __init__(self, post: Post, timers: Timers, states: States) -> None:
        self._post, self._timers, self._states = post, timers, states
        self._number = 0
        self._running: dict[int, Inquiry] = {}

    def __len__(self) -> int:
        return len(self._running)

    def ask(self, turn: Turn, task: InquiryTask, members: Iterable[NodeId]) -> None:
        """Of `members` and this node itself. The oldest is answered as it stands when there are too many."""
        self._number += 1
        number = self._number
        inquiry = self._running[number] = Inquiry(task, {self._post.me, *members})
        for node in sorted(inquiry.open):
            self._post.send(node, Inquire(number, task.txid))
        if len(self._running) > INQUIRIES_MAX:
            self._end(turn, next(iter(self._running)))
        self._timers.after(turn.now, task.timeout_s, lambda turn: self._end(turn, number), coarse=True)

    def on_inquire(self, turn: Turn, sender: NodeId, step: Inquire) -> None:
        states = sorted(self._states(step.txid), key=lambda state: state.header.stamp)
        self._post.send_durably(sender, Report(step.number, states[:COMMIT_STATES_MAX]))

    def on_report(self, turn: Turn, sender: NodeId, step: Report) -> None:
        inquiry = self._running.get(step.number)
        if inquiry is None or sender not in inquiry.open:
            return
        inquiry.open.discard(sender)
        inquiry.found[sender] = tuple(step.states)
        if not inquiry.open:
            self._end(turn, step.number)

    def _end(self, turn: Turn, number: int) -> None:
        inquiry = self._running.pop(number, None)
        if inquiry is not None:
            turn.do(Reply(inquiry.task.ref, inquiry.found))
