"""How the node's state looks to its clients: the shapes that INTERFACE and the README promise."""

from __future__ import annotations

from collections import Counter

from protocol.clock import stamp_ms
from protocol.effects import Entry
from protocol.membership.table import Member, State
from protocol.replica.entry import version_text
from protocol.types import NodeId, node_text

from .api import Api


def name_of(api: Api, node: NodeId) -> str:
    """The name of a member, or the start of its id where no record of it is known."""
    if node == api.node.origin[0]:
        return api.node.config.name
    member = api.node.membership.table.members.get(node)
    return member.record.name if member is not None else node_text(node)[:8]


def item_view(api: Api, entry: Entry) -> dict[str, object]:
    expires_in_ms = None
    if entry.expires_ms:
        expires_in_ms = max(0, entry.expires_ms - api.node.time.time_ms(api.now()))
    return {
        "value": entry.value,
        "version": version_text(entry),
        "modified_ms": stamp_ms(entry.hlc),
        "origin": name_of(api, entry.node),
        "expires_in_ms": expires_in_ms,
    }


def members_view(api: Api) -> list[dict[str, object]]:
    """This node first, then the others by name."""
    table = api.node.membership.table.members
    others = sorted(table.values(), key=lambda member: (member.record.name, member.node))
    return [own_view(api), *(member_view(api, member) for member in others)]


def own_view(api: Api) -> dict[str, object]:
    config = api.node.config
    return {
        "name": config.name,
        "id": node_text(api.node.origin[0]),
        "address": config.address,
        "state": State.ALIVE.value,
        "why": "this node",
        "run": api.node.identity.run,
        "since_ms": api.started_ms,
        "rtt_ms": 0.0,
        "tags": dict(config.tags),
        "roles": [],
        "version": config.software,
        "reached": True,
        "self": True,
    }


def member_view(api: Api, member: Member) -> dict[str, object]:
    up = api.node.membership.contacts.up(member.node)
    return {
        "name": member.record.name,
        "id": node_text(member.node),
        "address": member.record.address,
        "state": member.state.value,
        "why": member.why,
        "run": member.run,
        "since_ms": member.since_ms,
        "rtt_ms": up.rtt_ms if up is not None else None,
        "tags": dict(member.record.tags),
        "roles": [],
        "version": member.record.software,
        "reached": member.reached is not None,
        "self": False,
    }


def status_view(api: Api) -> dict[str, object]:
    node = api.node
    states = Counter(member.state.value for member in node.membership.table.members.values())
    states[State.ALIVE.value] += 1
    replica = node.replica
    return {
        "name": node.config.name,
        "id": node_text(node.origin[0]),
        "cluster_id": api.runtime.keys.cluster_id.hex(),
        "version": api.version,
        "protocol": node.config.protocol_max,
        "state": "leaving" if node.is_leaving else "alive",
        "address": node.config.address,
        "members": dict(states),
        "keys": replica.tally.durable.keys,
        "digest": f"{replica.tally.durable.digest:032x}",
        "loop_lag_ms": round(api.runtime.lag_ms, 3),
        "run": node.identity.run,
        "uptime_ms": api.now().wall_ms - api.started_ms,
        "socket": api.socket,
        "data_dir": api.data_dir,
        "links": len(api.runtime.links),
        "store": "full" if node.store_failed else "ok",
        "refused": {fault.value: count for fault, count in node.refused.items()},
    }


def health_view(api: Api) -> dict[str, object]:
    """Healthy: writes work, and no member is suspect or dead."""
    reasons = [
        f"{member.record.name} is {member.state}: {member.why}"
        for member in api.node.membership.table.members.values()
        if member.state in (State.SUSPECT, State.DEAD)
    ]
    if api.node.store_failed:
        reasons.append(f"the store takes no writes: {api.node.store_failed}")
    return {"healthy": not reasons, "reasons": reasons}
