"""Kills at the worst moments: exactly between two steps of the protocol, not whenever.

A crash at a random time hits the few milliseconds between two phases too seldom. An ambush waits for the n-th time
that any node comes to a point, and kills it there.
"""

from __future__ import annotations

from enum import Enum


class Point(Enum):
    """Where a node can be killed."""

    ASKED = "a coordinator has sent PREPARE"
    FIRST_VOTE = "a coordinator has heard the first vote"
    FIRST_PROMISE = "somebody who finishes a transaction has heard the first promise"
    ACCEPTED = "ballot 1 is accepted by a majority, and its coordinator does not know it yet"
    DECIDED = "a coordinator has answered its client, and nothing of that is durable"
    STAGED = "a voter has staged a record that is not durable"
    DURABLE = "a voter's record is durable, and it has told nobody"


class Ambush:
    """Waits at one point."""

    def __init__(self, point: Point, countdown: int) -> None:
        self.point, self._countdown = point, countdown

    def strikes(self, point: Point) -> bool:
        """Whether this is the time."""
        if point is not self.point:
            return False
        self._countdown -= 1
        return self._countdown == 0
