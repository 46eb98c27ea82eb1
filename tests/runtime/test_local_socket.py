"""The local socket of a real daemon: what clients may send, what they are told, and what nobody else notices."""

from __future__ import annotations

import random
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from protocol.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX

from ..e2e.daemons import Daemon, Daemons, daemons_in
from ..e2e.patched import patched
from ..waiting import wait_until
from .raw_client import RawClient, request

MIB = 1 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests of this module: it has to survive them all."""
    with daemons_in(tmp_path_factory.mktemp("home")) as daemons:
        yield daemons("a").start()


@pytest.fixture(autouse=True)
def unharmed(daemon: Daemon) -> Iterator[None]:
    """Whatever one client does, the daemon serves the next."""
    yield
    assert daemon.process is not None
    assert daemon.process.poll() is None, daemon.log.read_text()
    with daemon.connect() as client:
        client.put("unharmed", "yes")
        assert client.get("unharmed").value == b"yes"


# Refusals that the connection survives


@pytest.mark.parametrize(
    ("method", "params", "code", "told"),
    [
        ("kv.put", {"key": "k" * (KEY_BYTES_MAX + 1), "value": ""}, "too_large", "the limit is 1024"),
        ("kv.put", {"key": "k", "value": b"v" * (VALUE_BYTES_MAX + 1)}, "too_large", "the limit is 262144"),
        ("kv.put", {"key": "", "value": "v"}, "invalid", "the key is empty"),
        ("kv.put", {"key": "k"}, "invalid", "`value`"),
        ("kv.put", {"key": 7, "value": "v"}, "invalid", "`$.key`"),
        ("kv.put", {"key": "k", "value": "v", "ttl_ms": "soon"}, "invalid", "`$.ttl_ms`"),
        ("kv.put", {"key": "k", "value": "v", "ttl_ms": 0}, "invalid", "a TTL of 0 ms"),
        ("kv.put", {"key": "k", "value": "v", "colour": "red"}, "invalid", "`colour`"),
        ("kv.put", {b"key": "k", b"value": "v"}, "invalid", "kv.put"),
        ("kv.put", ["k", "v", "default", None, None, False, "disk", "more"], "invalid", "at most 7"),
        ("kv.put", {"key": "k", "value": "v", "durability": "hope"}, "invalid", "memory or disk"),
        ("kv.get", {"key": "k", "level": "galactic"}, "invalid", "level"),
        ("kv.scan", {"limit": 0}, "invalid", "`$.limit`"),
        ("kv.scan", {"after": {"a": "map"}}, "invalid", "`$.after`"),
        ("cluster.join", {"seeds": "not a list"}, "invalid", "`$.seeds`"),
        ("cluster.join", {"seeds": ["a..b:1"]}, "invalid", "is no address"),
        ("ticket.create", {"uses": 0}, "invalid", "uses"),
        ("ticket.revoke", {"id": "no hex"}, "invalid", "is no ticket id"),
        ("ticket.revoke", {"id": "00"}, "not_found", "no such ticket"),
        ("kv.levitate", {}, "unknown_method", "'kv.levitate'"),
        ("", {}, "unknown_method", "''"),
    ],
)
def test_a_bad_request_is_refused_by_name(
    daemon: Daemon, method: str, params: object, code: str, told: str
) -> None:
    """The error names what is wrong, and the same connection goes on to be served."""
    with RawClient(daemon.folder / "sock") as client:
        kind, number, error, result = client.ask(method, params, number=7)

        assert (kind, number, error["code"], result) == (1, 7, code, None)
        assert told in error["message"]
        assert client.ask("kv.scan", {"prefix": "nothing/"})[2:] == [None, {"items": [], "next": None}]


@pytest.mark.parametrize("params", [7, "key", None, msgpack.ExtType(1, b"")])
def test_params_that_are_neither_map_nor_list_are_refused(daemon: Daemon, params: object) -> None:
    """Parameters of another shape are `invalid`, and the connection lives on."""
    with RawClient(daemon.folder / "sock") as client:
        client.send(msgpack.packb([0, 1, "kv.get", params]))

        assert client.receive()[2]["code"] == "invalid"
        assert client.ask("kv.scan", {"prefix": "nothing/"})[2] is None


def test_the_largest_key_and_value_are_taken(daemon: Daemon) -> None:
    """What is just within the limits is stored and comes back whole."""
    key, value = b"\xff" * KEY_BYTES_MAX, b"\0" * VALUE_BYTES_MAX
    with RawClient(daemon.folder / "sock") as client:
        assert client.ask("kv.put", {"key": key, "value": value})[2] is None
        assert client.ask("kv.get", {"key": key})[3]["value"] == value
        assert client.ask("kv.delete", {"key": key})[3]["deleted"] is True


def test_parameters_may_be_given_by_position(daemon: Daemon) -> None:
    """A list stands for the parameters in the order of the method, as in plain MessagePack-RPC."""
    with RawClient(daemon.folder / "sock") as client:
        assert client.ask("kv.put", ["by-position", "v"])[2] is None
        assert client.ask("kv.get", ["by-position"])[3]["value"] == b"v"
        assert client.ask("kv.get", [{"key": "by-position"}])[3]["value"] == b"v"


def test_strings_mean_their_utf8_and_answers_are_bytes(daemon: Daemon) -> None:
    """A str key is its UTF-8; what comes back is msgpack bin."""
    with RawClient(daemon.folder / "sock") as client:
        client.ask("kv.put", {"key": "straße", "value": "größe"})

        assert client.ask("kv.get", {"key": "straße".encode()})[3]["value"] == "größe".encode()


def test_deep_nesting_is_refused(daemon: Daemon) -> None:
    """A deep value where bytes belong is `invalid`; one too deep to be parsed ends the connection."""
    deep: object = []
    for _ in range(100):
        deep = [deep]
    with RawClient(daemon.folder / "sock") as client:
        assert client.ask("kv.get", {"key": deep})[2]["code"] == "invalid"
        client.send(b"\x94\x00\x01\xa6kv.get" + b"\x91" * 5000)

        (answer,) = client.receive_all()
    assert answer[2]["code"] == "invalid"


# What ends a connection, after telling why


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
        pytest.param(b"\xc1", id="a byte that is no msgpack"),
        pytest.param(b"\xc0", id="nil"),
        pytest.param(msgpack.packb([0, 1, "kv.get"]), id="too short"),
        pytest.param(msgpack.packb([0, "one", "kv.get", []]), id="a number that is none"),
        pytest.param(msgpack.packb([1, 1, None, None]), id="an answer"),
        pytest.param(msgpack.packb({"method": "kv.get"}), id="a map"),
        pytest.param(msgpack.packb([0, 1, "kv.get", [msgpack.ExtType(1, b"x")]]), id="an ext type"),
        pytest.param(msgpack.packb([0, 1, "kv.get", [msgpack.Timestamp(1)]]), id="a timestamp"),
        pytest.param(b"\x94\x00\x01\xa2\xff\xfe\x90", id="a method that is no UTF-8"),
        pytest.param(b"\x94\x00\x01\xa6kv.get\x91\x81\xc0\xc0", id="a key of a map that is nil"),
    ],
)
def test_garbage_is_told_and_cut(daemon: Daemon, raw: bytes) -> None:
    """What is no request is answered once, under number 0, and then the daemon hangs up."""
    with RawClient(daemon.folder / "sock") as client:
        client.send(raw)
        (answer,) = client.receive_all()

    assert answer[:2] == [1, 0]
    assert answer[2]["code"] == "invalid"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(request("kv.put", {"key": "k", "value": b"v" * MIB}), id="one value"),
        pytest.param(
            b"\x94\x00\x01\xa6kv.put\x91\xc6\xff\xff\xff\xff" + b"v" * (2 * MIB), id="a value of 4 GiB"
        ),
        pytest.param(
            b"\x94\x00\x01\xa6kv.put\xdc\x10\x00" + 16 * (b"\xc6\x00\x02\x00\x00" + b"v" * (1 << 17)),
            id="many values, never whole",
        ),
    ],
)
def test_an_oversized_message_is_told_and_cut(daemon: Daemon, raw: bytes) -> None:
    """More than 1 MiB in one message, whole or not, is `too_large`, and then the daemon hangs up."""
    with RawClient(daemon.folder / "sock") as client:
        client.send(raw)
        (answer,) = client.receive_all()

    assert answer[:2] == [1, 0]
    assert answer[2]["code"] == "too_large"


def test_half_a_message_is_no_request(daemon: Daemon) -> None:
    """A client that ends in the middle of a message gets no answer and does nothing."""
    whole = request("kv.put", {"key": "half", "value": "v"})
    with RawClient(daemon.folder / "sock") as client:
        client.send(whole[:-1])
        client.sock.shutdown(socket.SHUT_WR)
        assert client.receive_all() == []

    with daemon.connect() as other:
        assert other.get("half") is None


def test_a_client_that_ends_its_output_gets_its_answers(daemon: Daemon) -> None:
    """Send, shut down the sending half, read: every request is answered before the daemon hangs up."""
    with RawClient(daemon.folder / "sock") as client:
        client.send(request("kv.put", {"key": "last", "value": "v"}, 1) + request("api.info", number=2))
        client.sock.shutdown(socket.SHUT_WR)
        answers = client.receive_all()

    assert sorted((answer[1], answer[2]) for answer in answers) == [(1, None), (2, None)]


def test_random_bytes_never_hurt(daemon: Daemon) -> None:
    """Requests with random changes are answered or cut; the daemon outlives them all."""
    rng = random.Random(1)
    samples = [
        request("kv.put", {"key": "fuzz", "value": b"v" * 40, "ttl_ms": 1000}),
        request("kv.scan", {"prefix": "fuzz", "limit": 3}),
        request("ticket.create", {"ttl_ms": 5, "uses": 1, "seeds": ["127.0.0.1:1"]}),
    ]
    for _ in range(300):
        raw = bytearray(rng.choice(samples))
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        with RawClient(daemon.folder / "sock") as client:
            client.send(bytes(raw))
            client.sock.shutdown(socket.SHUT_WR)
            assert all(answer[0] == 1 for answer in client.receive_all())


# Many requests


def test_answers_come_when_they_are_there(daemon: Daemon) -> None:
    """A write waits for the disk; a request behind it does not wait for the write."""
    with RawClient(daemon.folder / "sock") as client:
        client.send(request("kv.put", {"key": "slow", "value": "v"}, 1) + request("api.info", number=2))

        assert [client.receive()[1], client.receive()[1]] == [2, 1]


def test_a_read_behind_a_write_sees_it(daemon: Daemon) -> None:
    """Pipelined on one connection, a get of a key that is being written answers with what was written."""
    with RawClient(daemon.folder / "sock") as client:
        client.send(request("kv.put", {"key": "k2", "value": "v2"}, 1) + request("kv.get", {"key": "k2"}, 2))
        answers = {answer[1]: answer for answer in (client.receive(), client.receive())}

    assert answers[2][3]["value"] == b"v2"


def test_notifications_are_ignored(daemon: Daemon) -> None:
    """A notification has no answer, whatever it names."""
    with RawClient(daemon.folder / "sock") as client:
        client.send(msgpack.packb([2, "kv.put", [{"key": "notified", "value": "v"}]]))
        client.send(msgpack.packb([2, "no.such", []]))

        assert client.ask("kv.get", {"key": "notified"})[2]["code"] == "not_found"


def test_a_client_that_does_not_read_costs_bounded_memory(daemon: Daemon) -> None:
    """Requests for 500 MiB of answers, none of them read: the daemon stops reading, others are served."""
    with daemon.connect() as other:
        other.put("large", b"v" * VALUE_BYTES_MAX)
        before_kib = reset_peak_kib(daemon)
        with RawClient(daemon.folder / "sock", timeout_s=30) as client:
            client.send(b"".join(request("kv.get", {"key": "large"}, number) for number in range(2000)))
            for number in range(20):
                other.put("meanwhile", str(number))
            answered = sorted(client.receive()[1] for _ in range(2000))

    assert peak_kib(daemon) - before_kib < 64 * 1024
    assert answered == list(range(2000))


SLOW_DISK = """
import time
from peernode.store.writer import Writer
apply = Writer.apply
def slowly(self, stages):
    time.sleep(0.02)
    apply(self, stages)
