"""set, get, del, ls: the store."""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import click

from ..client import Client, Item, PeernodeError
from ..client.bulk import acks_wait_ms
from .common import Context, Duration, client_command
from .output import as_json, iso, printable

KEYSPACE = click.option("--keyspace", metavar="NAME", help="Another keyspace than the default one.")
PAGE = 500


@click.argument("key")
@click.argument("value")
@click.option("--ttl", type=Duration(), metavar="30s", help="Forget the key after this time.")
@click.option("--if-version", metavar="V", help="Only if the key still has this version.")
@click.option("--if-absent", is_flag=True, help="Only if there is no such key.")
@click.option("--acks", type=click.IntRange(0), metavar="N", help="Wait until N other members have it, too.")
@click.option(
    "--durability",
    type=click.Choice(("disk", "memory")),
    help="memory: do not wait for the disk; a crash may lose it. Default: disk.",
)
@click.option(
    "--request-id", metavar="ID", help="16 bytes or more: a repetition with the same ID is not done twice."
)
@KEYSPACE
def set_key(
    context: Context,
    key: str,
    value: str,
    ttl: int | None,
    if_version: str | None,
    if_absent: bool,
    acks: int | None,
    durability: str | None,
    request_id: str | None,
    keyspace: str | None,
) -> None:
    """Write KEY. A VALUE of - is read from standard input.

    With --acks, exit 5 says whether nothing was written (too few members are linked) or it is written here and has
    not come to so many of them in time.

    \b
    peernode set greeting hello
    peernode set session/42 token --ttl 30m
    peernode set photo - < photo.jpg
    peernode set order/7 paid --acks 1 --request-id "$(uuidgen)"
    """
    content = sys.stdin.buffer.read() if value == "-" else encoded(value)
    with context.connect() as node:
        answer = node.call(
            "kv.put",
            key=encoded(key),
            value=content,
            ttl_ms=ttl,
            if_version=if_version,
            if_absent=if_absent or None,
            acks=acks,
            acks_wait_ms=acks_wait_ms(node, acks),
            durability=durability,
            request_id=None if request_id is None else encoded(request_id),
            keyspace=keyspace,
        )
    if context.output.is_json:
        context.output.document({**as_json("key", encoded(key)), **answer})
    else:
        context.output.say(f"ok {answer['version']}")


@click.argument("key")
@click.option(
    "--level",
    type=click.Choice(("local", "quorum")),
    help="quorum: the newest that the voters of a coordinated keyspace have. Default: local, this node's copy.",
)
@KEYSPACE
def get_key(context: Context, key: str, level: str | None, keyspace: str | None) -> None:
    """Print the value of KEY; exit 3 when there is none.

    \b
    peernode get greeting
    peernode get greeting --json
    peernode get photo > photo.jpg
    """
    with context.connect() as node:
        found = node.call("kv.get", key=encoded(key), keyspace=keyspace, level=level)
    if context.output.is_json:
        modified = {"modified": iso(found["modified_ms"])}
        rest = {name: found[name] for name in ("version", "origin", "expires_in_ms")}
        context.output.document(
            {**as_json("key", encoded(key)), **as_json("value", found["value"]), **rest, **modified}
        )
        return
    sys.stdout.buffer.write(found["value"])
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--if-version", metavar="V", help="Only if the key still has this version.")
@KEYSPACE
def delete_keys(context: Context, keys: tuple[str, ...], if_version: str | None, keyspace: str | None) -> int:
    """Delete keys; exit 3 when none of them was there.

    \b
    peernode del greeting
    """
    params = {"if_version": if_version, "keyspace": keyspace}
    with context.connect() as node:
        answers = node.call_many([("kv.delete", {"key": encoded(key), **params}) for key in keys])
    for answer in answers:
        if isinstance(answer, PeernodeError):
            raise answer
    deleted = sum(answer["deleted"] for answer in answers)
    if context.output.is_json:
        context.output.document({"deleted": deleted})
    else:
        context.output.say(f"deleted {deleted} of {len(keys)}")
    return 0 if deleted else 3


@click.argument("prefix", default="")
@click.option("--limit", type=click.IntRange(1), help="At most so many; the answer says how to go on.")
@click.option("--after", metavar="CURSOR", help="Go on where the last page ended (its `next`).")
@KEYSPACE
def list_keys(
    context: Context, prefix: str, limit: int | None, after: str | None, keyspace: str | None
) -> None:
    """List keys that begin with PREFIX, in order.

    \b
    peernode ls
    peernode ls config/ --json --limit 10
    """
    output = context.output
    with context.connect() as node:
        if output.form == "json":
            page = node.call(
                "kv.scan", prefix=encoded(prefix), after=decoded(after), limit=limit, keyspace=keyspace
            )
            items = [item_json(Item(**item)) for item in page["items"]]
            output.document({"items": items, "next": cursor(page["next"])})
            return
        items_found = walk(node, encoded(prefix), decoded(after), limit, keyspace)
        if output.form == "jsonl":
            output.lines(item_json(item) for item in items_found)
        elif output.form == "raw" or (output.is_default and not sys.stdout.isatty()):
            for item in items_found:
                sys.stdout.buffer.write(item.key + b"\n")
        else:
            output.table(
                ("KEY", "VALUE"), [(printable(item.key), printable(item.value[:60])) for item in items_found]
            )


def walk(
    node: Client, prefix: bytes, after: bytes | None, limit: int | None, keyspace: str | None
) -> Iterator[Item]:
    """All items, page by page, up to `limit`."""
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(left, PAGE)
        page = node.call("kv.scan", prefix=prefix, after=after, limit=size, keyspace=keyspace)
        yield from (Item(**item) for item in page["items"])
        after = page["next"]
        if after is None:
            return
        left = None if left is None else left - len(page["items"])


def item_json(item: Item) -> dict[str, Any]:
    return {**as_json("key", item.key), **as_json("value", item.value), "version": item.version}


def cursor(key: bytes | None) -> str | None:
    return None if key is None else b64encode(key, altchars=b"-_").decode()


def decoded(after: str | None) -> bytes | None:
    if after is None:
        return None
    try:
        return b64decode(after, altchars=b"-_", validate=True)
    except ValueError:
        raise click.UsageError(
            f"--after {after!r} is no cursor; give the `next` of the page before"
        ) from None


def encoded(text: str) -> bytes:
    """The bytes of an argument as they were typed."""
    return text.encode(errors="surrogateescape")


def build(name: str, function: Any) -> click.Command:
    return client_command(name)(function)


COMMANDS = {
    "set": build("set", set_key),
    "get": build("get", get_key),
    "del": build("del", delete_keys),
    "ls": build("ls", list_keys),
}
