"""Addresses come from members, tickets and people: none of them may do more than fail to be dialled."""

from __future__ import annotations

import pytest
import trio

from peernode.net.dialler import DialError, connect
from protocol.effects import DialOutcome


@pytest.mark.parametrize("address", ["a..b:1", "host:port", "host:99999", "\0:1", f"{'x' * 64}:1", ""])
def test_an_address_that_nothing_resolves_is_a_failed_dial(address: str) -> None:
    """Whatever a member announces as its address, dialling it ends in `unreachable`, not in a crash."""
    with pytest.raises(DialError) as failed:
        trio.run(connect, address)

    assert failed.value.outcome is DialOutcome.UNREACHABLE
