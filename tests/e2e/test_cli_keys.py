"""set, get, del and ls as programs and people meet them: bytes, output forms, JSON shapes, conditions, pages, TTL."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime

import pytest

from ..waiting import wait_until
from .daemons import environment
from .shell import Done, Shell, shell_in

NOT_UTF8 = b"\xff\xfe\x00"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with shell_in(tmp_path_factory.mktemp("home")) as shell:
        yield shell


def test_set_and_get(cli: Shell) -> None:
    """Talk goes to stderr, data to stdout: in a pipe the bytes of the value alone."""
    done = cli("set", "greeting", "hello", "--node", "a")

    assert (done.code, done.out, done.err.startswith("ok ")) == (0, b"", True)
    assert cli("get", "greeting", "--node", "a") == Done(0, b"hello", "")
    assert cli("kv", "get", "greeting", "--node", "a", "-o", "raw") == Done(0, b"hello", "")


def test_get_on_a_terminal_ends_its_line(cli: Shell) -> None:
    """A person's prompt stands on a line of its own."""
    cli("set", "greeting", "hello", "--node", "a")

    assert cli.on_terminal("get", "greeting", "--node", "a") == b"hello\r\n"


def test_any_bytes_go_through(cli: Shell) -> None:
    """From standard input to a pipe, and as an argument, byte for byte."""
    cli("set", "bytes", "-", "--node", "a", stdin=NOT_UTF8 + b"\n")
    assert cli("get", "bytes", "--node", "a").out == NOT_UTF8 + b"\n"

    cli("set", b"key-\xff", b"value-\xfe", "--node", "a")
    assert cli("get", b"key-\xff", "--node", "a").out == b"value-\xfe"
    cli("del", b"key-\xff", "bytes", "--node", "a")


def test_get_as_json(cli: Shell) -> None:
    """The shape of the contract: opaque version, ISO time in UTC, the writer's name, time to live."""
    cli("set", "straße", "größe", "--ttl", "1h", "--node", "a")
    found = cli("get", "straße", "--node", "b", "--json").json

    assert set(found) == {"key", "value", "version", "modified", "origin", "expires_in_ms"}
    assert (found["key"], found["value"], found["origin"]) == ("straße", "größe", "a")
    assert 0 < found["expires_in_ms"] <= 3_600_000
    assert datetime.fromisoformat(found["modified"]).utcoffset().total_seconds() == 0
    assert found["version"].isprintable()


def test_json_of_what_is_no_utf8(cli: Shell) -> None:
    """`value_b64` and `key_b64` take the places of `value` and `key`."""
    cli("set", b"b64-\xff", "-", "--node", "a", stdin=NOT_UTF8)
    encoded = {"key_b64": b64encode(b"b64-\xff").decode(), "value_b64": b64encode(NOT_UTF8).decode()}

    found = cli("get", b"b64-\xff", "--node", "a", "--json").json
    assert encoded.items() <= found.items()
    assert not {"key", "value"} & set(found)
    (item,) = cli("ls", "b64-", "--node", "a", "--json").json["items"]
    assert item == {**encoded, "version": found["version"]}
    cli("del", b"b64-\xff", "--node", "a")


def test_a_missing_key_is_exit_3(cli: Shell) -> None:
    """On stderr for people, one object there for programs; nothing on stdout."""
    plain = cli("get", "no/such", "--node", "a")

    assert (plain.code, plain.out, plain.err) == (3, b"", "error: no key 'no/such' here\n")
    for form in (("--json",), ("-o", "json"), ("-ojson",), ("--output=jsonl",)):
        assert cli("get", "no/such", "--node", "a", *form).error["code"] == "not_found"


def test_conditional_writes(cli: Shell) -> None:
    """Exit 6 when the key is not as expected, and then nothing was written."""
    cli("del", "cond", "--node", "a")
    first = cli("set", "cond", "1", "--if-absent", "--node", "a", "--json")
    assert (first.code, first.json["key"], first.json["decided"]) == (0, "cond", "local")

    refused = cli("set", "cond", "2", "--if-absent", "--node", "a", "--json")
    assert (refused.code, refused.error["code"]) == (6, "exists")
    second = cli("set", "cond", "2", "--if-version", first.json["version"], "--node", "a", "--json")
    assert second.code == 0
    for command in (("set", "cond", "3"), ("del", "cond")):
        stale = cli(*command, "--if-version", first.json["version"], "--node", "a", "--json")
        assert (stale.code, stale.error["code"]) == (6, "conflict")
    assert cli("get", "cond", "--node", "a").out == b"2"
    assert cli("del", "cond", "--if-version", second.json["version"], "--node", "a").code == 0


