"""Coordinated writes on three real voters while coordinators die, links break and voters are killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from peernode.client import Client, PeernodeError

from ..waiting import wait_until
from .coordinated import KEYSPACE, Transfers, meet, takeover, voters
from .daemons import Daemon, Daemons


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Daemons]:
    with voters(tmp_path) as daemons:
        yield daemons


def test_a_coordinator_that_dies_between_the_phases_holds_nobody_up(cluster: Daemons) -> None:
    """Another node finishes what it began, its locks are free, and all three agree in the end."""
    for number in range(2):
        takeover(cluster, number)


def test_money_is_neither_made_nor_lost(cluster: Daemons) -> None:
    """Clients move it while voters are killed: the same total in every snapshot, and at the end on every node."""
    transfers = Transfers(cluster, seed=7)
    transfers.run(4.0, clients=4)
    transfers.check_end()

    assert transfers.wrong == []
    assert transfers.kills > 0
    assert transfers.results["moved"] > 20
    assert transfers.results["snapshots"] > 0


def cut(daemon: Daemon, *others: Daemon) -> None:
    """From now on it hears nothing from these; none: all again."""
    daemon.faults.write_text(json.dumps({"deaf_to": [other.address for other in others]}))
    with daemon.connect() as client:
        client.call("faults.reload")


def code_of(client: Client, value: str) -> str:
    try:
        client.call("kv.put", keyspace=KEYSPACE, key="split", value=value, acks_wait_ms=1500)
    except PeernodeError as error:
        return error.code
    return "ok"


def test_only_the_majority_of_a_split_commits(cluster: Daemons) -> None:
    """Two of three voters go on; the third says `unavailable` in time, to writes and reads; healed, all agree."""
    a, b, c = cluster.all
    for daemon in cluster.all:
        daemon.faults.write_text("{}")
        daemon.terminate()
        daemon.start()
    meet(cluster)
    for one, others in ((a, (c,)), (b, (c,)), (c, (a, b))):
        cut(one, *others)
    with a.connect(10) as larger, c.connect(10) as smaller:
        larger.put("split", "larger", keyspace=KEYSPACE)
        wait_until(lambda: code_of(smaller, "smaller") == "unavailable", what="the smaller side to say so")
        with pytest.raises(PeernodeError) as refused:
            smaller.get("split", keyspace=KEYSPACE, level="quorum")
        assert refused.value.code == "unavailable"
        larger.put("split", "larger still", keyspace=KEYSPACE)

        for daemon in cluster.all:
            cut(daemon)
        meet(cluster)
        wait_until(lambda: larger.transactions() == [], what="nothing in doubt")
        for client in (larger, smaller):
            item = client.get("split", keyspace=KEYSPACE, level="quorum")
            assert item is not None and item.value == b"larger still"
