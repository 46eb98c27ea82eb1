"""`members watch`: a client, and a command, hear of every change of the membership, with its reason."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from peernode.client import Client
from peernode.client.sync import Notices

from ..waiting import wait_until
from .daemons import Daemons, daemons_in, environment


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """a, the founder, is up."""
    with daemons_in(tmp_path) as made:
        made("a").start()
        yield made


@contextmanager
def watching(daemons: Daemons, *options: str) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """`members watch` on a, which is connected; what it says goes to the files of that name."""
    out, said = daemons.home / "watch.out", daemons.home / "watch.err"
    command = [sys.executable, "-P", "-m", "peernode", "members", "watch", "--node", "a", *options]
    with out.open("w") as stdout, said.open("w") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment(daemons.home))
        try:
            wait_until(lambda: "watching" in said.read_text(), what="the subscription")
            yield out, process
        finally:
            process.kill()
            process.wait()


def member_b(client: Client) -> dict[str, Any]:
    return next(member for member in client.members() if member["name"] == "b")


def heard_until(notices: Notices, state: str) -> list[dict[str, Any]]:
    """What a subscriber hears up to that."""
    heard: list[dict[str, Any]] = []
    while not heard or heard[-1]["state"] != state:
        notice = notices.hear(5)
        assert notice is not None, f"heard of {heard}, not of {state}"
        heard.append(notice.params)
    return heard


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_subscriber_hears_of_joining_dying_and_leaving(daemons: Daemons) -> None:
    """Each change once and in order: who, in which run, in which state, since when, and on what that rests."""
    (a,) = daemons.all
    with a.connect() as client, client.members_subscribe() as notices:
        b = daemons("b").start("--seed", a.address)
        heard = heard_until(notices, "alive")
        wait_until(
            lambda: member_b(client)["reached"], what="a to have seen that b's address takes connections"
        )
        b.kill()
        heard += heard_until(notices, "dead")
        b.start()
        heard += heard_until(notices, "alive")
        b.terminate()
        heard += heard_until(notices, "left")
        heard = [change for change in heard if change["state"] != "suspect"]  # may come before it is dead
        assert len(heard) == 4
        assert {(params["name"], params["address"]) for params in heard} == {("b", b.address)}
        assert "refuses connections" in heard[1]["why"]
        assert heard[0]["run"] == heard[1]["run"] < heard[2]["run"]
        now = member_b(client)
        assert (now["id"], now["since_ms"], now["why"]) == tuple(
            heard[3][key] for key in ("id", "at_ms", "why")
        )
        assert client.status()["members"]["left"] == 1


def test_the_command_line_tells_of_changes_one_a_line(daemons: Daemons) -> None:
    """As JSON lines, each as soon as it is there; ^C ends it."""
    (a,) = daemons.all
    with watching(daemons, "--json") as (out, process):
        b = daemons("b").start("--seed", a.address)
        wait_until(lambda: len(lines(out)) == 1, what="b to be told of")
        b.terminate()
        wait_until(lambda: len(lines(out)) == 2, what="its leaving to be told of")
        assert [(line["name"], line["state"]) for line in lines(out)] == [("b", "alive"), ("b", "left")]
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130


def test_a_command_runs_for_each_change_of_interest(daemons: Daemons) -> None:
    """With the change in its environment; when it fails that is said, and the next one comes all the same."""
    (a,) = daemons.all
    script = 'echo "$PEERNODE_MEMBER_NAME $PEERNODE_MEMBER_STATE: $PEERNODE_MEMBER_WHY"; exit 3'
    with watching(daemons, "--state", "left", "--state", "dead", "--", "sh", "-c", script) as (out, _):
        b, c = daemons("b"), daemons("c")
        b.start("--seed", a.address)
        c.start("--seed", a.address)
        b.terminate()
        wait_until(lambda: out.read_text() == "b left: it said goodbye\n", what="b's leaving")
        c.terminate()
        wait_until(lambda: out.read_text().endswith("\nc left: it said goodbye\n"), what="c's leaving")
        said = (daemons.home / "watch.err").read_text()
        assert "sh failed for b, left: exit 3" in said


def test_a_command_that_does_not_exist_ends_it(daemons: Daemons) -> None:
    """At the first change: nothing else would ever come of it."""
    (a,) = daemons.all
    with watching(daemons, "--", "./no-such-command") as (_, process):
        daemons("b").start("--seed", a.address)
        assert process.wait(5) == 2
        assert "cannot run ./no-such-command" in (daemons.home / "watch.err").read_text()


def test_it_ends_with_its_daemon(daemons: Daemons) -> None:
    """And says so: a script that watches must not wait for ever."""
    (a,) = daemons.all
    with watching(daemons) as (_, process):
        a.kill()
        assert process.wait(5) == 4
