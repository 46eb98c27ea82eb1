"""How the node's state looks to its clients: the shapes that INTERFACE and the README promise."""

from __future__ import annotations

from collections import Counter

from protocol.clock import stamp_ms
from protocol.effects import Entry
from protocol.keyspaces import id_text
from protocol.membership.record import MemberRecord
from protocol.membership.table import Member, State
from protocol.replica.entry import version_text
from protocol.transactions import stamp_text
from protocol.types import NodeId, node_text

from .api import Api


def name_of(api: Api, node: NodeId) -> str:
    """The name of a member, or the start of its id where no record of it is known."""
    if node == api.node.origin[0]:
        return api.node.config.name
    member = api.node.membership.table.members.get(node)
    return member.record.name if member is not None else node_text(node)[:8]


def keyspace_name(api: Api, keyspace: int) -> str:
    """The name of a keyspace, or its id where no definition of it is known."""
    known = api.node.replica.keyspaces.by_id(keyspace)
    return known.name if known is not None else id_text(keyspace)


def version_of(api: Api, entry: Entry) -> str:
    """Equal texts mean the same write. What voters decided may have been stored by any of several nodes."""
    is_voted = api.node.replica.keyspaces.has_voters(entry.keyspace)
    return stamp_text(entry.hlc) if is_voted else version_text(entry)


def item_view(api: Api, entry: Entry) -> dict[str, object]:
    expires_in_ms = None
    if entry.expires_ms:
        expires_in_ms = max(0, entry.expires_ms - api.node.time.time_ms(api.now()))
    return {
        "value": entry.value,
        "version": version_of(api, entry),
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
        "roles": roles_of(api.node.membership.record),
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
        "roles": roles_of(member.record),
        "version": member.record.software,
        "reached": member.reached is not None,
        "self": False,
    }


def roles_of(record: MemberRecord) -> list[str]:
    """What it may be asked to be."""
    return ["voter"] if record.votes else []


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
        "received_bytes": api.runtime.traffic.received,
        "sent_bytes": api.runtime.traffic.sent,
        "clock": clock_view(api),
        "store": "full" if node.store_failed else "ok",
        "refused": {fault.value: count for fault, count in node.refused.items()},
    }


def clock_view(api: Api) -> dict[str, object]:
    """How this machine's clock stands to the cluster's."""
    time, replica = api.node.time, api.node.replica
    return {
        "correction_ms": round(time.correction_ms),
        "jump_ms": time.jump_ms,
        "suspect": time.is_suspect,
        "offsets_ms": {name_of(api, node): round(offset) for node, offset in time.offsets_ms().items()},
        "held_back": sorted({name_of(api, node) for node, _ in replica.held_back}),
    }


def clock_text(api: Api) -> str:
    time = api.node.time
    if time.jump_ms:
        return f"it was set by {time.jump_ms / 1000:+.1f} s while this node ran"
    return f"the cluster's time differs by {time.correction_ms / 1000:+.1f} s"


def sync_view(api: Api) -> dict[str, object]:
    """How far this node and each other member are apart, in numbers of writes (superseded ones count too)."""
    peers = []
    for node, member in sorted(api.node.membership.table.members.items()):
        if member.state is State.LEFT:
            continue
        lag = api.node.sync.lag(node)
        peers.append(
            {
                "name": member.record.name,
                "state": member.state.value,
                "behind": lag.behind,
                "ahead": lag.ahead,
                "last_sync_ms": lag.last_sync_ms,
                "percent": lag.percent,
            }
        )
    peers.sort(key=lambda peer: str(peer["name"]))
    return {"in_sync": all(peer["behind"] == peer["ahead"] == 0 for peer in peers), "peers": peers}


def health_view(api: Api) -> dict[str, object]:
    """Healthy: writes work, and no member is suspect or dead."""
    reasons = [
        f"{member.record.name} is {member.state}: {member.why}"
        for member in api.node.membership.table.members.values()
        if member.state in (State.SUSPECT, State.DEAD)
    ]
    if api.node.time.is_suspect:
        reasons.append(f"this machine's clock is off: {clock_text(api)}")
    if api.node.store_failed:
        reasons.append(f"the store takes no writes: {api.node.store_failed}")
    return {"healthy": not reasons, "reasons": reasons}
