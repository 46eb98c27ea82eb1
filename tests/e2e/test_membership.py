"""Verdicts between real processes: who is dead, who left, who only stands still, and how long it takes to know."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from ..waiting import wait_until
from .daemons import Daemon, Daemons

NOTICED_MS = 2000
"""Some 300 ms are usual; the rest is for a machine that is busy with other tests."""


def cluster(daemons: Daemons, size: int) -> list[Daemon]:
    """So many daemons, each of which has reached all the others."""
    nodes = [daemons("abcde"[0]).start()]
    for name in "abcde"[1:size]:
        nodes.append(daemons(name).start("--seed", nodes[0].address))
    for node in nodes:
        wait_until(
            lambda n=node: all(row["reached"] for row in members(n, size)), what=f"{node.name} to reach all"
        )
    return nodes


def members(node: Daemon, size: int) -> list[dict[str, Any]]:
    with node.connect() as client:
        rows = client.members()
    return rows if len(rows) == size else [{"reached": False}]


def row_of(node: Daemon, name: str) -> dict[str, Any]:
    with node.connect() as client:
        return next(row for row in client.members() if row["name"] == name)


def calls_dead(node: Daemon) -> list[str]:
    """Every line of its log in which it calls somebody dead."""
    return [line for line in node.log.read_text().splitlines() if "member.dead" in line]


@pytest.mark.parametrize("size", [3, 5])
def test_every_survivor_calls_the_killed_one_dead_and_nobody_else(daemons: Daemons, size: int) -> None:
    """kill -9: closed connections and a refused port, said by a majority."""
    *survivors, victim = cluster(daemons, size)

    killed_ms = time.time_ns() // 1_000_000
    victim.kill()
    for node in survivors:
        wait_until(lambda n=node: row_of(n, victim.name)["state"] == "dead", what=f"{node.name} to notice")

    for node in survivors:
        row = row_of(node, victim.name)
        assert row["since_ms"] - killed_ms < NOTICED_MS
        assert row["why"].startswith("closed: ")
        assert row["why"].endswith(f"(the link closed and {victim.address} refuses connections)")
        assert len(calls_dead(node)) == 1
        with node.connect() as client:
            assert [r["state"] for r in client.members() if r["name"] != victim.name] == ["alive"] * (
                size - 1
            )


def test_a_terminated_one_left_and_is_never_called_dead(daemons: Daemons) -> None:
    """SIGTERM is a goodbye."""
    *others, leaver = cluster(daemons, 3)

    assert leaver.terminate() == 0

    assert [row_of(node, leaver.name)["state"] for node in others] == ["left", "left"]
    time_of_a_verdict_has_passed(others)
    assert [row_of(node, leaver.name)["state"] for node in others] == ["left", "left"]
    assert [calls_dead(node) for node in others] == [[], []]


def test_a_stopped_process_is_suspect_and_blames_nobody_when_it_goes_on(daemons: Daemons) -> None:
    """SIGSTOP for five seconds: its kernel still takes connections, so nobody calls it dead, nor it the others."""
    *others, sleeper = cluster(daemons, 3)

    os.kill(sleeper.pid, signal.SIGSTOP)
    stopped_s = time.monotonic()
    for node in others:
        wait_until(
            lambda n=node: row_of(n, sleeper.name)["state"] == "suspect", what=f"{node.name} to notice"
        )
    wait_until(lambda: time.monotonic() > stopped_s + 5)
    rows = [row_of(node, sleeper.name) for node in others]
    assert [row["state"] for row in rows] == ["suspect", "suspect"]
    assert [row["why"].startswith(f"stalled at {sleeper.address}: ") for row in rows] == [True, True]
    os.kill(sleeper.pid, signal.SIGCONT)
    for node in others:
        wait_until(
            lambda n=node: row_of(n, sleeper.name)["state"] == "alive", what=f"{node.name} to hear it again"
        )

    time_of_a_verdict_has_passed([*others, sleeper])
    assert [calls_dead(node) for node in (*others, sleeper)] == [[], [], []]
    assert "member.suspect" not in sleeper.log.read_text()
    with sleeper.connect() as client:
        assert client.status()["refused"] == {}


def test_of_two_a_silent_one_is_suspect_and_both_stay_writable(daemons: Daemons) -> None:
    """One observer has no majority: silence alone never kills."""
    awake, sleeper = cluster(daemons, 2)

    os.kill(sleeper.pid, signal.SIGSTOP)
    wait_until(lambda: row_of(awake, sleeper.name)["state"] == "suspect")
    with awake.connect() as client:
        client.put("k", "written meanwhile")
    os.kill(sleeper.pid, signal.SIGCONT)

    with sleeper.connect() as client:
        client.put("l", "written after")
        wait_until(lambda: client.get("k"))
        assert client.get("k").value == b"written meanwhile"
    assert [calls_dead(node) for node in (awake, sleeper)] == [[], []]


def time_of_a_verdict_has_passed(nodes: list[Daemon]) -> None:
    """Long enough for a wrong verdict to come: two seconds of each daemon's own uptime."""
    for node in nodes:
        began_ms = uptime_ms(node)
        wait_until(lambda n=node, b=began_ms: uptime_ms(n) > b + 2000)


def uptime_ms(node: Daemon) -> int:
    with node.connect() as client:
        uptime: int = client.status()["uptime_ms"]
    return uptime
