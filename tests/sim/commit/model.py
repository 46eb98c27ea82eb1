"""A discrete-event model round `protocol.commit`: some nodes with a disk each, a bad network, clients.

One seed makes one run, always the same: how many nodes, voters and keyspaces, what clients want, and every fault.
The faults stop after `FAULTS_S`, clients go on for a while, and then everything must come to rest. What must hold is
in checks.py.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from protocol.config import Config
from protocol.types import NodeId

from .changes import VoterChanges
from .checks import Checks
from .clients import Client, Load
from .faults import Faults
from .network import Network
from .patience import Patience
from .peers import Peer

FAULTS_S = 8.0
WORK_S = 10.0
END_S = 80.0

Told = Callable[[str], None]


class Model:
    """One run. `told`: is given each thing that happens, in words."""

    def __init__(self, seed: int, told: Told | None = None) -> None:
        self.seed, self._told = seed, told
        self.random = random = Random(f"commit/{seed}")
        self.now = 0.0
        self.faults_on, self.faults_end_s = True, FAULTS_S
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._wakes: dict[int, float] = {}
        self.config = Config("n", "n:1")
        self.full_disk = random.choice([0.0, 0.0, 0.0, 0.01])
        self.load = Load(random)
        self.network = Network(self, random)
        self.patience = Patience(self)
        ids = [NodeId(bytes([index + 1]) * 32) for index in range(random.choice([1, 2, 3, 3, 3, 4, 5, 5]))]
        self.voters = _some_voters(random, ids)
        self.faults = Faults(self, random, 0.5, FAULTS_S)
        self.peers: list[Peer] = []
        for index in range(len(ids)):
            self.peers.append(Peer(self, index))
        self.first = {
            keyspace: tuple(self.of(node).voter for node in some) for keyspace, some in self.voters.items()
        }
        self.checks = Checks(self.first)
        self.changes = VoterChanges(self, Random(f"voters/{seed}"), FAULTS_S)

    def run(self) -> None:
        """To the end, or to the first Violation."""
        self._begin()
        while self._events and self._events[0][0] <= END_S:
            self.now, _, call = heappop(self._events)
            call()
        self.checks.at_rest(self.peers)

    @property
    def is_traced(self) -> bool:
        return self._told is not None

    def note(self, what: str) -> None:
        if self._told is not None:
            self._told(f"{self.now:8.4f} {what}")

    def happened(self, what: str) -> None:
        """Something that no node did: it stands out in a trace."""
        self.note(f"* {what}")

    def of(self, node: NodeId) -> Peer:
        return self.peers[self.index_of(node)]

    def index_of(self, node: NodeId) -> int:
        return node[0] - 1

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (self.now + delay_s, self._count, call))

    def wake(self, peer: Peer) -> None:
        """Have the peer's timers fire in time."""
        due_s = peer.commit.deadline_s
        if due_s >= self._wakes.get(peer.index, float("inf")):
            return
        self._wakes[peer.index] = due_s

        def tick() -> None:
            if self._wakes.get(peer.index) == due_s:
                del self._wakes[peer.index]
                peer.do(lambda: peer.turn(peer.commit.tick))

        self.after(max(0.0, due_s - self.now), tick)

    def _begin(self) -> None:
        voters = {
            keyspace: " ".join(str(self.of(node)) for node in some) for keyspace, some in self.voters.items()
        }
        self.happened(f"seed {self.seed}: {len(self.peers)} nodes, voters {voters}")
        for peer in self.peers:
            peer.boot()
            peer.near = {other.index for other in self.peers if other is not peer}
        for number in range(self.load.clients):
            self.after(self.random.random(), Client(self, number, WORK_S).next)
        self.after(0.3, self.network.exchange)
        self.after(0.0, self.patience.look)
        self.after(FAULTS_S, self._rest)

    def _rest(self) -> None:
        self.happened("the faults are over")
        self.faults_on = False
        self.patience.disturbed()
        self.faults.end()


def _some_voters(random: Random, ids: list[NodeId]) -> dict[int, tuple[NodeId, ...]]:
    """Of one keyspace or two."""
    return {
        keyspace: tuple(sorted(random.sample(ids, random.choice([n for n in (1, 3, 3, 5) if n <= len(ids)]))))
        for keyspace in range(1, 1 + random.choice([1, 1, 2]))
    }


def run(seed: int, told: Told | None = None) -> Model:
    """One run. Raises Violation."""
    model = Model(seed, told)
    model.run()
    return model
