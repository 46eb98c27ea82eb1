"""What is acknowledged is on the disk: system calls, a full disk, a damaged row. All with real daemons."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from peernode.client import Client, PeernodeError

from ..waiting import wait_until
from .daemons import Daemon, Daemons
from .patched import patched
from .system_calls import Call, read_calls, traced

CALLS = "pwrite64,write,fdatasync,fsync,sendto,sendmsg,recvfrom"
SYNCHRONOUS_OFF = """
from peernode.store import writer
honest = writer.open_writer
def hasty(path):
    connection = honest(path)
    connection.execute("PRAGMA synchronous=OFF")
    return connection
writer.open_writer = hasty
"""


# The order of system calls


def test_every_acknowledgement_follows_a_sync(daemons: Daemons) -> None:
    """Between the last write of a row to the WAL and the reply, a sync of the WAL began and ended."""
    a = daemons("a")
    with traced(a, CALLS) as trace:
        values = write_one_by_one(a)

    assert unsynced(read_calls(trace), values) == []


def test_the_check_of_syncs_can_fail(daemons: Daemons) -> None:
    """A daemon whose SQLite does not sync is found out, put by put."""
    a = daemons("a")
    with traced(a, CALLS, prefix=patched(SYNCHRONOUS_OFF)) as trace:
        values = write_one_by_one(a)

    assert unsynced(read_calls(trace), values) == values


def write_one_by_one(daemon: Daemon) -> list[str]:
    """Each put waits for the acknowledgement of the one before."""
    values = [f"durable-{number:04d}-." for number in range(20)]
    with daemon.connect(timeout_s=20) as client:
        for value in values:
            client.put(f"key of {value}", value)
    return values


def unsynced(calls: list[Call], values: list[str]) -> list[str]:
    """The values that were acknowledged before a sync of what was written of them had succeeded."""
    return [value for value in values if not is_synced(calls, value)]


def is_synced(calls: list[Call], value: str) -> bool:
    asked = next(call for call in calls if call.name == "recvfrom" and value in call.text)
    client = asked.text.split(",")[0]
    answered = next(call for call in calls if is_answer(call, client) and call.began > asked.ended)
    between = [call for call in calls if asked.ended < call.began and call.ended < answered.began]
    written = [call for call in between if call.name in ("pwrite64", "write") and "-wal>" in call.text]
    assert any(value in call.text for call in written), f"{value} was acknowledged and never written"
    return any(is_sync(call) and call.began > written[-1].ended for call in between)


def is_answer(call: Call, client: str) -> bool:
    return call.name in ("sendto", "sendmsg", "write") and call.text.startswith(f"{client},")


def is_sync(call: Call) -> bool:
    return call.name in ("fdatasync", "fsync") and "-wal>" in call.text and call.text.rstrip().endswith("= 0")


# A full disk


def test_a_full_disk_refuses_writes_and_nothing_else(daemons: Daemons) -> None:
    """`storage_full` while it lasts; reads, links and membership go on; nothing unsaved ever leaves the node."""
    a = daemons("a")
    with small_disk(a.folder):
        try:
            ballast = a.folder / "ballast"
            ballast.write_bytes(bytes(512 * 1024))
            a.start()
            b = daemons("b").start("--seed", a.address)
            wait_until(lambda: a.state_of("b") == "alive" and b.state_of("a") == "alive")
            with a.connect() as on_a, b.connect() as on_b:
                stored = fill(on_a)
                assert refused_put(on_a).code == "storage_full"
                assert refused_put(on_a).retryable
                check_life_goes_on(daemons, a, b, stored)
                on_b.put("from b", "while a was full")
                wait_until(lambda: contents(on_b) == stored | {b"from b": b"while a was full"})

                ballast.unlink()
                wait_until(lambda: accepted(on_a, "after", "there is space again"))
                stored |= {b"from b": b"while a was full", b"after": b"there is space again"}
                for client in (on_a, on_b):
                    wait_until(lambda c=client: contents(c) == stored, timeout_s=20)
                assert on_a.call("node.health") == {"healthy": True, "reasons": []}

            a.kill()
            a.start()
            with a.connect() as on_a:
                assert contents(on_a) == stored
        finally:
            a.kill()


def accepted(node: Client, key: str, value: str) -> bool:
    """Put once; a refusal is for a full disk: a commit that was under way may still take this one with it."""
    try:
        node.put(key, value)
    except PeernodeError as error:
        assert (error.code, error.retryable) == ("storage_full", True)
        return False
    return True


def test_a_start_on_a_full_disk_says_so(daemons: Daemons) -> None:
    """One line and exit 1, not a traceback; with space again it starts."""
    a = daemons("a")
    with small_disk(a.folder):
        try:
            a.start().kill()
            ballast = a.folder / "ballast"
            with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            a.launch()
            assert a.wait() == 1
            assert a.log.read_text().splitlines()[-1].startswith("peernode: error: ")
            assert "Traceback" not in a.log.read_text()

            ballast.unlink()
            a.start()
        finally:
            a.kill()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 2 MiB in the place of the folder."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(client: Client) -> dict[bytes, bytes]:
    """Write until nothing fits any more: the writes that were acknowledged."""
    stored: dict[bytes, bytes] = {}
    for number in range(1000):
        key, value = f"fill/{number}".encode(), bytes([number % 256]) * 8000
        try:
            client.put(key, value)
        except PeernodeError as error:
            assert error.code == "storage_full"
            return stored
        stored[key] = value
    raise AssertionError("the disk did not fill up")


def refused_put(client: Client) -> PeernodeError:
    with pytest.raises(PeernodeError) as refused:
        client.put("refused", b"\xff" * 8000)
    return refused.value


def check_life_goes_on(daemons: Daemons, a: Daemon, b: Daemon, stored: dict[bytes, bytes]) -> None:
    """While a's disk is full: its reads are right, it says what is wrong, it is heard, and meets a new member."""
    with a.connect() as on_a:
        assert contents(on_a) == stored
        assert on_a.status()["store"] == "full"
        (reason,) = on_a.call("node.health")["reasons"]
        assert reason.startswith("the store takes no writes")
    since_s = time.time()
    c = daemons("c").start("--seed", b.address)
    wait_until(lambda: a.state_of("c") == "alive" and c.state_of("a") == "alive")
    with b.connect() as on_b:
        heard = next(m for m in on_b.members() if m["name"] == "a")
        assert (heard["state"], heard["since_ms"] < since_s * 1000) == ("alive", True)
        assert contents(on_b) == stored
    c.terminate()


