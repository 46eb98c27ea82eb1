"""The first thing that anybody runs."""

from __future__ import annotations

import json
import subprocess
import sys


def test_demo_holds_and_says_so_in_json() -> None:
    """`peernode demo` checks itself, ends with 0 and finds a killed node within its own step's time."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "peernode", "demo", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["ok"] is True
    assert facts["keys"] == 101
    assert facts["took_s"] < 20
