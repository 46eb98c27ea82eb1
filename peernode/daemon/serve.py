"""One running daemon: its task tree, from the first commit to the last.

    nursery
    +- ticker            calls the node when its deadline comes
    +- listener          accepts; one task a connection: handshake, then the link's reader and writer
    +- dials             one task each, becoming a link's
    +- local socket      accepts and serves all clients
    +- local cache       drops what has expired
    +- stopper           says goodbye when told to stop
    store thread         owns the writing connection (a task instead, where everything is simulated)

Shutdown: goodbye, links closed, clients closed, the store commits what is queued and closes.
"""

from __future__ import annotations

import socket as sockets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import trio

from protocol.config import Config
from protocol.effects import Stage
from protocol.errors import Fault, Refused, RemoteFault
from protocol.identity.keys import Ed25519Keys
from protocol.identity.tickets import JoinChallenge, JoinGranted, JoinRequest
from protocol.inputs import Leave, Redeem, Start
from protocol.node import Node
from protocol.replica.settling import Identity, next_identity
from protocol.types import CommitNumber, Instant, NodeId, node_text

from ..limits import CLOSE_WAIT_S, FIRST_SYNC_S
from ..local import cache, members
from ..local.api import Api
from ..local.server import serve as serve_clients
from ..log import Log
from ..net.enrol import NO_TICKET, serve_joiner
from ..net.handshake import greet
from ..net.hangup import turn_away
from ..net.listener import Listener, Serve
from ..net.tls import Contexts, peer_of
from ..store.committer import Committer, Outcome, ThreadCommitter
from ..store.reader import Reader
from ..store.writer import Writer
from ..version import VERSION
from .faults import FaultPoint
from .folder import Folder
from .runtime import Runtime
from .world import World


@dataclass
class Setup:
    """Everything that is decided before the daemon's tasks start. `local` None: no local socket."""

    folder: Folder
    keys: Ed25519Keys
    name: str
    address: str
    listener: trio.socket.SocketType
    local: sockets.socket | None = None
    local_path: str = ""
    seeds: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    votes: bool = True
    config: Config | None = None
    faults: FaultPoint | None = None
    new_committer: Callable[[Writer, Callable[[Outcome], None], trio.Nursery], Committer] | None = None


async def serve(
    setup: Setup, world: World, log: Log, stop: trio.Event, on_ready: Callable[[Runtime, NodeId | None], None]
) -> bool:
    """Run until `stop` is set or the node has left. `on_ready` is told through whom the first sync came.

    Returns whether the node must begin anew at once, under a later run. Raises Halted.
    """
    writer = Writer(setup.folder.database)
    reader = Reader(setup.folder.database)
    random = world.random()
    identity = begin_run(reader, writer, world.now(), random)
    node = Node(config_of(setup), setup.keys, reader, random, identity, world.now())
    contexts = Contexts(setup.folder.chain_file, setup.folder.key_file, root_pem(setup.folder))
    committer: Committer | None = None
    try:
        async with trio.open_nursery() as nursery:
            runtime = Runtime(node, setup.keys, contexts, reader, world, log, nursery)
            runtime.faults = setup.faults
            committer = (setup.new_committer or start_thread)(writer, runtime.on_outcome, nursery)
            runtime.committer = committer
            start_tasks(runtime, setup, nursery, stop, on_ready)
            await runtime.ended.wait()
            nursery.cancel_scope.cancel()
        return runtime.begins_anew
    finally:
        setup.listener.close()
        if committer is not None:
            committer.close()
        reader.close()


def start_tasks(
    runtime: Runtime,
    setup: Setup,
    nursery: trio.Nursery,
    stop: trio.Event,
    on_ready: Callable[[Runtime, NodeId | None], None],
) -> None:
    gate = Gate(runtime, setup)
    listener = Listener(gate.greet_peer, gate.greet_joiner, gate.refused, runtime.log)
    nursery.start_soon(listener.serve, setup.listener)
    nursery.start_soon(runtime.tick_forever)
    if setup.local is not None:
        api = Api(runtime, setup.local_path, str(setup.folder.path), setup.listener.getsockname()[:2])
        cache.follow(api)
        members.follow(api)
        nursery.start_soon(cache.clean_up, api)
        nursery.start_soon(serve_clients, setup.local, api, runtime.log)
    runtime.dispatch(Start(setup.seeds))
    nursery.start_soon(say_goodbye, runtime, stop)
    nursery.start_soon(tell_when_ready, runtime, bool(setup.seeds), on_ready)


