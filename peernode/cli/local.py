"""cluster: several real daemons on this machine, to try things out and to break them on purpose."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from ..cluster import ClusterError, LocalCluster
from ..cluster.launcher import NODES_DEFAULT, NODES_MAX
from ..cluster.logs import read
from ..cluster.process import INTERRUPTS
from .common import Context, client_command

NODES = click.argument("nodes", nargs=-1, required=True, metavar="NODE...")


@click.group("cluster", context_settings={"help_option_names": ["-h", "--help"]})
def cluster() -> None:
    """Several real daemons on this machine: n1, n2, ... on 127.0.0.1.

    They go on after the command that started them; `cluster down` ends them. Their folders are those of
    `run --cluster C --name n1`, so --node n1 finds them. --cluster NAME keeps several clusters apart.

    \b
    peernode cluster up -n 5
    peernode set greeting hello --node n1
    peernode cluster partition n1,n2 n3,n4,n5
    peernode cluster heal
    peernode cluster down --purge
    """


@client_command("up")
@click.option(
    "-n",
    "count",
    type=click.IntRange(1, NODES_MAX),
    metavar="N",
    help=f"How many. Default: {NODES_DEFAULT}, later all.",
)
def up(context: Context, count: int | None) -> None:
    """Let n1 to nN run and see each other.

    Starts what does not run and resumes what is paused; nodes beyond N stay as they are, and so do cuts. When it
    fails, nothing that it started goes on.

    \b
    peernode cluster up
    peernode cluster up -n 5 --json
    """
    local = cluster_of(context)
    with one_interrupt():
        local.up(count)
    show(context, local)
    option = "" if local.name == "dev" else f" --cluster {local.name}"
    context.output.say(
        f"try: peernode set greeting hello --node n1{option}; end: peernode cluster down{option}"
    )


@client_command("status")
def status(context: Context) -> None:
    """The nodes, their states and cuts.

    A node is running, paused, dead (killed or crashed) or stopped (it said goodbye).
    """
    local = cluster_of(context)
    if not local.nodes():
        raise ClusterError(f"there is no cluster {local.name}", code="no_daemon", hint="peernode cluster up")
    show(context, local)


@client_command("kill")
@NODES
def kill(context: Context, nodes: tuple[str, ...]) -> None:
    """SIGKILL: no goodbye."""
    local = cluster_of(context)
    local.kill(nodes)
    tell(context, local, f"killed {', '.join(nodes)}")


@client_command("pause")
@NODES
def pause(context: Context, nodes: tuple[str, ...]) -> None:
    """SIGSTOP: it stands still, until `resume`.

    Its kernel goes on acknowledging what it is sent, as when a process swaps or a debugger holds it.
    """
    local = cluster_of(context)
    local.pause(nodes)
    tell(context, local, f"paused {', '.join(nodes)}")


@client_command("resume")
@NODES
def resume(context: Context, nodes: tuple[str, ...]) -> None:
    """SIGCONT."""
    local = cluster_of(context)
    local.resume(nodes)
    tell(context, local, f"resumed {', '.join(nodes)}")


@client_command("restart")
@NODES
def restart(context: Context, nodes: tuple[str, ...]) -> None:
    """SIGTERM where it is alive, then start.

    It starts on the same data, with the same address, and is cut from the same nodes.
    """
    local = cluster_of(context)
    with one_interrupt():
        local.restart(nodes)
    tell(context, local, f"restarted {', '.join(nodes)}")


@client_command("cut")
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
def cut(context: Context, one: str, other: str) -> None:
    """Lose every packet between A and B.

    Both ways and without a word, until `cluster heal`: the kernel does not acknowledge either.

    \b
    peernode cluster cut n1 n2
    """
    local = cluster_of(context)
    local.cut(one, other)
    tell(context, local, f"cut {one} from {other}")


@client_command("partition")
@click.argument("groups", nargs=-1, required=True, metavar="A,B C...")
def partition(context: Context, groups: tuple[str, ...]) -> None:
    """Cut every pair across groups, and no other.

    Earlier cuts end. Nodes that are not named are together a further group, so that nobody connects two sides.

    \b
    peernode cluster partition n1,n2 n3,n4,n5
    peernode cluster partition n1          (n1 alone, the others together)
    """
    local = cluster_of(context)
    local.partition([group.split(",") for group in groups])
    tell(context, local, f"partitioned {' | '.join(groups)}")


@client_command("heal")
@click.argument("nodes", nargs=-1, metavar="[NODE...]")
def heal(context: Context, nodes: tuple[str, ...]) -> None:
    """End all cuts, or those of the nodes named."""
    local = cluster_of(context)
    local.heal(nodes)
    tell(context, local, "healed")


@client_command("logs")
@click.argument("nodes", nargs=-1, metavar="[NODE...]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
def logs(context: Context, nodes: tuple[str, ...], follow: bool) -> None:
    """What the daemons said, all or those named."""
    found = cluster_of(context).logs(nodes)
    width = max(map(len, found)) if len(found) > 1 else 0
    for line in read(found, follow=follow):
        if context.output.is_json:
            context.output.lines([line._asdict()])
        else:
            print(f"{line.node:<{width}}  {line.text}" if width else line.text, flush=follow)


@client_command("down")
@click.option("--purge", is_flag=True, help="Remove the nodes' folders too.")
def down(context: Context, purge: bool) -> None:
    """End all nodes and all cuts.

    Paused nodes too. `up` starts them again on the same data.
    """
    local = cluster_of(context)
    local.down(purge=purge)
    tell(context, local, "ended, and their folders removed" if purge else f"ended; data in {local.folder}")


def cluster_of(context: Context) -> LocalCluster:
    return LocalCluster(context.cluster or "dev", context.output.say)


def tell(context: Context, local: LocalCluster, done: str) -> None:
    """The whole cluster for programs, a line for people."""
    if context.output.is_json:
        show(context, local)
    else:
        context.output.say(done)


def show(context: Context, local: LocalCluster) -> None:
    nodes = local.nodes()
    if context.output.form == "json":
        context.output.document({"cluster": local.name, "dir": str(local.folder), "nodes": nodes})
    elif context.output.form == "jsonl":
        context.output.lines(nodes)
    else:
        rows = [
            (node["name"], node["state"], node["pid"] or "-", node["address"] or "-", names(node["cut_from"]))
            for node in nodes
        ]
        context.output.table(("NAME", "STATE", "PID", "ADDRESS", "CUT FROM"), rows)


def names(cut_from: Sequence[str]) -> str:
    return ",".join(cut_from) or "-"


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end a start, and only once: it has to clear away what it started."""
    signals = [
        each
        for each in INTERRUPTS
        if signal.getsignal(each) is not signal.SIG_IGN  # as under nohup
    ]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(each, interrupt) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


for command in (up, status, kill, pause, resume, restart, cut, partition, heal, logs, down):
    cluster.add_command(command)

COMMANDS = {"cluster": cluster}
