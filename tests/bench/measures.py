"""The measurements. Each starts its servers, takes all of them through each round in turn, and ends them."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from threading import Event
from typing import TypeVar

from .driver import RECEIVE_BYTES, Drive, driving
from .results import Row, Table
from .servers import Kind, Server, cpu_s, resident_mib, running, seconds_until
from .wires import Request, key_of, value_of

T = TypeVar("T")

KEYS = 10_000
"""What the rates read and write over and over."""
MANY_KEYS = 100_000
ITEMS = 100
"""In one bulk write."""
WARM_SHARE = 0.25
"""Of a measurement's time is spent before it, so that sockets, caches and CPU clocks are warm."""


@dataclass(frozen=True)
class Shape:
    """How a client asks."""

    clients: int
    depth: int

    @property
    def label(self) -> str:
        if self.depth > 1:
            return f"1 client, {self.depth} at once"
        return f"{self.clients} client{'s' if self.clients > 1 else ''}"


SHAPES = (Shape(1, 1), Shape(50, 1), Shape(1, 16), Shape(1, 100))
AIMS = {("get", SHAPES[0]): "0.6x", ("get", SHAPES[3]): "0.4x", ("set", SHAPES[1]): "0.3x"}


@dataclass
class Bench:
    """What all measurements are told. `home`: an empty folder on the file system that is to be measured."""

    kinds: list[Kind]
    home: Path
    rounds: int = 15
    seconds: float = 0.2
    idle_seconds: float = 5.0
    sizes: tuple[int, ...] = (3, 10)
    many_keys: int = MANY_KEYS
    _folders: Iterator[int] = field(default_factory=count)

    @property
    def slow_rounds(self) -> int:
        """Of what takes seconds each time."""
        return max(1, self.rounds // 3)

    def folder(self) -> Path:
        return self.home / str(next(self._folders))

    @contextmanager
    def running(self, count: int = 1) -> Iterator[list[tuple[Kind, list[Server]]]]:
        with ExitStack() as stack:
            yield [(kind, stack.enter_context(running(kind, self.folder(), count))) for kind in self.kinds]


def in_turn(contestants: Sequence[T], rounds: int) -> Iterator[T]:
    """All of them, round after round; each second round the other way round."""
    for number in range(rounds):
        yield from contestants if number % 2 == 0 else reversed(contestants)


# Rates


def rates(bench: Bench) -> list[Table]:
    """`set` and `get` in all shapes, with the CPU time that an operation costs the server and the client."""
    table = Table("Rates", "a second", "CPU us each", "client us each")
    with bench.running() as servers:
        for kind, (server,) in servers:
            load(kind, server, KEYS)
        for operation in ("get", "set"):
            for shape in SHAPES:
                row = table.row(f"`{operation}`, {shape.label}", AIMS.get((operation, shape), ""))
                with ExitStack() as stack:
                    drives = [
                        (kind, server, stack.enter_context(drive_of(kind, server, operation, shape)))
                        for kind, (server,) in servers
                    ]
                    for kind, server, drive in in_turn(drives, bench.rounds):
                        rate(bench, row, kind, server, drive)
    return [table]


def drive_of(kind: Kind, server: Server, operation: str, shape: Shape) -> AbstractContextManager[Drive]:
    return driving(server.path, requests_of(kind, operation), shape.clients, shape.depth)


def requests_of(kind: Kind, operation: str) -> list[Request]:
    if operation == "get":
        return [kind.wire.get(key_of(number)) for number in range(KEYS)]
    return [kind.wire.put(key_of(number), value_of(number + 1)) for number in range(KEYS)]


def rate(bench: Bench, row: Row, kind: Kind, server: Server, drive: Drive) -> None:
    drive.run(bench.seconds * WARM_SHARE)
    began = time.perf_counter(), cpu_s(server.pid), time.process_time()
    answers = drive.run(bench.seconds)
    ended = time.perf_counter(), cpu_s(server.pid), time.process_time()
    drive.finish()
    elapsed_s, server_s, client_s = (end - start for start, end in zip(began, ended, strict=True))
    row.add("a second", kind.name, answers / elapsed_s)
    row.add("CPU us each", kind.name, server_s / answers * 1e6)
    row.add("client us each", kind.name, client_s / answers * 1e6)


def load(kind: Kind, server: Server, keys: int) -> float:
    """Write keys, ITEMS in one request, one request at a time; how long it took."""
    items = [(key_of(number), value_of(number)) for number in range(keys)]
    requests = [kind.wire.put_many(items[first : first + ITEMS]) for first in range(0, keys, ITEMS)]
    with driving(server.path, requests) as drive:
        began_s = time.perf_counter()
        for _ in requests:
            drive.run_once()
        return time.perf_counter() - began_s


# Replication


def replication(bench: Bench, writes: int = 10) -> list[Table]:
    """From the answer to a durable write on one node to its sight on two others; and an answer for all three.

    A value is the median of some writes. Servers take turns with each write: a disk has good and bad moments.
    """
    table = Table("Three nodes", "")
    seen = table.row("a `set` is seen on both others after its answer, ms", "2.5x")
    held = table.row("a `set` is answered once both others hold it, ms")
    with bench.running(3) as servers, ExitStack() as stack:
        trios = [
            (kind, [stack.enter_context(connected(node.path)) for node in nodes]) for kind, nodes in servers
        ]
        for row, measure in ((seen, sight_s), (held, held_s)):
            took: dict[str, list[float]] = {kind.name: [] for kind, _ in trios}
            for number, (kind, nodes) in enumerate(in_turn(trios, bench.rounds * writes)):
                took[kind.name].append(1000 * measure(kind, nodes, number))
            for name, times_ms in took.items():
                for first in range(0, len(times_ms), writes):
                    row.add("", name, median(times_ms[first : first + writes]))
    return [table]


def sight_s(kind: Kind, nodes: list[socket.socket], number: int) -> float:
    """Write on the first; then ask the others over and over, one question each at a time, until both show it."""
    writer, *readers = nodes
    key, value = b"seen", value_of(number)
    put, get = kind.wire.put(key, value), kind.wire.get(key)
    writer.sendall(put.sent)
    answer = writer.recv(RECEIVE_BYTES)
    answered_s = time.perf_counter()
    assert put.mark in answer, answer
    waiting = {reader.fileno(): reader for reader in readers}
    for reader in readers:
        reader.sendall(get.sent)
    while waiting:
        for ready in select.select(list(waiting), (), ())[0]:
            if value in waiting[ready].recv(RECEIVE_BYTES):
                del waiting[ready]
            else:
                waiting[ready].sendall(get.sent)
    return time.perf_counter() - answered_s


def held_s(kind: Kind, nodes: list[socket.socket], number: int) -> float:
    """How long a write takes that two others must hold, too."""
    put = kind.wire.put_on(2, b"held", value_of(number))
    began_s = time.perf_counter()
    nodes[0].sendall(put.sent)
    answer = b""
    while put.mark not in answer:
        answer += nodes[0].recv(RECEIVE_BYTES)
        assert put.error not in answer, answer
    return time.perf_counter() - began_s


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        yield sock


# Resources


def bulk(bench: Bench) -> list[Table]:
    """A fresh server, its memory, many keys, its memory with them."""
    table = Table("Bulk and memory", "")
    imported = table.row(f"items a second, {ITEMS} in each request, durable")
    cpu = table.row("... CPU an item, us")
    empty, full = (table.row(f"resident, {keys:,} keys of 100 B, MiB") for keys in (0, bench.many_keys))
    for kind in in_turn(bench.kinds, bench.slow_rounds):
        with running(kind, bench.folder()) as (server,):
            empty.add("", kind.name, resident_mib(server.pid))
            before_s = cpu_s(server.pid)
            imported.add("", kind.name, bench.many_keys / load(kind, server, bench.many_keys))
            cpu.add("", kind.name, (cpu_s(server.pid) - before_s) / bench.many_keys * 1e6)
            full.add("", kind.name, resident_mib(server.pid))
    return [table]


def commands(bench: Bench, calls: int = 5) -> list[Table]:
    """Start-up, and what a shell user waits for."""
    table = Table("Start and commands", "")
    start = table.row("from start to ready, ms")
    command = table.row("one `get` on the command line, ms")
    with bench.running() as servers:
        for kind, (server,) in servers:
            load(kind, server, 1)
        for kind, (server,) in in_turn(servers, bench.slow_rounds):
            home = bench.folder()
            home.mkdir()
            start.add("", kind.name, 1000 * seconds_until(*kind.start_command(home)))
            typed = kind.get_command(server, key_of(0).decode())
            command.add("", kind.name, 1000 * median(command_s(typed) for _ in range(calls)))
    return [table]


def command_s(command: list[str]) -> float:
    began_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=True)
    took_s = time.perf_counter() - began_s
    assert value_of(0) in done.stdout, done
    return took_s


