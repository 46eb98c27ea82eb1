"""Keyspaces on three real daemons, a and b, and c which declines to vote: created on one, known to all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from peernode.client import Client, Conflict, PeernodeError

from ..waiting import wait_until
from .daemons import Daemons, daemons_in


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    with daemons_in(tmp_path_factory.mktemp("keyspaces")) as daemons:
        a = daemons("a").start()
        daemons("b").start("--seed", a.address)
        daemons("c").start("--seed", a.address, "--no-voter")
        for daemon in daemons.all:
            with daemon.connect() as client:
                wait_until(lambda c=client: c.status()["links"] == 2)
        yield daemons


def command(cluster: Daemons, *arguments: str) -> tuple[int, Any]:
    """Exit code and JSON of a command on a: its document, or what it says is wrong."""
    done = cluster.command(*arguments, "--node", "a", "--json")
    return done.returncode, json.loads(done.stdout or done.stderr)


def on(cluster: Daemons, name: str) -> Client:
    return next(daemon for daemon in cluster.all if daemon.name == name).connect()


def names(client: Client) -> list[str]:
    return [found["name"] for found in client.keyspaces()]


def test_a_keyspace_is_known_to_all_and_after_a_restart(cluster: Daemons) -> None:
    """Created on a, shown by b in the same words, also when b was killed; no node counts it as a key."""
    code, made = command(cluster, "keyspace", "create", "bank", "--policy", "coordinated", "--voters", "b")
    assert code == 0
    (voter,) = made["voters"]
    assert (made["name"], made["policy"], made["epoch"], made["created"]) == ("bank", "coordinated", 1, True)
    assert (voter["name"], voter["has_store"]) == ("b", True)
    shown = {name: value for name, value in made.items() if name != "created"}

    b = cluster.all[1]
    with b.connect() as client:
        wait_until(lambda: "bank" in names(client))
        assert client.keyspace("bank") == shown
    b.kill()
    b.start()
    for name in "abc":
        with on(cluster, name) as client:
            wait_until(lambda c=client: c.keyspace("bank") == shown)
            status = client.status()
            assert (status["keys"], int(status["digest"], 16)) == (0, 0)


def test_created_twice_it_is_the_same(cluster: Daemons) -> None:
    """On another node, too; and with another meaning it is refused."""
    with on(cluster, "a") as a, on(cluster, "b") as b:
        first = a.create_keyspace("twice")
        wait_until(lambda: "twice" in names(b))
        assert b.create_keyspace("twice") == first | {"created": False}
        with pytest.raises(Conflict, match="another definition"):
            b.create_keyspace("twice", "coordinated")


def test_who_declines_is_not_picked(cluster: Daemons) -> None:
    """By whomever it is asked, itself included; and says so among the members."""
    with on(cluster, "c") as c:
        picked = c.create_keyspace("picked", "coordinated")
        assert [voter["name"] in ("a", "b") for voter in picked["voters"]] == [True]
        roles = {member["name"]: member["roles"] for member in c.members()}
        assert roles == {"a": ["voter"], "b": ["voter"], "c": []}
    code, refused = command(cluster, "keyspace", "create", "x", "--policy", "coordinated", "--voters", "c")
    assert (code, refused["error"]["code"]) == (5, "unavailable")
    assert "--no-voter" in refused["error"]["message"]


def test_a_name_is_an_lww_keyspace_until_it_is_created(cluster: Daemons) -> None:
    """Its keys are where they were when it is; it is shown, and not listed, before."""
    code, shown = command(cluster, "keyspace", "show", "plain")
    assert (code, shown["policy"], shown["defined"], shown["voters"]) == (0, "lww", False, [])
    assert command(cluster, "set", "k", "v", "--keyspace", "plain")[0] == 0
    code, made = command(cluster, "keyspace", "create", "plain")
    assert (code, made["id"], made["defined"]) == (0, shown["id"], True)
    assert command(cluster, "get", "k", "--keyspace", "plain")[1]["value"] == "v"
    with on(cluster, "a") as a:
        a.delete("k", keyspace="plain")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("keyspace", "create", "x", "--policy", "none"), (2, "invalid")),
        (("keyspace", "create", "x", "--policy", "coordinated", "--voters", "a,b"), (2, "invalid")),
        (("keyspace", "create", "x", "--policy", "coordinated", "--voters", "nobody"), (3, "not_found")),
        (("keyspace", "drop", "x", "--id", "not hex"), (2, "invalid")),
        (("keyspace", "drop", "x", "--id", "1f"), (3, "not_found")),
        (("get", "k", "--keyspace", ""), (2, "invalid")),
        (("ls", "--keyspace", "n" * 129), (2, "too_large")),
    ],
)
def test_what_cannot_be_is_refused(
    cluster: Daemons, arguments: tuple[str, ...], expected: tuple[int, str]
) -> None:
    """With a code of its own; nothing is created by it."""
    code, refused = command(cluster, *arguments)
    assert (code, refused["error"]["code"]) == expected
    with on(cluster, "a") as a:
        assert "x" not in names(a)


def test_people_see_tables(cluster: Daemons) -> None:
    """A keyspace a line; one that was never created says so."""
    with on(cluster, "a") as a:
        a.create_keyspace("seen", "coordinated", voters=["a"])
    listed = cluster.command("keyspace", "ls", "--node", "a").stdout.splitlines()
    assert listed[0].split() == ["NAME", "POLICY", "VOTERS", "ID", "NOTE"]
    assert any(line.split()[:3] == ["seen", "coordinated", "a"] for line in listed)
    shown = cluster.command("keyspace", "show", "unseen", "--node", "a").stdout
    assert "never created" in shown


def test_two_creators_apart_are_in_conflict_until_one_is_dropped(daemons: Daemons) -> None:
    """Each made it while the other was down: the name means nothing, and what is dropped on one is gone on both."""
    a = daemons("a").start()
    b = daemons("b").start("--seed", a.address)
    a.kill()
    with b.connect() as on_b:
        theirs = on_b.create_keyspace("bank", "coordinated", voters=["b"])
    b.kill()
    a.start()
    with a.connect() as on_a:
        ours = on_a.create_keyspace("bank")
        b.start()
        with b.connect() as on_b:
            wait_until(lambda: len(on_a.keyspaces()) == len(on_b.keyspaces()) == 2)
            assert {found["id"]: found["conflict"] for found in on_b.keyspaces()} == {
                ours["id"]: True,
                theirs["id"]: True,
            }
            for client in (on_a, on_b):
                with pytest.raises(PeernodeError, match=theirs["id"]):
                    client.put("k", "v", keyspace="bank")
            done = daemons.command("keyspace", "drop", "bank", "--id", theirs["id"], "--node", "a")
            assert done.returncode == 0, done.stderr
            for client in (on_a, on_b):
                wait_until(lambda c=client: [found["id"] for found in c.keyspaces()] == [ours["id"]])
            on_b.put("k", "v", keyspace="bank")
