"""From the options of `run` to a serving daemon, and its exit code.

What a person reads goes here: the `ready` line on stdout, hints and errors on stderr. Exit codes: 0 stopped or
left, 1 failure, 2 bad options, 7 not let in.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import DatabaseError

import trio

from protocol.identity.keys import Ed25519Keys
from protocol.limits import NAME_CHARS_MAX, TAG_CHARS_MAX, TAGS_MAX
from protocol.replica.store import DamagedRow
from protocol.types import NodeId, node_text

from .. import registry
from ..limits import STRANGERS_MAX
from ..local.server import open_listener as open_local
from ..log import Log
from ..net.dialler import DEFAULT_PORT, join_address, split_address
from ..net.listener import open_listener
from ..options import RunOptions
from ..store.schema import WrongSchema
from ..store.writer import StorageFull
from .enrol import NotAllowed, found_cluster, join_cluster, local_ticket, read_ticket
from .faults import FAULTS_VARIABLE, FaultPoint, FaultsError
from .folder import Folder, FolderError
from .runtime import Halted, Runtime
from .serve import Setup, serve
from .world import RealWorld, World

PORTS_TRIED = 100
FILES_WANTED = 4096


class StartError(Exception):
    """Why the daemon does not start."""

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code


def run_daemon(options: RunOptions) -> int:
    """Blocks until the daemon ends; returns its exit code."""
    try:
        if trio.run(run, options, RealWorld()):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except BaseException as raised:
        error = first_of(raised)
        if isinstance(error, StartError):
            say(f"error: {error}", f"hint: {error.hint}" if error.hint else "")
            return error.code
        if isinstance(error, Halted):
            say(f"error: {error}", "hint: stop the other one, or give this one a folder of its own")
            return 1
        if isinstance(error, KeyboardInterrupt):
            return 130
        if isinstance(error, DamagedRow):
            say(
                f"error: the store is damaged: {error}",
                "hint: move the folder away and join again as a new node",
            )
            return 1
        if isinstance(error, DatabaseError | OSError | StorageFull):
            say(f"error: the daemon had to stop: {error}")
            return 1
        raise
    return 0


def init_folder(options: RunOptions) -> Path:
    """Found a cluster in an empty folder. Raises StartError."""
    world = RealWorld()
    path = folder_path(options)
    with opened(path) as folder:
        if folder.is_enrolled:
            raise StartError(f"{path} belongs to a cluster already", "start it with: peernode run")
        found_cluster(folder, world)
        tell_cluster_key(folder)
    return path


async def run(options: RunOptions, world: World) -> bool:
    """The whole life of a daemon; whether it must begin anew. Raises StartError or Halted."""
    name = node_name(options)
    check_tags(options.tags)
    allow_many_files()
    log = Log(options.log_level, lambda: world.now().wall_ms)
    faults = open_faults()
    path = folder_path(options)
    with opened(path) as folder:
        listener = await listen(options, folder)
        address = advertised(options, *listener.getsockname()[:2])
        seeds, is_new = await enrol(options, folder, world, log)
        folder.keep_port(listener.getsockname()[1])
        keys = Ed25519Keys(folder.node_key(b""), folder.grant())
        local_path = (options.socket or registry.socket_path(path)).absolute()
        setup = Setup(folder, keys, name, address, listener, open_socket(local_path), str(local_path), seeds)
        setup.tags, setup.votes, setup.faults = options.tags, options.votes, faults
        registration = registry.Registration(
            pid=os.getpid(),
            started=registry.process_started(os.getpid()) or "unknown",
            name=name,
            cluster=options.cluster,
            cluster_id=keys.cluster_id.hex(),
            socket=str(local_path),
            address=address,
            data_dir=str(path),
        )
        file = registry.register(registration)
        try:
            return await serve_until_signal(setup, world, log, is_new)
        finally:
            registry.unregister(file)
            local_path.unlink(missing_ok=True)


async def serve_until_signal(setup: Setup, world: World, log: Log, is_new: bool) -> bool:
    stop = trio.Event()

    def on_ready(runtime: Runtime, through: NodeId | None) -> None:
        how = "(new)" if is_new else "(alone)"
        if through is not None:
            member = runtime.node.membership.table.members.get(through)
            how = f"(through {member.record.name if member else node_text(through)[:8]})"
        cluster = runtime.keys.cluster_id.hex()
        node = node_text(runtime.keys.node_id)
        print(
            f"ready {setup.name} {node} peers {setup.address} socket {setup.local_path} cluster {cluster} {how}",
            flush=True,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_signal, stop)
        again = await serve(setup, world, log, stop, on_ready)
        nursery.cancel_scope.cancel()
    return again


async def stop_on_signal(stop: trio.Event) -> None:
    """SIGTERM and Ctrl-C say goodbye; a second one does not wait for it."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            if stop.is_set():
                raise KeyboardInterrupt
            stop.set()


