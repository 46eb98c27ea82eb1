"""The parts of kv import and export by themselves: lines, files, and writes that are sent again."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peernode.cli.folder import FolderWriter, Skipped, read_folder
from peernode.cli.lines import LINE_BYTES_MAX, Line, line_of, read_lines
from peernode.cli.operate import clock_text, held_back_text
from peernode.client import Item, NewItem, NoDaemon, PeernodeError, bulk
from peernode.client.wire import Wire
from peernode.local.kv import KvMput
from protocol import limits
from protocol.inputs import PutMany
from protocol.replica.writing import check_write

# Bounds


def test_the_client_knows_the_daemons_bounds() -> None:
    """It may not import them, so it repeats them."""
    assert (bulk.KEY_BYTES_MAX, bulk.VALUE_BYTES_MAX) == (limits.KEY_BYTES_MAX, limits.VALUE_BYTES_MAX)
    assert bulk.TTL_MS_MAX == limits.TTL_MS_MAX
    assert bulk.BATCH_ITEMS_MAX <= limits.BATCH_ITEMS_MAX
    assert bulk.KEYS_MAX <= limits.SCAN_ITEMS_MAX
    assert bulk.REQUEST_ID_BYTES >= limits.REQUEST_ID_BYTES_MIN


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (NewItem(b"k", b""), None),
        (NewItem(b"k" * limits.KEY_BYTES_MAX, b"v" * limits.VALUE_BYTES_MAX, limits.TTL_MS_MAX), None),
        (NewItem(b"", b"v"), "invalid"),
        (NewItem(b"k" * (limits.KEY_BYTES_MAX + 1), b"v"), "too_large"),
        (NewItem(b"k", b"v" * (limits.VALUE_BYTES_MAX + 1)), "too_large"),
        (NewItem(b"k", b"v", 0), "invalid"),
        (NewItem(b"k", b"v", limits.TTL_MS_MAX + 1), "invalid"),
    ],
)
def test_the_client_refuses_what_a_daemon_refuses(item: NewItem, code: str | None) -> None:
    """The same items, with the same code."""
    here = bulk.beyond(item)
    there = check_write(PutMany(None, "default", (tuple(item),)))

    assert (here and here.code, there and there.code) == (code, code)


# Lines


@given(st.binary(max_size=40), st.binary(max_size=40), st.none() | st.integers(1, limits.TTL_MS_MAX))
def test_a_line_brings_back_its_item(key: bytes, value: bytes, ttl_ms: int | None) -> None:
    """read(write(x)) == x, for any bytes."""
    line = line_of(Item(key, value, "version", expires_in_ms=ttl_ms))

    assert list(read_lines(io.BytesIO(line))) == [Line(1, len(line), NewItem(key, value, ttl_ms))]


def test_the_largest_item_is_a_line_that_can_be_read() -> None:
    """Also when each of its bytes is escaped."""
    item = Item(b"\0" * limits.KEY_BYTES_MAX, b"\0" * limits.VALUE_BYTES_MAX, "version")

    assert len(line_of(item)) < LINE_BYTES_MAX
    (line,) = read_lines(io.BytesIO(line_of(item)))
    assert line.item == NewItem(item.key, item.value)


def test_what_other_commands_print_is_read(tmp_path: Path) -> None:
    """Version, modified and origin mean nothing, and neither does a blank line."""
    text = b'\r\n{"key": "k", "value": "v", "version": "1-2", "origin": "a", "expires_in_ms": null}\r\n'

    assert [line.item for line in read_lines(io.BytesIO(text))] == [NewItem(b"k", b"v")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"hello", "no JSON: Expecting value at character 1"),
        (b'{"key": "k"', "no JSON: Expecting ',' delimiter at character 13"),
        (b'{"key": "\xff", "value": ""}', "no UTF-8"),
        (b"[1]", "no JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"key": "k"}', "one of value and value_b64 has to be there"),
        (b'{"key": "k", "key_b64": "aw==", "value": ""}', "one of key and key_b64 has to be there"),
        (b'{"key_b64": "k", "value": ""}', "key_b64 is no base64"),
        (b'{"key": "\\ud800", "value": ""}', "key has half of a surrogate pair"),
        (b'{"key": "k", "value": "", "ttl": 5}', "unknown name 'ttl'"),
        (b'{"key": "k", "value": "", "expires_in_ms": 1.5}', "expires_in_ms is 1.5"),
        (b'{"key": "k", "value": "", "expires_in_ms": true}', "expires_in_ms is True"),
        (b"x" * (LINE_BYTES_MAX * 2 + 7), f"a line of {LINE_BYTES_MAX * 2 + 8} bytes; the limit is"),
    ],
)
def test_a_line_that_is_none_is_told_and_the_next_is_read(text: bytes, reason: str) -> None:
    """It is counted, and says what is wrong with it."""
    bad, good = read_lines(io.BytesIO(text + b'\n{"key": "k", "value": "v"}'))

    assert (bad.number, bad.size, bad.item) == (1, len(text) + 1, None)
    assert bad.reason.startswith(reason)
    assert (good.number, good.item) == (2, NewItem(b"k", b"v"))


# Folders


def test_a_file_that_changes_while_it_is_read_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is neither the old nor the new content, so it is a failure."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    fstat = os.fstat

    def looked_at(handle: int) -> os.stat_result:
        about = fstat(handle)
        path.write_bytes(b"newer")
        return about

    monkeypatch.setattr(os, "fstat", looked_at)
    found = list(read_folder(tmp_path))

    assert found == [Skipped(b"f", "it changed while it was read", is_failure=True)]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a failure, and the next one is written."""
    with FolderWriter(tmp_path) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", refuse_rename)
            assert writer.write(b"a", b"1") == [Skipped(b"a", "no space left on device", is_failure=True)]
        assert writer.write(b"b", b"2") == []

    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (writer.files, writer.bytes) == (1, 1)