def idle(bench: Bench) -> list[Table]:
    """CPU of nodes that nobody asks anything."""
    table = Table("Idle", "")
    for size in bench.sizes:
        row = table.row(f"CPU a node, n={size}, %")
        with bench.running(size) as servers:
            for _ in range(bench.slow_rounds):
                for kind, spent_s in idle_cpu(servers, bench.idle_seconds):
                    row.add("", kind.name, 100 * spent_s / bench.idle_seconds)
    return [table]


def idle_cpu(servers: list[tuple[Kind, list[Server]]], seconds: float) -> list[tuple[Kind, float]]:
    """What each node spent in the same seconds: the median of a kind."""
    before = [[cpu_s(node.pid) for node in nodes] for _, nodes in servers]
    Event().wait(seconds)
    after = [[cpu_s(node.pid) for node in nodes] for _, nodes in servers]
    spent = [
        [end - start for start, end in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)
    ]
    return [(kind, median(of_kind)) for (kind, _), of_kind in zip(servers, spent, strict=True)]


# The disk, to compare with


def sync_us(folder: Path, times: int = 200) -> list[float]:
    """Appending 200 bytes and syncing them: what any durable write waits for."""
    file = folder / "sync"
    took = []
    with file.open("wb", buffering=0) as out:
        for _ in range(times):
            began_s = time.perf_counter()
            out.write(bytes(200))
            os.fdatasync(out.fileno())
            took.append((time.perf_counter() - began_s) * 1e6)
    file.unlink()
    return took
