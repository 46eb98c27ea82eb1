"""status, health, version."""

from __future__ import annotations

from typing import Any

from ..version import VERSION
from .common import Context, client_command
from .output import ago, one_line


@client_command("status")
def status(context: Context) -> None:
    """This node in one view: who it is, what it holds, whom it sees.

    \b
    peernode status
    peernode status --json
    """
    with context.connect() as node:
        found = node.status()
    if context.output.is_json:
        context.output.document(found)
        return
    members = ", ".join(f"{count} {state}" for state, count in sorted(found["members"].items()))
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(found["refused"].items()))
    shown = {
        "name": found["name"],
        "id": found["id"],
        "state": found["state"],
        "address": found["address"],
        "members": members,
        "keys": found["keys"],
        "digest": found["digest"],
        "store": found["store"],
        "cluster": found["cluster_id"],
        "up": ago(found["uptime_ms"]),
        "clock": clock_text(found["clock"]),
        "held back": held_back_text(found["clock"]),
        "loop lag": f"{found['loop_lag_ms']:.1f} ms",
        "refused": refused or "-",
        "version": f"{found['version']} (protocol {found['protocol']})",
        "socket": found["socket"],
        "folder": found["data_dir"],
    }
    context.output.fields({name: value for name, value in shown.items() if value != ""})


def clock_text(clock: dict[str, Any]) -> str:
    """What is wrong with this machine's clock; nothing when it is well."""
    if not clock["suspect"]:
        return ""
    if clock["jump_ms"]:
        return f"suspect: it was set by {clock['jump_ms'] / 1000:+.1f} s while this node ran"
    offsets = ", ".join(f"{name} {ms / 1000:+.1f} s" for name, ms in sorted(clock["offsets_ms"].items()))
    return (
        f"suspect: the cluster's time is {clock['correction_ms'] / 1000:+.1f} s from it (others: {offsets})"
    )


def held_back_text(clock: dict[str, Any]) -> str:
    """Whose writes wait here because they are stamped with a time that has not come."""
    names = ", ".join(clock["held_back"])
    return names and f"writes of {names}, until the time of their stamps has come"


@client_command("health")
def health(context: Context) -> int:
    """Exit 0 when writes work and every member is well, else 8 and the reasons.

    \b
    peernode health && echo fine
    """
    with context.connect() as node:
        found = node.call("node.health")
    if context.output.is_json:
        context.output.document(found)
    else:
        print("healthy" if found["healthy"] else "degraded")
        for reason in found["reasons"]:
            print(f"  {one_line(reason)}")
    return 0 if found["healthy"] else 8


@client_command("version")
def version(context: Context) -> None:
    """The version of this program."""
    if context.output.is_json:
        context.output.document({"version": VERSION})
    else:
        print(f"peernode {VERSION}")


COMMANDS = {"status": status, "health": health, "version": version}
