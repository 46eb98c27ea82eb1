"""`peernode cluster`: real daemons on this machine, broken on purpose, and none of them left behind.

What a cut does is read from the kernel (/proc/net/tcp), not from what the daemons make of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from peernode import registry
from peernode.cluster import ClusterError, LocalCluster, NodeView
from peernode.cluster.cuts import partition
from peernode.net.dialler import split_address

from ..waiting import wait_until
from .daemons import Daemons, daemons_in, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and cuts with socket filters")


ESTABLISHED, SYN_SENT = "01", "02"
"""States in /proc/net/tcp."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """A cluster in a home of its own, ended and removed afterwards."""
    monkeypatch.setenv("PEERNODE_HOME", str(tmp_path))
    made = LocalCluster()
    try:
        yield made
    finally:
        made.down(purge=True)
        assert processes_of(tmp_path) == []


def processes_of(home: Path) -> list[int]:
    """Everything that was started to work in this home and still has a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # another user's, or gone
        if f"PEERNODE_HOME={home}".encode() in variables:
            found.append(int(folder.name))
    return found


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return Daemons(home).command("cluster", *arguments, timeout_s=60)


def node(cluster: LocalCluster, name: str) -> NodeView:
    return next(view for view in cluster.nodes() if view["name"] == name)


def states(cluster: LocalCluster) -> dict[str, str]:
    return {view["name"]: view["state"] for view in cluster.nodes()}


def members(cluster: LocalCluster, name: str) -> dict[str, str]:
    """How one node sees the others."""
    with cluster.connect(name) as client:
        return {member["name"]: member["state"] for member in client.members()}


def put(cluster: LocalCluster, name: str, key: str) -> None:
    with cluster.connect(name) as client:
        client.put(key, f"from {name}")


def keys(cluster: LocalCluster, name: str) -> list[bytes]:
    with cluster.connect(name) as client:
        return [item.key for item in client.scan()]


def digests(cluster: LocalCluster) -> set[str]:
    found = set()
    for view in cluster.nodes():
        with cluster.connect(view["name"]) as client:
            found.add(client.status()["digest"])
    return found


class End(NamedTuple):
    """One end of a TCP connection, as the kernel has it."""

    unacknowledged_bytes: int
    retransmissions: int


def link(cluster: LocalCluster, one: str, other: str) -> list[End]:
    """Both ends of each established connection between two nodes."""
    sockets: dict[tuple[str, str], tuple[str, End]] = {}
    for row in tcp_table():
        _, local, remote, state, queues, _, retransmissions, _, _, inode, *_ = row
        if state == ESTABLISHED:
            sockets[local, remote] = inode, End(int(queues.split(":")[0], 16), int(retransmissions, 16))
    ones, others = inodes(node(cluster, one)["pid"]), inodes(node(cluster, other)["pid"])
    ends = []
    for (local, remote), (inode, end) in sockets.items():
        peer_inode, peer_end = sockets.get((remote, local), ("", end))
        if inode in ones and peer_inode in others:
            ends += [end, peer_end]
    return ends


def tcp_table() -> list[list[str]]:
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]


def inodes(pid: int | None) -> set[str]:
    """The sockets that a process has open."""
    targets = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.append(str(descriptor.readlink()))
        except OSError:
            continue  # closed in the meantime
    return {
        target.removeprefix("socket:[").removesuffix("]")
        for target in targets
        if target.startswith("socket:")
    }


def is_dialling(cluster: LocalCluster, one: str, other: str) -> bool:
    """Whether a node has sent a SYN to the other's address that is not answered."""
    host, port = split_address(node(cluster, other)["address"])
    wanted = f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
    own = inodes(node(cluster, one)["pid"])
    return any(row[2:4] == [wanted, SYN_SENT] and row[9] in own for row in tcp_table())


def is_silent(ends: list[End]) -> bool:
    """Whether nothing that is sent is acknowledged, either way."""
    return len(ends) == 2 and all(end.unacknowledged_bytes and end.retransmissions for end in ends)


