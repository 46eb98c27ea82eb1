"""What everybody says of everybody, looked at all the time: the living are not called dead.

I9: when x has talked with y for a while, and y with j (or y is j), then j does not call x dead, whatever else is
cut, paused or down. So nobody who is linked to a majority is ever dead to anybody who is, too: two
majorities share a member.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import TYPE_CHECKING

from protocol.membership.table import Member, State

from .checks import Violation

if TYPE_CHECKING:
    from .hosts import Host, Pipe

SETTLED_S = 0.8
"""A heartbeat each way, and the next one that tells of the first."""


HEARD_S = 0.5
"""Two talk when both heard the other so lately: after a cut, TCP takes its time to send again."""


class Views:
    """`reaches` tells whether a path is open one way."""

    def __init__(self, hosts: dict[str, Host], reaches: Callable[[str, str], bool]) -> None:
        self._hosts, self._reaches = hosts, reaches
        self._since: dict[tuple[str, str], tuple[Pipe | None, float]] = {}
        self.said: set[tuple[str, str, str]] = set()
        """(judge, accused, state): everything that was ever said, until a drill forgets it."""

    def look(self, now: float) -> None:
        """Take note of who talks with whom, and check I9."""
        for one, other in permutations(sorted(self._hosts), 2):
            pipe = self._link(one, other, now)
            known, _ = self._since.get((one, other), (None, now))
            if pipe is None or pipe is not known:
                self._since[one, other] = (pipe, now)
        for judge, accused in permutations(sorted(self._hosts), 2):
            if self.state(judge, accused) is State.DEAD:
                self._check_dead(judge, accused, now)

    def member(self, judge: str, accused: str) -> Member | None:
        """The row of one in the table of the other."""
        node = self._hosts[judge].node
        return (
            node.membership.table.members.get(self._hosts[accused].keys.node_id) if node is not None else None
        )

    def state(self, judge: str, accused: str) -> State | None:
        member = self.member(judge, accused)
        return member.state if member is not None else None

    def talks_s(self, one: str, other: str, now: float) -> float:
        """For how long two have had the same link with nothing in its way."""
        pipe, since_s = self._since.get((one, other), (None, now))
        return now - since_s if pipe is not None else 0.0

    def text(self) -> str:
        """All that is not `alive`, with the reasons."""
        lines = []
        for judge, accused in permutations(sorted(self._hosts), 2):
            member = self.member(judge, accused)
            if member is not None and member.state is not State.ALIVE:
                lines.append(f"  {judge} calls {accused} {member.state}: {member.why}")
        return "\n".join(lines)

    def _check_dead(self, judge: str, accused: str, now: float) -> None:
        for witness in sorted(self._hosts):
            hears = self.talks_s(accused, witness, now) >= SETTLED_S if witness != accused else False
            tells = witness == judge or self.talks_s(witness, judge, now) >= SETTLED_S
            if hears and tells:
                raise Violation(
                    f"I9: {judge} calls {accused} dead, which talks with {witness}\n{self.text()}"
                )

    def _link(self, one: str, other: str, now: float) -> Pipe | None:
        hosts = (self._hosts[one], self._hosts[other])
        if any(host.node is None or host.is_paused for host in hosts):
            return None
        if not (self._reaches(one, other) and self._reaches(other, one)):
            return None
        pipes = (pipe for pipe in hosts[0].pipes.values() if pipe.up and pipe.other(one)[0] == other)
        pipe = next(pipes, None)
        return pipe if pipe is not None and now - min(pipe.arrived.values()) <= HEARD_S else None
