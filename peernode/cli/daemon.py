"""run and init: the commands that start the daemon. Its libraries load only when they are called."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import RunOptions
from .common import Context, client_command
from .output import tell_error


def parse_tags(given: tuple[str, ...]) -> dict[str, str]:
    tags = {}
    for tag in given:
        key, equals, value = tag.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--tag {tag!r}: write KEY=VALUE")
        tags[key] = value
    return tags


@click.command("run")
@click.option("--name", metavar="N", envvar="PEERNODE_NAME", help="The node's name. Default: the host's.")
@click.option(
    "--seed", "seeds", multiple=True, metavar="H:P", envvar="PEERNODE_SEED", help="A member to join through."
)
@click.option("--ticket", metavar="T", envvar="PEERNODE_TICKET", help="What `peernode invite` printed.")
@click.option(
    "--listen", metavar="H:P", envvar="PEERNODE_LISTEN", help="For peers. Default: all, port 7755 or next."
)
@click.option("--advertise", metavar="H:P", envvar="PEERNODE_ADVERTISE", help="Where peers reach this node.")
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="D", help="The node's folder.")
@click.option("--socket", type=click.Path(path_type=Path), metavar="S", help="The local socket's path.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="Told to all members, such as zone=a.")
@click.option("--no-voter", is_flag=True, help="Never be picked to decide about coordinated keyspaces.")
@click.option("--cluster", default="dev", metavar="NAME", help="Which folder of daemons. Default: dev.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
def run(
    name: str | None,
    seeds: tuple[str, ...],
    ticket: str | None,
    listen: str | None,
    advertise: str | None,
    data_dir: Path | None,
    socket: Path | None,
    tags: tuple[str, ...],
    no_voter: bool,
    cluster: str,
    log_level: str,
) -> int:
    """Run a node in the foreground. No option is needed.

    An empty folder and no seed: a new cluster. With --seed: joins that cluster, without a ticket where a
    daemon of the same user runs on this machine, elsewhere with one (peernode invite). Ctrl-C says goodbye.

    \b
    peernode run
    peernode run --name b --seed 127.0.0.1:7755
    """
    from .. import daemon

    tag_map, votes = parse_tags(tags), not no_voter
    options = RunOptions(
        name, cluster, seeds, ticket, listen, advertise, data_dir, socket, tag_map, log_level, votes
    )
    return daemon.run(options)


@client_command("init")
@click.option("--name", metavar="N", help="The node's name. Default: the host's.")
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="D", help="The node's folder.")
def init(context: Context, name: str | None, data_dir: Path | None) -> int:
    """Make a cluster in an empty folder, as `run` does, without starting.

    \b
    peernode init --name a
    """
    from .. import daemon
    from ..daemon.main import StartError

    try:
        path = daemon.init(RunOptions(name=name, cluster=context.cluster or "dev", data_dir=data_dir))
    except StartError as error:
        tell_error(context.output, "invalid", str(error), error.hint)
        return error.code
    if context.output.is_json:
        context.output.document({"data_dir": str(path)})
    else:
        print(path)
    return 0


COMMANDS = {"run": run, "init": init}