# A damaged row


def test_a_damaged_row_is_reported_and_not_served(daemons: Daemons) -> None:
    """A flipped bit in a value is an error for that key; other keys, and the daemon, are well."""
    a = daemons("a").start()
    with a.connect() as client:
        client.put("good", "intact")
        client.put("bad", "to be damaged")
    a.kill()
    flip(a.folder / "store.sqlite", b"to be damaged")
    a.start()

    with a.connect() as client:
        with pytest.raises(PeernodeError) as damaged:
            client.get("bad")
        assert damaged.value.code == "internal"
        assert damaged.value.message == "the stored entry is damaged: key b'bad' fails its checksum"
        assert client.get("good").value == b"intact"
        client.put("bad", "written again")
        assert client.get("bad").value == b"written again"
        assert contents(client) == {b"good": b"intact", b"bad": b"written again"}
    command = daemons.command("get", "good", "--node", "a")
    assert (command.returncode, command.stdout) == (0, "intact")


def test_a_damaged_row_that_expires_does_no_harm(daemons: Daemons) -> None:
    """The daemon looks for expired rows by itself: one that is damaged must not end it."""
    a = daemons("a").start()
    with a.connect() as client:
        client.put("bad", "to be damaged", ttl=1.0)
        client.put("good", "expires with it", ttl=1.0)
    a.kill()
    flip(a.folder / "store.sqlite", b"to be damaged")
    a.start()

    with a.connect() as client:
        wait_until(lambda: client.status()["keys"] == 1)  # the damaged one stays in the count
        client.put("after", "alive")
        assert client.get("after").value == b"alive"


def test_a_damaged_definition_is_not_taken_for_none(daemons: Daemons) -> None:
    """The name would mean another keyspace, and writes would go there: the daemon does not start, and says why."""
    a = daemons("a").start()
    with a.connect() as client:
        client.create_keyspace("bank", "coordinated")
    a.kill()
    flip(a.folder / "store.sqlite", b"\xabcoordinated")
    a.launch()

    assert a.wait() == 1
    assert "error: the store is damaged: key b'bank" in a.log.read_text()


def flip(database: Path, value: bytes) -> None:
    """One bit of a stored value, in the file of a daemon that does not run."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = database.read_bytes()
    assert content.count(value) == 1
    database.write_bytes(content.replace(value, bytes([value[0] ^ 1]) + value[1:]))


def contents(client: Client) -> dict[bytes, bytes]:
    return {item.key: item.value for item in client.scan()}
