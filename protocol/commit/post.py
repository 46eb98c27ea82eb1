"""Steps on their way to other nodes, and to this one: gathered in a turn, sent at its end.

What speaks of something stored (a vote, a promise) leaves only when that is durable: `send_durably`. A node is its
own peer: steps to itself take the same way, so that it never counts a vote of its own that it could still lose.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from ..limits import COMMIT_STEPS_BYTES_MAX, COMMIT_STEPS_MAX
from ..turn import Turn
from ..types import CommitNumber, LinkId, NodeId
from .messages import Prepare, Report, Step, Steps, Surveyed, Values

Mail = list[tuple[NodeId, Step]]


class Post:
    """`link_to`: the link to a member, if there is one. Steps to others are lost: all that matters is asked again."""

    def __init__(self, me: NodeId, link_to: Callable[[NodeId], LinkId | None]) -> None:
        self.me, self._link_to = me, link_to
        self._ready: Mail = []
        self._bound: Mail = []
        self._held: deque[tuple[CommitNumber, Mail]] = deque()
        self._staged = self._settled = CommitNumber(0)

    def reaches(self, node: NodeId) -> bool:
        return node == self.me or self._link_to(node) is not None

    def send(self, to: NodeId, step: Step) -> None:
        self._ready.append((to, step))

    def send_durably(self, to: NodeId, step: Step) -> None:
        """Once all that is staged by now is durable."""
        self._bound.append((to, step))

    def staged(self, turn: Turn) -> None:
        """Something that steps may speak of is staged in this turn."""
        self._staged = turn.number

    def committed(self, number: CommitNumber) -> None:
        self._settled = number
        while self._held and self._held[0][0] <= number:
            self._ready += self._held.popleft()[1]

    def failed(self) -> None:
        """What was staged is not stored: nobody may hear of it."""
        self._settled = self._staged
        self._held.clear()
        self._bound.clear()

    def dispatch(self, turn: Turn, receive: Callable[[Turn, NodeId, Step], None]) -> None:
        """Send what is ready; what is for this node itself is received at once, and may make more."""
        others: dict[NodeId, list[Step]] = {}
        while self._ready or self._bound:
            if self._bound and self._staged > self._settled:
                self._hold()
            self._ready += self._bound
            self._bound = []
            ready, self._ready = self._ready, []
            for to, step in ready:
                if to == self.me:
                    receive(turn, self.me, step)
                else:
                    others.setdefault(to, []).append(step)
        self._say(turn, others)

    def _hold(self) -> None:
        if self._held and self._held[-1][0] == self._staged:
            self._held[-1][1].extend(self._bound)
        else:
            self._held.append((self._staged, self._bound))
        self._bound = []

    def _say(self, turn: Turn, others: dict[NodeId, list[Step]]) -> None:
        """One message for all who get the same steps."""
        shared: dict[tuple[int, ...], tuple[list[LinkId], list[Step]]] = {}
        for to, steps in others.items():
            link = self._link_to(to)
            if link is not None:
                shared.setdefault(tuple(map(id, steps)), ([], steps))[0].append(link)
        for links, steps in shared.values():
            for some in _pieces(steps):
                turn.say(links, Steps(some))


def _pieces(steps: list[Step]) -> Iterable[list[Step]]:
    """Each fits a frame: a single step may be half of one."""
    piece: list[Step] = []
    size = 0
    for step in steps:
        step_bytes = _bytes_of(step)
        if piece and (size + step_bytes > COMMIT_STEPS_BYTES_MAX or len(piece) == COMMIT_STEPS_MAX):
            yield piece
            piece, size = [], 0
        piece.append(step)
        size += step_bytes
    if piece:
        yield piece


def _bytes_of(step: Step) -> int:
    """Generously."""
    if isinstance(step, Prepare):
        return 512 + sum(len(op.key) + len(op.value or b"") + 32 for ops in step.ops for op in ops)
    if isinstance(step, Report):
        return 64 + 1024 * len(step.states) + sum(len(key) for state in step.states for _, key in state.keys)
    if isinstance(step, Surveyed):
        values = sum(len(key) + len(value or b"") + 32 for key, _, value in step.values)
        return 512 + 512 * len(step.commits) + 64 * len(step.heads) + values
    if isinstance(step, Values):
        return 64 + sum(len(value or b"") + 16 for _, value in step.values)
    return 512