async def enrol(options: RunOptions, folder: Folder, world: World, log: Log) -> tuple[tuple[str, ...], bool]:
    """Make the folder a member if it is not. Returns the seeds to dial and whether the cluster is new."""
    seeds = tuple(spelt(seed) for seed in options.seeds)
    is_new = not folder.is_enrolled and options.ticket is None and not seeds
    try:
        if is_new:
            found_cluster(folder, world)
            tell_cluster_key(folder)
            hint_at_others(options, registry.running())
        elif not folder.is_enrolled and options.ticket is not None:
            ticket = read_ticket(options.ticket)
            await join_cluster(folder, ticket, seeds or ticket.addresses, seeds, world, log)
        elif not folder.is_enrolled:
            ticket = await trio.to_thread.run_sync(local_ticket, seeds, registry.running())
            await join_cluster(folder, ticket, ticket.addresses, seeds, world, log)
    except NotAllowed as refused:
        raise StartError(str(refused), refused.hint, code=7) from None
    return tuple(dict.fromkeys((*seeds, *folder.seeds()))), is_new


def tell_cluster_key(folder: Folder) -> None:
    say(
        f"new cluster: its key is {folder.cluster_key_file}",
        "keep a copy of that file elsewhere: it alone can expel members for good",
    )


def hint_at_others(options: RunOptions, others: list[registry.Registration]) -> None:
    """Somebody who starts a second daemon mostly wants it to join the first."""
    for other in others:
        if other.cluster == options.cluster:
            say(f"hint: {other.name} runs here too; to join it instead: peernode run --seed {other.address}")
            return


async def listen(options: RunOptions, folder: Folder) -> trio.socket.SocketType:
    """Open the peers' port: the one asked for, else the last one, else the default or the next free one."""
    last = folder.last_port()
    if options.listen is not None:
        host, port = split_checked(options.listen)
        tries = [last, 0] if port == 0 and last is not None else [port]
    else:
        host = "0.0.0.0"
        tries = [*([last] if last is not None else []), *range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED)]
    error: OSError | None = None
    for port in tries:
        try:
            return await open_listener(host, port)
        except OSError as failed:
            error = failed
    raise StartError(
        f"cannot listen on {host}, ports tried {tries[0]} to {tries[-1]}: {error}", "use --listen H:P"
    )


def advertised(options: RunOptions, host: str, port: int) -> str:
    """Where others reach us: as told, else where we listen, else the address of the default route."""
    if options.advertise is not None:
        given, given_port = split_checked(options.advertise)
        return join_address(given, given_port if ":" in options.advertise else port)
    if host not in ("0.0.0.0", "::"):
        return join_address(host, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: nothing is sent, a route is chosen
            return join_address(probe.getsockname()[0], port)
        except OSError:
            return join_address("127.0.0.1", port)


def open_socket(path: Path) -> socket.socket:
    try:
        registry.make_private(path.parent) if path.parent.name.startswith("peernode") else None
        return open_local(path)
    except OSError as error:
        raise StartError(f"cannot open the local socket: {error}", "use --socket PATH") from None


def open_faults() -> FaultPoint | None:
    """The fault point, where the environment asks for one."""
    file = os.environ.get(FAULTS_VARIABLE)
    try:
        return FaultPoint(Path(file)) if file else None
    except FaultsError as error:
        raise StartError(str(error)) from None


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """The locked data folder."""
    try:
        folder = Folder(path)
    except (FolderError, OSError) as error:
        raise StartError(str(error)) from None
    try:
        yield folder
    except (FolderError, WrongSchema) as error:
        raise StartError(str(error)) from None
    finally:
        folder.close()


def folder_path(options: RunOptions) -> Path:
    if options.data_dir is not None:
        return options.data_dir.absolute()
    try:
        return registry.data_dir(options.cluster, node_name(options))
    except ValueError as error:
        raise StartError(str(error), code=2) from None


def node_name(options: RunOptions) -> str:
    """The name asked for, or the host's, made to fit."""
    name = options.name
    if name is None:
        host = socket.gethostname().split(".")[0].lower()
        name = (
            "".join(c if c.isalnum() and c.isascii() else "-" for c in host).strip("-")[:NAME_CHARS_MAX]
            or "node"
        )
    try:
        return registry.check_name(name)
    except ValueError as error:
        raise StartError(str(error), code=2) from None


def check_tags(tags: dict[str, str]) -> None:
    if len(tags) > TAGS_MAX or any(len(part) > TAG_CHARS_MAX for tag in tags.items() for part in tag):
        raise StartError(f"at most {TAGS_MAX} tags of {TAG_CHARS_MAX} characters a side", code=2)


def split_checked(address: str) -> tuple[str, int]:
    try:
        return split_address(address)
    except ValueError as error:
        raise StartError(str(error), code=2) from None


def spelt(address: str) -> str:
    return join_address(*split_checked(address))


def allow_many_files() -> None:
    """Links, clients and the store need descriptors: take as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, max(soft, FILES_WANTED + STRANGERS_MAX))
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def first_of(error: BaseException) -> BaseException:
    """The first real error inside nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def say(*lines: str) -> None:
    for line in lines:
        if line:
            print(f"peernode: {line}", file=sys.stderr, flush=True)
