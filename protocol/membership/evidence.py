"""What one node holds against another: its doubts, and the reports in which it tells them.

A doubt makes a member suspect, here. Only evidence is reported to the others, and there are two kinds of it:

    CLOSED       its address, where this node had reached this very run before, refuses connections: the
                 process is gone. At an address where it was never reached a refusal says nothing of the kind:
                 a NAT, a moved address or a stranger's port refuse too.
    UNREACHABLE  no sign of life for the silence bound, and nobody of that name answers at its address.

A redial that connects and gets no answer, or is reset, is no evidence: so look a stopped process, a full
accept queue and a stopping daemon. It stays a doubt and is asked again.

Evidence may have to ripen: a refusal at once after a link broke must not condemn a member that is just dialling
back. What is told is told by its author, in its signed heartbeats, and counted in `verdicts.py`.
"""

from __future__ import annotations

from enum import IntEnum
from math import inf
from typing import Annotated

import msgspec

from ..effects import DialOutcome
from ..inputs import DialFailed
from ..wire.fields import Counter, Id32


class Evidence(IntEnum):
    """The number is what a report carries; a number that this build does not know counts for nothing."""

    CLOSED = 1
    UNREACHABLE = 2


class Report(msgspec.Struct, frozen=True, array_like=True):
    """One line of an observer's heartbeat. `is_dead`: the verdict about this run has been reached there."""

    subject: Id32
    run: Counter
    evidence: Annotated[int, msgspec.Meta(ge=1, le=255)]
    is_dead: bool


class Doubt(msgspec.Struct, frozen=True):
    """Why a member is not taken for alive here. `evidence` counts from `ripe_s` on; None: never."""

    words: str
    evidence: Evidence | None = None
    ripe_s: float = inf

    def holds(self, now_s: float) -> Evidence | None:
        """The evidence that there is by now."""
        return self.evidence if now_s >= self.ripe_s else None


FINDINGS: dict[DialOutcome, tuple[Evidence | None, str]] = {
    DialOutcome.REFUSED: (Evidence.UNREACHABLE, "{address} refuses connections; it was never reached there"),
    DialOutcome.UNREACHABLE: (Evidence.UNREACHABLE, "not reached at {address}: {detail}"),
    DialOutcome.STRANGER: (Evidence.UNREACHABLE, "another member answers at {address}"),
    DialOutcome.SELF: (Evidence.UNREACHABLE, "{address} is an address of this node"),
    DialOutcome.STALLED: (None, "stalled at {address}: {detail}"),
    DialOutcome.FAULT: (None, "no link at {address}: {detail}"),
}
"""What a failed dial says about the member that was dialled, and in which words."""

GONE = (Evidence.CLOSED, "the link closed and {address} refuses connections")
"""What a refusal says where this run of the member was reached before."""


def weigh(failed: DialFailed, *, was_reached: bool) -> tuple[Evidence | None, str]:
    """The evidence in a failed dial, if there is any, and the words for it."""
    is_gone = failed.outcome is DialOutcome.REFUSED and was_reached
    evidence, words = GONE if is_gone else FINDINGS[failed.outcome]
    return evidence, words.format(address=failed.address, detail=failed.detail)
