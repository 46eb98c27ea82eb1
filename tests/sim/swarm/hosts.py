"""What a swarm is made of: the plan of a run, machines with their processes, and the links between them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count

from protocol.effects import Stage
from protocol.inputs import Event
from protocol.node import Node
from protocol.types import LinkId

from .fakes import Disk, FakeKeys


@dataclass(frozen=True)
class Plan:
    """What a run does: everything about it but the seed."""

    nodes: int = 3
    faults_s: float = 20.0
    quiet_s: float = 30.0
    writes_per_s: float = 20.0
    keys: int = 25
    crash_every_s: float = 3.0
    cut_every_s: float = 4.0
    link_loss_every_s: float = 3.0
    full_every_s: float = 9.0
    jump_every_s: float = 6.0
    jump_ms: int = 3000
    restore_every_s: float = 12.0
    wrong_clock_ms: int = 0
    """One machine's clock is off by up to so much, either way."""
    pause_every_s: float = 6.0
    disk_stalls: float = 0.01
    """Which part of the commits takes up to two seconds."""
    value_bytes: int = 12
    skew_ms: int = 50
    sync_rows_max: int = 4
    steps_max: int = 200_000
    full_check_steps: int = 1000
    apart: tuple[str, ...] = ()
    """Two nodes that never reach each other while there are faults: they hear of each other by sync only."""
    outbound_only: tuple[str, ...] = ()
    """Nodes whose advertised address refuses: they sit behind a NAT and dial the others."""


@dataclass
class Pipe:
    """One link: an ordered stream each way for each class, for control goes ahead of bulk that waits."""

    ends: tuple[tuple[str, LinkId], tuple[str, LinkId]]
    since: float
    up: bool = True
    queues: dict[tuple[str, bool], deque[tuple[float, bytes]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queues = {(name, bulk): deque() for name, _ in self.ends for bulk in (False, True)}
        self.arrived = {name: self.since for name, _ in self.ends}
        """When something last came from each."""

    def other(self, name: str) -> tuple[str, LinkId]:
        return self.ends[1] if self.ends[0][0] == name else self.ends[0]


class Host:
    """A machine: its disk and clock stay, its node comes and goes. `life` counts its processes."""

    def __init__(self, name: str, keys: FakeKeys, skew_ms: int) -> None:
        self.name, self.keys, self.skew_ms = name, keys, skew_ms
        self.address = f"{name}:1"
        self.disk = Disk()
        self.copy: Disk | None = None  # an old one, for a restore
        self.node: Node | None = None
        self.life = 0
        self.run = 0
        self.seeds: tuple[str, ...] = ()  # kept beside the certificates since the node was enrolled
        self.pipes: dict[LinkId, Pipe] = {}
        self.staged: deque[Stage] = deque()
        self.committing = False
        self.full = False
        self.has_power = True
        self.is_paused = False
        self.inbox: list[Event] = []  # what happened while it was paused
        self.tick_due = float("inf")
        self.link_ids = count(1)


def plan_of(seed: int) -> Plan:
    """Each seed has its own size, mostly two to five nodes: our users' sizes."""
    return Plan(nodes=(2, 3, 4, 5, 3, 4, 6, 7)[seed % 8], outbound_only=("n2",) if seed % 7 == 6 else ())


def wrong_clock_plan(seed: int) -> Plan:
    """The same sizes, one clock that is far off."""
    return Plan(nodes=2 + seed % 4, quiet_s=40, restore_every_s=1e9, jump_ms=1000, wrong_clock_ms=900_000)
