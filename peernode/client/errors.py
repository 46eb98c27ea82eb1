"""What can go wrong for a client, and the exit code of each: one table for the whole command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PeernodeError(Exception):
    """An error answer. `code` is one of the contract's error codes, `details` what else the daemon told."""

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str = "",
        retryable: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.hint, self.retryable = message, hint, retryable
        self.code = code or self.code
        self.details = dict(details or {})

    @property
    def exit_code(self) -> int:
        return EXIT_CODES.get(self.code, 1)


class NotFound(PeernodeError):
    code = "not_found"


class Conflict(PeernodeError):
    """The key was not as the request expected (`conflict`, or `exists`)."""

    code = "conflict"

    @property
    def seen(self) -> list[dict[str, Any]]:
        """What stands there instead, where a transaction was refused: `keyspace`, `key`, `version` or `absent`."""
        return list(self.details.get("seen", ()))


class UnknownOutcome(PeernodeError):
    """Whether a transaction was committed is not known (yet). It is never reported as a failure."""

    code = "unknown_outcome"

    @property
    def txid(self) -> str | None:
        """What to ask `txn.status` for; None where the daemon itself did not answer."""
        return self.details.get("txid")


class TimedOut(PeernodeError):
    """No answer in time: whether the request was carried out is not known."""

    code = "timeout"


class NotAllowed(PeernodeError):
    code = "not_allowed"


class NoDaemon(PeernodeError):
    """Nobody listens at the socket."""

    code = "no_daemon"


EXIT_CODES = {
    "not_found": 3,
    "no_daemon": 4,
    "timeout": 5,
    "unknown_outcome": 5,
    "unavailable": 5,
    "overloaded": 5,
    "conflict": 6,
    "exists": 6,
    "not_allowed": 7,
    "invalid": 2,
    "too_large": 2,
}

CLASSES = {
    "not_found": NotFound,
    "conflict": Conflict,
    "exists": Conflict,
    "timeout": TimedOut,
    "unknown_outcome": UnknownOutcome,
    "not_allowed": NotAllowed,
}


SAID = ("code", "message", "hint", "retryable")


def from_answer(error: dict[str, object]) -> PeernodeError:
    """The exception for an error map of the socket."""
    code = str(error.get("code", "internal"))
    kind = CLASSES.get(code, PeernodeError)
    return kind(
        str(error.get("message", "")),
        code=code,
        hint=str(error.get("hint") or ""),
        retryable=bool(error.get("retryable")),
        details={name: value for name, value in error.items() if name not in SAID},
    )
