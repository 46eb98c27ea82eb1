"""Two real daemons that share a key, and what survives what."""

from __future__ import annotations

import shutil

from peernode.client import Client

from ..waiting import wait_until
from .daemons import Daemons


def test_two_daemons_share_a_key(daemons: Daemons) -> None:
    """`run` and `run --seed ADDRESS`, no other option, make a cluster of two."""
    a = daemons("a").start()
    b = daemons("b").start("--seed", a.address)

    with a.connect() as on_a, b.connect() as on_b:
        on_a.put("k", "from a")
        assert wait_until(lambda: on_b.get("k")).value == b"from a"
        on_b.put("k", "from b")
        wait_until(lambda: on_a.get("k").value == b"from b")
        assert [m["state"] for m in on_a.members()] == ["alive", "alive"]


def test_the_founder_can_be_lost_for_good(daemons: Daemons) -> None:
    """Any member invites: with the founder's folder deleted a third node joins with the line that b prints."""
    a = daemons("a").start()
    b = daemons("b").start("--seed", a.address)
    with a.connect() as on_a, b.connect() as on_b:
        on_a.put("k", "v")
        wait_until(lambda: on_b.get("k"))
    a.kill()
    shutil.rmtree(a.folder)

    invited = daemons.command("invite", "--node", "b")
    assert invited.returncode == 0, invited.stderr
    (line,) = invited.stdout.splitlines()
    assert line.startswith("peernode run --ticket pn1")
    c = daemons("c").start(*line.split()[2:])

    assert c.ready.endswith("(through b)")
    with c.connect() as on_c:
        assert on_c.get("k").value == b"v"


def test_a_stopped_node_left_and_comes_back(daemons: Daemons) -> None:
    """SIGTERM is a goodbye: `left`, not `dead`; the next `run` needs no option."""
    a = daemons("a").start()
    b = daemons("b").start("--seed", a.address)

    assert b.terminate() == 0
    assert a.state_of("b") == "left"
    b.start()
    wait_until(lambda: a.state_of("b") == "alive")


def test_no_acknowledged_write_is_lost_in_twenty_kills(daemons: Daemons) -> None:
    """Twenty rounds of writing through both, killing one, starting it again: everything is everywhere."""
    nodes = [daemons("a").start()]
    nodes.append(daemons("b").start("--seed", nodes[0].address))
    written: dict[bytes, bytes] = {}
    for round_ in range(20):
        for node in nodes:
            with node.connect() as client:
                write_some(client, f"{round_}/{node.name}", written)
        victim = nodes[round_ % 2]
        victim.kill()
        victim.start()

    for node in nodes:
        with node.connect() as client:
            wait_until(lambda c=client: {item.key: item.value for item in c.scan()} == written)


def write_some(client: Client, prefix: str, written: dict[bytes, bytes]) -> None:
    requests = [("kv.put", {"key": f"{prefix}/{n}", "value": f"{n}"}) for n in range(20)]
    for (_, params), answer in zip(requests, client.call_many(requests), strict=True):
        assert isinstance(answer, dict), answer
        written[params["key"].encode()] = params["value"].encode()
