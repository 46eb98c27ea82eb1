"""members watch: every change of the membership as a line, or as a call of a command."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import click

from ..client import PeernodeError
from .common import Context, client_command
from .output import iso, one_line

FIELDS = ("name", "id", "address", "state", "why")
"""What CMD finds in PEERNODE_MEMBER_NAME, PEERNODE_MEMBER_ID and so on."""


@client_command("watch")
@click.option("--state", "states", multiple=True, metavar="S", help="Only changes to this state.")
@click.argument("command", nargs=-1, metavar="[-- CMD...]")
def watch(context: Context, states: tuple[str, ...], command: tuple[str, ...]) -> None:
    """Tell of each member that is new, or in another state than before: who, since when, and why, until it is ended.

    With CMD it runs that for each change, one after the other; CMD finds the change in PEERNODE_MEMBER_NAME, _STATE,
    _WHY, _ID and _ADDRESS. When CMD fails that is said, and the next change comes all the same.

    \b
    peernode members watch
    peernode members watch --state dead -- sh -c 'mail -s "$PEERNODE_MEMBER_NAME is dead" me < /dev/null'
    """
    with context.connect() as node, node.members_subscribe() as notices:
        context.output.say("watching; ^C ends it")
        for notice in notices:
            if notice.method == "lagged":
                lost = notice.params["lost"]
                context.output.say(f"{lost} changes were lost, this was too slow; see: peernode members")
            elif not states or notice.params["state"] in states:
                tell(context, notice.params, list(command))


def tell(context: Context, change: dict[str, Any], command: list[str]) -> None:
    told = {name: change[name] for name in (*FIELDS, "run", "at_ms")}
    if command:
        run(context, told, command)
    elif context.output.is_json:
        context.output.lines([told])
    else:
        texts = [one_line(told[name]) for name in ("name", "state", "why")]
        print(iso(told["at_ms"]), *texts, sep="  ", flush=True)


def run(context: Context, change: dict[str, Any], command: list[str]) -> None:
    variables = {f"PEERNODE_MEMBER_{name.upper()}": str(change[name]) for name in FIELDS}
    try:
        done = subprocess.run(command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        text = f"cannot run {command[0]}: {error.strerror}"
        raise PeernodeError(text, code="invalid", hint="peernode members watch -- CMD") from None
    if done.returncode:
        context.output.say(
            f"{command[0]} failed for {change['name']}, {change['state']}: exit {done.returncode}"
        )
