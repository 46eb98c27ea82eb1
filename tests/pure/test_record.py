"""The member record: what a node may say of itself."""

from __future__ import annotations

import msgspec
import pytest

from protocol.membership.record import MemberRecord


@pytest.mark.parametrize("name", ["", "A", "a b", "a\n", "a.b", "é", "a" * 64])
def test_a_name_is_a_label(name: str) -> None:
    """Lower-case letters, digits and hyphens, 1 to 63 of them, and no line end behind them."""
    record = MemberRecord(name, "h:1", "", 1, 1, 0, False, [], [], [], bytes(16), True)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=MemberRecord)
