"""Real daemons with faked wall clocks: minutes off, set while they run, and two alone that disagree."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from peernode.client import Client

from ..waiting import wait_until
from .daemons import Daemon, Daemons
from .patched import patched

FAKE = """
import time
real_ns, offset_file = time.time_ns, {path!r}
def time_ns():
    with open(offset_file) as file:
        return real_ns() + int(float(file.read()) * 1e9)
time.time_ns = time_ns
"""
AGREE_MS = 250


class Clock:
    """The wall clock of one daemon, off by what a file says."""

    def __init__(self, folder: Path, name: str, off_s: float) -> None:
        self._file = folder / f"{name}.clock"
        self.set(off_s)

    def set(self, off_s: float) -> None:
        aside = self._file.with_suffix(".new")
        aside.write_text(str(off_s))
        aside.rename(self._file)

    @property
    def prefix(self) -> tuple[str, ...]:
        return patched(FAKE.format(path=str(self._file)))


def cluster(daemons: Daemons, tmp_path: Path, *off_s: float) -> tuple[list[Daemon], list[Clock]]:
    """Daemons a, b, ... whose wall clocks are off by so much, all linked."""
    clocks = [Clock(tmp_path, name, off) for name, off in zip("abcde", off_s, strict=False)]
    nodes: list[Daemon] = []
    for name, clock in zip("abcde", clocks, strict=False):
        seed = ("--seed", nodes[0].address) if nodes else ()
        nodes.append(daemons(name).start(*seed, prefix=clock.prefix))
    for node in nodes:
        wait_until(lambda n=node: sum(m["state"] == "alive" for m in members(n)) == len(nodes))
    return nodes, clocks


def members(node: Daemon) -> list[dict[str, Any]]:
    with node.connect() as client:
        return client.members()


def stamps_ms(nodes: list[Daemon], key: str) -> list[int]:
    """Write on each node at once; when each says that it was."""
    clients = [node.connect() for node in nodes]
    for client in clients:
        client.put(f"{key}/{client.path.parent.name}", "v")
    found = [client.get(f"{key}/{client.path.parent.name}") for client in clients]
    for client in clients:
        client.close()
    return [item.modified_ms or 0 for item in found if item is not None]


def agree(nodes: list[Daemon], key: str) -> bool:
    stamps = stamps_ms(nodes, key)
    return max(stamps) - min(stamps) < AGREE_MS


def expire_together(nodes: list[Daemon]) -> None:
    """A TTL that one node sets ends on all of them within AGREE_MS of each other."""
    clients = [node.connect() for node in nodes]
    clients[0].put("short", "v", ttl=1.0)
    for client in clients:
        wait_until(lambda c=client: c.get("short"))
    ended: dict[Path, float] = {}

    def look() -> bool:
        for client in clients:
            if client.path not in ended and client.get("short") is None:
                ended[client.path] = time.monotonic()
        return len(ended) == len(clients)

    wait_until(look)
    for client in clients:
        client.close()
    assert max(ended.values()) - min(ended.values()) < AGREE_MS / 1000


def no_key_is_frozen(nodes: list[Daemon], key: str) -> None:
    """Whatever was written before, an overwrite on any node counts on all."""
    for writer in nodes:
        with writer.connect() as client:
            client.put(key, f"from {writer.name}")
        for reader in nodes:
            with reader.connect() as client:
                wait_until(lambda c=client, w=writer: value(c, key) == f"from {w.name}".encode())


def value(client: Client, key: str) -> bytes | None:
    item = client.get(key)
    return item.value if item is not None else None


def clock_of(node: Daemon) -> dict[str, Any]:
    with node.connect() as client:
        return dict(client.status()["clock"])


def equal_digests(nodes: list[Daemon]) -> bool:
    found = set()
    for node in nodes:
        with node.connect() as client:
            found.add(client.status()["digest"])
    return len(found) == 1


def test_a_node_ten_minutes_ahead_or_behind_follows_the_others(daemons: Daemons, tmp_path: Path) -> None:
    """It writes with the cluster's time from its first stamp on, and says that its clock is wrong."""
    nodes, _ = cluster(daemons, tmp_path, 0, 600, -600)
    wait_until(lambda: agree(nodes, "stamp"))
    expire_together(nodes)
    no_key_is_frozen(nodes, "k")
    assert not clock_of(nodes[0])["suspect"]
    assert round(clock_of(nodes[1])["correction_ms"] / 1000) == -600
    assert clock_of(nodes[2])["suspect"]


def test_an_hours_jump_changes_nothing(daemons: Daemons, tmp_path: Path) -> None:
    """A wall clock that is set, forward or back, is told in `status` and ignored."""
    nodes, clocks = cluster(daemons, tmp_path, 0, 0, 0)
    no_key_is_frozen(nodes, "k")
    for jump_s in (3600, -3600):
        clocks[1].set(jump_s)
        wait_until(lambda j=jump_s: round(clock_of(nodes[1])["jump_ms"] / 1000) == j)
        assert agree(nodes, f"stamp{jump_s}")
        expire_together(nodes)
        no_key_is_frozen(nodes, "k")
    clocks[1].set(0)
    wait_until(lambda: clock_of(nodes[1])["jump_ms"] == 0)
    assert equal_digests(nodes)


def test_two_alone_ten_minutes_apart_agree(daemons: Daemons, tmp_path: Path) -> None:
    """Also when the one ahead had written much by itself: what it wrote is there, and can be overwritten."""
    ahead = Clock(tmp_path, "a", 600)
    a = daemons("a").start(prefix=ahead.prefix)
    with a.connect() as on_a:
        for number in range(50):
            on_a.put(f"old/{number}", "written alone")
    b = daemons("b").start("--seed", a.address, prefix=Clock(tmp_path, "b", 0).prefix)
    nodes = [a, b]

    wait_until(lambda: agree(nodes, "stamp"))
    with b.connect() as on_b:
        wait_until(lambda: sum(1 for _ in on_b.scan("old/")) == 50)
    no_key_is_frozen(nodes, "old/7")
    expire_together(nodes)
    wait_until(lambda: equal_digests(nodes))
    assert clock_of(a)["suspect"]
    assert clock_of(b)["suspect"]
