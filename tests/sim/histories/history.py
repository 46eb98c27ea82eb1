"""What clients asked and what they were told: recorded, printed as one line per operation, read back.

An operation has one of three outcomes. `ok`: it happened, and its action tells the result. `fail`: it surely did not
happen and never will. `unknown`: it may have happened, may still happen, or never will; whatever leaves the client
without an answer is this.

Only the order of moments counts, so a recorder never gives one moment twice: in virtual time, where many things
happen at once, each event is at least a nanosecond after the one recorded before. "A had ended before B began" then
means what it says, also between two operations of one client. Moments are compared only with others of the same
clock: one recorder for all clients of a test, or several on one CLOCK_MONOTONIC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from types import TracebackType

import msgspec

Value = str | int | None
"""Of a register; None stands for a key that is not there."""


class Read(msgspec.Struct, frozen=True, array_like=True, tag="read"):
    """A register is read; the value is the result."""

    key: str
    value: Value = None


class Write(msgspec.Struct, frozen=True, array_like=True, tag="write"):
    """A register is set."""

    key: str
    value: Value


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """A register is made absent, whether or not it was there."""

    key: str


class CompareAndSet(msgspec.Struct, frozen=True, array_like=True, tag="cas"):
    """A register is set if it holds what is expected; a refusal is a result (ok), not a failure."""

    key: str
    expected: Value
    new: Value
    is_set: bool = False


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """An element goes to the end of a list; no other operation appends the same one to it."""

    key: str
    element: int


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    """A list is read; the elements are the result."""

    key: str
    elements: tuple[int, ...] = ()


class Transaction(msgspec.Struct, frozen=True, array_like=True, tag="txn"):
    """Steps that happen together, in this order, or not at all."""

    steps: tuple[Append | Get, ...]


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """All accounts are read together; the amounts are the result."""

    amounts: dict[str, int] = {}


Action = Read | Write | Delete | CompareAndSet | Transaction | Snapshot


class Outcome(StrEnum):
    """What the client was told."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """One line of a history. The end of an unknown one is when its client gave up; no checker counts on it."""

    process: int
    begin_ns: int
    end_ns: int
    outcome: Outcome
    action: Action

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()


History = tuple[Operation, ...]
"""In the order in which the operations began."""


def print_history(history: History) -> str:
    """One line of JSON per operation: [process, begin_ns, end_ns, outcome, [what, ...]]."""
    return "".join(f"{operation}\n" for operation in history)


def in_order(operations: Iterable[Operation]) -> History:
    return tuple(sorted(operations, key=lambda operation: operation.begin_ns))


def parse_history(text: str) -> History:
    """The inverse; lines may be left out or reordered by hand, and those that begin with # are remarks.

    Raises msgspec.ValidationError or msgspec.DecodeError on a line that is no operation.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return in_order(msgspec.json.decode(line, type=Operation) for line in lines)


class Recorder:
    """Makes the history of one test, from the calls of its clients.

    >>> with recorder.begin(3, Read("x")) as pending:
    ...     pending.ok(Read("x", await client.get("x")))

    A block that is left without `ok` or `fail`, also by an exception or a cancellation, leaves an unknown outcome.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """The clock tells seconds, such as `trio.current_time`."""
        self._clock = clock
        self._last_ns = 0
        self._ended: list[Operation] = []
        self._open: dict[Pending, None] = {}

    def begin(self, process: int, action: Action) -> Pending:
        """To be called right before the request is sent, by a client that has no other one under way."""
        pending = Pending(self, process, self._moment(), action)
        self._open[pending] = None
        return pending

    def history(self) -> History:
        """All operations until now; those still under way are unknown."""
        now = self._moment()
        return in_order([*self._ended, *(pending.operation(now, Outcome.UNKNOWN) for pending in self._open)])

    def _end(self, pending: Pending, outcome: Outcome) -> None:
        del self._open[pending]
        self._ended.append(pending.operation(self._moment(), outcome))

    def _moment(self) -> int:
        self._last_ns = max(round(self._clock() * 1e9), self._last_ns + 1)
        return self._last_ns


class Pending:
    """An operation under way. It ends once: a second end raises KeyError."""

    def __init__(self, recorder: Recorder, process: int, begin_ns: int, action: Action) -> None:
        self._recorder, self._process, self._begin_ns, self._action = recorder, process, begin_ns, action
        self._has_ended = False

    def ok(self, action: Action | None = None) -> None:
        """It happened; a read, a compare-and-set, a transaction or a snapshot gives itself with its result."""
        self._action = action or self._action
        self._end(Outcome.OK)

    def fail(self) -> None:
        """It surely did not happen and never will."""
        self._end(Outcome.FAIL)

    def unknown(self) -> None:
        """No answer, or one that says so."""
        self._end(Outcome.UNKNOWN)

    def operation(self, end_ns: int, outcome: Outcome) -> Operation:
        return Operation(self._process, self._begin_ns, end_ns, outcome, self._action)

    def _end(self, outcome: Outcome) -> None:
        self._recorder._end(self, outcome)
        self._has_ended = True

    def __enter__(self) -> Pending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._has_ended:
            self.unknown()
