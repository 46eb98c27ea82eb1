"""The peers' port of a real daemon in a cluster of two: strangers, and a member that breaks the rules.

Whatever comes, the named fault is counted and logged, the peer is told why where TLS is up, and the two honest
members never notice.
"""

from __future__ import annotations

import resource
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from peernode.limits import HANDSHAKE_S, STRANGERS_MAX
from protocol.errors import Fault
from protocol.limits import FRAME_BYTES_MAX
from protocol.membership.record import Heartbeat
from protocol.replica.entry import Row
from protocol.replica.replica import Batch
from protocol.types import node_text
from protocol.wire.frames import Kind, frame
from protocol.wire.hello import Close

from ..waiting import wait_until
from .daemons import Daemon, Daemons, daemons_in
from .hostile import Hostile, dial
from .patched import patched

BEAT = Heartbeat(0, 1, 1, 0, b"", [], [], [], [])


class Cluster(NamedTuple):
    """a is attacked; b is its honest peer; mallory is a member that does not run."""

    a: Daemon
    b: Daemon
    mallory: Path
    stranger: Path
    """A node of another cluster."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with daemons_in(tmp_path_factory.mktemp("home")) as daemons:
        a = daemons("a").start()
        b = daemons("b").start("--seed", a.address)
        mallory = daemons("mallory").start("--seed", a.address)
        mallory.terminate()
        assert daemons.command("init", "--name", "x", "--cluster", "other").returncode == 0
        wait_until(lambda: linked(a, "b"))
        yield Cluster(a, b, mallory.folder, daemons.home / "other" / "x")


@pytest.fixture(autouse=True)
def unharmed(cluster: Cluster) -> Iterator[None]:
    """The daemon serves on, its link to the honest member is the same as before, and that link works."""
    before = linked(cluster.a, "b")
    yield
    assert cluster.a.process is not None
    assert cluster.a.process.poll() is None, cluster.a.log.read_text()
    assert linked(cluster.a, "b") == before
    with cluster.a.connect() as on_a, cluster.b.connect() as on_b:
        value = str(time.monotonic_ns())
        on_a.put("unharmed", value)
        wait_until(lambda: (item := on_b.get("unharmed")) and item.value == value.encode())


# Strangers


def silent_reset(cluster: Cluster) -> None:
    with dial(cluster.a.address) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_connection_that_is_reset_at_once_is_nothing(cluster: Cluster) -> None:
    """A port scan resets its connections before it says a byte: nobody is refused, nothing breaks."""
    before = refused(cluster.a)
    for _ in range(50):
        silent_reset(cluster)
    with dial(cluster.a.address) as plain:
        plain.sendall(b"end")
        assert ends(plain)  # those before it were accepted before it

    assert {**refused(cluster.a), "malformed": 0} == {**before, "malformed": 0}


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\n\r\n", b"\0", b"j", b"\x15\x03\x03"])
def test_garbage_first_bytes_are_malformed(cluster: Cluster, raw: bytes) -> None:
    """A first byte that is neither TLS nor a joiner's ends the connection at once."""
    with faults(cluster.a, Fault.MALFORMED, "neither TLS nor a joiner's"), dial(cluster.a.address) as plain:
        plain.sendall(raw)
        assert ends(plain)


def test_garbage_behind_a_tls_byte_is_no_member(cluster: Cluster) -> None:
    """Bytes that only begin like TLS fail the handshake."""
    with faults(cluster.a, Fault.NOT_A_MEMBER, "TLS handshake"), dial(cluster.a.address) as plain:
        plain.sendall(b"\x16" * 400)
        assert ends(plain)


def test_tls_without_a_certificate_is_no_member(cluster: Cluster) -> None:
    """A client that shows no certificate does not get past TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        faults(cluster.a, Fault.NOT_A_MEMBER, "did not return a certificate"),
        dial(cluster.a.address) as plain,
        context.wrap_socket(plain) as secured,
    ):
        assert ends(secured)


def test_old_tls_is_refused(cluster: Cluster) -> None:
    """TLS 1.2 is no protocol of ours."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        faults(cluster.a, Fault.NOT_A_MEMBER, "TLS handshake"),
        dial(cluster.a.address) as plain,
        pytest.raises(OSError),
    ):
        context.wrap_socket(plain)


def test_a_certificate_of_another_cluster_is_no_member(cluster: Cluster) -> None:
    """A genuine node of another cluster does not get past TLS."""
    with (
        faults(cluster.a, Fault.NOT_A_MEMBER, "certificate verify failed"),
        Hostile(cluster.stranger, cluster.a.address) as stranger,
    ):
        stranger.context.verify_mode = ssl.CERT_NONE  # it would like to come in all the same
        with dial(cluster.a.address) as plain, stranger.context.wrap_socket(plain) as secured:
            assert ends(secured)


