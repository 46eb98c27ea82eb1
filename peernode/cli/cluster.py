"""invite, join, leave, members, ticket: who belongs together."""

from __future__ import annotations

import time
from typing import Any

import click

from .common import Context, Duration, client_command, client_group
from .output import ago, iso
from .watching import watch

TTL = click.option(
    "--ttl", type=Duration(), default="15m", metavar="15m", help="How long the ticket is good."
)
USES = click.option("--uses", type=click.IntRange(1), default=1, help="How many nodes may join with it.")


@client_command("invite")
@TTL
@USES
def invite(context: Context, ttl: int, uses: int) -> None:
    """Print the one command that lets another machine join. Works on any member.

    \b
    peernode invite
    peernode invite --uses 10 --ttl 1h
    """
    made = make_ticket(context, ttl, uses)
    line = f"peernode run --ticket {made['ticket']}"
    if context.output.is_json:
        context.output.document({**made, "command": line})
        return
    context.output.say(
        f"good for {uses} node{'s' if uses > 1 else ''} until {iso(made['expires_ms'])}; run there:"
    )
    print(line)


@client_command("join")
@click.argument("seeds", nargs=-1, required=True, metavar="HOST:PORT...")
def join(context: Context, seeds: tuple[str, ...]) -> None:
    """Give a running node more addresses to dial.

    \b
    peernode join 10.0.0.5:7755
    """
    with context.connect() as node:
        answer = node.call("cluster.join", seeds=list(seeds))
    if context.output.is_json:
        context.output.document(answer)
    else:
        context.output.say(f"dialling {', '.join(answer['seeds'])}; see: peernode members")


@client_command("leave")
def leave(context: Context) -> None:
    """Hand over what only this node holds, say goodbye, and stop. The next `run` comes back.

    \b
    peernode leave --node b
    """
    with context.connect() as node:
        node.call("cluster.leave")
    if context.output.is_json:
        context.output.document({"leaving": True})
    else:
        context.output.say("leaving")


@client_group("members")
@click.option("--state", metavar="S", help="Only members in this state (alive, suspect, dead, left).")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="Only members with this tag.")
@click.pass_context
def members(group: click.Context, context: Context, state: str | None, tags: tuple[str, ...]) -> None:
    """Every known member, this node first; why says what its state rests on. `members watch` goes on telling.

    \b
    peernode members
    peernode members --state dead --json
    peernode members watch -- ./notify.sh
    """
    if group.invoked_subcommand is not None:
        return
    with context.connect() as node:
        found = [m for m in node.members() if matches(m, state, tags)]
    output = context.output
    if output.form == "json":
        output.document(found)
    elif output.form == "jsonl":
        output.lines(found)
    else:
        now_ms = int(time.time() * 1000)
        rows = [member_row(member, now_ms) for member in found]
        output.table(("NAME", "STATE", "FOR", "ADDRESS", "ID", "RTT", "TAGS", "WHY"), rows)


def matches(member: dict[str, Any], state: str | None, tags: tuple[str, ...]) -> bool:
    wanted = [tag.partition("=") for tag in tags]
    return state in (None, member["state"]) and all(
        member["tags"].get(key) == value for key, _, value in wanted
    )


def member_row(member: dict[str, Any], now_ms: int) -> tuple[object, ...]:
    rtt = "-" if member["rtt_ms"] is None else f"{member['rtt_ms']:.1f}ms"
    tags = ",".join(f"{key}={value}" for key, value in sorted(member["tags"].items())) or "-"
    since = ago(now_ms - member["since_ms"])
    name, state, address = member["name"], member["state"], member["address"]
    return (name, state, since, address, member["id"][:8], rtt, tags, member["why"])


@click.group("ticket", context_settings={"help_option_names": ["-h", "--help"]})
def ticket() -> None:
    """Tickets that this node gave out: create, list, revoke."""


@client_command("create")
@TTL
@USES
def create(context: Context, ttl: int, uses: int) -> None:
    """Make a ticket and print it; `peernode invite` prints the whole command."""
    made = make_ticket(context, ttl, uses)
    if context.output.is_json:
        context.output.document(made)
    else:
        print(made["ticket"])


@client_command("list")
def list_tickets(context: Context) -> None:
    """The tickets that this node gave out."""
    with context.connect() as node:
        found = node.call("ticket.list")
    if context.output.form == "json":
        context.output.document(found)
    elif context.output.form == "jsonl":
        context.output.lines(found)
    else:
        rows = [(t["id"], t["state"], t["uses_left"], len(t["used_by"]), iso(t["expires_ms"])) for t in found]
        context.output.table(("ID", "STATE", "USES LEFT", "USED", "EXPIRES"), rows)


@client_command("revoke")
@click.argument("ticket_id", metavar="ID")
def revoke(context: Context, ticket_id: str) -> None:
    """Make a ticket worthless."""
    with context.connect() as node:
        answer = node.call("ticket.revoke", id=ticket_id)
    if context.output.is_json:
        context.output.document(answer)
    else:
        context.output.say(f"revoked {ticket_id}")


def make_ticket(context: Context, ttl: int, uses: int) -> dict[str, Any]:
    with context.connect() as node:
        made = node.call("ticket.create", ttl_ms=ttl, uses=uses)
    return dict(made)


for command in (create, list_tickets, revoke):
    ticket.add_command(command)
members.add_command(watch)

COMMANDS = {"invite": invite, "join": join, "leave": leave, "members": members, "ticket": ticket}
