"""keyspace: names with a policy of their own."""

from __future__ import annotations

from typing import Any

import click

from .common import Context, client_command
from .output import iso


@click.group("keyspace", context_settings={"help_option_names": ["-h", "--help"]})
def keyspace() -> None:
    """Keyspaces: create, ls, show, voters, drop. A name that was never created is an lww keyspace."""


@client_command("create")
@click.argument("name")
@click.option("--policy", metavar="P", help="lww (the default) or coordinated.")
@click.option(
    "--voters", metavar="A,B,C", help="Members that decide, by name or id. Default: three are picked."
)
def create(context: Context, name: str, policy: str | None, voters: str | None) -> None:
    """Define the keyspace NAME, on every node. Once more does no harm.

    \b
    peernode keyspace create bank --policy coordinated
    peernode keyspace create bank --policy coordinated --voters a,b,c
    """
    named = None if voters is None else [voter.strip() for voter in voters.split(",")]
    with context.connect() as node:
        made = node.create_keyspace(name, policy, voters=named)
    if context.output.is_json:
        context.output.document(made)
        return
    done = "created" if made["created"] else "exists already:"
    by = f", voters {voters_text(made)}" if made["voters"] else ""
    context.output.say(f"{done} {name} ({made['policy']}{by}) {made['id']}")


@client_command("ls")
def list_keyspaces(context: Context) -> None:
    """The keyspaces that were created.

    \b
    peernode keyspace ls
    """
    with context.connect() as node:
        found = node.keyspaces()
    output = context.output
    if output.form == "json":
        output.document(found)
    elif output.form == "jsonl":
        output.lines(found)
    else:
        rows = [(k["name"], k["policy"], voters_text(k) or "-", k["id"], note_of(k)) for k in found]
        output.table(("NAME", "POLICY", "VOTERS", "ID", "NOTE"), rows)


@client_command("show")
@click.argument("name")
def show(context: Context, name: str) -> None:
    """What the keyspace NAME is; exit 6 where it was created twice, differently.

    \b
    peernode keyspace show bank
    """
    with context.connect() as node:
        found = node.keyspace(name)
    if context.output.is_json:
        context.output.document(found)
        return
    shown: dict[str, object] = {"name": name, "id": found["id"], "policy": found["policy"]}
    if found["voters"]:
        shown |= {"voters": voters_text(found), "epoch": found["epoch"]}
    if found["forced"]:
        forced = found["forced"]
        lost = ", ".join(forced["lost"])
        shown["forced"] = f"{iso(forced['at_ms'])} by {forced['by']}: what only {lost} had may be lost"
    if not found["defined"]:
        shown["note"] = "never created: every name is an lww keyspace until it is"
    context.output.fields(shown)


@client_command("voters")
@click.argument("name")
@click.argument("members", required=False, metavar="[A,B,C]")
@click.option(
    "--force", is_flag=True, help="A majority of the voters is lost for good: what only they had is, too."
)
def voters(context: Context, name: str, members: str | None, force: bool) -> None:
    """Show who decides in the keyspace NAME, or let the members A,B,C do that from now on.

    The voters agree on it themselves, so a majority of them has to be there; one of them may be dead or have lost its
    store. The new ones catch up first. Nothing is lost, and clients see no more than a short delay.

    \b
    peernode keyspace voters bank
    peernode keyspace voters bank a,b,d
    peernode keyspace voters bank d,e,f --force
    """
    with context.connect() as node:
        if members is None:
            found = node.keyspace(name)
        else:
            found = node.set_voters(name, [member.strip() for member in members.split(",")], force=force)
    output = context.output
    if output.form == "json":
        output.document({name: found[name] for name in ("name", "epoch", "voters", "forced")})
    elif output.form == "jsonl":
        output.lines(found["voters"])
    else:
        rows = [
            (v["name"], v["id"][:8], v["state"] or "-", "" if v["has_store"] else "it has lost its store")
            for v in found["voters"]
        ]
        output.table(("VOTER", "ID", "STATE", "NOTE"), rows)


@client_command("drop")
@click.argument("name")
@click.option(
    "--id", "keyspace_id", required=True, metavar="ID", help="Which one, as `keyspace ls` shows it."
)
def drop(context: Context, name: str, keyspace_id: str) -> None:
    """Take a definition of NAME away, on every node. Its keys stay, out of reach until it is created again.

    \b
    peernode keyspace drop bank --id 627e8f2a3f0c1d55
    """
    with context.connect() as node:
        node.drop_keyspace(name, keyspace_id)
    if context.output.is_json:
        context.output.document({"name": name, "id": keyspace_id, "dropped": True})
    else:
        context.output.say(f"dropped {name} {keyspace_id}")


def voters_text(found: dict[str, Any]) -> str:
    """Their names; those are marked that are not alive, or have lost the store with which they were named."""
    return ",".join(voter["name"] + voter_mark(voter) for voter in found["voters"])


def voter_mark(voter: dict[str, Any]) -> str:
    if not voter["has_store"]:
        return " (lost)"
    return "" if voter["state"] == "alive" else f" ({voter['state']})"


def note_of(found: dict[str, Any]) -> str:
    return "conflict: drop all but one" if found["conflict"] else ""


for command in (create, list_keyspaces, show, voters, drop):
    keyspace.add_command(command)

COMMANDS = {"keyspace": keyspace}
