"""Many keys at once, through two real daemons: folders and JSON lines in on one, out of the other, byte by byte."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peernode.client import Client, PeernodeError

from ..waiting import wait_until
from .daemons import Daemons, daemons_in, environment

VALUE_BYTES_MAX = 256 * 1024
KEY_BYTES_MAX = 1024
Clients = tuple[Client, Client]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """Two daemons, a and b."""
    with daemons_in(tmp_path_factory.mktemp("bulk")) as daemons:
        a = daemons("a").start()
        daemons("b").start("--seed", a.address)
        yield daemons


@pytest.fixture
def on(pair: Daemons) -> Iterator[Clients]:
    """A client of each, both without a key."""
    a, b = (daemon.connect(timeout_s=30) for daemon in pair.all)
    delete_all(a)
    await_same(a, b)
    yield a, b
    a.close()
    b.close()


def delete_all(node: Client) -> None:
    node.call_many([("kv.delete", {"key": item.key}) for item in node.scan()])


def await_same(a: Client, b: Client) -> None:
    wait_until(lambda: a.status()["digest"] == b.status()["digest"], what="both nodes to hold the same")


def done(pair: Daemons, *arguments: str | Path) -> dict[str, Any]:
    """The document of a command that went well."""
    called = pair.command(*map(str, arguments), "--json", timeout_s=60)
    assert called.returncode == 0, called.stderr
    return json.loads(called.stdout)


def held(node: Client) -> dict[bytes, bytes]:
    return {item.key: item.value for item in node.scan()}


def files_below(folder: Path) -> dict[bytes, bytes]:
    root = os.fsencode(folder)
    found = {}
    for path, _, names in os.walk(root):
        for name in names:
            file = os.path.join(path, name)  # noqa: PTH118 - names of bytes
            with open(file, "rb") as opened:  # noqa: PTH123
                found[os.path.relpath(file, root)] = opened.read()
    return found


# Folders

GOOD_FILES = {
    b"plain.txt": b"hello\n",
    b"empty": b"",
    b"with space/and 'quotes'": b"\0\1\2",
    b"new\nline": b"1",
    b"no utf8 \xff\xfe/\x80": b"\xff\xfe",
    b"/".join([b"deep"] * 60): b"far down",
    b"just fits": b"\xfe" * VALUE_BYTES_MAX,
    b"-o": b"looks like an option",
    b".hidden/.file": b"dots",
}


def make_tree(root: Path, files: dict[bytes, bytes]) -> None:
    for name, content in files.items():
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with all that is nasty in folders."""
    root = tmp_path / "tree"
    make_tree(root, GOOD_FILES)
    make_tree(tmp_path, {b"outside/secret": b"not for the cluster"})
    make_tree(
        root, {b"too large": b"\xfe" * (VALUE_BYTES_MAX + 1), b"left out/cache.bak": b"", b"x.bak": b""}
    )
    make_tree(root, {b"/".join([b"d" * 200] * 5) + b"/" + b"e" * 100: b"a path of 1105 bytes"})
    (root / "link to a file").symlink_to("plain.txt")
    (root / "link out").symlink_to(tmp_path / "outside" / "secret")
    (root / "link to a folder out").symlink_to(tmp_path / "outside")
    (root / "link to a folder").symlink_to(".hidden")
    (root / "circle").symlink_to(".")
    (root / "loop").symlink_to("pool")
    (root / "pool").symlink_to("loop")
    (root / "broken").symlink_to("nothing")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    return root


def test_a_folder_comes_out_of_the_other_node_byte_by_byte(
    pair: Daemons, on: Clients, tree: Path, tmp_path: Path
) -> None:
    """Any name and any content up to 256 KiB; what no key can hold is named, and no part of it is stored."""
    a, b = on
    called = pair.command("kv", "import", str(tree), "--exclude", "*.bak", "--node", "a", "--json")
    report = json.loads(called.stdout)
    await_same(a, b)
    exported = done(pair, "kv", "export", tmp_path / "out", "--node", "b")

    expected = {**GOOD_FILES, b"link to a file": GOOD_FILES[b"plain.txt"]}
    assert files_below(tmp_path / "out") == expected
    assert held(b) == expected
    size = sum(map(len, expected.values()))
    assert (exported["exported"], exported["bytes"], exported["skipped"]) == (len(expected), size, [])
    assert (report["imported"], report["bytes"]) == (len(expected), size)
    assert {os.path.basename(skip["path"])[:30]: skip["reason"] for skip in report["skipped"]} == {  # noqa: PTH119
        "too large": "a file of 262145 bytes; the limit of a value is 262144",
        "e" * 30: "the key has 1105 bytes; the limit is 1024",
        "link out": "a link that leads out of the folder",
        "link to a folder out": "a link that leads out of the folder",
        "link to a folder": "a link to a folder: its files have keys of their own if it is in here",
        "circle": "a link to a folder: its files have keys of their own if it is in here",
        "loop": "too many levels of symbolic links",
        "pool": "too many levels of symbolic links",
        "broken": "no such file or directory",
        "pipe": "a named pipe, not a file",
        "socket": "a socket, not a file",
    }
    assert (called.returncode, report["failed"], report["skipped_total"]) == (1, 3, 11), (
        "links to nothing fail"
    )


