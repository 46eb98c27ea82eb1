"""Coordinated writes beside etcd and PySyncObj: three nodes each, on this machine, everything durable.

The client of peernode and of etcd is the one of all measurements (driver.py): requests encoded in advance, one
process for all connections. etcd is asked at its leader, over gRPC; peernode at a voter, over its Unix socket.
PySyncObj is a library: it is driven from inside one of its nodes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Protocol

from ..waiting import wait_until
from . import grpc
from .driver import Connecting, Connection, Drive
from .grpc import Call, GrpcConnection
from .measures import KEYS, Bench, in_turn
from .results import Table
from .servers import ROOT, START_S, Node, Peernode, free_ports
from .wires import MessagePackRpc, Request, key_of, value_of

KEYSPACE = "bench"
CLIENTS = 50
TOGETHER = 4
LATENCIES = 60
"""Writes that one value of a latency comes from."""
SYNCOBJ_WRITES = 10


class Contestant(Protocol):
    """A cluster. Each call makes one connection; `hot`: all write to one key."""

    name: str

    def single(self, number: int, *, hot: bool = False) -> Connecting: ...
    def together(self, number: int) -> Connecting:
        """TOGETHER keys, all or nothing."""
        ...


def coordinated(bench: Bench) -> list[Table]:
    """Latency of one client, throughput of many, on keys of their own and on one; several keys at once."""
    with ExitStack() as stack:
        contestants = [stack.enter_context(start(bench.folder())) for start in starters()]
        names = [one.name for one in contestants]
        table = Table("Coordinated writes, three nodes", "", servers=names)
        p50 = table.row("one key, 1 client, p50 ms", "2x at most")
        p99 = table.row("... p99 ms")
        several = table.row(f"{TOGETHER} keys, 1 client, p50 ms")
        many = table.row(f"one key each, {CLIENTS} clients, a second", "0.75x")
        hot = table.row(f"one key for all, {CLIENTS} clients, a second")
        for one in in_turn(contestants, bench.rounds):
            times = latencies_ms(one.single(0))
            p50.add("", one.name, median(times))
            p99.add("", one.name, quantiles(times, n=100)[-1])
            several.add("", one.name, median(latencies_ms(one.together(0))))
            many.add("", one.name, rate(bench, [one.single(number) for number in range(CLIENTS)]))
            hot.add("", one.name, rate(bench, [one.single(number, hot=True) for number in range(CLIENTS)]))
        own = Table("Of its own", "", servers=names[:1])
        ratios = own.row(f"{TOGETHER} keys against one, p50", "2x at most")
        for whole, part in zip(several.values["", names[0]], p50.values["", names[0]], strict=True):
            ratios.add("", names[0], whole / part)
        return [table, own, *beside_syncobj(bench, contestants[0])]


def latencies_ms(connection: Connecting) -> list[float]:
    drive = Drive([connection])
    times = []
    for _ in range(LATENCIES):
        began_s = time.perf_counter()
        drive.run_once()
        times.append((time.perf_counter() - began_s) * 1000)
    drive.close()
    return times


def rate(bench: Bench, connections: Sequence[Connecting]) -> float:
    drive = Drive(connections)
    drive.run(bench.seconds)
    began_s = time.perf_counter()
    answers = drive.run(2 * bench.seconds)
    took_s = time.perf_counter() - began_s
    drive.finish()
    drive.close()
    return answers / took_s


# peernode


class Voters:
    """Three daemons that vote on one keyspace."""

    wire = MessagePackRpc()

    def __init__(self, name: str, nodes: list[Node]) -> None:
        self.name, self._nodes = name, nodes

    def single(self, number: int, *, hot: bool = False) -> Connecting:
        keys = [b"hot"] if hot else [key_of(key) for key in range(KEYS)]
        requests = [
            self.wire.request("kv.put", keyspace=KEYSPACE, key=key, value=value_of(number)) for key in keys
        ]
        return self._connection(requests, number)

    def together(self, number: int) -> Connecting:
        starts = range(0, KEYS, TOGETHER)
        writes = [
            [{"keyspace": KEYSPACE, "key": key_of(s + k), "value": value_of(s)} for k in range(TOGETHER)]
            for s in starts
        ]
        return self._connection([self.wire.request("txn.commit", writes=some) for some in writes], number)

    def _connection(self, requests: list[Request], number: int) -> Connection:
        ring = islice(cycle(request.sent for request in requests), spread_start(number, len(requests)), None)
        return Connection(self._nodes[0].path, requests[0], ring, 1)


@contextmanager
def voters(home: Path) -> Iterator[Voters]:
    home.mkdir()
    kind = Peernode("peernode", ROOT)
    nodes: list[Node] = []
    try:
        kind.start(home, 3, nodes)  # type: ignore[arg-type]
        with nodes[0].connect(30) as client:
            client.create_keyspace(KEYSPACE, "coordinated", voters=["n1", "n2", "n3"])
            client.put("ready", "yes", keyspace=KEYSPACE)
        yield Voters(kind.name, nodes)
    finally:
        for node in nodes:
            kind.stop(node)


# etcd


@dataclass
class Etcd:
    name: str
    port: int

    def single(self, number: int, *, hot: bool = False) -> Connecting:
        keys = [b"hot"] if hot else [key_of(key) for key in range(KEYS)]
        return self._connection([grpc.put(key, value_of(number)) for key in keys], number)

    def together(self, number: int) -> Connecting:
        starts = range(0, KEYS, TOGETHER)
        items = [[(key_of(s + k), value_of(s)) for k in range(TOGETHER)] for s in starts]
        return self._connection([grpc.put_together(some) for some in items], number)

    def _connection(self, calls: list[Call], number: int) -> GrpcConnection:
        return GrpcConnection(self.port, islice(cycle(calls), spread_start(number, len(calls)), None))


@contextmanager
def etcd(home: Path) -> Iterator[Etcd]:
    home.mkdir()
    ports = free_ports(6)
    clients = [f"http://127.0.0.1:{port}" for port in ports[:3]]
    peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
    members = ",".join(f"m{number}={url}" for number, url in enumerate(peers))
    processes = []
    try:
        for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            options = [
                "--name",
                f"m{number}",
                "--data-dir",
                str(home / f"m{number}"),
                "--initial-cluster",
                members,
            ]
            options += ["--listen-client-urls", client, "--advertise-client-urls", client]
            options += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            with (home / f"m{number}.log").open("w") as log:
                processes.append(subprocess.Popen(["etcd", *options], stdout=log, stderr=log))
        leader = wait_until(lambda: leader_of(clients), START_S, "etcd to have a leader")
        yield Etcd(f"etcd {etcd_version()}", int(leader.rsplit(":", 1)[1]))
    finally:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(home)


def leader_of(clients: list[str]) -> str | None:
    """The client URL of the leader, once there is one."""
    command = ["etcdctl", "--endpoints", ",".join(clients), "endpoint", "status", "-w", "json"]
    done = subprocess.run(
        command, capture_output=True, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}, check=False
    )
    if done.returncode:
        return None
    found = [one["Endpoint"] for one in json.loads(done.stdout) if is_leader(one["Status"])]
    return found[0] if found else None


def is_leader(status: dict[str, object]) -> bool:
    header = status["header"]
    assert isinstance(header, dict)
    return status.get("leader") == header["member_id"]


def etcd_version() -> str:
    told = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
    return told.split("\n")[0].split()[-1]


# PySyncObj


def beside_syncobj(bench: Bench, ours: Contestant) -> list[Table]:
    if find_spec("pysyncobj") is None:
        return []
    table = Table("Beside a library", "", servers=[ours.name, "PySyncObj"])
    row = table.row("writes one after the other, a second", "20x")
    with syncobj(bench.folder()) as write:
        for _ in range(bench.slow_rounds):
            row.add("", ours.name, 1000 / median(latencies_ms(ours.single(0))))
            row.add("", "PySyncObj", SYNCOBJ_WRITES / write(SYNCOBJ_WRITES))
    return [table]


@contextmanager
def syncobj(home: Path) -> Iterator[Writing]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    processes = []
    try:
        for number, me in enumerate(addresses):
            folder = home / str(number)
            folder.mkdir(parents=True)
            others = [address for address in addresses if address != me]
            command = [sys.executable, "-m", "tests.bench.syncobj", str(folder), me, *others]
            processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield Writing(processes[0])
    finally:
        for process in processes:
            process.kill()
            process.communicate()


class Writing:
    """Called with a number of writes; returns the seconds that they took."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, writes: int) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{writes}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def starters() -> list[object]:
    return [voters, etcd] if shutil.which("etcd") and shutil.which("etcdctl") else [voters]


def missing() -> str:
    """What is not there to be compared with."""
    lacking = [] if shutil.which("etcd") and shutil.which("etcdctl") else ["etcd and etcdctl"]
    lacking += [] if find_spec("pysyncobj") else ["pysyncobj"]
    return f"Not installed here: {' and '.join(lacking)}." if lacking else ""


_starts = count()


def spread_start(number: int, keys: int) -> int:
    """Clients begin at different keys, and go on with others in the next round."""
    return (number * keys // CLIENTS + next(_starts)) % keys