async def say_goodbye(runtime: Runtime, stop: trio.Event) -> None:
    await stop.wait()
    runtime.log.event("daemon.stopping")
    runtime.dispatch(Leave(CLOSE_WAIT_S, CLOSE_WAIT_S))


async def tell_when_ready(
    runtime: Runtime, joins: bool, on_ready: Callable[[Runtime, NodeId | None], None]
) -> None:
    """A joiner is ready when its first sync is complete; who knows nobody is ready at once."""
    table = runtime.node.membership.table
    patience_s = float("inf") if joins and not table.members else FIRST_SYNC_S
    if joins or table.members:
        with trio.move_on_after(patience_s):
            await runtime.first_sync.wait()
    on_ready(runtime, runtime.first_sync_from)


def begin_run(reader: Reader, writer: Writer, now: Instant, random: Random) -> Identity:
    """Draw the number of this run and make it durable, before anything is said under it."""
    identity, rows = next_identity(reader, now.wall_ms, random)
    writer.apply([Stage(CommitNumber(0), rows)])
    return identity


def config_of(setup: Setup) -> Config:
    if setup.config is not None:
        return setup.config
    tags = tuple(sorted(setup.tags.items()))
    return Config(setup.name, setup.address, VERSION, tags, votes=setup.votes)


def root_pem(folder: Folder) -> str:
    """The cluster's root certificate: the only trust anchor."""
    last = folder.chain_file.read_text().rindex("-----BEGIN")
    return folder.chain_file.read_text()[last:]


def start_thread(writer: Writer, deliver: Callable[[Outcome], None], _: trio.Nursery) -> Committer:
    """The store's thread hands its outcomes over to trio's."""
    token = trio.lowlevel.current_trio_token()

    def hand_over(outcome: Outcome) -> None:
        try:
            token.run_sync_soon(deliver, outcome)
        except trio.RunFinishedError:
            pass  # the daemon has stopped; what is committed is committed

    return ThreadCommitter(writer, hand_over)


class Gate:
    """What the listener does with those who knock."""

    def __init__(self, runtime: Runtime, setup: Setup) -> None:
        self._runtime, self._setup = runtime, setup

    def refused(self, fault: RemoteFault, address: str) -> None:
        self._runtime.node.refused[fault.fault] += 1
        self._runtime.log.event(
            "peer.refused", address=address, reason=fault.fault.value, detail=fault.detail
        )

    async def greet_peer(self, transport: trio.SocketStream) -> Serve:
        runtime, keys = self._runtime, self._setup.keys
        stream = trio.SSLStream(transport, runtime.contexts.accept, server_side=True)
        await stream.do_handshake()
        peer = peer_of(stream, keys.cluster_id)
        runtime.watch(transport.socket, peer, None)
        greeted = await greet(stream, keys, runtime.node.registry, runtime.hello(), peer, dialled=False)
        return partial(runtime.run_link, stream, greeted, None, seed=False)

    async def greet_joiner(self, transport: trio.SocketStream) -> None:
        """Answered only while a ticket lives, by code that can reach nothing but its redeeming."""
        runtime, keys = self._runtime, self._setup.keys
        if not runtime.node.invitations.has_live(runtime.world.now().wall_ms):
            await turn_away(transport, NO_TICKET)
            raise RemoteFault(Fault.REFUSED_TICKET, "no ticket is alive here")
        stream = trio.SSLStream(transport, runtime.contexts.enrol, server_side=True)
        await stream.do_handshake()
        config = runtime.node.config
        challenge = JoinChallenge(
            config.protocol_min, config.protocol_max, keys.credential, runtime.world.entropy(16)
        )
        joiner = await serve_joiner(stream, challenge, self._redeem)
        runtime.log.event("joiner.granted", id=node_text(joiner)[:8])

    async def _redeem(self, request: JoinRequest, nonce: bytes) -> JoinGranted | Refused:
        outcomes: list[object] = []
        done = trio.Event()

        def answer(outcome: object) -> None:
            outcomes.append(outcome)
            done.set()

        self._runtime.dispatch(Redeem(answer, request, nonce))
        await done.wait()
        (outcome,) = outcomes
        assert isinstance(outcome, JoinGranted | Refused)
        return outcome