def test_a_skip_alone_is_no_failure_unless_it_is_strict(pair: Daemons, on: Clients, tmp_path: Path) -> None:
    """Exit 0 and a line on stderr for what no key can hold; with --strict exit 1."""
    make_tree(tmp_path / "in", {b"large": b"x" * (VALUE_BYTES_MAX + 1), b"small": b"x"})
    usual = pair.command("kv", "import", str(tmp_path / "in"), "--node", "a")
    strict = pair.command("kv", "import", str(tmp_path / "in"), "--node", "a", "--strict")

    told = "skipped large: a file of 262145 bytes; the limit of a value is 262144"
    assert (usual.returncode, usual.stdout, usual.stderr.splitlines()[0]) == (0, "", told)
    assert usual.stderr.splitlines()[1].startswith("imported 1 keys, 1 bytes, in ")
    assert (strict.returncode, held(on[0])) == (1, {b"small": b"x"})


def test_a_prefix_is_put_in_front_and_taken_off_again(pair: Daemons, on: Clients, tmp_path: Path) -> None:
    """Two folders beside each other in the store, and one of them out again."""
    make_tree(tmp_path / "in", {b"f": b"1", b"d/g": b"2"})
    for prefix in ("one/", "two/"):
        done(pair, "kv", "import", tmp_path / "in", "--prefix", prefix, "--node", "a")
    done(pair, "kv", "export", tmp_path / "out", "--prefix", "two/", "--node", "a")

    assert sorted(held(on[0])) == [b"one/d/g", b"one/f", b"two/d/g", b"two/f"]
    assert files_below(tmp_path / "out") == {b"f": b"1", b"d/g": b"2"}


def test_a_dry_run_writes_nothing(pair: Daemons, on: Clients, tmp_path: Path) -> None:
    """It says what would be written."""
    make_tree(tmp_path / "in", {b"f": b"12"})
    report = done(pair, "kv", "import", tmp_path / "in", "--dry-run", "--node", "a")

    assert (report["imported"], report["bytes"], report["dry_run"], held(on[0])) == (1, 2, True, {})


UNSAFE = "no safe relative path; use a .jsonl file for such keys"
BAD_KEYS = {
    b"../up": UNSAFE,
    b"/abs": UNSAFE,
    b"a//b": UNSAFE,
    b"a/./b": UNSAFE,
    b"a/..": UNSAFE,
    b"ends/": UNSAFE,
    b"nul\0": UNSAFE,
    b".": UNSAFE,
    b"l" * 256: "a part of its path has more than 255 bytes; use a .jsonl file for such keys",
    b"both": "it is both a file and a folder; use a .jsonl file for such keys",
    b"both/of/it": "it is both a file and a folder; use a .jsonl file for such keys",
}


def test_nothing_is_written_outside_the_folder(pair: Daemons, on: Clients, tmp_path: Path) -> None:
    """Keys that are no safe path, or a file and a folder at once, are named; all others come."""
    good = {b"both/of/it/all": b"1", b"both-": b"2", b"...": b"3", b"bothx": b"4"}
    on[0].put_many(dict.fromkeys(BAD_KEYS, b"bad") | good)
    report = done(pair, "kv", "export", tmp_path / "up" / "out", "--node", "a")

    assert {os.fsencode(skip["path"]): skip["reason"] for skip in report["skipped"]} == BAD_KEYS
    assert files_below(tmp_path) == {b"up/out/" + key: content for key, content in good.items()}
    assert (report["exported"], report["bytes"]) == (len(good), len(good))


