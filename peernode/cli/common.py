"""What every client command takes: which daemon, which format, how long."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ..client import Client, find_socket
from .output import FORMATS, Output

UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Duration(click.ParamType[int]):
    """`250ms 5s 10m 24h`, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", str(value))
        if match is None:
            self.fail(f"{value!r} is no duration; write 250ms, 5s, 10m or 24h", param, context)
        return round(float(match[1]) * UNITS_MS[match[2]])


@dataclass(frozen=True, slots=True)
class Context:
    """The global options of one call."""

    socket: str | None
    node: str | None
    cluster: str | None
    timeout_s: float
    output: Output

    def connect(self) -> Client:
        path = find_socket(self.socket, node=self.node, cluster=self.cluster, note=self.output.say)
        return Client(path, timeout_s=self.timeout_s)


def client_command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command whose function gets a `Context` first, and the global options taken care of."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        command: click.Command = click.command(name, **settings)(with_context(function))  # type: ignore[no-untyped-call]
        return command

    return wrap


def client_group(name: str) -> Callable[[Callable[..., Any]], click.Group]:
    """The same for a group that does something by itself when no command of it is named."""

    def wrap(function: Callable[..., Any]) -> click.Group:
        made: Any = click.group(
            name, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
        )
        group: click.Group = made(with_context(function))
        return group

    return wrap


def with_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Takes the global options, and hands a `Context` to the function."""

    @functools.wraps(function)
    def call(
        *before: Any,
        socket: str | None,
        node: str | None,
        cluster: str | None,
        output: str | None,
        as_json: bool,
        timeout: int,
        quiet: bool,
        **rest: Any,
    ) -> Any:
        form = Output("json" if as_json else output or "table", quiet, is_default=not (as_json or output))
        return function(*before, Context(socket, node, cluster, timeout / 1000, form), **rest)

    decorated: Any = call
    # A list of its own: `wraps` shares the function's, and one function may become two commands.
    decorated.__click_params__ = list(getattr(function, "__click_params__", ()))
    for option in reversed(GLOBAL_OPTIONS):
        decorated = option(decorated)
    return call


GLOBAL_OPTIONS = [
    click.option("--socket", metavar="PATH", help="The daemon's socket.", hidden=True),
    click.option("--node", metavar="NAME", help="A daemon on this machine.", hidden=True),
    click.option("--cluster", metavar="NAME", help="Which cluster of daemons.", hidden=True),
    click.option("-o", "--output", type=click.Choice(FORMATS), hidden=True),
    click.option("--json", "as_json", is_flag=True, help="The same as -o json.", hidden=True),
    click.option("--timeout", type=Duration(), default="5s", metavar="5s", hidden=True),
    click.option("-q", "--quiet", is_flag=True, help="No talk on stderr.", hidden=True),
]
