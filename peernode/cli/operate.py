"""status, health, version."""

from __future__ import annotations

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
        "loop lag": f"{found['loop_lag_ms']:.1f} ms",
        "refused": refused or "-",
        "version": f"{found['version']} (protocol {found['protocol']})",
        "socket": found["socket"],
        "folder": found["data_dir"],
    }
    context.output.fields(shown)


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
