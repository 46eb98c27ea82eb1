"""Transactions and locks on three real daemons that all vote: from the command line, from Python, and from trio."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import peernode
from peernode.client import Client, Conflict, Lease, NotFound, PeernodeError, UnknownOutcome

from ..waiting import wait_until
from .daemons import Daemons, daemons_in, environment


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    with daemons_in(tmp_path_factory.mktemp("transactions")) as daemons:
        a = daemons("a").start()
        daemons("b").start("--seed", a.address)
        daemons("c").start("--seed", a.address)
        for daemon in daemons.all:
            with daemon.connect() as client:
                wait_until(lambda c=client: c.status()["links"] == 2)
        with a.connect() as client:
            client.create_keyspace("bank", "coordinated")
            client.create_keyspace("shop", "coordinated", voters=["b"])
        for daemon in daemons.all:
            with daemon.connect() as client:
                wait_until(lambda c=client: {"bank", "shop"} <= {k["name"] for k in c.keyspaces()})
        yield daemons


@pytest.fixture
def a(cluster: Daemons) -> Iterator[Client]:
    with cluster.all[0].connect() as client:
        yield client


@pytest.fixture
def b(cluster: Daemons) -> Iterator[Client]:
    with cluster.all[1].connect() as client:
        yield client


def txn(cluster: Daemons, *arguments: str, stdin: str = "") -> tuple[int, Any]:
    """Exit code and JSON of `txn` on a."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "peernode", "txn", *arguments, "--node", "a", "--json"],
        capture_output=True,
        text=True,
        input=stdin,
        env=environment(cluster.home),
        timeout=15,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or done.stderr)


# The command line


def test_all_or_nothing(cluster: Daemons, b: Client) -> None:
    """Two keys at once if a check holds; if it does not, neither, exit 6, and what is there instead."""
    code, made = txn(cluster, "--keyspace", "bank", "--if-absent", "x", "--set", "x=1", "--set", "y=2")
    assert code == 0
    assert [write["key"] for write in made["writes"]] == ["x", "y"]
    assert [item.value for item in b.snapshot(["x", "y"], keyspace="bank") if item] == [b"1", b"2"]

    code, refused = txn(cluster, "--keyspace", "bank", "--if", "x=7", "--set", "y=8", "--del", "x")
    assert (code, refused["error"]["code"]) == (6, "conflict")
    seen = {"keyspace": "bank", "key": "x", "version": made["writes"][0]["version"]}
    assert refused["error"]["seen"] == [seen]
    assert [item.value for item in b.snapshot(["x", "y"], keyspace="bank") if item] == [b"1", b"2"]

    version = made["writes"][0]["version"]
    code, _ = txn(cluster, "--keyspace", "bank", "--if-version", f"x={version}", "--del", "x", "--del", "y")
    assert (code, b.snapshot(["x", "y"], keyspace="bank")) == (0, [None, None])


def test_a_transaction_from_standard_input(cluster: Daemons, a: Client) -> None:
    """Several keyspaces with different voters, any bytes, and sent twice it is done once."""
    wanted = {
        "checks": [{"keyspace": "shop", "key": "stock=1", "absent": True}],
        "writes": [
            {"keyspace": "shop", "key": "stock=1", "value": "7"},
            {"keyspace": "bank", "key_b64": "/w==", "value_b64": "AP8="},
        ],
        "request_id": "only-once-and-not-again",
    }
    code, made = txn(cluster, "-", stdin=json.dumps(wanted))
    assert (code, txn(cluster, "-", stdin=json.dumps(wanted))) == (0, (0, made))

    stock, odd = (
        a.get("stock=1", keyspace="shop", level="quorum"),
        a.get(b"\xff", keyspace="bank", level="quorum"),
    )
    assert stock is not None and odd is not None
    assert (stock.value, odd.value, stock.version) == (b"7", b"\x00\xff", odd.version)


@pytest.mark.parametrize(
    "stdin", ["", "[]", '{"checks": 1}', '{"writes": [{"key_b64": "!"}]}', '{"writes": ["a"]}']
)
def test_what_is_no_transaction_is_refused(cluster: Daemons, stdin: str) -> None:
    """Not JSON, another shape, or no base64: exit 2, before a daemon is asked or by it."""
    code, refused = txn(cluster, "-", stdin=stdin)
    assert (code, refused["error"]["code"]) == (2, "invalid")


