"""sync: how far this node and the others are apart."""

from __future__ import annotations

import time
from typing import Any

import click

from .common import Context, client_command
from .output import ago


@click.group("sync", context_settings={"help_option_names": ["-h", "--help"]})
def sync() -> None:
    """Whether all nodes hold the same."""


@client_command("status")
def status(context: Context) -> None:
    """For each other node, how many writes are still to come from it or to go to it.

    A node is "in sync" when both hold all that the other has told of. LAST SYNC is when this node last pulled from it
    what it had missed; between nodes that are linked, writes go without that.

    \b
    peernode sync status
    peernode sync status --json | jq .in_sync
    """
    with context.connect() as node:
        found = node.sync_status()
    output = context.output
    if output.form == "json":
        output.document(found)
    elif output.form == "jsonl":
        output.lines(found["peers"])
    elif not found["peers"]:
        output.say("there is no other node")
    else:
        output.table(("NAME", "STATE", "SYNC", "BEHIND", "AHEAD", "LAST SYNC"), map_rows(found["peers"]))


def map_rows(peers: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    now_ms = time.time() * 1000
    return [
        (
            peer["name"],
            peer["state"],
            in_words(peer),
            peer["behind"],
            peer["ahead"],
            "-" if peer["last_sync_ms"] is None else f"{ago(round(now_ms - peer['last_sync_ms']))} ago",
        )
        for peer in peers
    ]


def in_words(peer: dict[str, Any]) -> str:
    words = [f"{peer[name]} {name}" for name in ("behind", "ahead") if peer[name]]
    if peer["percent"] is not None:
        words.append(f"{peer['percent']} % pulled")
    return ", ".join(words) or "in sync"


sync.add_command(status)

COMMANDS = {"sync": sync}