def test_a_handshake_that_stops_is_timed_out(cluster: Cluster) -> None:
    """Who begins TLS and says no more is hung up on within the handshake's time."""
    with (
        faults(cluster.a, Fault.TIMEOUT, "did not finish its handshake"),
        dial(cluster.a.address, timeout_s=HANDSHAKE_S + 10) as plain,
    ):
        plain.sendall(b"\x16\x03\x01")
        assert ends(plain)


# In the handshake of a member


@pytest.mark.parametrize(
    ("fault", "told", "spoil"),
    [
        (Fault.TOO_LARGE, "4294967295", lambda m: m.send(struct.pack(">IB", 0xFFFFFFFF, Kind.HELLO))),
        (Fault.MALFORMED, "unknown kind 77", lambda m: m.send(struct.pack(">IB", 1, 77))),
        (Fault.MALFORMED, "HELLO", lambda m: m.send(frame(Kind.HELLO, b"\xc1"))),
        (Fault.MALFORMED, "middle of the handshake", lambda m: m.send(m.seal(BEAT))),
        (Fault.WRONG_CLUSTER, "of cluster 0707", lambda m: m.send_hello(m.hello(cluster_id=b"\7" * 16))),
        (Fault.NOT_A_MEMBER, "another node", lambda m: m.send_hello(m.hello(node_id=b"\7" * 32))),
        (Fault.BAD_SIGNATURE, "HELLO", lambda m: m.send_hello(m.hello(), lambda _: bytes(64))),
        (Fault.BAD_TRANSCRIPT, "not CONFIRM", lambda m: (m.send_hello(m.hello()), m.send(m.seal(BEAT)))),
    ],
)
def test_a_faulty_handshake_is_refused_by_name(
    cluster: Cluster, fault: Fault, told: str, spoil: Callable[[Hostile], object]
) -> None:
    """TLS is up, so the peer is told the reason in a CLOSE; then the daemon hangs up."""
    with faults(cluster.a, fault, told), Hostile(cluster.mallory, cluster.a.address) as mallory:
        mallory.connect()
        spoil(mallory)

        assert mallory.told().fault == fault
        assert mallory.is_cut()


def test_a_handshake_without_a_common_version_names_both_ranges(cluster: Cluster) -> None:
    """Version 1 to 1 here, 2 to 3 there: CLOSE and log say both."""
    with Hostile(cluster.mallory, cluster.a.address) as mallory:
        theirs = f"{node_text(mallory.keys.node_id)[:8]} speaks protocol versions 2 to 3"
        with faults(cluster.a, Fault.UNSUPPORTED_VERSION, theirs):
            a_id = mallory.connect()
            mallory.send_hello(mallory.hello(protocol_min=2, protocol_max=3))
            close = mallory.told()

    ours = f"{node_text(a_id)[:8]} speaks protocol versions 1 to 1"
    assert close.fault == Fault.UNSUPPORTED_VERSION
    assert close.text == f"{ours}, {theirs}"
    assert close.text in cluster.a.log.read_text()


def test_two_daemons_without_a_common_version_both_say_so(daemons: Daemons) -> None:
    """A real daemon of another version range: both logs name both ranges, and each lives on without the other."""
    a = daemons("a").start()
    b = daemons("b").start("--seed", a.address)
    b.kill()
    b.start(prefix=patched(NEWER))

    a_id, b_id = (daemon.ready.split()[2][:8] for daemon in (a, b))
    ours, theirs = f"{a_id} speaks protocol versions 1 to 1", f"{b_id} speaks protocol versions 2 to 3"
    for daemon in (a, b):
        wait_until(lambda log=daemon.log: said(log, "unsupported_version", ours, theirs))
        with daemon.connect() as client:
            assert client.put("k", daemon.name)
            assert client.status()["refused"]["unsupported_version"] >= 1
    assert a.state_of("b") != "alive"


NEWER = """
import msgspec
from peernode.daemon import serve
older = serve.config_of
serve.config_of = lambda setup: msgspec.structs.replace(older(setup), protocol_min=2, protocol_max=3)
"""


def test_daemons_that_cannot_agree_meet_ever_more_rarely(daemons: Daemons) -> None:
    """A member whose every message is of an unknown version is cut each time, and not in a busy loop."""
    a = daemons("a").start()
    b = daemons("b").start("--seed", a.address)
    b.kill()
    b.launch(prefix=patched(OTHER_VERSION))

    ranges = "we speak protocol versions 1 to 1, the peer said it speaks 1 to 1"
    for log in (a.log, b.log):
        wait_until(lambda log=log: said(log, "message of version 2", ranges))
    wait_until(lambda: refused(a).get("unsupported_version", 0) >= 3)
    until_s = time.monotonic() + 2
    wait_until(lambda: time.monotonic() > until_s)
    assert a.log.read_text().count("reason=unsupported_version") < 40


