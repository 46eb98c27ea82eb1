"""Clusters of real daemons that are cut, killed and left behind: they always end up equal, and nothing is lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peernode.client import Client, PeernodeError
from peernode.cluster import LocalCluster

from ..waiting import wait_until


class Cluster(LocalCluster):
    """A local cluster whose clients are closed with it."""

    def __init__(self) -> None:
        super().__init__()
        self._clients: list[Client] = []

    def clients(self, *names: str) -> list[Client]:
        made = [self.connect(name) for name in names]
        self._clients += made
        return made

    def end(self) -> None:
        for client in self._clients:
            client.close()
        self.down(purge=True)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A local cluster in a home of its own."""
    monkeypatch.setenv("PEERNODE_HOME", str(tmp_path))
    made = Cluster()
    try:
        yield made
    finally:
        made.end()


def value(client: Client, key: str) -> bytes | None:
    item = client.get(key)
    return item.value if item is not None else None


def digests(nodes: list[Client]) -> set[str]:
    return {node.status()["digest"] for node in nodes}


def states(client: Client) -> dict[str, str]:
    return {member["name"]: member["state"] for member in client.members()}


def dead(nodes: list[Client]) -> list[str]:
    return [name for node in nodes for name, state in states(node).items() if state == "dead"]


def test_five_nodes_read_what_each_wrote(cluster: Cluster) -> None:
    """A write on each is read on every other, digests are equal, all name the same members."""
    cluster.up(5)
    names = [f"n{number}" for number in range(1, 6)]
    nodes = cluster.clients(*names)
    for name, node in zip(names, nodes, strict=True):
        node.put(f"from {name}", name)
        for other in nodes:
            wait_until(lambda o=other, n=name: value(o, f"from {n}") == n.encode(), timeout_s=1)

    wait_until(lambda: len(digests(nodes)) == 1, timeout_s=1)
    everybody = {(name, "alive") for name in names}
    assert all(set(states(node).items()) == everybody for node in nodes)


def test_gossip_goes_round_a_cut(cluster: Cluster) -> None:
    """With a path cut both ways, a write still arrives over the third node, soon, and nobody is called dead."""
    cluster.up(3)
    nodes = cluster.clients("n1", "n2", "n3")
    cluster.cut("n1", "n2")
    for number in range(10):
        nodes[0].put("k", str(number))
        wait_until(lambda n=number: value(nodes[1], "k") == str(n).encode(), timeout_s=1)
        assert dead(nodes) == []
    wait_until(lambda: "suspect" in states(nodes[0]).values() or "suspect" in states(nodes[1]).values())
    nodes[1].put("k", "back")
    wait_until(lambda: value(nodes[0], "k") == b"back", timeout_s=1)
    assert dead(nodes) == []


def test_a_healed_partition_is_equal_again(cluster: Cluster) -> None:
    """Two and three, each side writes; healed, all are equal and see each other."""
    cluster.up(5)
    names = [f"n{number}" for number in range(1, 6)]
    nodes = cluster.clients(*names)
    cluster.partition([["n1", "n2"], ["n3", "n4", "n5"]])
    for number in range(20):
        nodes[0].put(f"two/{number}", "v")
        nodes[3].put(f"three/{number}", "v")
    wait_until(lambda: states(nodes[4])["n1"] != "alive")
    assert len(digests(nodes)) == 2

    cluster.heal()

    wait_until(lambda: len(digests(nodes)) == 1, timeout_s=3)
    wait_until(lambda: all(set(states(node).values()) == {"alive"} for node in nodes))


class Load:
    """Writes through one node after another, again and again, and remembers what was acknowledged."""

    def __init__(self, cluster: Cluster, names: list[str]) -> None:
        self._cluster, self._names = cluster, names
        self._over = threading.Event()
        self.acknowledged: dict[bytes, bytes] = {}
        self.refused = 0
        self._threads = [threading.Thread(target=self._write, args=(name,)) for name in names]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _write(self, name: str) -> None:
        number = 0
        node: Client | None = None
        while not self._over.is_set():
            key, content = f"{name}/{number}", f"{number}"
            number += 1
            try:
                node = node or self._cluster.connect(name, timeout_s=2)
                node.put(key, content)
                self.acknowledged[key.encode()] = content.encode()
            except PeernodeError:
                self.refused += 1
                if node is not None:
                    node.close()
                node = None
                self._over.wait(0.02)
        if node is not None:
            node.close()


def test_no_acknowledged_write_is_missing_after_kills(cluster: Cluster, request: Any) -> None:
    """Writes go on through all three while a random one is killed and started again, many times."""
    names = ["n1", "n2", "n3"]
    cluster.up(3)
    chance = random.Random(request.config.getoption("--kill-seed"))
    with Load(cluster, names) as load:
        for _ in range(request.config.getoption("--kill-rounds")):
            before = len(load.acknowledged)
            wait_until(lambda b=before: len(load.acknowledged) > b + 30, what="writes to be acknowledged")
            victim = chance.choice(names)
            cluster.kill([victim])
            cluster.restart([victim])

    nodes = cluster.clients(*names)
    wait_until(lambda: len(digests(nodes)) == 1, timeout_s=20)
    for node in nodes:
        held = {item.key: item.value for item in node.scan()}
        assert {key: held.get(key) for key in load.acknowledged} == load.acknowledged


def test_who_was_away_gets_what_changed_and_little_more(cluster: Cluster) -> None:
    """Of 20,000 keys 200 change meanwhile: what is received is at most half as much again as the changed entries."""
    cluster.up(3)
    nodes = cluster.clients("n1", "n2")
    content = bytes(1000)
    for first in range(0, 20_000, 500):
        items = [{"key": f"k{first + n}", "value": content} for n in range(500)]
        nodes[0].call("kv.mput", items=items)
    (away,) = cluster.clients("n3")
    wait_until(lambda: len(digests([*nodes, away])) == 1, timeout_s=30)
    cluster.kill(["n3"])
    changed = [f"k{n * 100}" for n in range(200)]
    for key in changed:
        nodes[1].put(key, bytes(reversed(range(256))) * 4)

    cluster.restart(["n3"])

    (back,) = cluster.clients("n3")
    wait_until(lambda: len(digests([*nodes, back])) == 1)
    entries = sum(len(key) + 1024 for key in changed)
    assert back.status()["received_bytes"] <= 1.5 * entries
