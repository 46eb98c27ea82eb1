"""What `peernode run` was asked to do: the hand-over from the command line to the daemon."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Everything is optional: see `peernode run --help`."""

    name: str | None = None
    cluster: str = "dev"
    seeds: tuple[str, ...] = ()
    ticket: str | None = None
    listen: str | None = None
    advertise: str | None = None
    data_dir: Path | None = None
    socket: Path | None = None
    tags: dict[str, str] = field(default_factory=dict)
    log_level: str = "info"
    votes: bool = True