Writer.apply = slowly
"""


def test_writes_on_a_slow_disk_cost_bounded_memory(daemons: Daemons) -> None:
    """Writes of 64 MiB, sent without waiting, are taken as the disk takes them: all of them, in the end."""
    slow = daemons("slow").start(prefix=patched(SLOW_DISK))
    before_kib = reset_peak_kib(slow)
    with slow.connect(timeout_s=60) as client:
        value = b"v" * VALUE_BYTES_MAX
        answers = client.call_many([("kv.put", {"key": "large", "value": value}) for _ in range(256)])

    assert [type(answer) for answer in answers] == [dict] * 256
    assert peak_kib(slow) - before_kib < 40 * 1024


def test_a_client_that_hangs_up_on_its_answers_is_forgotten(daemon: Daemon) -> None:
    """Closing with unread answers resets the connection: nobody but that client is concerned."""
    with daemon.connect() as other:
        other.put("large", b"v" * VALUE_BYTES_MAX)
    for _ in range(5):
        with RawClient(daemon.folder / "sock") as client:
            client.send(b"".join(request("kv.get", {"key": "large"}, number) for number in range(50)))
            client.sock.recv(1)  # the answers have begun to come


# The socket file


def test_the_socket_is_for_its_user_alone(daemon: Daemon) -> None:
    """The socket has mode 0600 and lies in a folder of mode 0700."""
    sock = (daemon.folder / "sock").stat()

    assert (stat.S_ISSOCK(sock.st_mode), stat.S_IMODE(sock.st_mode)) == (True, 0o600)
    assert stat.S_IMODE(daemon.folder.stat().st_mode) == 0o700


def test_a_second_daemon_on_the_same_folder_is_refused(daemon: Daemon) -> None:
    """The second one says which folder is taken, and the first one goes on."""
    second = Daemons(daemon.home).command("run", "--name", "a", "--listen", "127.0.0.1:0")

    assert second.returncode == 1
    assert second.stderr == f"peernode: error: another daemon runs on {daemon.folder}\n"


def test_a_second_daemon_on_the_same_socket_is_refused(daemon: Daemon, daemons: Daemons) -> None:
    """A socket that somebody answers at is not taken over."""
    sock = str(daemon.folder / "sock")
    second = daemons.command("run", "--name", "b", "--listen", "127.0.0.1:0", "--socket", sock)

    assert second.returncode == 1
    assert f"another daemon listens at {sock}" in second.stderr


def test_a_file_that_is_no_socket_is_left_alone(daemons: Daemons, tmp_path: Path) -> None:
    """A mistaken --socket does not cost the file that it names."""
    precious = tmp_path / "precious"
    precious.write_text("data")
    refused = daemons.command("run", "--name", "a", "--listen", "127.0.0.1:0", "--socket", str(precious))

    assert refused.returncode == 1
    assert f"{precious} is there and is no socket" in refused.stderr
    assert precious.read_text() == "data"


def test_a_socket_left_by_a_killed_daemon_is_replaced(daemons: Daemons) -> None:
    """After kill -9 the file is still there; the next start takes its place."""
    a = daemons("a").start()
    a.kill()
    assert (a.folder / "sock").is_socket()

    a.start()
    with a.connect() as client:
        assert client.status()["name"] == "a"
    assert a.terminate() == 0
    assert not (a.folder / "sock").exists()


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    """Where the folder's path is too long for a socket, the socket lies in a private folder elsewhere."""
    with daemons_in(tmp_path / ("long" * 20)) as daemons:
        daemons.home.mkdir()
        a = daemons("a").start()
        sock = Path(a.ready.split(" socket ")[1].split()[0])

        assert len(str(sock)) <= 100
        assert stat.S_IMODE(sock.parent.stat().st_mode) == 0o700
        wait_until(lambda: daemons.command("status", "--node", "a").returncode == 0)


def reset_peak_kib(daemon: Daemon) -> int:
    """Resident memory of the process now; `peak_kib` counts from here."""
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")
    return peak_kib(daemon)


def peak_kib(daemon: Daemon) -> int:
    """The most resident memory since the peak was reset."""
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
