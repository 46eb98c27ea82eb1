"""The swarm: many pure nodes in one discrete-event simulation, with faults, and invariants after every event.

Virtual time only; one seeded Random decides everything; the same seed gives the same trace, in any process.
Links are ordered streams with a delay. A blocked path, one way or both, delivers nothing until it is healed (as TCP
retransmits), not even the end of a link; a dial across it times out. A crash loses what the disk had not taken; the
kernel closes the links and refuses the port. Without power there is no kernel either. A paused process does
nothing, its timers included, while its kernel still takes connections. What runs is `protocol.node.Node`,
unchanged; mutants are broken variants of it that the checks must catch.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from itertools import count
from random import Random

from protocol.config import Config
from protocol.effects import (
    Dial,
    DialOutcome,
    Disconnect,
    Effect,
    Entry,
    Farewell,
    Halt,
    MemberChanged,
    Reply,
    Send,
    Stage,
    StartAgain,
)
from protocol.errors import Fault
from protocol.inputs import (
    Delete,
    DialFailed,
    Durable,
    Event,
    LinkDown,
    LinkUp,
    Nothing,
    PersistFailed,
    Probed,
    Put,
    Received,
    Start,
    Tick,
    Written,
)
from protocol.membership.table import State
from protocol.node import Node
from protocol.replica.settling import next_identity
from protocol.types import Instant, LinkId
from protocol.wire.frames import HEADER
from protocol.wire.hello import Established

from . import faults
from .checks import Checks, Violation, require
from .fakes import Authority, FakeKeys
from .hosts import Host, Pipe, Plan, plan_of
from .views import Views

EPOCH_MS = 1_700_000_000_000
NewNode = Callable[..., Node]
NOTICED_S = 1.0
"""How long it may take until a kill is known to all."""
LOOK_S = 0.05
"""How often the simulator looks at what everybody says."""
SYN_AGAIN_S = 1.0
"""When the kernel sends a lost SYN again."""
SEND_AGAIN_S = 0.2
"""When it sends anything else again; twice as late each time."""
HANDSHAKE_S = 5.0
"""How long a dial waits for the other process once it is connected."""


class Swarm:
    """One run. `run()` raises Violation; its text names the seed."""

    def __init__(self, seed: int, plan: Plan | None = None, new_node: NewNode = Node) -> None:
        self.seed, self.plan, self._new_node = seed, plan or plan_of(seed), new_node
        self.rng = Random(f"swarm {seed}")
        self.now = 0.0
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._trace = blake2b(digest_size=16)
        authority = Authority(str(seed).encode())
        names = [f"n{i + 1}" for i in range(self.plan.nodes)]
        skews = [self.rng.randint(-self.plan.skew_ms, self.plan.skew_ms) for _ in names]
        self.hosts = {
            name: Host(name, FakeKeys(authority, name), skew) for name, skew in zip(names, skews, strict=True)
        }
        if self.plan.wrong_clock_ms:
            wrong = self.rng.choice(list(self.hosts.values()))
            wrong.skew_ms = self.rng.choice((-1, 1)) * self.rng.randint(20_000, self.plan.wrong_clock_ms)
        self.by_id = {host.keys.node_id: host for host in self.hosts.values()}
        self.blocked: set[tuple[str, str]] = set()
        self._block_apart()
        self.checks = Checks(self.hosts)
        self.views = Views(self.hosts, self.reaches)
        self.stats: Counter[str] = Counter()

    def run(self) -> str:
        """Safety under faults, then quiet; returns the trace hash."""
        try:
            self._play()
        except (Violation, AssertionError) as broken:
            replay = f"replay: bin/test tests/sim/swarm --swarm-seed {self.seed}"
            raise Violation(f"{broken}\n{replay}") from broken
        return self._trace.hexdigest()

    def _play(self) -> None:
        self.start()
        faults.schedule(self)
        self._until(self.plan.faults_s)
        require(
            self.stats["acked"] >= 0.3 * self.stats["asked"],
            "F1: too few requests succeeded to prove anything",
        )
        self._calm()
        self._until(self.plan.faults_s + self.plan.quiet_s)
        self.checks.at_quiet(self.instant)
        self._kill_one()

    def _kill_one(self) -> None:
        """After all that, everybody still notices a kill at once (I10)."""
        victim = self.rng.choice(
            [host for host in self.hosts.values() if host.name not in self.plan.outbound_only]
        )
        self.crash(victim)
        judges = [name for name in self.hosts if name != victim.name]
        self.until(
            lambda: all(self.views.state(judge, victim.name) is State.DEAD for judge in judges),
            NOTICED_S,
            f"I10: {victim.name} is not dead to all",
        )

    def start(self) -> None:
        """The first node makes the cluster, the others join through it."""
        first, *rest = self.hosts.values()
        self.boot(first)
        for host in rest:
            self.at(self.rng.uniform(0, 0.5), lambda h=host: self.boot(h, first.address))  # type: ignore[misc]
        self._look()

    # Time

    def advance(self, for_s: float) -> None:
        self._until(self.now + for_s)

    def until(self, condition: Callable[[], bool], within_s: float, otherwise: str) -> float:
        """Let time pass until the condition holds; how long that took. A Violation when it takes too long."""
        began_s = self.now
        while not condition():
            if self.now - began_s >= within_s:
                raise Violation(f"{otherwise} within {within_s:g} s\n{self.views.text()}")
            self.advance(LOOK_S)
        return self.now - began_s

    def _look(self) -> None:
        """What everybody says of everybody, now and from time to time."""
        self.views.look(self.now)
        self.at(LOOK_S, self._look)

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay_s, next(self._order), action))

    def _until(self, end_s: float) -> None:
        while self._heap and self._heap[0][0] <= end_s:
            self.now, _, action = heapq.heappop(self._heap)
            action()
            self.steps += 1
            require(self.steps < self.plan.steps_max, "L2: the swarm never comes to rest")
            if self.steps % self.plan.full_check_steps == 0:
                self.checks.in_full()
        self.now = end_s

    def instant(self, host: Host) -> Instant:
        return Instant(self.now, self.wall_ms_of(host))

    def wall_ms_of(self, host: Host) -> int:
        return EPOCH_MS + host.skew_ms + int(self.now * 1000)

    def note(self, *what: object) -> None:
        self._trace.update(repr((round(self.now, 6), *what)).encode())

    # Paths

    def block(self, *ways: tuple[str, str]) -> None:
        """From now on nothing gets from the first to the second of each pair."""
        self.note("block", ways)
        self.blocked.update(ways)

    def unblock(self, *ways: tuple[str, str]) -> None:
        self.note("unblock", ways)
        self.blocked.difference_update(ways)
        if self.now < self.plan.faults_s:
            self._block_apart()

    def _block_apart(self) -> None:
        if self.plan.apart:
            one, other = self.plan.apart
            self.blocked.update(((one, other), (other, one)))

    def reaches(self, sender: str, receiver: str) -> bool:
        has_power = self.hosts[sender].has_power and self.hosts[receiver].has_power
        return has_power and (sender, receiver) not in self.blocked

    def _can_connect(self, one: str, other: str) -> bool:
        return self.reaches(one, other) and self.reaches(other, one)

    def _calm(self) -> None:
        self.blocked.clear()
        for host in self.hosts.values():
            host.full = False
            self.resume(host)
            if host.node is None:
                self.boot(host)

    # Processes

    def boot(self, host: Host, *seeds: str) -> None:
        if host.node is not None:
            return
        host.has_power = True
        chance = Random(f"{self.seed} {host.name} {host.life}")
        identity, rows = next_identity(host.disk, self.wall_ms_of(host), chance)
        host.disk.apply(rows)
        host.run = identity.run
        host.life += 1
        host.staged.clear()
        host.committing = False
        config = Config(host.name, host.address, sync_rows_max=self.plan.sync_rows_max)
        random = Random(self.rng.random())
        host.node = self._new_node(config, host.keys, host.disk, random, identity, self.instant(host))
        self.note("boot", host.name, host.run)
        host.seeds = host.seeds or seeds
        self.handle(host, Start(host.seeds))

    def crash(self, host: Host, *, power: bool = True) -> None:
        """Kill -9: what is staged may have reached the disk, or some of it, or none. Or the power goes, too."""
        self.stats["crashes"] += 1
        self.note("crash", host.name, power)
        for stage in list(host.staged)[: self.rng.randint(0, len(host.staged))]:
            self.store(host, stage)
        host.node = None
        host.has_power, host.is_paused = power, False
        host.inbox.clear()
        for pipe in list(host.pipes.values()):
            self.break_pipe(pipe, "the connection ended", but=host.name)
        host.pipes.clear()

    def pause(self, host: Host) -> None:
        """SIGSTOP."""
        self.note("pause", host.name)
        host.is_paused = True

    def resume(self, host: Host) -> None:
        """SIGCONT: it finds everything at once that happened meanwhile, in any order of time and mail."""
        if not host.is_paused:
            return
        self.note("resume", host.name)
        host.is_paused = False
        missed, host.inbox = host.inbox, []
        if self.rng.random() < 0.5:
            missed.sort(key=lambda event: not isinstance(event, Tick))
        at_once = self.rng.randrange(len(missed) + 1)
        for burst in (missed[:at_once], *([event] for event in missed[at_once:])):
            self.handle(host, *burst)

    def handle(self, host: Host, *burst: Event) -> None:
        """Let a node decide about what came at once: in one turn."""
        node = host.node
        if node is None or not burst:
            return
        if host.is_paused:
            host.inbox += burst
            return
        turn = node.begin(self.instant(host))
        for event in burst:
            node.take(turn, event)
        for effect in node.finish(turn):
            self._perform(host, effect)
        if host.node is not None:
            self.checks.after(host, self.now, ticked=isinstance(burst[-1], Tick))
            self._plan_tick(host, node)

    def _plan_tick(self, host: Host, node: Node) -> None:
        due = max(node.deadline_s, self.now)
        if due < host.tick_due or host.tick_due <= self.now:
            host.tick_due = due
            life = host.life
            self.at(due - self.now, lambda: self._tick(host, life, due))

    def _tick(self, host: Host, life: int, due: float) -> None:
        if host.life == life and host.tick_due == due:
            host.tick_due = float("inf")
            self.handle(host, Tick())

    # Effects

    def _perform(self, host: Host, effect: Effect) -> None:
        match effect:
            case Send():
                for link in effect.links:
                    self._send(host, link, effect.frame, effect.bulk)
            case StartAgain():
                life = host.life
                self.at(0.001, lambda: self._begin_anew(host, life))
            case Halt(why):
                raise Violation(f"X1: {host.name} halts: {why}")
            case Stage():
                host.staged.append(effect)
                self._commit_later(host)
            case Reply(ref, outcome):
                assert callable(ref)
                ref(outcome)
            case Dial():
                self.at(self.rng.uniform(0.001, 0.01), lambda: self._dial(host, host.life, effect))
            case Disconnect(link, fault, _, parting):
                pipe = host.pipes.get(link)
                if pipe is not None:
                    self._part(pipe, host.name, parting)
                    self.break_pipe(pipe, f"hung up: {fault}", but=host.name, fault=fault)
                    host.pipes.pop(link, None)
            case MemberChanged(node, _, state):
                self.views.said.add((host.name, self.by_id[node].name, state))
            case Farewell():
                self.note("farewell", host.name)
                self.crash(host)

    def _part(self, pipe: Pipe, sender: str, frame: bytes) -> None:
        """The last words of an end that hangs up."""
        if frame:
            name, link = pipe.other(sender)
            other, life = self.hosts[name], self.hosts[name].life
            event = Received(link, (frame[HEADER.size :],))
            self.at(0.0005, lambda: other.life == life and self.handle(other, event))  # type: ignore[func-returns-value]

    def _begin_anew(self, host: Host, life: int) -> None:
        if host.life == life and host.node is not None:
            self.stats["begun_anew"] += 1
            self.crash(host)
            self.boot(host)

    def _send(self, host: Host, link: LinkId, frame: bytes, bulk: bool) -> None:
        pipe = host.pipes.get(link)
        if pipe is None or not pipe.up:
            return  # the far end is gone, and this one will hear of it
        queue = pipe.queues[host.name, bulk]
        earliest = queue[-1][0] if queue else self.now
        arrival = max(earliest, self.now + self.rng.uniform(0.0005, 0.02))
        queue.append((arrival, frame))
        self.note("send", host.name, pipe.other(host.name)[0], len(frame))
        if len(queue) == 1:
            self.at(arrival - self.now, lambda: self._deliver(host.name, pipe, bulk))

    def _deliver(self, sender: str, pipe: Pipe, bulk: bool, again_s: float = SEND_AGAIN_S) -> None:
        """The oldest frame of one direction arrives. Where the path is blocked it is sent again, ever later."""
        if not pipe.up:
            return
        name, link = pipe.other(sender)
        if not self.reaches(sender, name):
            self.at(again_s, lambda: self._deliver(sender, pipe, bulk, 2 * again_s))
            return
        queue = pipe.queues[sender, bulk]
        _, frame = queue.popleft()
        pipe.arrived[sender] = self.now
        if queue:
            self.at(max(0.0, queue[0][0] - self.now), lambda: self._deliver(sender, pipe, bulk))
        self.handle(self.hosts[name], Received(link, (frame[HEADER.size :],)))

    def break_pipe(self, pipe: Pipe, why: str, but: str | None = None, fault: Fault | None = None) -> None:
        """End a link; each end but one hears of it when word gets there."""
        pipe.up = False
        for name, link in pipe.ends:
            if name != but:
                event = LinkDown(link, why, fault)
                self.at(0.001, lambda n=name, e=event: self._end(pipe, n, e))  # type: ignore[misc]

    def _end(self, pipe: Pipe, name: str, event: LinkDown, again_s: float = SEND_AGAIN_S) -> None:
        host = self.hosts[name]
        if host.pipes.get(event.link) is not pipe:
            return  # it has died or hung up itself
        if not self.reaches(pipe.other(name)[0], name):
            self.at(again_s, lambda: self._end(pipe, name, event, 2 * again_s))
            return
        del host.pipes[event.link]
        self.handle(host, event)

    def _dial(self, host: Host, life: int, dial: Dial, waited_s: float = 0.0) -> None:
        if host.life != life or host.node is None:
            return
        target = next((h for h in self.hosts.values() if h.address == dial.address), None)
        assert target is not None
        left_s = dial.patience_s - waited_s
        if target is host:
            self._dial_failed(host, life, dial, DialOutcome.SELF)
        elif not self._can_connect(host.name, target.name) and left_s > SYN_AGAIN_S:
            self.at(SYN_AGAIN_S, lambda: self._dial(host, life, dial, waited_s + SYN_AGAIN_S))
        elif not self._can_connect(host.name, target.name):
            self.at(left_s, lambda: self._dial_failed(host, life, dial, DialOutcome.UNREACHABLE))
        elif target.node is None or target.name in self.plan.outbound_only:
            self._dial_failed(host, life, dial, DialOutcome.REFUSED)
        else:
            answer_s = dial.patience_s if dial.probe else HANDSHAKE_S
            self._shake_hands(host, life, dial, target, target.life, self.now + answer_s)

    def _shake_hands(
        self, host: Host, life: int, dial: Dial, target: Host, target_life: int, until_s: float
    ) -> None:
        """Connected: now the other process has to answer. It does when it runs."""
        if host.life != life or host.node is None:
            return
        if target.life != target_life or target.node is None or self.now >= until_s:
            self._dial_failed(host, life, dial, DialOutcome.STALLED)
        elif target.is_paused or not self._can_connect(host.name, target.name):
            self.at(LOOK_S, lambda: self._shake_hands(host, life, dial, target, target_life, until_s))
        elif dial.probe:
            self.handle(host, Probed(dial.address, target.keys.node_id, target.run))
        else:
            self._connect(host, target, dial)

    def _dial_failed(self, host: Host, life: int, dial: Dial, outcome: DialOutcome) -> None:
        if host.life == life:
            self.handle(host, DialFailed(dial.address, dial.node, outcome, "simulated", dial.probe))

    def _connect(self, host: Host, target: Host, dial: Dial) -> None:
        mine, theirs = LinkId(next(host.link_ids)), LinkId(next(target.link_ids))
        pipe = Pipe(((host.name, mine), (target.name, theirs)), self.now)
        host.pipes[mine] = target.pipes[theirs] = pipe
        self.note("link", host.name, target.name)
        there = Established(target.keys.node_id, 1, (1, 1), target.run, 0, False)
        here = Established(host.keys.node_id, 1, (1, 1), host.run, 0, False)
        self.handle(host, LinkUp(mine, there, dial.address, dial.node is None))
        self.handle(target, LinkUp(theirs, here, None))

    # Disk

    def _commit_later(self, host: Host) -> None:
        if not host.committing:
            host.committing = True
            life = host.life
            stalls = self.now < self.plan.faults_s and self.rng.random() < self.plan.disk_stalls
            commit_s = self.rng.uniform(0.1, 2.0) if stalls else self.rng.uniform(0.0005, 0.02)
            self.at(commit_s, lambda: self._commit(host, life))

    def _commit(self, host: Host, life: int) -> None:
        if host.life != life or host.node is None:
            return
        if host.is_paused:
            self.at(LOOK_S, lambda: self._commit(host, life))
            return
        host.committing = False
        group = [host.staged.popleft() for _ in range(self.rng.randint(1, len(host.staged)))]
        if host.full:
            host.staged.clear()
            self.handle(host, PersistFailed("disk full"))
            return
        for stage in group:
            self.store(host, stage)
        if host.staged:
            self._commit_later(host)
        self.handle(host, Durable(group[-1].number))

    def store(self, host: Host, stage: Stage) -> None:
        host.disk.apply(stage.rows)
        self.checks.stored(host, [row for row in stage.rows if isinstance(row, Entry)])

    # Clients

    def client_request(self) -> None:
        """One, or several that come at once."""
        host = self.rng.choice(list(self.hosts.values()))
        if host.node is not None:
            self.handle(host, *(self._request(host) for _ in range(self.rng.choice((1, 1, 1, 2, 5)))))

    def _request(self, host: Host) -> Put | Delete:
        self.stats["asked"] += 1
        key = f"k{self.rng.randrange(self.plan.keys)}".encode()
        in_memory = self.rng.random() < 0.2
        acknowledged = self.checks.told if in_memory else partial(self.checks.acknowledged, host)

        def answered(outcome: object) -> None:
            self.note("answer", host.name, type(outcome).__name__)
            if isinstance(outcome, Written):
                self.stats["acked"] += 1
                acknowledged(outcome.entry)
            elif not isinstance(outcome, Nothing):
                self.stats["refused"] += 1

        if self.rng.random() < 0.15 and not in_memory:
            return Delete(answered, "default", key)
        ttl = self.rng.choice([None, None, None, self.rng.randint(1, 20_000)])
        value = self.rng.randbytes(self.plan.value_bytes)
        return Put(answered, "default", key, value, ttl, in_memory=in_memory)
