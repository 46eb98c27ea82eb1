"""The root command: five groups, global options in front of or behind a command, errors in the chosen format.

stdout is data, stderr is talk. With JSON, stdout is one document and an error is one object on stderr. Every
error becomes an exit code in one place: `main`.
"""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module

import click

from ..client.errors import PeernodeError
from .output import Output, tell_error

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "start": {
        "run": ("daemon", "run a node in the foreground; it makes or joins a cluster"),
        "init": ("daemon", "make a cluster in an empty folder without starting"),
        "demo": ("demo", "see three nodes on this machine at work"),
    },
    "keys": {
        "set get del ls": ("keys", "write, read and delete keys, list them in order"),
        "kv": ("kv", "the same under one roof, and many at once: import, export"),
        "keyspace": ("keyspace", "namespaces with a policy: create, ls, show, voters, drop"),
        "cache": ("cache", "this node's local TTL cache; invalidate reaches all nodes"),
        "txn": ("txn", "several coordinated keys at once, all or nothing; list, show"),
        "lock": ("lock", "run a command while this node holds a lock"),
    },
    "cluster": {
        "invite": ("cluster", "print the command that lets a machine join"),
        "join": ("cluster", "dial more members"),
        "leave": ("cluster", "hand over, say goodbye and stop"),
        "members": ("cluster", "who is there, and in which state; watch tells of changes"),
        "ticket": ("cluster", "tickets: create, list, revoke"),
        "cluster": ("local", "several nodes on this machine, to be broken: up, kill, cut"),
    },
    "operate": {
        "status": ("operate", "this node in one view"),
        "sync": ("sync", "whether all nodes hold the same, and how far they are apart"),
        "health": ("operate", "exit 0 when all is well, 8 when not"),
        "version": ("operate", "the version of this program"),
    },
}
"""Commands on one line of the help, with their module."""
MODULES = {
    name: module
    for group in GROUPS.values()
    for names, (module, _) in group.items()
    for name in names.split()
}


class Root(click.Group):
    """Loads a command's module when the command is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in MODULES:
            return None
        module = import_module(f"{__package__}.{MODULES[name]}")
        command = module.COMMANDS[name]
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in MODULES and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], MODULES, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"no command {args[0]!r}.{hint} peernode --help lists them.", context)
        return super().resolve_command(context, args)

    def format_help(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """24 lines hold all commands, in groups."""
        write = formatter.write
        write("peernode: a few machines as one cluster, with no leader and no server to run\n")
        for group, commands in GROUPS.items():
            for names, (_, about) in commands.items():
                write(f"{group:>8}  {names:<8} {about}\n")
                group = ""
        write("\nOptions of every command: --node NAME, --socket PATH, --cluster NAME, --json,\n")
        write("-o table|json|jsonl|raw, --timeout 5s, --quiet. Try: peernode demo\n")


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
def root() -> None:
    """The command line of peernode."""


GLOBAL_VALUES = ("--socket", "--node", "--cluster", "--output", "-o", "--timeout")
GLOBAL_FLAGS = ("--json", "--quiet", "-q")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """The exit code; everything that a person or a program reads is written by then."""
    arguments = globals_last(arguments)
    output = Output.guess(arguments)
    try:
        result = root.main(arguments, prog_name="peernode", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except PeernodeError as error:
        tell_error(output, error.code, error.message, error.hint, error.details)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as called_bare:
        print(called_bare.format_message(), file=sys.stderr)
        return called_bare.exit_code
    except click.exceptions.Exit as stopped:
        return stopped.exit_code
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "peernode"
        tell_error(output, "invalid", error.format_message(), f"see: {command} --help")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


NESTED = ("kv", "keyspace", "cache", "txn", "members", "ticket", "cluster", "sync")
"""Commands that have commands."""


def globals_last(arguments: list[str]) -> list[str]:
    """Move options that stand in front of the command behind it, where every command takes them."""
    rest = list(arguments)
    front = take_globals(rest)
    if not rest or rest[0].startswith("-"):
        return arguments
    name = [rest.pop(0)]
    if name[0] in NESTED:
        front += take_globals(rest)
        if rest and not rest[0].startswith("--"):
            name.append(rest.pop(0))
    return [*name, *front, *rest]


def take_globals(arguments: list[str]) -> list[str]:
    """The global options that these begin with, taken away from them."""
    taken: list[str] = []
    while arguments and arguments[0].split("=")[0] in (*GLOBAL_VALUES, *GLOBAL_FLAGS):
        taken.append(arguments.pop(0))
        if taken[-1] in GLOBAL_VALUES and arguments:
            taken.append(arguments.pop(0))
    return taken
