"""The benchmark itself: that it runs, counts what came, and compares what belongs together."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from .__main__ import MEASURES
from .driver import Connection, WrongAnswer
from .measures import Bench
from .results import Table
from .servers import kinds
from .wires import MessagePackRpc, Request, Resp, Wire, key_of, value_of

RPC = MessagePackRpc()


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_runs(name: str, tmp_path: Path) -> None:
    """Each one fills every cell of its tables, for each server that is here."""
    bench = Bench(kinds(None), tmp_path, 1, seconds=0.01, idle_seconds=0.5, sizes=(3,), many_keys=1000)

    for table in MEASURES[name](bench):
        servers = table.servers or [kind.name for kind in bench.kinds]
        cells = {(quantity, server) for quantity in table.quantities for server in servers}
        assert table.rows
        for row in table.rows.values():
            assert row.values.keys() == cells
            assert all(value > 0 for values in row.values.values() for value in values), row


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Connection, socket.socket]]:
    """The benchmark's end of a connection with two requests a batch, and the server's."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        connection = Connection(tmp_path / "sock", RPC.get(b"k"), repeat(b"requests"), depth=2)
        server, _ = listener.accept()
        with server, connection.sock:
            yield connection, server


def test_an_answer_in_two_pieces_counts_once(ends: tuple[Connection, socket.socket]) -> None:
    """However the bytes are cut, each answer is counted when its mark is whole."""
    connection, server = ends
    mark = RPC.get(b"k").mark
    connection.send()
    counted = []
    for piece in (mark[:3], mark[3:] + b"\x81 and more " + mark[:-1], mark[-1:]):
        server.sendall(piece)
        counted.append(connection.receive())

    assert (counted, connection.awaited) == ([0, 1, 1], 0)


def test_an_error_is_not_counted_as_an_answer(ends: tuple[Connection, socket.socket]) -> None:
    """A server that refuses quickly is not quick."""
    connection, server = ends
    server.sendall(RPC.get(b"k").error)

    with pytest.raises(WrongAnswer):
        connection.receive()


@pytest.mark.parametrize("wire", [RPC, Resp()])
def test_what_is_asked_for_has_no_mark(wire: Wire) -> None:
    """Keys and values hold nothing that the client would take for the beginning of an answer, or for an error."""
    requests: list[Request] = [
        wire.get(key_of(1)),
        wire.put(key_of(1), value_of(1)),
        wire.put_on(2, b"k", b"v"),
    ]

    for request in requests:
        for told in (key_of(123), value_of(456)):
            assert request.mark not in told
            assert request.error not in told


def test_ratios_are_of_one_round() -> None:
    """The ratio is the median of the rounds' ratios, not the ratio of the medians."""
    table = Table("", "a second")
    row = table.row("what")
    for ours, theirs in ((1, 10), (20, 20), (300, 100)):
        row.add("a second", "ours", ours)
        row.add("a second", "theirs", theirs)

    assert table.markdown(["ours", "theirs"]).splitlines()[-1] == (
        "| what | 20 [1-300] | 20 [10-100] | 1x [0.1-3] |"
    )