def refuse_rename(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_names_that_the_file_system_takes_for_one_are_told(tmp_path: Path) -> None:
    """Where A and a are one file (here it is there already) the second does not replace the first."""
    with FolderWriter(tmp_path) as writer:
        (tmp_path / "A").write_bytes(b"of another key")
        skipped = writer.write(b"A", b"1")

    assert skipped == [Skipped(b"A", "another key has this name on this file system")]
    assert (tmp_path / "A").read_bytes() == b"of another key"


# Writes that are sent again


class Daemon(Wire):
    """Answers requests to write from a list: what an error is, what `None` is (it hangs up), else as it should."""

    def __init__(self, answers: list[PeernodeError | None]) -> None:
        self.timeout_s = 30.0
        self.answers = answers
        self.asked: list[tuple[bytes, list[bytes]]] = []
        self.connections = 1

    def reconnect(self) -> None:
        self.connections += 1

    def ask(self, method: str, /, **params: Any) -> int:
        self.asked.append((params["request_id"], [item["key"] for item in params["items"]]))
        return len(self.asked) - 1

    def answer_to(self, number: int) -> Any:
        answer = self.answers.pop(0) if self.answers else PeernodeError("", code="good")
        if answer is None:
            raise NoDaemon("it hung up")
        return {"versions": self.asked[number][1]} if answer.code == "good" else answer

    def forget(self, numbers: Any) -> None:
        pass

    def has_room(self, under_way: int) -> bool:
        return True


GOOD = PeernodeError("", code="good")
BUSY = PeernodeError("too much waits", code="overloaded", retryable=True)
FULL = PeernodeError("no", code="unavailable", retryable=True)


def items(*keys: bytes) -> list[NewItem]:
    return [NewItem(key, b"x" * bulk.VALUE_BYTES_MAX) for key in keys]


def test_a_batch_for_which_there_is_no_room_is_sent_again() -> None:
    """Under the same request id, and the others are not."""
    daemon = Daemon([GOOD, BUSY, BUSY, GOOD])
    written = [keys for _, keys in bulk.put_batches(daemon, items(b"a", b"b", b"c"))]

    assert written == [[b"a"], [b"b"], [b"c"]]
    assert [keys for _, keys in daemon.asked] == [[b"a"], [b"b"], [b"c"], [b"b"], [b"b"]]
    assert len({request_id for request_id, _ in daemon.asked}) == 3


def test_after_a_hang_up_all_that_is_under_way_is_sent_again() -> None:
    """In the same order, under the same request ids; what was answered is not."""
    daemon = Daemon([GOOD, None])
    written = [keys for _, keys in bulk.put_batches(daemon, items(b"a", b"b", b"c"))]

    assert written == [[b"a"], [b"b"], [b"c"]]
    assert daemon.connections == 2
    assert daemon.asked[3:] == daemon.asked[1:3]


def test_a_refusal_for_good_ends_it() -> None:
    """Too few members do not become more by asking again."""
    daemon = Daemon([FULL])
    with pytest.raises(PeernodeError) as refused:
        list(bulk.put_batches(daemon, items(b"a", b"b")))

    assert (refused.value, len(daemon.asked)) == (FULL, 2)


def test_no_key_is_twice_under_way() -> None:
    """Sent again, the first of them would come to lie over the second."""
    daemon = Daemon([BUSY])
    written = [keys for _, keys in bulk.put_batches(daemon, items(b"a", b"a"))]

    assert [keys for _, keys in daemon.asked] == [[b"a"], [b"a"], [b"a"]]
    assert daemon.asked[0] == daemon.asked[1]
    assert written == [[b"a"], [b"a"]]


@given(
    st.lists(
        st.tuples(st.integers(1, 1024), st.sampled_from([0, 1, 5000, bulk.VALUE_BYTES_MAX])), max_size=40
    )
)
def test_batches_keep_to_the_bounds_of_a_request(sizes: list[tuple[int, int]]) -> None:
    """All items, in order; each request is one that a daemon reads."""
    given_items = [NewItem(b"k" * key, b"v" * value, limits.TTL_MS_MAX) for key, value in sizes]
    cut = list(bulk.batches(given_items))

    assert [item for batch in cut for item in batch.items] == given_items
    for batch in cut:
        packed = [bulk.packed(item) for item in batch.items]
        read = KvMput.read({"items": packed, "request_id": batch.request_id})
        assert len(read.items) == len(batch.items)
        assert sum(item.size for item in batch.items) <= max(bulk.BATCH_BYTES_MAX, batch.items[0].size)


# Words


def test_a_suspect_clock_is_named() -> None:
    """How far it is off and who says so, or by how much it was set; a good clock takes no line."""
    good = {"suspect": False, "jump_ms": 0, "correction_ms": 3, "offsets_ms": {}, "held_back": []}
    off = good | {"suspect": True, "correction_ms": -6000, "offsets_ms": {"c": -6010, "b": -12}}
    jumped = good | {"suspect": True, "jump_ms": 3_600_000}

    assert clock_text(good) == ""
    assert clock_text(off) == "suspect: the cluster's time is -6.0 s from it (others: b -0.0 s, c -6.0 s)"
    assert clock_text(jumped) == "suspect: it was set by +3600.0 s while this node ran"


def test_who_is_held_back_is_named() -> None:
    """The members whose writes come from the future."""
    assert held_back_text({"held_back": []}) == ""
    told = "writes of b, c, until the time of their stamps has come"
    assert held_back_text({"held_back": ["b", "c"]}) == told
