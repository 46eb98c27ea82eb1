"""What must hold: checked for the node that moved after every event, for all every thousand, and at quiet.

Each check has a mutant in `test_mutants.py` that it catches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol.effects import Entry
from protocol.keyspaces import SYSTEM_KEYSPACE
from protocol.membership.table import State
from protocol.replica.coverage import NOTHING
from protocol.replica.entry import DIGEST_MODULUS, item_hash
from protocol.replica.store import Origin
from protocol.types import Instant

if TYPE_CHECKING:
    from .hosts import Host

Dot = tuple[bytes, int, int]


class Violation(AssertionError):
    """An invariant does not hold."""


class Checks:
    """Remembers what was promised."""

    def __init__(self, hosts: dict[str, Host]) -> None:
        self._hosts = hosts
        self._dots: dict[Dot, Entry] = {}
        self._told: dict[Dot, Entry] = {}
        self._acked: dict[Dot, Entry] = {}
        self._last_hlc: dict[tuple[bytes, int], tuple[int, int]] = {}
        self._vectors: dict[str, dict[Origin, int]] = {}

    def stored(self, host: Host, entries: list[Entry]) -> None:
        """Rows reached a disk: a dot names one entry for ever (S1), stamps of a node rise (H1)."""
        for entry in entries:
            dot = (entry.node, entry.lineage, entry.seq)
            known = self._dots.setdefault(dot, entry)
            require(
                known == entry and self._told.get(dot, entry) == entry,
                f"S1: the dot {dot[1:]} of {host.name} names two entries",
            )
            if entry.node == host.keys.node_id:
                origin = (entry.node, entry.lineage)
                seq, hlc = self._last_hlc.get(origin, (0, 0))
                require(
                    (entry.seq > seq and entry.hlc > hlc) or entry.seq <= seq,
                    f"H1: {host.name} stamped {entry.hlc} after {hlc}",
                )
                if entry.seq > seq:
                    self._last_hlc[origin] = (entry.seq, entry.hlc)

    def told(self, entry: Entry) -> None:
        """A client knows the version of an entry that need not be durable yet: its dot names nothing else (S1)."""
        self._told[entry.node, entry.lineage, entry.seq] = entry

    def acknowledged(self, host: Host, entry: Entry) -> None:
        """A client was told that its write is safe: it is on the acknowledging disk, or superseded there (D1)."""
        self._acked[entry.node, entry.lineage, entry.seq] = entry
        held = host.disk.get(entry.keyspace, entry.key)
        require(
            held is not None and (held.version >= entry.version or self._is_void(entry)),
            f"D1: {host.name} acknowledged seq {entry.seq} before it was durable",
        )

    def restored(self, host: Host) -> None:
        """A disk was set back: what stood on no other disk is lost with it, lawfully, and its numbers are free."""
        disks = [other.disk for other in self._hosts.values()]
        for dot, entry in list(self._acked.items()):
            held = [disk.get(entry.keyspace, entry.key) for disk in disks]
            if not any(e is not None and e.version >= entry.version for e in held):
                del self._acked[dot]
        self._told = {dot: e for dot, e in self._told.items() if e.node != host.keys.node_id}
        coverages = [disk.coverage() for disk in disks]
        for dot, entry in list(self._dots.items()):
            origin = (entry.node, entry.lineage)
            if not any(coverage.get(origin, NOTHING).has(entry.seq) for coverage in coverages):
                del self._dots[dot]
        self._last_hlc = {
            origin: last for origin, last in self._last_hlc.items() if origin[0] != host.keys.node_id
        }

    def after(self, host: Host, now: float, *, ticked: bool) -> None:
        """One node moved: what it says is durable (S2) and never goes back (D2); a tick moves its deadline (L1)."""
        assert host.node is not None
        require(host.node.deadline_s > now or not ticked, f"L1: {host.name} leaves its deadline in the past")
        vector, durable = host.node.replica.vector, host.disk.coverage()
        for origin, head in vector.items():
            held = durable.get(origin, NOTHING).head
            require(head <= held, f"S2: {host.name} speaks of a head that is not durable")
        before = self._vectors.get(f"{host.name}/{host.life}", {})
        for origin, head in before.items():
            require(vector.get(origin, 0) >= head, f"D2: a head of {host.name} went back")
        self._vectors[f"{host.name}/{host.life}"] = dict(vector)

    def in_full(self) -> None:
        """Every covered entry is held or superseded, on every disk (S2).

        Not where something was taken back: it may have superseded what is newer than what took its place.
        """
        if self._is_anything_void():
            return
        for host in self._hosts.values():
            coverage = host.disk.coverage()
            for (node, lineage, seq), entry in self._dots.items():
                is_covered = coverage.get((entry.node, lineage), NOTHING).has(seq)
                if is_covered and not self._is_void(entry):
                    held = host.disk.get(entry.keyspace, entry.key)
                    require(
                        held is not None and held.version >= entry.version,
                        f"S2: {host.name} covers {node.hex()[:4]}:{seq} and does not hold it",
                    )

    def at_quiet(self, instant_of: Callable[[Host], Instant]) -> None:
        """After the faults: nothing acknowledged is missing, all are equal, all see all alive."""
        self.in_full()
        hosts = list(self._hosts.values())
        times = [host.node.time.time_ms(instant_of(host)) for host in hosts if host.node is not None]
        require(max(times) - min(times) <= 250, f"H2: cluster time differs by {max(times) - min(times)} ms")
        first = hosts[0].disk.entries
        for host in hosts:
            require(host.disk.entries == first, f"S5: {host.name} differs from {hosts[0].name}")
            for entry in self._acked.values():
                held = host.disk.get(entry.keyspace, entry.key)
                require(
                    held is not None and (held.version >= entry.version or self._is_anything_void()),
                    f"I2: {host.name} lost the acknowledged seq {entry.seq}",
                )
            self._check_tally(host)
            self._check_members(host)

    def _is_anything_void(self) -> bool:
        return any(host.node is not None and host.node.replica.void_above for host in self._hosts.values())

    def _is_void(self, entry: Entry) -> bool:
        """Whether its author has taken it back, and written it again."""
        author = next(host for host in self._hosts.values() if host.keys.node_id == entry.node)
        return author.node is None or author.node.replica.is_void(entry)

    def _check_tally(self, host: Host) -> None:
        assert host.node is not None
        tally = host.node.replica.tally
        records = (entry for entry in host.disk.entries.values() if entry.keyspace != SYSTEM_KEYSPACE)
        live = [entry for entry in records if entry.live_at(tally.swept_ms)]
        digest = sum(map(item_hash, live)) % DIGEST_MODULUS
        require(
            tally.durable.keys == len(live),
            f"T1: {host.name} counts {tally.durable.keys} keys of {len(live)}",
        )
        require(tally.durable.digest == digest, f"T1: {host.name} has a wrong digest")

    def _check_members(self, host: Host) -> None:
        assert host.node is not None
        members = host.node.membership.table.members.values()
        require(len(members) == len(self._hosts) - 1, f"{host.name} knows {len(members)} members")
        for member in members:
            require(
                member.state is State.ALIVE,
                f"I9: {host.name} calls {member.record.name} {member.state} at quiet: {member.why}",
            )


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)