def test_a_transaction_can_be_looked_at(cluster: Daemons, a: Client) -> None:
    """`txn show` tells what each participant has done; of what was never heard of nobody knows, exit 3."""
    _, made = txn(cluster, "--keyspace", "bank", "--set", "seen=1")
    code, shown = txn(cluster, "show", made["txid"])
    assert (code, shown["state"], shown["coordinator"], shown["keyspaces"]) == (0, "committed", "a", ["bank"])
    assert [(one["name"], one["keyspace"]) for one in shown["participants"]] == [
        (n, "bank") for n in ids(a, "bank")
    ]

    never = made["txid"].rsplit(".", 1)[0] + ".999999"
    assert txn(cluster, "show", never)[0] == 3
    wait_until(lambda: txn(cluster, "list") == (0, []))


def test_global_options_may_stand_between_a_command_and_its_command(cluster: Daemons) -> None:
    """`txn --json --node a list` is `txn list --json --node a`."""
    done = cluster.command("txn", "--json", "--node", "a", "list")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [], "")


def ids(client: Client, keyspace: str) -> list[str]:
    return [voter["name"] for voter in client.keyspace(keyspace)["voters"]]


# From Python


def test_reads_of_a_transaction_must_still_hold(a: Client, b: Client) -> None:
    """Money moves if nobody else touched it; who did makes it a conflict, and nothing is written."""
    a.put("p", "100", keyspace="bank")
    a.put("q", "0", keyspace="bank")
    with a.transaction("bank") as moved:
        moved.put("p", str(int(moved.get("p") or b"") - 30))
        moved.put("q", str(int(moved.get("q") or b"") + 30))
        assert moved.get("p") == b"70"
    with pytest.raises(Conflict) as conflict, a.transaction("bank") as late:
        late.put("p", str(int(late.get("p") or b"") - 30))
        b.put("p", "1000", keyspace="bank")
    assert [(seen["key"], seen["keyspace"]) for seen in conflict.value.seen] == [(b"p", "bank")]
    assert [item.value for item in b.snapshot(["p", "q"], keyspace="bank") if item] == [b"1000", b"30"]
    assert set(moved.versions) == {("bank", b"p"), ("bank", b"q")}


def test_an_exception_drops_a_transaction(a: Client) -> None:
    """What was put in the block is never sent, and the exception is raised as it is."""
    with pytest.raises(ZeroDivisionError), a.transaction("bank") as t:
        t.put("dropped", "1")
        _ = 1 / 0
    assert a.get("dropped", keyspace="bank", level="quorum") is None


def test_what_was_read_as_absent_must_still_be(a: Client, b: Client) -> None:
    """Somebody created the key meanwhile: a conflict, and nothing is written."""
    with pytest.raises(Conflict), a.transaction("bank") as t:
        assert t.get("nobody") is None
        b.put("nobody", "somebody", keyspace="bank")
        t.put("mine", "1")
    assert a.get("mine", keyspace="bank", level="quorum") is None


def test_a_commit_that_nobody_answers_has_an_unknown_outcome(cluster: Daemons) -> None:
    """The connection is gone when the answer should come: that is no failure."""
    with cluster.all[2].connect() as client:
        t = client.transaction("bank")
        t.put("unknown", "1")
        client.timeout_s = 0.0
        with pytest.raises(UnknownOutcome):
            t.commit()


# Locks


def test_only_one_holds_a_lock(a: Client, b: Client) -> None:
    """The second is refused and told by whom; after the release it gets a higher fence."""
    lease = a.acquire("one")
    with pytest.raises(Conflict, match="held on a") as held:
        b.acquire("one")
    assert (held.value.details["holder"], held.value.details["fence"]) == ("a", lease.fence)
    a.release(lease)
    assert b.acquire("one").fence > lease.fence


