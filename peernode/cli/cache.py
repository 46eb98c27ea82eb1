"""cache: the local TTL cache of one node, and the invalidations that reach them all."""

from __future__ import annotations

import sys
from typing import Any

import click

from .common import Context, Duration, client_command
from .keys import encoded
from .output import as_json


@click.group("cache", context_settings={"help_option_names": ["-h", "--help"]})
def cache() -> None:
    """What this node keeps in memory for a while, for itself alone."""


@client_command("put")
@click.argument("key")
@click.argument("value")
@click.option("--ttl", type=Duration(), metavar="5m", help="Forget the key after this time. Default: 5m.")
def put(context: Context, key: str, value: str, ttl: int | None) -> None:
    """Keep VALUE under KEY on this node. A VALUE of - is read from standard input.

    \b
    peernode cache put user/42 '{"name": "Ada"}' --ttl 30s
    """
    content = sys.stdin.buffer.read() if value == "-" else encoded(value)
    with context.connect() as node:
        node.call("cache.put", key=encoded(key), value=content, ttl_ms=ttl)
    if context.output.is_json:
        context.output.document(as_json("key", encoded(key)))
    else:
        context.output.say("ok")


@client_command("get")
@click.argument("key")
def get(context: Context, key: str) -> None:
    """Print what this node keeps under KEY; exit 3 when there is nothing, or no more.

    \b
    peernode cache get user/42
    peernode cache get user/42 --json
    """
    with context.connect() as node:
        found = node.call("cache.get", key=encoded(key))
    if context.output.is_json:
        named = {**as_json("key", encoded(key)), **as_json("value", found["value"])}
        context.output.document({**named, "expires_in_ms": found["expires_in_ms"]})
        return
    sys.stdout.buffer.write(found["value"])
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


@client_command("del")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
def delete(context: Context, keys: tuple[str, ...]) -> int:
    """Drop keys on this node alone; exit 3 when none of them was there.

    \b
    peernode cache del user/42
    """
    with context.connect() as node:
        deleted = sum(node.cache_delete(encoded(key)) for key in keys)
    if context.output.is_json:
        context.output.document({"deleted": deleted})
    else:
        context.output.say(f"deleted {deleted} of {len(keys)}")
    return 0 if deleted else 3


@client_command("invalidate")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@click.option("--pattern", "patterns", multiple=True, metavar="GLOB", help="All keys that match: * ? and \\.")
@click.option("--local", is_flag=True, help="On this node alone.")
def invalidate(context: Context, keys: tuple[str, ...], patterns: tuple[str, ...], local: bool) -> None:
    """Drop stale keys on every node, and tell who subscribes to that.

    In a GLOB, * stands for any bytes, ? for one, and \\ takes the next byte as it is.

    \b
    peernode cache invalidate user/42
    peernode cache invalidate --pattern 'user/42/*'
    """
    if not keys and not patterns:
        raise click.UsageError("name a KEY or a --pattern")
    with context.connect() as node:
        removed = sum(node.cache_invalidate(encoded(key), local=local) for key in keys)
        removed += sum(node.cache_invalidate(pattern=encoded(glob), local=local) for glob in patterns)
    if context.output.is_json:
        context.output.document({"removed": removed})
    else:
        context.output.say(f"dropped {removed} here{'' if local else ', and told every other node'}")


@client_command("clear")
def clear(context: Context) -> None:
    """Drop everything that this node keeps; other nodes keep theirs.

    \b
    peernode cache clear
    """
    with context.connect() as node:
        removed = node.cache_clear()
    if context.output.is_json:
        context.output.document({"removed": removed})
    else:
        context.output.say(f"dropped {removed}")


@client_command("stats")
def stats(context: Context) -> None:
    """How full the cache is and how often it helped, since the daemon started.

    \b
    peernode cache stats
    peernode cache stats --json
    """
    with context.connect() as node:
        found = node.cache_stats()
    if context.output.is_json:
        context.output.document(found)
    else:
        context.output.fields(for_people(found))


def for_people(found: dict[str, Any]) -> dict[str, object]:
    lookups = found["hits"] + found["misses"]
    return {
        "entries": f"{found['entries']} of {found['entries_max']}",
        "bytes": f"{found['bytes']} of {found['bytes_max']}",
        "hits": f"{found['hits']} of {lookups} ({found['hit_rate']:.1%})",
        "evictions": found["evictions"],
        "expired": found["expired"],
        "invalidated": f"{found['invalidated']} by {found['invalidations']} invalidations",
        "emptied": f"{found['emptied']} times, for globs that came too fast",
        "subscriptions": found["subscriptions"],
    }


for command in (put, get, delete, invalidate, clear, stats):
    cache.add_command(command)

COMMANDS = {"cache": cache}
