"""Recording, printing and reading back."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from .history import (
    Append,
    CompareAndSet,
    Delete,
    Get,
    Operation,
    Outcome,
    Read,
    Recorder,
    Snapshot,
    Transaction,
    Write,
    parse_history,
    print_history,
)

ALL_KINDS = (
    Operation(1, 10, 20, Outcome.OK, Read("x", None)),
    Operation(2, 11, 21, Outcome.OK, Write("x y", "ä\n")),
    Operation(1, 22, 23, Outcome.FAIL, Delete("x")),
    Operation(3, 24, 29, Outcome.UNKNOWN, CompareAndSet("x", None, 5)),
    Operation(1, 25, 26, Outcome.OK, Transaction((Append("l", 1), Get("l", (1,))))),
    Operation(1, 27, 28, Outcome.OK, Snapshot({"a": 5, "b": -5})),
)
TEXT = """\
[1,10,20,"ok",["read","x",null]]
[2,11,21,"ok",["write","x y","ä\\n"]]
[1,22,23,"fail",["delete","x"]]
[3,24,29,"unknown",["cas","x",null,5,false]]
[1,25,26,"ok",["txn",[["append","l",1],["get","l",[1]]]]]
[1,27,28,"ok",["snapshot",{"a":5,"b":-5}]]
"""


def test_each_operation_is_one_line() -> None:
    """Of JSON; and the lines are read back as they were."""
    assert print_history(ALL_KINDS) == TEXT
    assert parse_history(TEXT) == ALL_KINDS


def test_lines_may_be_moved_and_remarked() -> None:
    """A history is made smaller by hand: order in the file and remarks do not matter."""
    lines = TEXT.splitlines()
    assert parse_history("\n".join(["# seed 5", "", *reversed(lines)])) == ALL_KINDS


@pytest.mark.parametrize(
    "line", ["[1,10,20]", '[1,10,20,"maybe",["read","x",null]]', '[1,1,2,"ok",["pop","x"]]']
)
def test_a_line_that_is_no_operation_is_refused(line: str) -> None:
    """Nothing is passed over in silence."""
    with pytest.raises(msgspec.ValidationError):
        parse_history(line)


@pytest.mark.trio
async def test_clients_record_what_they_are_told(autojump_clock: trio.testing.MockClock) -> None:
    """An answer, a refusal, an answer that says nothing, a cancellation, and one still under way."""
    recorder = Recorder(trio.current_time)

    async def client(process: int) -> None:
        with recorder.begin(process, Read("x")) as pending:
            await trio.sleep(process)
            match process:
                case 1:
                    pending.ok(Read("x", 5))
                case 2:
                    pending.fail()
                case 3:
                    pending.unknown()

    async with trio.open_nursery() as nursery:
        for process in (1, 2, 3):
            nursery.start_soon(client, process)
        with trio.move_on_after(3.5):
            await client(4)
        await trio.sleep(5)
    recorder.begin(5, Write("x", 6))
    assert [(one.process, one.outcome, one.action) for one in by_process(recorder)] == [
        (1, Outcome.OK, Read("x", 5)),
        (2, Outcome.FAIL, Read("x")),
        (3, Outcome.UNKNOWN, Read("x")),
        (4, Outcome.UNKNOWN, Read("x")),
        (5, Outcome.UNKNOWN, Write("x", 6)),
    ]
    assert [round((one.end_ns - one.begin_ns) / 1e9, 3) for one in by_process(recorder)] == [1, 2, 3, 3.5, 0]


def by_process(recorder: Recorder) -> list[Operation]:
    return sorted(recorder.history(), key=lambda operation: operation.process)


def test_events_at_one_moment_keep_their_order() -> None:
    """In virtual time much happens at once: what was recorded first is still before."""
    recorder = Recorder(lambda: 5.0)
    first = recorder.begin(1, Write("x", 1))
    second = recorder.begin(2, Read("x"))
    first.ok()
    recorder.begin(1, Read("x")).ok(Read("x", 1))
    second.ok(Read("x", 1))
    base = 5_000_000_000
    assert recorder.history() == (
        Operation(1, base, base + 2, Outcome.OK, Write("x", 1)),
        Operation(2, base + 1, base + 5, Outcome.OK, Read("x", 1)),
        Operation(1, base + 3, base + 4, Outcome.OK, Read("x", 1)),
    )


def test_an_exception_leaves_an_unknown_outcome() -> None:
    """And is not swallowed; what was told before it stays."""
    recorder = Recorder(lambda: 0.0)
    with pytest.raises(ConnectionError), recorder.begin(1, Write("x", 1)):
        raise ConnectionError
    with pytest.raises(ConnectionError), recorder.begin(1, Write("x", 2)) as pending:
        pending.ok()
        raise ConnectionError
    assert [operation.outcome for operation in recorder.history()] == [Outcome.UNKNOWN, Outcome.OK]


def test_an_operation_ends_once() -> None:
    """A second end is a bug of the test that records."""
    pending = Recorder(lambda: 0.0).begin(1, Write("x", 1))
    pending.ok()
    with pytest.raises(KeyError):
        pending.fail()