def test_links_in_the_folder_lead_nowhere(pair: Daemons, on: Clients, tmp_path: Path) -> None:
    """With --force files are replaced, also those that are links; a link is never followed; the rest stays."""
    make_tree(tmp_path, {b"out/old": b"stays", b"out/f": b"replaced", b"elsewhere/f": b"stays"})
    (tmp_path / "out" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / "file").symlink_to(tmp_path / "elsewhere" / "f")
    on[0].put_many({"folder/f": "new", "file": "new", "f": "new", "old/f": "new"})
    refused = pair.command("kv", "export", str(tmp_path / "out"), "--node", "a")
    forced = done(pair, "kv", "export", tmp_path / "out", "--force", "--node", "a")

    assert (refused.returncode, refused.stderr.splitlines()[0]) == (2, f"error: {tmp_path}/out is not empty")
    reason = "a part of its path is there and is no folder"
    assert forced["skipped"] == [{"path": key, "reason": reason} for key in ("folder/f", "old/f")]
    assert files_below(tmp_path / "elsewhere") == {b"f": b"stays"}
    (tmp_path / "out" / "folder").unlink()
    assert files_below(tmp_path / "out") == {b"old": b"stays", b"f": b"new", b"file": b"new"}


# JSON lines


def test_lines_come_back_as_they_were(pair: Daemons, on: Clients, tmp_path: Path) -> None:
    """Any key and value, the longest too, and the time left to live; through files and through pipes."""
    a, b = on
    longest = b"k" * KEY_BYTES_MAX
    content = {
        bytes(range(256)): bytes(range(256)),
        longest: b"v",
        b"control": b"\0" * VALUE_BYTES_MAX,
        "größe".encode(): "\u2028 \U0001f600".encode(),
        b"empty": b"",
        b"../up": b"1",
        b"a": b"2",
        b"a/b": b"3",
    }
    a.put_many(content)
    a.put("short-lived", "x", ttl=500)
    done(pair, "kv", "export", tmp_path / "all.jsonl", "--node", "a")
    delete_all(a)
    await_same(a, b)
    report = done(pair, "kv", "import", tmp_path / "all.jsonl", "--node", "b")

    assert held(b) == {**content, b"short-lived": b"x"}
    assert 400_000 < b.get("short-lived").expires_in_ms <= 500_000
    assert (report["imported"], report["skipped"]) == (len(content) + 1, [])
    await_same(a, b)
    piped = pair.command("kv", "export", "-", "--node", "a")
    again = call_with(pair, piped.stdout.encode(), "kv", "import", "-", "--prefix", "+", "--node", "a")
    await_same(a, b)
    copies = {item.key[1:]: item.value for item in b.scan("+")}
    assert copies == {key: value for key, value in held(b).items() if key[0] != ord("+") and key != longest}
    assert (again.returncode, again.stderr.splitlines()[0][:11]) == (0, b"skipped -:8")


def call_with(daemons: Daemons, text: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "peernode", *arguments],
        input=text,
        capture_output=True,
        env=environment(daemons.home),
        timeout=30,
        check=False,
    )


def test_a_bad_line_is_named_by_its_number(pair: Daemons, on: Clients, tmp_path: Path) -> None:
    """The other lines go in; exit 1."""
    (tmp_path / "x.jsonl").write_text(
        '{"key": "a", "value": "1"}\n\n{"key": 7}\n{"key": "b", "value": "2"}\n'
    )
    called = pair.command("kv", "import", str(tmp_path / "x.jsonl"), "--node", "a")

    reason = "one of key and key_b64 has to be there, and be a string"
    assert called.stderr.splitlines()[0] == f"failed {tmp_path}/x.jsonl:3: {reason}"
    assert (called.returncode, held(on[0])) == (1, {b"a": b"1", b"b": b"2"})


def test_a_file_takes_its_name_when_it_is_complete(pair: Daemons, on: Clients, tmp_path: Path) -> None:
    """An export that fails leaves the older file, and nothing beside it."""
    (tmp_path / "x.jsonl").write_text("older")
    failed = pair.command("kv", "export", str(tmp_path / "x.jsonl"), "--socket", str(tmp_path / "none"))
    there = files_below(tmp_path)
    done(pair, "kv", "export", tmp_path / "x.jsonl", "--node", "a")

    assert (failed.returncode, there) == (4, {b"x.jsonl": b"older"})
    assert files_below(tmp_path) == {b"x.jsonl": b""}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("import", "nothing.jsonl"), "nothing.jsonl: no such file or directory"),
        (("import", __file__), "is neither a folder nor a .jsonl file"),
        (("export", __file__), "is there and is no folder"),
        (("export", "/proc/nowhere/out"), "/proc/nowhere"),
        (("export", "/proc/nowhere/out.jsonl"), "no such file or directory"),
    ],
)
def test_a_place_that_will_not_do_is_refused(pair: Daemons, arguments: tuple[str, ...], told: str) -> None:
    """One error, no traceback."""
    called = pair.command("kv", *arguments, "--node", "a")

    assert called.returncode in (1, 2)
    assert told in called.stderr
    assert "Traceback" not in called.stderr


