"""Voters are exchanged on real daemons: a dead one, one that lost its disk, all of them, a lost majority."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from peernode.client import Client, PeernodeError

from ..waiting import wait_until
from .daemons import Daemon, Daemons, daemons_in


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Daemons]:
    """a, b, c and d; the first three vote on `bank`, which holds a few keys."""
    with daemons_in(tmp_path) as daemons:
        a = daemons("a").start()
        for name in "bcd":
            daemons(name).start("--seed", a.address)
        for daemon in daemons.all:
            with daemon.connect() as client:
                wait_until(lambda c=client: c.status()["links"] == 3)
        with a.connect() as client:
            client.create_keyspace("bank", "coordinated", voters=["a", "b", "c"])
            for number in range(5):
                client.put(f"key/{number}", f"before {number}", keyspace="bank")
        yield daemons


def voters(client: Client) -> list[str]:
    return sorted(voter["name"] for voter in client.keyspace("bank")["voters"])


def is_dead(daemon: Daemon, name: str) -> bool:
    return daemon.state_of(name) == "dead"


def values(client: Client) -> list[bytes | None]:
    keys = [f"key/{number}" for number in range(5)]
    return [item.value if item else None for item in client.snapshot(keys, keyspace="bank")]


def test_a_dead_voter_is_replaced(cluster: Daemons) -> None:
    """c dies for good and d votes in its place; then a may die, too: b and d know all that was committed before."""
    a, b, c, d = cluster.all
    c.kill()
    wait_until(lambda: is_dead(b, "c"))
    shown = cluster.command("keyspace", "show", "bank", "--node", "b")
    assert "c (dead)" in shown.stdout
    with b.connect() as client:
        before = values(client)
        done = cluster.command("keyspace", "voters", "bank", "a,b,d", "--node", "b")
        assert (done.returncode, done.stderr) == (0, "")
        assert voters(client) == ["a", "b", "d"]
        assert client.keyspace("bank")["epoch"] == 2
    a.kill()
    with d.connect() as client:
        wait_until(lambda: is_dead(d, "a"))
        assert values(client) == before == [f"before {number}".encode() for number in range(5)]
        client.put("key/0", "after", keyspace="bank")
    c.start()
    with c.connect() as client:
        wait_until(lambda: voters(client) == ["a", "b", "d"], what="c to learn that it votes no more")
        assert values(client)[0] == b"after"


def test_a_voter_that_lost_its_disk_is_replaced_by_itself(cluster: Daemons) -> None:
    """It does not vote with its new store until it is named again, and then it knows what it must."""
    a, b, c, _ = cluster.all
    c.kill()
    for file in c.folder.glob("store.sqlite*"):
        file.unlink()
    c.start()
    with a.connect() as client:
        wait_until(lambda: [v["has_store"] for v in client.keyspace("bank")["voters"]].count(False) == 1)
        client.set_voters("bank", ["a", "b", "c"])
        assert all(voter["has_store"] for voter in client.keyspace("bank")["voters"])
    b.kill()
    with c.connect() as client:
        wait_until(lambda: is_dead(c, "b"))
        client.put("key/1", "after", keyspace="bank")
        assert values(client)[:2] == [b"before 0", b"after"]


def test_a_voter_that_comes_late_needs_no_old_voter(cluster: Daemons) -> None:
    """b is away while d takes the place of c. Then a and c are lost for good, and d tells b what it must know."""
    a, b, c, d = cluster.all
    b.kill()
    with a.connect(10) as client:
        client.set_voters("bank", ["a", "b", "d"])
        client.put("key/0", "after", keyspace="bank")
    a.kill()
    c.kill()
    b.start("--seed", d.address)
    with d.connect(20) as client:
        client.put("key/1", "later", keyspace="bank")
        assert values(client)[:3] == [b"after", b"later", b"before 2"]


def test_clients_see_no_more_than_a_delay(cluster: Daemons) -> None:
    """Writes through a node that does not know the new voters yet, and through the new ones, succeed in order."""
    a, _, _, d = cluster.all
    with a.connect(10) as here, d.connect(10) as there:
        for number, names in enumerate((["b", "c", "d"], ["a"], ["a", "c", "d"], ["a", "b", "c"])):
            there.set_voters("bank", names)
            assert voters(there) == names
            version = here.put("turn", str(number), keyspace="bank")
            item = there.get("turn", keyspace="bank", level="quorum")
            assert item is not None and (item.value, item.version) == (str(number).encode(), version)
        assert here.keyspace("bank")["epoch"] == 5


def test_a_lost_majority_takes_force(cluster: Daemons) -> None:
    """Without it nothing can be agreed on; with it the rest goes on, and what may be lost is on record."""
    a, b, c, d = cluster.all
    with a.connect(10) as client:
        refused = cluster.command("keyspace", "voters", "bank", "a,b,d", "--force", "--node", "a")
        assert (refused.returncode, "leave out --force" in refused.stderr) == (6, True)
        b.kill()
        c.kill()
        wait_until(lambda: is_dead(a, "b") and is_dead(a, "c"))
        with pytest.raises(PeernodeError) as unavailable:
            client.set_voters("bank", ["a"])
        assert unavailable.value.code == "unavailable"

        client.set_voters("bank", ["a"], force=True)
        assert values(client) == [f"before {number}".encode() for number in range(5)]
        client.put("key/2", "after", keyspace="bank")
        forced = client.keyspace("bank")["forced"]
        assert (forced["by"], sorted(forced["lost"])) == ("a", ["b", "c"])
        shown = cluster.command("keyspace", "show", "bank", "--node", "d").stdout
        assert "may be lost" in shown

    shutil.rmtree(c.folder)
    b.start()
    with b.connect() as client, d.connect() as other:
        wait_until(lambda: voters(client) == ["a"])
        assert values(client)[2] == b"after"
        wait_until(
            lambda: (item := other.get("key/2", keyspace="bank")) is not None and item.value == b"after"
        )


@pytest.mark.parametrize(("names", "code"), [("a,b", 2), ("a,a,b", 2), ("a,b,nobody", 3)])
def test_voters_that_cannot_be_are_refused(cluster: Daemons, names: str, code: int) -> None:
    """An even number, one twice, a stranger."""
    refused = cluster.command("keyspace", "voters", "bank", names, "--node", "a", "--json")
    assert (refused.returncode, refused.stdout) == (code, "")