def test_a_lease_that_is_not_renewed_is_taken_over(a: Client, b: Client) -> None:
    """The old holder's renewals and releases are refused then, so that it knows."""
    lease = a.acquire("expiring", ttl=0.3)
    taken = b.acquire("expiring", ttl=10, wait=5)
    assert taken.fence > lease.fence
    with pytest.raises(Conflict, match="is not held with the fence"):
        a.renew(lease)
    with pytest.raises(Conflict):
        a.release(lease)
    b.renew(taken)


def test_a_renewed_lease_is_not_taken_over(a: Client, b: Client) -> None:
    """Not even long after its first time is over."""
    lease = a.acquire("renewed", ttl=1.0)
    for _ in range(8):
        with pytest.raises(Conflict):
            b.acquire("renewed", wait=0.2)
        a.renew(lease)
    a.release(lease)


def test_a_lock_without_a_fence_of_ones_own(a: Client, b: Client) -> None:
    """On the socket a node knows which fence it got last; on another node nobody does."""
    fence = a.call("lock.acquire", name="plain", ttl_ms=60_000)["fence"]
    assert a.call("lock.renew", name="plain", ttl_ms=60_000) == {"fence": fence}
    with pytest.raises(Conflict):
        b.call("lock.release", name="plain")
    assert a.call("lock.release", name="plain") == {"fence": fence}
    with pytest.raises(Conflict, match="nobody holds it"):
        a.call("lock.release", name="plain")


@pytest.mark.parametrize("params", [{"name": ""}, {"name": "x", "ttl_ms": 1}, {"name": "x" * 2000}])
def test_what_is_no_lock_is_refused(a: Client, params: dict[str, object]) -> None:
    """No name, too long a name, too short a lease."""
    with pytest.raises(PeernodeError) as refused:
        a.call("lock.acquire", **params)
    assert refused.value.code in ("invalid", "too_large")


def test_what_stands_in_a_locks_place_is_not_overwritten(a: Client) -> None:
    """A key that somebody wrote into the keyspace of locks is left alone, and named."""
    a.acquire("first")
    a.put("odd", "not a lock", keyspace="locks")
    with pytest.raises(PeernodeError, match="holds something that is no lock"):
        a.acquire("odd")