# Many keys


def test_ten_thousand_keys(pair: Daemons, on: Clients) -> None:
    """Written in one call, read in one call on the other node, exported page by page; of two alike the last wins."""
    a, b = on
    items = [(f"many/{number:05}", str(number)) for number in range(10_000)]
    versions = a.put_many([*items, ("many/00000", "the last one")])
    await_same(a, b)
    keys = [key for key, _ in items]
    found = list(b.get_many([*keys, "none", keys[1]]))

    assert len(versions) == len(set(versions)) == 10_001
    assert [item.value.decode() for item in found[:10_000]] == ["the last one", *(v for _, v in items[1:])]
    assert [item.version for item in found[1:10_000]] == versions[1:10_000]
    assert (found[10_000], found[10_001].key) == (None, b"many/00001")
    lines = pair.command("kv", "export", "-", "--prefix", "many/", "--node", "b").stdout.splitlines()
    assert [json.loads(line)["key"] for line in lines] == keys


def test_large_values_are_read_in_pieces(on: Clients) -> None:
    """Many more of the largest values than any one answer may hold, in the order that was asked for."""
    a, _ = on
    content = {f"{number:03}": bytes([number]) * VALUE_BYTES_MAX for number in range(20)}
    a.put_many(content)
    wanted = [*reversed(content)] * 12

    assert [item.value for item in a.get_many(wanted)] == [content[key] for key in wanted]


def test_what_is_beyond_the_limits_is_refused_by_name(on: Clients) -> None:
    """The connection goes on."""
    a, _ = on
    with pytest.raises(PeernodeError, match="'large': the value has 262145 bytes") as refused:
        a.put_many({"small": "1", "large": b"x" * (VALUE_BYTES_MAX + 1)})

    assert refused.value.code == "too_large"
    a.put("after", "1")
    assert a.get("after").value == b"1"


def test_a_walk_that_is_given_up_disturbs_nothing(on: Clients) -> None:
    """Answers that nobody waits for any more are not taken for others."""
    a, _ = on
    a.put_many((f"{number:04}", "x" * 1000) for number in range(3000))
    for _ in zip(a.scan(page=10), range(15), strict=False):
        a.put("between", "1")
    for _ in zip(a.get_many(f"{number:04}" for number in range(3000)), range(5), strict=False):
        pass

    assert a.get("0001").value == b"x" * 1000
    assert (a._calls.answers, a._calls._awaited) == ({}, set()), "nothing is kept for nobody"


def test_an_import_goes_on_when_the_daemon_restarts(pair: Daemons, on: Clients) -> None:
    """What had no answer is sent again under its request id: it is not done twice, so later writes stay."""
    a, b = on
    lines = [b'{"key": "k%d", "value": "imported"}\n' % number for number in range(2000)]
    command = [sys.executable, "-P", "-m", "peernode", "kv", "import", "-", "--node", "b", "--timeout", "30s"]
    importing = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(pair.home)
    )
    try:
        assert importing.stdin is not None
        importing.stdin.write(b"".join(lines[:1000]))
        importing.stdin.flush()
        wait_until(lambda: b.get("k0"))
        b.put("k0", "mine")
        pair.all[1].kill()
        pair.all[1].start()
        _, told = importing.communicate(b"".join(lines[1000:]), timeout=30)
    finally:
        importing.kill()

    assert importing.returncode == 0, told
    assert told.startswith(b"imported 2000 keys")
    with pair.all[1].connect(timeout_s=30) as restarted:
        await_same(a, restarted)
    assert held(a) == {b"k%d" % number: b"imported" for number in range(2000)} | {b"k0": b"mine"}


# Acknowledgements and repetitions


