"""A real daemon with one thing changed: for faults that cannot be caused from outside."""

from __future__ import annotations

import sys

RUN = """
import sys
from peernode.cli import main
main(sys.argv[5:])
"""
"""What follows the prefix is `python -P -m peernode run ...`: the arguments behind `peernode` are the command's."""


def patched(code: str) -> tuple[str, ...]:
    """A prefix for `Daemon.start` and `Daemon.launch`: the code runs first, in the daemon's own process."""
    return (sys.executable, "-P", "-c", code + RUN)