def test_del_says_how_many(cli: Shell) -> None:
    """Exit 0 when one was there, 3 when none was."""
    cli("set", "del/1", "v", "--node", "a")

    assert cli("del", "del/1", "del/2", "--node", "a", "--json") == Done(0, b'{"deleted": 1}\n', "")
    assert cli("del", "del/1", "del/2", "--node", "a") == Done(3, b"", "deleted 0 of 2\n")


def test_ls_in_every_form(cli: Shell) -> None:
    """Keys for a pipe, a table on request and on a terminal, a document, or lines."""
    for number in (2, 1, 3):
        cli("set", f"ls/{number}", f"v{number}\x1b[2J", "--node", "a")
    table = ["KEY   VALUE", *(rf"ls/{n}  v{n}\x1b[2J" for n in (1, 2, 3))]

    assert cli("ls", "ls/", "--node", "a") == Done(0, b"ls/1\nls/2\nls/3\n", "")
    assert cli("ls", "ls/", "--node", "a", "-o", "raw").out == b"ls/1\nls/2\nls/3\n"
    assert cli("ls", "ls/", "--node", "a", "-o", "table").out.decode().splitlines() == table
    assert cli.on_terminal("ls", "ls/", "--node", "a").decode().splitlines() == table
    lines = [json.loads(line) for line in cli("ls", "ls/", "--node", "a", "-o", "jsonl").out.splitlines()]
    page = cli("kv", "ls", "ls/", "--node", "a", "--json").json
    assert page == {"items": lines, "next": None}
    assert [(line["key"], line["value"]) for line in lines] == [
        (f"ls/{n}", f"v{n}\x1b[2J") for n in (1, 2, 3)
    ]
    assert {frozenset(line) for line in lines} == {frozenset({"key", "value", "version"})}


def test_paging_with_a_cursor(cli: Shell) -> None:
    """`next` is text, also behind a key that is none, and leads through all pages exactly once."""
    keys = [b"page/" + bytes([0xFE, number]) for number in range(1, 6)]
    for key in keys:
        cli("set", key, "v", "--node", "a")
    seen: list[str] = []
    sizes: list[int] = []
    after: list[str] = []
    while True:
        page = cli("ls", "page/", "--limit", "2", *after, "--node", "a", "--json").json
        seen += [item["key_b64"] for item in page["items"]]
        sizes.append(len(page["items"]))
        if page["next"] is None:
            break
        after = ["--after", page["next"]]

    assert sizes == [2, 2, 1]
    assert seen == [b64encode(key).decode() for key in keys]
    assert cli("ls", "page/", "--limit", "3", "--node", "a").out == b"\n".join(keys[:3]) + b"\n"
    assert cli("ls", "--after", "no cursor!", "--node", "a").code == 2
    cli("del", *keys, "--node", "a")


def test_ls_stops_when_nobody_reads(cli: Shell) -> None:
    """`ls | head -1` ends without a word."""
    with cli.a.connect() as client:
        client.call_many([("kv.put", {"key": f"many/{n}", "value": "v" * 500}) for n in range(1000)])
    command = f"{sys.executable} -P -m peernode ls many/ -o jsonl --node a | head -1"
    done = subprocess.run(
        command, shell=True, capture_output=True, env=environment(cli.home), timeout=20, check=False
    )

    assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 1, b"")


def test_a_key_with_a_ttl_expires(cli: Shell) -> None:
    """It is there, and then it is gone: for get, for ls and in the count."""
    keys = cli("status", "--node", "a", "--json").json["keys"]
    cli("set", "ttl", "v", "--ttl", "2s", "--node", "a")
    assert cli("get", "ttl", "--node", "a").out == b"v"

    wait_until(lambda: cli("get", "ttl", "--node", "a").code == 3)
    assert cli("ls", "ttl", "--node", "a").out == b""
    wait_until(lambda: cli("status", "--node", "a", "--json").json["keys"] == keys)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1500ms", 1500), ("90s", 90_000), ("1.5m", 90_000), ("10m", 600_000), ("24h", 86_400_000)],
)
def test_durations(cli: Shell, text: str, ms: int) -> None:
    """`250ms 5s 10m 24h`, and fractions of them."""
    written = cli("set", "duration", "v", "--ttl", text, "--node", "a")
    assert written.code == 0
    with cli.a.connect() as client:
        item = client.get("duration")
    left_ms = item.expires_in_ms if item is not None else 0

    assert ms - 10_000 <= left_ms <= ms


@pytest.mark.parametrize("text", ["5", "5x", "s", "-1s", "1h30m", "0s", "1000000h"])
def test_what_is_no_duration(cli: Shell, text: str) -> None:
    """Exit 2, and nothing is written."""
    done = cli("set", "no duration", "v", "--ttl", text, "--node", "a", "--json")

    assert (done.code, done.error["code"]) == (2, "invalid")
    with cli.a.connect() as client:
        assert client.get("no duration") is None