def test_acks_are_waited_for(pair: Daemons, on: Clients) -> None:
    """What another member has acknowledged is there; more than there are members is refused, and nothing written."""
    a, b = on
    a.put("k", "v", acks=1)
    assert b.get("k").value == b"v"
    a.put_many({"k": "w"}, acks=1)
    assert b.get("k").value == b"w"
    for write in (lambda: a.put("k", "y", acks=5), lambda: a.put_many({"k": "y"}, acks=5)):
        with pytest.raises(PeernodeError, match="nothing was written: 5 acks were asked for"):
            write()

    set_ok = pair.command("set", "k", "x", "--acks", "1", "--node", "a")
    too_many = pair.command("set", "k", "y", "--acks", "5", "--node", "a", "--json")
    assert (set_ok.returncode, too_many.returncode) == (0, 5)
    assert json.loads(too_many.stderr)["error"]["code"] == "unavailable"
    line = b'{"key": "k", "value": "z"}'
    imported = call_with(pair, line, "kv", "import", "-", "--acks", "5", "--node", "a")
    assert (imported.returncode, a.get("k").value) == (5, b"x")


def test_a_repetition_is_answered_like_the_first(pair: Daemons, on: Clients) -> None:
    """The same request id, from Python and from the command line: one write, one version."""
    a, _ = on
    first = a.put("k", "first", request_id=b"sixteen bytes id")
    again = done(pair, "set", "k", "again", "--request-id", "sixteen bytes id", "--node", "a")
    short = pair.command("set", "k", "v", "--request-id", "short", "--node", "a")

    assert (again["version"], a.get("k").value) == (first, b"first")
    assert (short.returncode, short.stderr) == (2, "error: a request_id has at least 16 random bytes\n")


def test_memory_durability_is_a_choice(pair: Daemons, on: Clients) -> None:
    """Whoever reads the key sees the write at once."""
    done(pair, "set", "k", "v", "--durability", "memory", "--node", "a")
    on[0].put("k", "w", durability="memory")

    assert on[0].get("k").value == b"w"


# How far it is


def test_sync_status_says_who_is_behind(daemons: Daemons) -> None:
    """In sync while both hold the same; a member that is away lacks what was written since."""
    a = daemons("a").start()
    b = daemons("b").start("--seed", a.address)
    with a.connect() as node:
        node.put("k", "v", acks=1)
        wait_until(lambda: node.sync_status()["in_sync"])
        equal = done(daemons, "sync", "status", "--node", "a")
        table = daemons.command("sync", "status", "--node", "a").stdout.splitlines()
        b.kill()
        node.put("k", "w")
        wait_until(lambda: not node.sync_status()["in_sync"])
    apart = done(daemons, "sync", "status", "--node", "a")
    words = daemons.command("sync", "status", "--node", "a").stdout.splitlines()[1]

    assert [(peer["name"], peer["behind"], peer["ahead"]) for peer in equal["peers"]] == [("b", 0, 0)]
    assert table[0].split() == ["NAME", "STATE", "SYNC", "BEHIND", "AHEAD", "LAST", "SYNC"]
    assert table[1].split()[:6] == ["b", "alive", "in", "sync", "0", "0"]
    assert (apart["in_sync"], apart["peers"][0]["ahead"]) == (False, 1)
    assert words.split()[2:6] == ["1", "ahead", "0", "1"]


def test_a_bar_is_for_terminals(pair: Daemons, on: Clients, tmp_path: Path) -> None:
    """On a terminal it goes up to 100 %, and --quiet says nothing at all."""
    make_tree(tmp_path / "in", {b"%d" % number: b"x" for number in range(20)})

    assert "importing" in told_on_a_terminal(pair, "import", str(tmp_path / "in"))
    assert "100%" in told_on_a_terminal(pair, "export", str(tmp_path / "out"))
    assert told_on_a_terminal(pair, "export", str(tmp_path / "quiet"), "--quiet") == ""
    assert len(files_below(tmp_path / "quiet")) == 20


def told_on_a_terminal(daemons: Daemons, *arguments: str) -> str:
    """What a command says on stderr when that is a terminal."""
    terminal, stderr = pty.openpty()
    try:
        command = [sys.executable, "-P", "-m", "peernode", "kv", *arguments, "--node", "a"]
        called = subprocess.run(
            command, stderr=stderr, env=environment(daemons.home), timeout=30, check=False
        )
        os.write(stderr, b"END")
        told = b""
        while not told.endswith(b"END"):
            told += os.read(terminal, 4096)
    finally:
        os.close(stderr)
        os.close(terminal)
    assert called.returncode == 0
    return told.removesuffix(b"END").decode()