def locked(cluster: Daemons, name: str, *arguments: str, node: str = "a") -> subprocess.Popen[str]:
    """`lock NAME ...` on a node, running."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "peernode", "lock", name, "--node", node, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(cluster.home),
    )


def test_a_command_runs_under_a_lock(cluster: Daemons, a: Client) -> None:
    """With its fence in the environment, its own exit code, and the lock free afterwards."""
    done = locked(cluster, "job", "--", "sh", "-c", "echo $PEERNODE_FENCE $PEERNODE_LOCK; exit 3")
    out, err = done.communicate(timeout=15)
    fence, name = out.split()
    assert (done.returncode, name, err) == (3, "job", "")
    assert a.acquire("job").fence > int(fence)


def test_others_wait_for_a_lock(cluster: Daemons, tmp_path: Path) -> None:
    """One after the other, said on stderr; with --wait 0s it is exit 6 and not waited for."""
    entered, leave = tmp_path / "entered", tmp_path / "leave"
    script = f"touch {entered}; while [ ! -e {leave} ]; do sleep 0.02; done"
    first = locked(cluster, "queue", "--ttl", "2s", "--", "sh", "-c", script)
    wait_until(entered.exists)
    at_once = locked(cluster, "queue", "--wait", "0s", "--", "true", node="b")
    assert (at_once.wait(10), at_once.communicate()[0]) == (6, "")
    second = locked(cluster, "queue", "--", "sh", "-c", f"test -e {leave}", node="b")
    assert second.stderr is not None
    assert second.stderr.readline().startswith("waiting: the lock 'queue' is held on a")
    leave.touch()
    assert (first.wait(10), second.wait(10)) == (0, 0)
    for one in (first, at_once, second):
        one.communicate()


def test_a_lost_lock_stops_the_command(cluster: Daemons, a: Client, tmp_path: Path) -> None:
    """Somebody takes the lock away: the command gets SIGTERM, and the exit code is 6."""
    entered, told = tmp_path / "entered", tmp_path / "told"
    script = f"trap 'touch {told}; exit 0' TERM; touch {entered}; while :; do sleep 0.02; done"
    running = locked(cluster, "stolen", "--ttl", "600ms", "--", "sh", "-c", script)
    wait_until(entered.exists)
    a.delete("stolen", keyspace="locks")
    _, err = running.communicate(timeout=15)
    assert (running.returncode, told.exists()) == (6, True)
    assert "the lock 'stolen' was lost" in err


# trio


@pytest.mark.trio
async def test_tasks_share_a_connection(cluster: Daemons) -> None:
    """Fifty writes and reads at once on one connection, each with its own answer."""
    found: dict[int, bytes | None] = {}

    async with peernode.connect(cluster.all[0].folder / "sock") as node:

        async def work(number: int) -> None:
            await node.put(f"task/{number}", str(number))
            item = await node.get(f"task/{number}")
            found[number] = item.value if item else None

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(work, number)
        assert found == {number: str(number).encode() for number in range(50)}
        assert [item.key async for item in node.scan("task/", page=20)] == sorted(
            f"task/{number}".encode() for number in range(50)
        )
        assert (await node.delete("task/0"), await node.delete("task/0"), await node.get("task/0")) == (
            True,
            False,
            None,
        )


@pytest.mark.trio
async def test_a_cancelled_call_harms_no_other(cluster: Daemons) -> None:
    """Whoever reads for all may be cancelled: the others get their answers."""
    async with peernode.connect(cluster.all[0].folder / "sock") as node:
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(0):
                    await node.status()
                nursery.start_soon(node.members)
                with trio.move_on_after(0.0005):
                    await node.status()
                assert (await node.status())["name"] == "a"


@pytest.mark.trio
async def test_a_transaction_in_trio(cluster: Daemons) -> None:
    """As in the blocking client: reads must hold, and an error in the block is raised as it is."""
    async with peernode.connect(cluster.all[0].folder / "sock") as node:
        await node.put("t", "1", keyspace="bank")
        async with node.transaction("bank") as t:
            t.put("t", str(int(await t.get("t") or b"") + 1))
        (item,) = await node.snapshot(["t"], keyspace="bank")
        assert item is not None and item.value == b"2"
        with pytest.raises(Conflict):
            async with node.transaction("bank") as t:
                t.put("t", str(int(await t.get("t") or b"") + 1))
                await node.put("t", "9", keyspace="bank")
        with pytest.raises(ZeroDivisionError):
            async with node.transaction("bank") as t:
                _ = 1 / 0


@pytest.mark.trio
async def test_a_lock_in_trio(cluster: Daemons, b: Client) -> None:
    """It is renewed inside the block, given back behind it, and its loss ends the block with a Conflict."""
    async with peernode.connect(cluster.all[0].folder / "sock") as node:
        async with node.lock("trio", ttl=0.4) as lease:
            await trio.sleep(1.0)
            with pytest.raises(Conflict):
                b.acquire("trio")
        assert b.acquire("trio").fence > lease.fence
        with pytest.raises(ZeroDivisionError):
            async with node.lock("failing"):
                _ = 1 / 0
        assert isinstance(b.acquire("failing"), Lease)
        with pytest.raises(Conflict, match="the lock 'lost' was lost"):
            async with node.lock("lost", ttl=0.4):
                b.delete("lost", keyspace="locks")
                await trio.sleep_forever()
        with pytest.raises(Conflict):
            async with node.lock("trio", wait=0.1):
                pass


@pytest.mark.trio
async def test_a_daemon_that_ends_is_told_to_all_who_wait(tmp_path: Path) -> None:
    """A call after its death fails, and so does the next: nobody waits for ever."""
    with daemons_in(tmp_path) as daemons:
        alone = daemons("alone").start()
        async with peernode.connect(alone.folder / "sock") as node:
            await node.status()
            alone.kill()
            with pytest.raises(peernode.PeernodeError, match="hung up"):
                await node.status()
            with pytest.raises(peernode.PeernodeError, match="hung up"):
                await node.status()


def test_what_was_never_committed_is_not_found(a: Client) -> None:
    """No member knows of such an id."""
    with pytest.raises(NotFound):
        a.transaction_status("a" * 52 + ".1.1")