OTHER_VERSION = """
from protocol import signing
Sealer = signing.Sealer
signing.Sealer = lambda keys, registry, version, run: Sealer(keys, registry, 2, run)
"""


# On a link


@pytest.mark.parametrize(
    ("fault", "told", "spoil"),
    [
        (Fault.TOO_LARGE, "4294967295", lambda m: struct.pack(">IB", 0xFFFFFFFF, Kind.ENVELOPE)),
        (Fault.TOO_LARGE, str(FRAME_BYTES_MAX + 1), lambda m: struct.pack(">IB", FRAME_BYTES_MAX + 1, 1)),
        (Fault.MALFORMED, "unknown kind 9", lambda m: struct.pack(">IB", 0, 9)),
        (Fault.MALFORMED, "HELLO on a link", lambda m: frame(Kind.HELLO, b"")),
        (Fault.MALFORMED, "envelope", lambda m: frame(Kind.ENVELOPE, b"\xc1 no msgpack")),
        (Fault.MALFORMED, "envelope", lambda m: frame(Kind.ENVELOPE, b"\x91" * 100_000)),
        (Fault.MALFORMED, "envelope", lambda m: frame(Kind.ENVELOPE, b"")),
        (Fault.MALFORMED, "Heartbeat", lambda m: m.seal(BEAT, payload=msgspec.Raw(b"\x91\xa3abc"))),
        (Fault.MALFORMED, "recursion", lambda m: m.seal(BEAT, payload=msgspec.Raw(b"\x91" * 2000 + b"\xc0"))),
        (Fault.MALFORMED, "outside its range", lambda m: m.seal(batch(seq=9))),
        (Fault.MALFORMED, "Batch", lambda m: m.seal(batch(value=b"v" * 300_000))),
        (Fault.BAD_SIGNATURE, "type 11", lambda m: m.seal(BEAT, sign=lambda _: bytes(64))),
        (Fault.WRONG_CLUSTER, "0707", lambda m: m.seal(BEAT, cluster_id=b"\7" * 16)),
        (Fault.UNKNOWN_TYPE, "type 999", lambda m: m.seal(BEAT, type=999)),
        (Fault.NOT_A_MEMBER, "somebody else", lambda m: m.seal(BEAT, origin=b"\7" * 32)),
        (Fault.NOT_A_MEMBER, "without a certificate", lambda m: m.seal(m.record("h:1", credential=[]))),
        (Fault.BAD_SIGNATURE, "type 20", lambda m: m.seal(batch(), sign=lambda _: bytes(64))),
        (Fault.REPLAYED, "message 1 after 1", lambda m: m.seal(BEAT) * 2),
        (Fault.REPLAYED, "message 3 after 5", lambda m: m.seal(BEAT, seq=5) + m.seal(BEAT, seq=3)),
    ],
)
def test_a_faulty_message_is_refused_by_name(
    cluster: Cluster, fault: Fault, told: str, spoil: Callable[[Hostile], bytes]
) -> None:
    """A member's link is cut at its first fault, and the member is told which one."""
    with faults(cluster.a, fault, told), Hostile(cluster.mallory, cluster.a.address) as mallory:
        mallory.shake_hands()
        mallory.send(spoil(mallory))

        close = mallory.told()
        assert close.fault == fault
        assert told in close.text
        assert mallory.is_cut()


def test_a_message_of_an_unknown_version_names_both_ranges(cluster: Cluster) -> None:
    """A message of version 2 on a link that agreed on 1: CLOSE and log say what each side speaks."""
    told = "a message of version 2: we speak protocol versions 1 to 1, the peer said it speaks 1 to 1"
    with (
        faults(cluster.a, Fault.UNSUPPORTED_VERSION, told),
        Hostile(cluster.mallory, cluster.a.address) as mallory,
    ):
        mallory.shake_hands()
        mallory.send(mallory.seal(BEAT, v=2))

        assert mallory.told() == Close(Fault.UNSUPPORTED_VERSION, told)


def test_nothing_of_a_refused_batch_is_stored(cluster: Cluster) -> None:
    """Rows under a bad signature are never read by anybody."""
    with Hostile(cluster.mallory, cluster.a.address) as mallory:
        mallory.shake_hands()
        mallory.send(mallory.seal(batch(key=b"forged"), sign=lambda _: bytes(64)))
        assert mallory.told().fault == Fault.BAD_SIGNATURE

    with cluster.a.connect() as on_a, cluster.b.connect() as on_b:
        assert (on_a.get("forged"), on_b.get("forged")) == (None, None)


