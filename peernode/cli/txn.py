"""txn: several keys of coordinated keyspaces at once, all or nothing; and what is in doubt."""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from typing import Any

import click

from ..client.transaction import Draft
from .common import Context, client_command, client_group
from .output import ago, as_json, jsonable, printable

PAIR = "K=V"


@client_group("txn")
@click.option("--if", "equal", multiple=True, metavar=PAIR, help="Only if the key K holds V.")
@click.option("--if-version", multiple=True, metavar="K=VER", help="Only if the key K has this version.")
@click.option("--if-absent", multiple=True, metavar="K", help="Only if there is no key K.")
@click.option("--set", "puts", multiple=True, metavar=PAIR, help="Write V under the key K.")
@click.option("--del", "deletes", multiple=True, metavar="K", help="Delete the key K.")
@click.option("--keyspace", metavar="NAME", help="The coordinated keyspace of these keys.")
@click.option(
    "--request-id", metavar="ID", help="16 bytes or more: sent again with the same ID, it is done once."
)
@click.pass_context
def txn(
    group: click.Context,
    context: Context,
    equal: tuple[str, ...],
    if_version: tuple[str, ...],
    if_absent: tuple[str, ...],
    puts: tuple[str, ...],
    deletes: tuple[str, ...],
    keyspace: str | None,
    request_id: str | None,
) -> None:
    """Check and write several keys of a coordinated keyspace: all of it, or nothing.

    Exit 6 when a check does not hold, and 5 when nobody can say yet (the message names the transaction). `txn -`
    reads JSON from standard input, `txn list` shows what is in doubt, `txn show ID` one transaction.

    \b
    peernode txn --keyspace bank --if a=100 --set a=90 --set b=110
    peernode txn --keyspace jobs --if-absent job/7 --set job/7=taken
    """
    if group.invoked_subcommand is not None:
        return
    draft = Draft(keyspace or "default", context.timeout_s)
    for key, value in map(pair, equal):
        draft.expect(key, value=value)
    for key, value in map(pair, if_version):
        draft.expect(key, version=value.decode(errors="replace"))
    for text in if_absent:
        draft.expect(encoded(text), absent=True)
    for key, value in map(pair, puts):
        draft.put(key, value)
    for text in deletes:
        draft.delete(encoded(text))
    if draft.is_empty:
        raise click.UsageError("nothing to check or to write", group)
    params = draft.params()
    if request_id is not None:
        params["request_id"] = encoded(request_id)
    commit(context, params)


@client_command("-")
def from_stdin(context: Context) -> None:
    """Read a transaction from standard input, in the shape of `txn.commit`.

    Values and keys are strings; `value_b64` and `key_b64` hold any bytes.

    \b
    {"checks": [{"keyspace": "bank", "key": "a", "value": "100"}],
     "writes": [{"keyspace": "bank", "key": "a", "value": "90"}, {"keyspace": "old", "key": "a", "delete": true}]}
    """
    try:
        given = json.load(sys.stdin)
        if not isinstance(given, dict):
            raise TypeError("a transaction is one JSON object")
        params = {
            name: [with_bytes(one) for one in value] if name in ("checks", "writes") else value
            for name, value in given.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise click.UsageError(f"standard input holds no transaction: {error}") from None
    commit(context, {**Draft("", context.timeout_s).params(), **params})


def commit(context: Context, params: dict[str, Any]) -> None:
    with context.connect() as node:
        done = node.commit(params)
    if context.output.is_json:
        written = [as_json("key", encoded(write["key"])) for write in params.get("writes", ())]
        versions = [{**key, "version": at} for key, at in zip(written, done["versions"], strict=True)]
        context.output.document({"txid": done["txid"], "writes": versions})
    else:
        context.output.say(f"ok {done['txid']}")


@client_command("list")
def list_doubtful(context: Context) -> None:
    """The transactions that are in doubt, and why.

    \b
    peernode txn list
    """
    with context.connect() as node:
        found = node.transactions()
    output = context.output
    shown = [jsonable(one) for one in found]
    if output.form == "json":
        output.document(shown)
    elif output.form == "jsonl":
        output.lines(shown)
    else:
        rows = [
            (one["txid"], ago(one["age_ms"]), one["coordinator"], ",".join(one["keyspaces"]), one["why"])
            for one in found
        ]
        output.table(("TXID", "AGE", "COORDINATOR", "KEYSPACES", "WHY"), rows)


@client_command("show")
@click.argument("txid")
def show(context: Context, txid: str) -> None:
    """Which participant of a transaction is prepared, committed or aborted; exit 3 when nobody knows of it.

    \b
    peernode txn show ID
    """
    with context.connect() as node:
        found = node.transaction_status(txid)
    output = context.output
    if output.is_json:
        output.document(jsonable(found))
        return
    shown = {name: found[name] for name in ("txid", "state", "why", "coordinator")}
    keys = ", ".join(f"{key['keyspace']}/{printable(key['key'])}" for key in found["keys"])
    output.fields({**shown, "age": ago(found["age_ms"]), "locks": keys or "none"})
    print()
    rows = [(one["name"], one["keyspace"], one["state"]) for one in found["participants"]]
    output.table(("PARTICIPANT", "KEYSPACE", "STATE"), rows)


def with_bytes(one: dict[str, Any]) -> dict[str, Any]:
    """`key_b64` and `value_b64` become what they stand for."""
    return {
        name.removesuffix("_b64"): b64decode(value, validate=True) if name.endswith("_b64") else value
        for name, value in one.items()
    }


def pair(text: str) -> tuple[bytes, bytes]:
    key, mark, value = text.partition("=")
    if not mark or not key:
        raise click.UsageError(f"{text!r} is no {PAIR}; for keys with = in them use `txn -`")
    return encoded(key), encoded(value)


def encoded(text: str | bytes) -> bytes:
    """The bytes of an argument as they were typed."""
    return text.encode(errors="surrogateescape") if isinstance(text, str) else text


for command in (from_stdin, list_doubtful, show):
    txn.add_command(command)

COMMANDS = {"txn": txn}
