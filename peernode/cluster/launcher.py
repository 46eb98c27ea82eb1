"""One local cluster: what `peernode cluster` can do, each as one method that is over when it is done.

Every method works under the cluster's lock, on the state that it reads first and writes last, and sooner where a
process is started, so that none is ever forgotten. What is given up halfway is undone: a failed `up` or
`restart` ends what it started, and a cut that one of both nodes refuses is not made.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import registry
from ..client import Client
from . import cuts, starting
from .errors import ClusterError
from .node import Node, NodeView
from .process import POLL_S, Process, await_end, end
from .state import State, locked

NODES_DEFAULT = 3
NODES_MAX = 64
"""Each is a process of some 40 MB, with a link to each other one."""

GOODBYE_S = 6.0
"""A daemon that stops waits 2 s for acknowledgements of its goodbye; after this time it is killed."""

SIGNAL_S = 5.0
"""For a signal that nobody can refuse, on a busy machine."""


class LocalCluster:
    """`say` hears of progress. Every method may raise ClusterError, or what a node's client raises."""

    def __init__(self, name: str = "dev", say: Callable[[str], None] = lambda text: None) -> None:
        try:
            self.name = registry.check_name(name, "cluster")
        except ValueError as error:
            raise ClusterError(str(error), code="invalid") from None
        self.folder = registry.home() / name
        self._say = say

    def nodes(self) -> list[NodeView]:
        """All nodes in the order of their numbers; none when there is no such cluster."""
        state = State.load(self.folder)
        return [state.view(node) for node in state.nodes.values()]

    def logs(self, names: Sequence[str] = ()) -> dict[str, Path]:
        """The log of each of these nodes, without a name of all."""
        return {node.name: node.log for node in _find(State.load(self.folder), names, or_all=True)}

    def connect(self, name: str, *, timeout_s: float = 5.0) -> Client:
        """A client of one node."""
        return _find(State.load(self.folder), [name])[0].connect(timeout_s)

    # Processes

    def up(self, count: int | None = None) -> None:
        """Let n1 to n`count` run and see each other; without a number all that there are, at first three."""
        with self._work() as state, _undone_on_failure(state):
            wanted = count or len(state.nodes) or NODES_DEFAULT
            if not 1 <= wanted <= NODES_MAX:
                raise ClusterError(f"1 to {NODES_MAX} nodes, not {wanted}", code="invalid")
            for name in (f"n{number}" for number in range(1, wanted + 1)):
                state.nodes.setdefault(name, Node(name, self.folder / name))
            state.adopt()
            nodes = list(state.nodes.values())[:wanted]
            _resume(state, [node for node in nodes if node.state == "paused"])
            self._start(state, [node for node in nodes if node.state != "running"])
            starting.await_met(state, [node for node in state.nodes.values() if node.state == "running"])

    def down(self, *, purge: bool = False) -> None:
        """End all nodes and all cuts. `purge`: remove the nodes' folders too."""
        with self._work() as state:
            _end(state.nodes.values())
            state.cuts.clear()
            if purge:
                self._purge(state)

    def restart(self, names: Sequence[str]) -> None:
        """SIGTERM where it is alive, then start. Cuts stay."""
        with self._work() as state, _undone_on_failure(state):
            nodes = _find(state, names)
            _end(nodes)
            self._start(state, nodes)

    def kill(self, names: Sequence[str]) -> None:
        """SIGKILL."""
        with self._work() as state:
            processes = _signal(_alive(state, names), signal.SIGKILL)
            _check_ended(await_end(processes, SIGNAL_S))

    def pause(self, names: Sequence[str]) -> None:
        """SIGSTOP: the process stands still, but its kernel goes on acknowledging."""
        with self._work() as state:
            for process in _signal(_alive(state, names), signal.SIGSTOP):
                _await_paused(process, True)

    def resume(self, names: Sequence[str]) -> None:
        """SIGCONT."""
        with self._work() as state:
            _resume(state, _alive(state, names))

    # Cuts

    def cut(self, one: str, other: str) -> None:
        """From now on these two do not hear each other."""
        with self._work() as state:
            made = cuts.pair(one, other)
            _check_running(state, [one, other])
            cuts.change(state, state.cuts | {made})

    def partition(self, groups: Sequence[Sequence[str]]) -> None:
        """Let exactly the pairs across these groups be cut; nodes in none of them are one group more."""
        with self._work() as state:
            _check_running(state, [name for group in groups for name in group])
            cuts.change(state, cuts.partition(groups, state.nodes))

    def heal(self, names: Sequence[str] = ()) -> None:
        """End the cuts of these nodes, without a name all cuts."""
        with self._work() as state:
            healed = {node.name for node in _find(state, names, or_all=True)}
            cuts.change(state, {cut for cut in state.cuts if not cut & healed})

    # Inside

    @contextmanager
    def _work(self) -> Iterator[State]:
        try:
            with locked(self.name):
                state = State.load(self.folder)
                try:
                    yield state
                finally:
                    state.save()
        except OSError as error:
            raise ClusterError(str(error)) from None

    def _start(self, state: State, nodes: list[Node]) -> None:
        for moved in starting.start(state, nodes, self._say):
            cuts.tell(state, state.cut_from(moved))

    def _purge(self, state: State) -> None:
        """Remove what `up` made. Other daemons may have folders beside ours: those stay."""
        for node in state.nodes.values():
            if node.folder.exists():
                shutil.rmtree(node.folder)
            node.socket.unlink(missing_ok=True)
        state.nodes.clear()
        state.save()
        if self.folder.is_dir():
            left = sorted(path.name for path in self.folder.iterdir())
            if left:
                self._say(f"kept in {self.folder}, since `cluster up` did not make it: {', '.join(left)}")
            else:
                self.folder.rmdir()


