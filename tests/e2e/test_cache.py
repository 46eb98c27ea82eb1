"""The local TTL cache of three real daemons: what stays on one, what reaches all, and who is told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peernode.client import Client, PeernodeError
from peernode.client.sync import Notice

from ..waiting import wait_until
from .daemons import Daemon, Daemons, daemons_in

THREE = ("a", "b", "c")
Clients = dict[str, Client]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """Three daemons, all linked to each other."""
    with daemons_in(tmp_path_factory.mktemp("cache")) as daemons:
        a = daemons("a").start()
        for name in THREE[1:]:
            daemons(name).start("--seed", a.address)
        for daemon in daemons.all:
            with daemon.connect() as client:
                wait_until(lambda c=client: c.status()["links"] == 2)
        yield daemons


@pytest.fixture
def on(cluster: Daemons) -> Iterator[Clients]:
    """A client of each, with empty caches."""
    clients = {daemon.name: daemon.connect() for daemon in cluster.all}
    for client in clients.values():
        client.cache_clear()
    yield clients
    for client in clients.values():
        client.close()


def kept(client: Client, *keys: str) -> list[str]:
    """Those of the keys that this node keeps."""
    return [key for key in keys if client.cache_get(key) is not None]


def put_everywhere(on: Clients, *keys: str) -> None:
    for client in on.values():
        for key in keys:
            client.cache_put(key, "v")


# What stays here


def test_entries_are_not_replicated(on: Clients) -> None:
    """What one node keeps another does not have, even after a write to the store that came later has arrived."""
    on["a"].cache_put("k", b"\xffvalue")
    on["a"].put("witness", "1")
    wait_until(lambda: on["b"].get("witness"))

    assert on["a"].cache_get("k").value == b"\xffvalue"
    assert (on["b"].cache_get("k"), on["a"].get("k")) == (None, None)
    assert (on["a"].cache_delete("k"), on["a"].cache_delete("k"), kept(on["a"], "k")) == (True, False, [])


def test_the_default_ttl_is_five_minutes(on: Clients) -> None:
    """And a TTL that is given is shown as what is left of it."""
    on["a"].cache_put("default", "v")
    on["a"].cache_put("given", "v", ttl=7)

    assert 290_000 < on["a"].cache_get("default").expires_in_ms <= 300_000
    assert 1_000 < on["a"].cache_get("given").expires_in_ms <= 7_000


def test_expired_entries_leave_without_being_asked_for(on: Clients) -> None:
    """Nobody reads it, nobody writes: the daemon cleans up by itself."""
    before = on["a"].cache_stats()["expired"]
    on["a"].cache_put("short", "v", ttl=0.05)

    wait_until(lambda: on["a"].cache_stats()["entries"] == 0)
    assert on["a"].cache_stats()["expired"] == before + 1


# What reaches all


def test_an_invalidated_key_leaves_every_node(on: Clients) -> None:
    """The others drop it too, and keep the rest; a subscriber on another node is told who began it."""
    put_everywhere(on, "user/1", "user/2")
    with on["c"].cache_subscribe() as notices:
        assert on["a"].cache_invalidate("user/1") == 1
        heard = notices.hear(10)
        assert kept(on["c"], "user/1", "user/2") == ["user/2"], "told when it was dropped"

    assert heard == Notice("cache.invalidated", {"subscription": 1, "key": b"user/1", "origin": "a"})
    wait_until(lambda: kept(on["b"], "user/1", "user/2") == ["user/2"])
    assert kept(on["a"], "user/1", "user/2") == ["user/2"]


def test_an_invalidated_pattern_leaves_every_node(on: Clients) -> None:
    """All keys that match, on all nodes; what does not match stays."""
    keys = ("user/1/name", "user/1/mail", "user/12/name", "group/1/name")
    put_everywhere(on, *keys)
    with on["a"].cache_subscribe() as notices:
        assert on["b"].cache_invalidate(pattern="user/1/*") == 2
        assert notices.hear(10).params == {"subscription": 1, "pattern": b"user/1/*", "origin": "b"}

    for name in THREE:
        wait_until(lambda name=name: kept(on[name], *keys) == ["user/12/name", "group/1/name"])


def test_a_local_invalidation_stays_here(on: Clients) -> None:
    """Subscribers of this node hear of it, the others never: what comes behind it is the first they hear."""
    put_everywhere(on, "k", "witness")
    with on["a"].cache_subscribe() as here, on["b"].cache_subscribe() as there:
        assert on["a"].cache_invalidate("k", local=True) == 1
        assert here.hear(10).params["key"] == b"k"
        on["a"].cache_invalidate("witness")
        assert there.hear(10).params["key"] == b"witness"
    assert (kept(on["a"], "k"), kept(on["b"], "k")) == ([], ["k"])


def test_what_was_written_before_is_read_by_who_hears_of_it(on: Clients) -> None:
    """Write the store, then invalidate: a reader on another node that refills its cache never gets the old value."""
    with on["b"].cache_subscribe("price") as notices:
        for price in range(50):
            on["a"].put("price", str(price))
            on["a"].cache_invalidate("price")
            assert notices.hear(10).method == "cache.invalidated"
            assert on["b"].get("price").value == str(price).encode()


# Who is told


def test_a_subscriber_hears_what_it_asked_for(on: Clients) -> None:
    """Keys that match its pattern, and patterns that may share a key with it."""
    with on["b"].cache_subscribe("user/?") as notices:
        for key in ("group/1", "user/12", "user/1"):
            on["a"].cache_invalidate(key)
        for pattern in ("group/*", "us*", "*"):
            on["a"].cache_invalidate(pattern=pattern)
        heard = [notices.hear(10).params for _ in range(3)]

    assert [what.get("key") or what["pattern"] for what in heard] == [b"user/1", b"us*", b"*"]


def test_a_subscriber_is_told_at_once(on: Clients) -> None:
    """Not with the next heartbeat, also where the invalidation begins nothing else: a hundred in a few seconds."""
    began_s = time.monotonic()
    with on["a"].cache_subscribe() as notices:
        for number in range(100):
            on["a"].cache_invalidate(str(number), local=True)
            assert notices.hear(10).params["key"] == str(number).encode()

    assert time.monotonic() - began_s < 4


def test_a_subscription_ends_with_its_connection(on: Clients) -> None:
    """The daemon forgets who is gone; numbers are per connection."""
    with on["b"].cache_subscribe() as one, on["b"].cache_subscribe("x") as other:
        assert (one.number, other.number) == (1, 1)
        assert one.call("cache.subscribe") == {"subscription": 2}
        assert on["b"].cache_stats()["subscriptions"] == 3

    wait_until(lambda: on["b"].cache_stats()["subscriptions"] == 0)


def test_a_subscriber_that_does_not_read_harms_nobody(on: Clients, cluster: Daemons) -> None:
    """It is told how many it lost where they are missing, and another one loses nothing."""
    keys = [f"{number:04}/".ljust(1000, "x").encode() for number in range(3000)]
    with on["b"].cache_subscribe() as asleep, on["b"].cache_subscribe() as awake:
        before_kib = resident_kib(cluster.all[1])
        for start in range(0, len(keys), 100):
            some = keys[start : start + 100]
            on["a"].call_many([("cache.invalidate", {"key": key}) for key in some])
            assert [awake.hear(10).params["key"] for _ in some] == some
        grown_kib = resident_kib(cluster.all[1]) - before_kib

        position = lost = 0
        while position < len(keys):
            method, params = asleep.hear(10)
            if method == "lagged":
                lost += params["lost"]
                position += params["lost"]
            else:
                assert params["key"] == keys[position]
                position += 1
        on["a"].cache_invalidate("afterwards")
        assert asleep.hear(10).params["key"] == b"afterwards"

    assert lost > 500
    assert grown_kib < 16 * 1024


def test_subscriptions_of_one_client_are_bounded(on: Clients) -> None:
    """Too many are refused, and the connection goes on."""
    with on["a"].cache_subscribe() as notices:
        answers = notices.call_many([("cache.subscribe", {})] * 256)

        assert [answer["subscription"] for answer in answers[:255]] == list(range(2, 257))
        assert (answers[255].code, notices.cache_stats()["subscriptions"]) == ("overloaded", 256)


# Refusals


@pytest.mark.parametrize(
    ("method", "params", "code", "told"),
    [
        ("cache.put", {"key": "", "value": "v"}, "invalid", "the key is empty"),
        ("cache.put", {"key": "k" * 1025, "value": "v"}, "too_large", "1025 bytes"),
        ("cache.put", {"key": "k", "value": b"v" * 262145}, "too_large", "262145 bytes"),
        ("cache.put", {"key": "k", "value": "v", "ttl_ms": 0}, "invalid", "a TTL of 0 ms"),
        ("cache.get", {"key": "never"}, "not_found", "'never'"),
        ("cache.invalidate", {}, "invalid", "either a key or a pattern"),
        ("cache.invalidate", {"key": "k", "pattern": "k"}, "invalid", "either a key or a pattern"),
        ("cache.invalidate", {"key": ""}, "invalid", "the key has 0 bytes"),
        ("cache.invalidate", {"pattern": "p" * 1025}, "invalid", "the pattern has 1025 bytes"),
        ("cache.subscribe", {"pattern": ""}, "invalid", "the pattern has 0 bytes"),
    ],
)
def test_what_is_out_of_bounds_is_refused(
    on: Clients, method: str, params: dict[str, object], code: str, told: str
) -> None:
    """By name, and nothing of it reaches another node."""
    with pytest.raises(PeernodeError) as refused:
        on["a"].call(method, **params)
    assert refused.value.code == code
    assert told in refused.value.message


# The command line


def test_the_command_line_puts_gets_and_drops(on: Clients, cluster: Daemons) -> None:
    """Data on stdout, talk on stderr, exit 3 for a miss."""

    def run(*arguments: str) -> tuple[int, str, str]:
        done = cluster.command("cache", *arguments, "--node", "a")
        return done.returncode, done.stdout, done.stderr

    assert run("put", "k", "v", "--ttl", "10s") == (0, "", "ok\n")
    assert run("get", "k") == (0, "v", "")
    code, out, _ = run("get", "k", "--json")
    shown = json.loads(out)
    assert (code, shown["key"], shown["value"], sorted(shown)) == (
        0,
        "k",
        "v",
        ["expires_in_ms", "key", "value"],
    )
    assert 0 < shown["expires_in_ms"] <= 10_000
    assert run("del", "k", "never") == (0, "", "deleted 1 of 2\n")
    assert run("del", "k", "--json") == (3, '{"deleted": 0}\n', "")
    code, out, err = run("get", "k")
    assert (code, out, err.endswith("error: nothing is cached here under 'k'\n")) == (3, "", True)
    code, out, err = run("get", "k", "--json")
    assert (code, out, json.loads(err)["error"]["code"]) == (3, "", "not_found")
    assert run("invalidate")[:2] == (2, "")


def test_the_command_line_invalidates_everywhere(on: Clients, cluster: Daemons) -> None:
    """Keys and patterns in one call; with --local only there."""
    put_everywhere(on, "a/1", "a/2", "b", "c")
    local = cluster.command("cache", "invalidate", "c", "--local", "--node", "a", "-o", "jsonl")
    everywhere = cluster.command("cache", "invalidate", "b", "--pattern", "a/*", "--node", "a")

    assert (local.stdout, everywhere.stderr) == (
        '{"removed": 1}\n',
        "dropped 3 here, and told every other node\n",
    )
    for name in ("b", "c"):
        wait_until(lambda name=name: kept(on[name], "a/1", "a/2", "b", "c") == ["c"])


def test_the_command_line_shows_figures(cluster: Daemons, daemons: Daemons) -> None:
    """As fields for people and as one object for programs; a new daemon begins with none."""
    fresh: Daemon = daemons("fresh").start()
    with fresh.connect() as client:
        client.cache_put("k", "v")
        client.cache_get("k")
        client.cache_get("never")
        client.cache_invalidate("k")
        client.cache_put("k", "v")
    shown = json.loads(daemons.command("cache", "stats", "--json").stdout)
    people = daemons.command("cache", "stats").stdout.splitlines()

    bytes_held = shown.pop("bytes")
    assert shown == {
        "entries": 1,
        "entries_max": 100_000,
        "bytes_max": 64 << 20,
        "hits": 1,
        "misses": 1,
        "hit_rate": 0.5,
        "evictions": 0,
        "expired": 0,
        "invalidations": 1,
        "invalidated": 1,
        "emptied": 0,
        "subscriptions": 0,
    }
    assert bytes_held > len("kv")
    assert people[2].split() == ["hits", "1", "of", "2", "(50.0%)"]
    assert daemons.command("cache", "clear", "--json").stdout == '{"removed": 1}\n'


def resident_kib(daemon: Daemon) -> int:
    """Resident memory of the process."""
    status = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