@pytest.mark.parametrize("address", ["no address", "a..b:1", "\0:1", "x" * 70 + ":1", "host:99999", ""])
def test_a_member_may_announce_any_address(cluster: Cluster, address: str) -> None:
    """An address that nobody can dial makes a member that cannot be dialled, and nothing else."""
    with Hostile(cluster.mallory, cluster.a.address) as mallory:
        mallory.shake_hands()
        mallory.send(mallory.seal(mallory.record(address)))
        for daemon in (cluster.a, cluster.b):
            wait_until(lambda d=daemon: address_of(d, "mallory") == address)


def test_too_many_messages_are_cut(cluster: Cluster) -> None:
    """A member that floods its link is over its quota."""
    with (
        faults(cluster.a, Fault.QUOTA, "messages a second"),
        Hostile(cluster.mallory, cluster.a.address) as mallory,
    ):
        mallory.shake_hands()
        known = mallory.seal(mallory.record("h:1"), seq=0)  # so cheap that only its count can stop it
        try:
            for _ in range(60):
                mallory.send(known * 1000)
        except ConnectionError:
            pass
        assert mallory.told().fault == Fault.QUOTA


# A thousand silent connections


def test_a_thousand_silent_connections_keep_nobody_out(cluster: Cluster) -> None:
    """While they are open a third node joins, and the daemon's memory and files stay bounded."""
    allow_files(3000)
    memory_kib, files = used(cluster.a)
    silent = [dial(cluster.a.address) for _ in range(1000)]
    try:
        wait_until(lambda: refused(cluster.a).get("timeout", 0) >= 1000 - STRANGERS_MAX)
        with daemons_in(cluster.a.home) as daemons:
            c = daemons("c").start("--seed", cluster.a.address)
            for one, other in ((cluster.a, "c"), (cluster.b, "c"), (c, "a"), (c, "b")):
                wait_until(lambda d=one, name=other: d.state_of(name) == "alive")
            memory_then_kib, files_then = used(cluster.a)
            with cluster.a.connect() as on_a:
                on_a.put("in the flood", "v")
            c.terminate()
    finally:
        for plain in silent:
            plain.close()

    assert files_then - files <= STRANGERS_MAX + 16
    assert memory_then_kib - memory_kib < 32 * 1024


# What is measured


@contextmanager
def faults(daemon: Daemon, fault: Fault, told: str) -> Iterator[None]:
    """Inside, the daemon must count exactly one more of this fault, and log it with these words."""
    before, read = refused(daemon).get(fault.value, 0), len(daemon.log.read_text())
    yield
    wait_until(lambda: refused(daemon).get(fault.value, 0) > before)
    assert refused(daemon)[fault.value] == before + 1
    new = daemon.log.read_text()[read:]
    lines = [line for line in new.splitlines() if f"reason={fault.value}" in line]
    assert any(told in line for line in lines), new


def refused(daemon: Daemon) -> dict[str, int]:
    with daemon.connect() as client:
        return dict(client.status()["refused"])


def linked(daemon: Daemon, name: str) -> tuple[int, int] | None:
    """The run of a member and since when it is alive here: both change when its link breaks."""
    with daemon.connect() as client:
        found = [m for m in client.members() if m["name"] == name and m["state"] == "alive" and m["reached"]]
    return (found[0]["run"], found[0]["since_ms"]) if found else None


def address_of(daemon: Daemon, name: str) -> str | None:
    with daemon.connect() as client:
        return next((m["address"] for m in client.members() if m["name"] == name), None)


def said(log: Path, *words: str) -> bool:
    """Whether one line of the log has all the words."""
    return any(all(word in line for word in words) for line in log.read_text().splitlines())


def ends(sock: socket.socket) -> bool:
    """Whether the other end hangs up without a word for us; waits for it."""
    try:
        return sock.recv(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True


def used(daemon: Daemon) -> tuple[int, int]:
    """Resident KiB and open files of the process."""
    process = Path(f"/proc/{daemon.pid}")
    lines = (process / "status").read_text().splitlines()
    resident_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return resident_kib, len(list((process / "fd").iterdir()))


def allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard < wanted:
            pytest.skip(f"{wanted} open files are needed, {hard} allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def batch(seq: int = 1, key: bytes = b"k", value: bytes = b"v") -> Batch:
    """One row of an author that wrote nothing before."""
    return Batch(1, 1, 1, [Row(seq, 1, key, 1 << 16, value)])