@contextmanager
def _undone_on_failure(state: State) -> Iterator[None]:
    before = [node.process for node in state.nodes.values()]
    try:
        yield
    except BaseException:
        _end(node for node in state.nodes.values() if node.process not in before)
        raise


def _find(state: State, names: Sequence[str] = (), *, or_all: bool = False) -> list[Node]:
    """Raises ClusterError when there is no such cluster or node."""
    if not state.nodes:
        raise ClusterError(f"there is no cluster {state.cluster}", code="no_daemon", hint=state.command("up"))
    for name in names:
        if name not in state.nodes:
            known = ", ".join(state.nodes)
            raise ClusterError(
                f"no node {name} in cluster {state.cluster}", code="not_found", hint=f"there are {known}"
            )
    wanted = names or (state.nodes if or_all else ())
    return [state.nodes[name] for name in dict.fromkeys(wanted)]


def _alive(state: State, names: Sequence[str]) -> list[Node]:
    """Raises ClusterError when one of them has no process."""
    nodes = _find(state, names)
    for node in nodes:
        if node.state in ("dead", "stopped"):
            hint = f"start it with: {state.command(f'restart {node.name}')}"
            raise ClusterError(f"{node.name} is {node.state}", code="no_daemon", hint=hint)
    return nodes


def _check_running(state: State, names: Sequence[str]) -> None:
    """A cut is made by the nodes themselves. Raises ClusterError when one of them cannot."""
    for node in _alive(state, names):
        if node.state == "paused":
            hint = f"first: {state.command(f'resume {node.name}')}"
            raise ClusterError(f"{node.name} is paused, and a cut is made by the node itself", hint=hint)


def _signal(nodes: Iterable[Node], number: signal.Signals) -> list[Process]:
    """The processes that it was sent to."""
    processes = [node.process for node in nodes if node.process is not None]
    return [process for process in processes if process.send(number)]


def _resume(state: State, nodes: list[Node]) -> None:
    for process in _signal(nodes, signal.SIGCONT):
        _await_paused(process, False)
    cuts.tell(state, [node.name for node in nodes])  # healed or cut while it stood still


def _end(nodes: Iterable[Node]) -> None:
    ended = [node for node in nodes if node.process is not None]
    _check_ended(end([node.process for node in ended if node.process is not None], GOODBYE_S))
    for node in ended:
        node.process = None


def _check_ended(left: list[Process]) -> None:
    if left:
        raise ClusterError(f"not even SIGKILL ends process {', '.join(str(process.pid) for process in left)}")


def _await_paused(process: Process, paused: bool) -> None:
    until_s = time.monotonic() + SIGNAL_S
    while process.is_alive and process.is_paused is not paused:
        if time.monotonic() > until_s:
            raise ClusterError(f"process {process.pid} did not {'stop' if paused else 'go on'}")
        time.sleep(POLL_S)
