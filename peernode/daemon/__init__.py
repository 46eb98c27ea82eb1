"""The daemon: task tree, effects performed, start and stop (see ../README.md).

`run` and `init` are what the command line calls; everything else is inside.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..options import RunOptions


def run(options: RunOptions) -> int:
    """Run a daemon in the foreground until it is told to stop. Returns the exit code."""
    from .main import run_daemon

    return run_daemon(options)


def init(options: RunOptions) -> Path:
    """Found a cluster in an empty folder without starting; returns the folder."""
    from .main import init_folder

    return init_folder(options)
