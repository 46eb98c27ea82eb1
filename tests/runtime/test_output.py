"""What the command line shows to people."""

from __future__ import annotations

import pytest

from peernode.cli.output import Output

SAID = "h:1\nmallory  alive\x1b[2J"
SHOWN = r"h:1\nmallory  alive\x1b[2J"


def test_a_table_does_not_obey_what_peers_say(capsys: pytest.CaptureFixture[str]) -> None:
    """An address or a reason from a peer stays in its cell: it begins no line and moves no cursor."""
    Output().table(("ADDRESS",), [(SAID,)])
    Output().fields({"address": SAID})

    assert capsys.readouterr().out == f"ADDRESS\n{SHOWN}\naddress  {SHOWN}\n"