def test_up_status_and_down_from_the_command_line(cluster: LocalCluster, tmp_path: Path) -> None:
    """`up` makes nodes that share keys, grows, does nothing, restarts the same data; `down` leaves no process."""
    first = document(command(tmp_path, "up", "--json"))
    assert (first["cluster"], first["dir"]) == ("dev", str(tmp_path / "dev"))
    assert [(n["name"], n["state"]) for n in first["nodes"]] == [(n, "running") for n in ("n1", "n2", "n3")]
    put(cluster, "n1", "a")
    wait_until(lambda: keys(cluster, "n3") == [b"a"])

    grown = document(command(tmp_path, "up", "-n", "4", "--json"))
    assert grown["nodes"][:3] == first["nodes"]
    assert members(cluster, "n4") == {"n1": "alive", "n2": "alive", "n3": "alive", "n4": "alive"}
    assert keys(cluster, "n4") == [b"a"]
    assert document(command(tmp_path, "up", "-n", "2", "--json")) == grown

    stopped = document(command(tmp_path, "down", "--json"))
    assert [(n["state"], n["pid"]) for n in stopped["nodes"]] == [("stopped", None)] * 4
    assert processes_of(tmp_path) == []

    again = document(command(tmp_path, "up", "--json"))
    kept = ("name", "address", "socket", "data_dir", "state")
    assert [[n[k] for k in kept] for n in again["nodes"]] == [[n[k] for k in kept] for n in grown["nodes"]]
    assert keys(cluster, "n2") == [b"a"]

    document(command(tmp_path, "down", "--purge", "--json"))
    assert not (tmp_path / "dev").exists()


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_killed_node_is_dead_and_its_port_refuses(cluster: LocalCluster) -> None:
    """Nothing stands before a node: with it dies its port. `restart` brings it back to the same address."""
    cluster.up(3)
    before = node(cluster, "n2")
    cluster.kill(["n2"])

    assert states(cluster) == {"n1": "running", "n2": "dead", "n3": "running"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(split_address(before["address"]))
    wait_until(lambda: members(cluster, "n1") == {"n1": "alive", "n2": "dead", "n3": "alive"})

    cluster.restart(["n2"])
    after = node(cluster, "n2")
    assert (after["state"], after["address"]) == ("running", before["address"])
    assert after["pid"] != before["pid"]
    wait_until(lambda: members(cluster, "n1")["n2"] == "alive")


def test_a_paused_node_is_shown_and_can_be_resumed_and_ended(cluster: LocalCluster) -> None:
    """Paused is neither dead nor cut: its kernel acknowledges. `resume`, `up` and `down` all know what to do."""
    cluster.up(2)
    cluster.pause(["n2"])
    assert states(cluster) == {"n1": "running", "n2": "paused"}
    wait_until(lambda: members(cluster, "n1")["n2"] == "suspect")
    assert [end.retransmissions for end in link(cluster, "n1", "n2")] == [0, 0]

    cluster.resume(["n2"])
    assert states(cluster) == {"n1": "running", "n2": "running"}
    wait_until(lambda: members(cluster, "n1")["n2"] == "alive")

    cluster.pause(["n2"])
    cluster.up(2)
    assert states(cluster) == {"n1": "running", "n2": "running"}

    cluster.pause(["n2"])
    pid = node(cluster, "n2")["pid"]
    cluster.down()
    assert states(cluster) == {"n1": "stopped", "n2": "stopped"}
    assert not Path(f"/proc/{pid}").exists()
    assert "daemon.stopping" in cluster.logs(["n2"])["n2"].read_text()


def test_a_cut_is_silence_both_ways_that_outlives_a_restart(cluster: LocalCluster) -> None:
    """Of a cut pair neither hears the other, not even an acknowledgement; the rest is not touched; it heals."""
    cluster.up(3)
    cluster.cut("n1", "n2")
    assert [view["cut_from"] for view in cluster.nodes()] == [["n2"], ["n1"], []]
    wait_until(lambda: is_silent(link(cluster, "n1", "n2")), what="both ends to send again and again")
    assert [end.retransmissions for end in link(cluster, "n1", "n3")] == [0, 0]
    put(cluster, "n1", "a")
    put(cluster, "n2", "b")

    cluster.restart(["n1"])
    wait_until(lambda: link(cluster, "n1", "n3"), what="n1 to find n3 again")
    wait_until(lambda: is_dialling(cluster, "n1", "n2"), what="n1 to try n2")
    assert link(cluster, "n1", "n2") == []
    assert "dead" not in {
        state for view in cluster.nodes() for state in members(cluster, view["name"]).values()
    }

    cluster.heal()
    wait_until(lambda: link(cluster, "n1", "n2"), what="n1 and n2 to find each other")
    wait_until(lambda: len(digests(cluster)) == 1, 15, "equal digests")
    assert keys(cluster, "n2") == [b"a", b"b"]
    everybody = dict.fromkeys(("n1", "n2", "n3"), "alive")
    wait_until(lambda: all(members(cluster, name) == everybody for name in everybody), 15, "all to be alive")


def test_a_partition_keeps_sides_apart_and_heals_to_equal_data(cluster: LocalCluster) -> None:
    """Both sides take writes, nobody carries them over, n3 not named is a side; afterwards all hold all."""
    cluster.up(3)
    cluster.cut("n1", "n2")
    cluster.partition([["n1", "n2"]])
    assert [view["cut_from"] for view in cluster.nodes()] == [["n3"], ["n3"], ["n1", "n2"]]
    for name in ("n1", "n2", "n3"):
        put(cluster, name, f"by-{name}")
    wait_until(lambda: keys(cluster, "n1") == keys(cluster, "n2") == [b"by-n1", b"by-n2"], 15)
    wait_until(lambda: is_silent(link(cluster, "n1", "n3")) and is_silent(link(cluster, "n2", "n3")))
    assert keys(cluster, "n1") == keys(cluster, "n2") == [b"by-n1", b"by-n2"]
    assert keys(cluster, "n3") == [b"by-n3"]

    cluster.heal(["n3"])
    assert [view["cut_from"] for view in cluster.nodes()] == [[], [], []]
    wait_until(lambda: len(digests(cluster)) == 1, 15, "equal digests")
    assert keys(cluster, "n1") == keys(cluster, "n3") == [b"by-n1", b"by-n2", b"by-n3"]


def test_a_failed_up_ends_what_it_started_and_nothing_else(cluster: LocalCluster, tmp_path: Path) -> None:
    """n3 cannot start: n2 is ended again, n1 goes on, and the error names n3, why, and its log."""
    cluster.up(1)
    before = node(cluster, "n1")
    folder = tmp_path / "dev" / "n3"
    registry.make_private(folder)
    with (folder / "lock").open("w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        with pytest.raises(
            ClusterError, match="n3 ended instead of starting: another daemon runs on"
        ) as failed:
            cluster.up(3)

    assert (failed.value.exit_code, failed.value.hint) == (1, "peernode cluster logs n3")
    assert processes_of(tmp_path) == [before["pid"]]
    assert (node(cluster, "n1"), states(cluster)) == (
        before,
        {"n1": "running", "n2": "stopped", "n3": "stopped"},
    )


def test_an_interrupted_up_leaves_nothing(cluster: LocalCluster, tmp_path: Path) -> None:
    """SIGTERM in the middle of `up`: exit 130, and the daemons that were there already are gone."""
    starting = [sys.executable, "-P", "-m", "peernode", "cluster", "up", "-n", "3"]
    up = subprocess.Popen(starting, env=environment(tmp_path), stderr=subprocess.PIPE)
    wait_until(lambda: (tmp_path / "dev" / "cluster.json").exists(), what="the first daemon")
    up.send_signal(signal.SIGTERM)
    up.communicate(timeout=30)

    assert up.returncode == 130
    assert processes_of(tmp_path) == []


def test_a_process_number_that_is_used_again_is_never_signalled(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """A stranger has the number of a node that is long gone: it is not shown, not killed, not ended."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "dev").mkdir()
        n1 = (stranger.pid, "1", "127.0.0.1:7001")
        (tmp_path / "dev" / "cluster.json").write_text(json.dumps({"nodes": {"n1": n1}, "cuts": []}))

        assert (node(cluster, "n1")["pid"], states(cluster)) == (None, {"n1": "stopped"})
        with pytest.raises(ClusterError, match="n1 is stopped"):
            cluster.kill(["n1"])
        cluster.down()
        assert stranger.poll() is None
        stranger.kill()


def test_daemons_hold_nothing_that_up_was_started_with(cluster: LocalCluster) -> None:
    """A lock or a pipe of the calling script is free again as soon as `up` has ended."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    cluster.up(1)
    os.close(writing)

    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b""  # the end, since nobody has the other side open
    os.close(reading)


def test_a_node_started_by_hand_is_taken_over(cluster: LocalCluster, tmp_path: Path) -> None:
    """`run` in a node's folder counts as that node, but for cuts: it has no fault point, and a cut is all or none.

    What else is in the cluster's folder stays when the nodes are removed.
    """
    said: list[str] = []
    cluster = LocalCluster(say=said.append)
    cluster.up(2)
    cluster.kill(["n2"])
    with daemons_in(tmp_path) as daemons:
        by_hand, other = daemons("n2").start(), daemons("other").start()
        assert (node(cluster, "n2")["state"], node(cluster, "n2")["pid"]) == ("running", by_hand.pid)
        with by_hand.connect() as n2, cluster.connect("n1") as n1:
            assert ["faults.reload" in client.info()["methods"] for client in (n2, n1)] == [False, True]
        with pytest.raises(ClusterError, match="n2 was started by hand and cannot be cut"):
            cluster.cut("n1", "n2")
        assert [view["cut_from"] for view in cluster.nodes()] == [[], []]
        assert json.loads((tmp_path / "dev" / "n1" / "faults.json").read_text()) == {"deaf_to": []}

        cluster.down(purge=True)
        assert by_hand.wait() == 0
        assert other.state_of("other") == "alive"
    assert [path.name for path in (tmp_path / "dev").iterdir()] == ["other"]
    assert said[-1].endswith("since `cluster up` did not make it: other")


def test_what_cannot_be_done_is_refused_with_a_hint(cluster: LocalCluster, tmp_path: Path) -> None:
    """Each mistake has its exit code, says what is wrong, and changes nothing."""
    assert refused(tmp_path, "status") == (4, "there is no cluster dev", "peernode cluster up")
    assert refused(tmp_path, "cut", "n1", "n2", "--cluster", "elsewhere")[0] == 4
    assert document(command(tmp_path, "down", "--json"))["nodes"] == []
    cluster.up(2)
    cluster.kill(["n2"])
    mend = "start it with: peernode cluster restart n2"

    assert refused(tmp_path, "kill", "n2") == (4, "n2 is dead", mend)
    assert refused(tmp_path, "cut", "n1", "n2") == (4, "n2 is dead", mend)
    assert refused(tmp_path, "pause", "n1", "n9") == (3, "no node n9 in cluster dev", "there are n1, n2")
    assert refused(tmp_path, "cut", "n1", "n1")[:2] == (2, "n1 cannot be cut from itself")
    assert refused(tmp_path, "partition", "n1,n1")[:2] == (2, "n1 is named twice")
    assert refused(tmp_path, "up", "--cluster", "run")[0] == 2
    cluster.pause(["n1"])
    cluster.restart(["n2"])
    assert refused(tmp_path, "cut", "n2", "n1")[0::2] == (1, "first: peernode cluster resume n1")
    assert [view["cut_from"] for view in cluster.nodes()] == [[], []]


def refused(home: Path, *arguments: str) -> tuple[int, str, str]:
    done = command(home, *arguments, "--json")
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    return done.returncode, error["message"], error["hint"]


def test_logs_are_shown_and_followed(cluster: LocalCluster, tmp_path: Path) -> None:
    """`logs` gives what the daemons said, each line with its node; `--follow` goes on."""
    cluster.up(2)
    shown = command(tmp_path, "logs").stdout.splitlines()
    assert [line for line in shown if line.startswith("n2  ready n2 ")] != []
    assert {line.split()[0] for line in shown} == {"n1", "n2"}

    follow = [sys.executable, "-P", "-m", "peernode", "cluster", "logs", "n1", "--follow", "-o", "jsonl"]
    with subprocess.Popen(follow, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        cluster.kill(["n2"])
        for line in following.stdout:
            if "member.dead member=n2" in json.loads(line)["text"]:
                break
        following.send_signal(signal.SIGINT)
        following.stdout.close()
    assert following.returncode == 130


def test_a_partition_leaves_nobody_between_its_groups() -> None:
    """Every pair across groups is cut, and nodes that are not named are one group more; one group is none."""
    everybody = ["n1", "n2", "n3", "n4"]
    across = {
        frozenset(pair) for pair in (("n1", "n2"), ("n1", "n3"), ("n1", "n4"), ("n2", "n3"), ("n2", "n4"))
    }
    assert partition([["n1"], ["n2"]], everybody) == across

    with pytest.raises(ClusterError, match="all nodes are in one group"):
        partition([everybody], everybody)
