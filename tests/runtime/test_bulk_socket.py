"""kv.mput and kv.mget of a real daemon: what they take, what they refuse whole, and what a page tells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from peernode.client import Client
from protocol.limits import BATCH_ITEMS_MAX, SCAN_ITEMS_MAX, VALUE_BYTES_MAX

from ..e2e.daemons import daemons_in


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of one daemon."""
    with daemons_in(tmp_path_factory.mktemp("home")) as daemons, daemons("a").start().connect() as client:
        yield client


def refusal(node: Client, method: str, **params: object) -> tuple[str, str]:
    """Code and message of the error; the daemon goes on."""
    (error,) = node.call_many([(method, params)])
    assert node.status()["state"] == "alive"
    return error.code, error.message


def test_strings_and_bytes_are_the_same(node: Client) -> None:
    """In the items of a write and in the keys of a read, as everywhere."""
    node.call("kv.mput", items=[{"key": "größe", "value": "ä"}, {"key": b"\xff", "value": b"\xff"}])

    found = node.call("kv.mget", keys=["größe", b"\xff", "none"])
    assert [(item["key"], item.get("value"), item.get("missing")) for item in found["items"]] == [
        ("größe".encode(), "ä".encode(), None),
        (b"\xff", b"\xff", None),
        (b"none", None, True),
    ]
    assert found["next"] is None


@pytest.mark.parametrize(
    ("items", "code", "told"),
    [
        ([], "invalid", "length >= 1"),
        ("k", "invalid", "Expected `array`"),
        ([7], "invalid", "a map, or a list"),
        ([{"key": "k"}], "invalid", "`value`"),
        ([{"key": 7, "value": "v"}], "invalid", "Expected `bytes`"),
        ([{"key": "k", "value": "v", "colour": "red"}], "invalid", "`colour`"),
        ([{"key": "k", "value": "v"}] * (BATCH_ITEMS_MAX + 1), "invalid", f"length <= {BATCH_ITEMS_MAX}"),
        ([{"key": "k", "value": "v"}, {"key": "", "value": "v"}], "invalid", "the key is empty"),
        ([{"key": "k", "value": "v", "ttl_ms": 0}], "invalid", "a TTL of 0 ms"),
        (
            [{"key": "k", "value": "v"}, {"key": "l", "value": "v" * (VALUE_BYTES_MAX + 1)}],
            "too_large",
            "262145",
        ),
    ],
)
def test_a_bad_batch_is_refused_whole(node: Client, items: object, code: str, told: str) -> None:
    """The error says what is wrong, nothing of the batch is written, and the daemon serves on."""
    told_code, message = refusal(node, "kv.mput", items=items)

    assert (told_code, told in message) == (code, True), message
    assert node.get("k") is None


@pytest.mark.parametrize("keys", ["k", [7], [{"key": "k"}], ["k"] * (SCAN_ITEMS_MAX + 1)])
def test_bad_keys_to_read_are_refused(node: Client, keys: object) -> None:
    """Not a list of keys, or too many of them."""
    assert refusal(node, "kv.mget", keys=keys)[0] == "invalid"


def test_a_read_that_is_too_much_says_how_far_it_came(node: Client) -> None:
    """`next` counts the keys that were answered: the others are for the next request."""
    for name in ("one", "two", "three"):
        node.put(name, name[0] * VALUE_BYTES_MAX)
    found = node.call("kv.mget", keys=["one", "none", "two", "three"])

    assert ([item["key"] for item in found["items"]], found["next"]) == ([b"one", b"none"], 2)


def test_a_page_tells_the_time_left(node: Client) -> None:
    """What expires carries it, in pages and in answers to many keys; what stays does not."""
    node.call(
        "kv.mput", items=[{"key": "ttl/a", "value": "", "ttl_ms": 60_000}, {"key": "ttl/b", "value": ""}]
    )
    scanned = node.call("kv.scan", prefix="ttl/")["items"]
    read = node.call("kv.mget", keys=["ttl/a", "ttl/b"])["items"]

    for expiring, staying in (scanned, read):
        assert 30_000 < expiring["expires_in_ms"] <= 60_000
        assert "expires_in_ms" not in staying
