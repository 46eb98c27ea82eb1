"""The command line as programs and people meet it: help, exit codes, which daemon is meant, the cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from peernode.cli.root import MODULES, run

from ..waiting import wait_until
from .daemons import Daemons, environment
from .shell import Done, Shell, reached, shell_in

HEAVY = {"trio", "msgspec", "cryptography", "protocol"}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with shell_in(tmp_path_factory.mktemp("home")) as shell:
        yield shell


# Help


def test_help_fits_a_small_terminal(cli: Shell) -> None:
    """24 lines of 80 columns show every command in five groups or fewer."""
    done = cli("--help")
    lines = done.out.decode().splitlines()

    assert (done.code, done.err) == (0, "")
    assert len(lines) <= 24
    assert max(map(len, lines)) < 80
    assert [
        name for name in MODULES if not re.search(rf"^.{{8}}  ([a-z]+ )*{name} ", done.out.decode(), re.M)
    ] == []


def test_no_command_shows_the_help_on_stderr(cli: Shell) -> None:
    """Called bare it is wrong usage: exit 2, no data, and the same help."""
    bare = cli()

    assert (bare.code, bare.out) == (2, b"")
    assert bare.err == cli("--help").out.decode() + "\n" or bare.err == cli("--help").out.decode()


@pytest.mark.parametrize("command", sorted(MODULES))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`COMMAND --help` exits 0, says nothing on stderr, and does not need a daemon."""
    code = run([command, "--help"])

    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    assert shown.out.startswith(f"Usage: peernode {command} ")


def test_a_mistyped_command_is_guessed(cli: Shell) -> None:
    """Exit 2 and the name that was probably meant."""
    done = cli("memebrs")

    assert (done.code, done.out) == (2, b"")
    assert "Did you mean members?" in done.err


def test_version_names_program_and_version(cli: Shell) -> None:
    """For people a line, for programs an object; the daemon runs the same."""
    version = cli("version", "--json").json["version"]

    assert cli("version").out == f"peernode {version}\n".encode()
    assert cli("status", "--node", "a", "--json").json["version"] == version


# Exit codes


@pytest.mark.parametrize(
    ("code", "name", "arguments"),
    [
        (2, "invalid", ("frobnicate",)),
        (2, "invalid", ("get",)),
        (2, "invalid", ("get", "k", "--no-such-option")),
        (2, "invalid", ("get", "k", "-o", "yaml")),
        (2, "invalid", ("get", "k", "--timeout", "soon")),
        (2, "invalid", ("set", "", "v", "--node", "a")),
        (2, "too_large", ("set", "k" * 1025, "v", "--node", "a")),
        (2, "invalid", ("ls", "--limit", "0", "--node", "a")),
        (2, "invalid", ("join", "nonsense:port", "--node", "a")),
        (2, "invalid", ("invite", "--uses", "0", "--node", "a")),
        (2, "invalid", ("invite", "--ttl", "10000h", "--node", "a")),
        (3, "not_found", ("get", "no/such", "--node", "a")),
        (3, "not_found", ("ticket", "revoke", "00" * 8, "--node", "a")),
        (4, "no_daemon", ("get", "k", "--node", "nobody")),
        (4, "no_daemon", ("get", "k", "--socket", "/no/such/socket")),
        (4, "no_daemon", ("get", "k", "--cluster", "elsewhere")),
        (1, "invalid", ("init", "--name", "a")),
    ],
)
def test_a_refusal_has_its_exit_code(cli: Shell, code: int, name: str, arguments: tuple[str, ...]) -> None:
    """With JSON it is one object on stderr; without it, lines for people."""
    done = cli(*arguments, "--json")
    assert (done.code, done.error["code"]) == (code, name)
    plain = cli(*arguments)
    assert (plain.code, plain.out) == (code, b"")
    assert plain.err.startswith("error: ")


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (1, ("run", "--name", "a")),  # it runs already
        (2, ("run", "--name", "Not A Name")),
        (2, ("run", "--name", "x", "--cluster", "run")),
        (2, ("run", "--name", "x", "--listen", "h:port")),
        (2, ("run", "--name", "x", "--seed", "a..b:1")),
        (2, ("run", "--name", "x", "--tag", "no-equals-sign")),
        (7, ("run", "--name", "x", "--seed", "127.0.0.1:1")),
        (7, ("run", "--name", "x", "--ticket", "pn1nonsense")),
    ],
)
def test_a_daemon_that_does_not_start_has_its_exit_code(
    cli: Shell, code: int, arguments: tuple[str, ...]
) -> None:
    """And says in a line why."""
    done = cli(*arguments)

    assert (done.code, done.out) == (code, b"")
    assert "error: " in done.err
    assert "Traceback" not in done.err


def test_a_daemon_that_does_not_answer_is_exit_5(cli: Shell) -> None:
    """Within --timeout, with a word that the write may still happen; Ctrl-C before that is 130."""
    os.kill(cli.b.pid, signal.SIGSTOP)
    try:
        late = cli("set", "late", "v", "--node", "b", "--timeout", "200ms", "--json")
        assert (late.code, late.error["code"]) == (5, "timeout")
        assert late.error["hint"] == "the request may still be carried out"

        command = [sys.executable, "-P", "-m", "peernode", "get", "k", "--node", "b", "--timeout", "15s"]
        waiting = subprocess.Popen(command, env=environment(cli.home), stderr=subprocess.PIPE)
        wait_until(lambda: is_connected(waiting.pid))
        waiting.send_signal(signal.SIGINT)
        assert waiting.communicate(timeout=10)[1] == b"\n"
        assert waiting.returncode == 130
    finally:
        os.kill(cli.b.pid, signal.SIGCONT)
    wait_until(lambda: reached(cli.a, "b") and reached(cli.b, "a"))


def is_connected(pid: int) -> bool:
    """Whether the process sleeps with an open socket: it waits for its answer."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            if str(file.readlink()).startswith("socket:"):
                return True
    return False


# Which daemon


def test_the_first_of_several_daemons_is_named(cli: Shell) -> None:
    """Without --node it is the first by name, and stderr says so; --quiet does not."""
    chosen = cli("status", "--json")

    assert chosen.json["name"] == "a"
    assert chosen.err == "using node a (others: b); choose with --node\n"
    assert cli("status", "--json", "--quiet").err == ""
    assert cli("status", "--json", "--node", "b").err == ""


def test_the_socket_of_the_environment(cli: Shell) -> None:
    """PEERNODE_SOCKET chooses the daemon; what the command line names goes before it."""
    sock_a, sock_b = (str(daemon.folder / "sock") for daemon in (cli.a, cli.b))

    def name(*options: str) -> str:
        return str(cli("status", "--json", *options, PEERNODE_SOCKET=sock_b).json["name"])

    assert [name(), name("--node", "a"), name("--socket", sock_a)] == ["b", "a", "a"]
    assert cli("status", PEERNODE_SOCKET="/no/such/socket").code == 4


def test_global_options_stand_before_or_behind_the_command(cli: Shell) -> None:
    """Both orders mean the same, with `=` and without."""
    cli("set", "order", "v", "--node", "a")
    for arguments in (
        ("--node", "a", "get", "order"),
        ("--node=a", "-o", "raw", "get", "order"),
        ("-q", "--timeout", "3s", "kv", "get", "order", "--node", "a"),
    ):
        assert cli(*arguments) == Done(0, b"v", "")


def test_without_any_daemon_the_hint_is_to_start_one(cli: Shell, tmp_path: Path) -> None:
    """Exit 4, and what to type."""
    done = cli("members", "--json", home=tmp_path)

    assert (done.code, done.error["hint"]) == (4, "start one with: peernode run")


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "light", "v"),
        ("get", "light"),
        ("ls",),
        ("del", "light"),
        ("members",),
        ("status",),
        ("health",),
        ("invite",),
        ("ticket", "list"),
        ("join", "127.0.0.1:1"),
        ("version",),
    ],
)
def test_client_commands_stay_light(cli: Shell, arguments: tuple[str, ...]) -> None:
    """None of them imports trio, msgspec, cryptography or the protocol."""
    assert imported(cli, *arguments, "--node", "b") & HEAVY == set()


def test_the_check_of_imports_can_fail(cli: Shell) -> None:
    """The one command that does a daemon's work loads all of them."""
    assert imported(cli, "init", "--name", "heavy", "--cluster", "heavy") >= HEAVY


def imported(cli: Shell, *arguments: str) -> set[str]:
    """The top-level modules that a command loads."""
    command = [sys.executable, "-X", "importtime", "-P", "-m", "peernode", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(cli.home), timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.M)}


# The cluster


def test_members_as_json(cli: Shell) -> None:
    """The shape of the contract, this node first."""
    found = cli("members", "--node", "b", "--json").json

    assert [(m["name"], m["state"], m["address"]) for m in found] == [
        ("b", "alive", cli.b.address),
        ("a", "alive", cli.a.address),
    ]
    assert all({"name", "id", "address", "state", "run", "why"} <= set(m) for m in found)
    assert [m["id"] for m in found] == [daemon.ready.split()[2] for daemon in (cli.b, cli.a)]
    assert all(isinstance(m["run"], int) and m["why"] for m in found)


def test_members_can_be_filtered(cli: Shell) -> None:
    """By state and by tag, in every form."""

    def names(*options: str) -> list[str]:
        lines = cli("members", "--node", "b", "-o", "jsonl", *options).out.splitlines()
        return [json.loads(line)["name"] for line in lines]

    assert names() == ["b", "a"]
    assert names("--tag", "zone=north") == ["a"]
    assert names("--state", "dead") == []
    table = cli("members", "--node", "b", "--tag", "zone=north").out.decode().splitlines()
    assert table[0].split() == ["NAME", "STATE", "FOR", "ADDRESS", "ID", "RTT", "TAGS", "WHY"]
    assert (len(table), table[1].split()[:2], "zone=north" in table[1]) == (2, ["a", "alive"], True)


def test_status_as_json(cli: Shell) -> None:
    """The shape of the contract."""
    status = cli("status", "--node", "a", "--json").json

    kinds = {name: type(value) for name, value in status.items()}
    shape = {
        "name": str,
        "id": str,
        "cluster_id": str,
        "version": str,
        "protocol": int,
        "state": str,
        "address": str,
        "members": dict,
        "keys": int,
        "digest": str,
        "loop_lag_ms": float,
    }
    assert {name: kinds.get(name) for name in shape} == shape
    assert (status["name"], status["state"], status["address"]) == ("a", "alive", cli.a.address)
    assert status["members"] == {"alive": 2}
    assert int(status["digest"], 16) >= 0
    assert status["cluster_id"] in cli.a.ready


def test_the_digest_is_of_the_content(cli: Shell) -> None:
    """Equal on two nodes once they hold the same, and another after each write."""

    def digest(node: str) -> str:
        return str(cli("status", "--node", node, "--json").json["digest"])

    before = digest("a")
    cli("set", "digested", "v", "--node", "a")
    assert digest("a") != before
    wait_until(lambda: digest("a") == digest("b"))


def test_status_for_people(cli: Shell) -> None:
    """A line a field."""
    lines = cli("status", "--node", "a").out.decode().splitlines()

    assert lines[0].split() == ["name", "a"]
    assert next(line.split() for line in lines if line.startswith("address")) == ["address", cli.a.address]


def test_invite_prints_the_line_to_paste(cli: Shell) -> None:
    """The command alone on stdout; how long it is good on stderr; the same as an object."""
    line = cli("invite", "--ttl", "1m", "--node", "a")
    made = cli("invite", "--uses", "3", "--node", "a", "--json").json

    assert re.fullmatch(rb"peernode run --ticket pn1[a-z2-7]+\n", line.out)
    assert re.match(r"good for 1 node until \d{4}-\d\d-\d\dT\S+Z; run there:\n", line.err)
    assert made["command"] == f"peernode run --ticket {made['ticket']}"
    listed = next(
        row for row in cli("ticket", "list", "--node", "a", "--json").json if row["id"] == made["id"]
    )
    assert (listed["state"], listed["uses_left"], listed["used_by"]) == ("live", 3, [])


def test_tickets_can_be_revoked(cli: Shell) -> None:
    """`ticket create` prints the ticket alone; a revoked one is listed no more."""
    ticket = cli("ticket", "create", "--node", "a").out.decode().strip()
    assert ticket.startswith("pn1")
    identity = cli("ticket", "create", "--node", "a", "--json").json["id"]

    assert cli("ticket", "revoke", identity, "--node", "a", "--json").json == {"id": identity}
    rows = cli("ticket", "list", "--node", "a").out.decode().splitlines()
    assert rows[0].split() == ["ID", "STATE", "USES", "LEFT", "USED", "EXPIRES"]
    assert identity not in "".join(rows)


def test_join_gives_more_seeds(cli: Shell) -> None:
    """The addresses as they will be dialled, the default port spelt out."""
    joined = cli("join", "127.0.0.1:1", "localhost", "--node", "a", "--json")

    assert joined.json == {"seeds": ["127.0.0.1:1", "localhost:7755"]}


def test_health_is_exit_8_while_a_member_is_dead(cli: Shell) -> None:
    """0 and `healthy`; 8 and the reason in words; 0 again when it is back."""
    assert cli("health", "--node", "a") == Done(0, b"healthy\n", "")
    cli.b.kill()
    wait_until(lambda: cli.a.state_of("b") == "dead")

    sick = cli("health", "--node", "a")
    assert (sick.code, sick.out.splitlines()[0]) == (8, b"degraded")
    told = cli("health", "--node", "a", "--json")
    assert (told.code, told.json["healthy"]) == (8, False)
    assert [reason.startswith("b is dead: ") for reason in told.json["reasons"]] == [True]
    assert cli("status", "--node", "a", "--json").json["members"] == {"alive": 1, "dead": 1}

    cli.b.start()
    wait_until(lambda: cli("health", "--node", "a").code == 0)


def test_leave_says_goodbye_and_ends_the_daemon(cli: Shell) -> None:
    """The daemon exits 0, the others say `left`, what it wrote stays; the next `run` comes back."""
    with cli.b.connect() as client:
        client.put("legacy", "v")
    assert cli("leave", "--node", "b", "--json") == Done(0, b'{"leaving": true}\n', "")

    assert cli.b.wait() == 0
    assert cli.a.state_of("b") == "left"
    assert cli("get", "legacy", "--node", "a").out == b"v"
    assert cli("health", "--node", "a").code == 0
    cli.b.start()
    wait_until(lambda: cli.a.state_of("b") == "alive")


# A folder of one's own


def test_init_makes_what_run_starts(daemons: Daemons) -> None:
    """`init` prints the folder of a new cluster and does not start; `run` goes on from there, and is not new."""
    made = daemons.command("init", "--name", "a")
    a = daemons("a")
    assert (made.returncode, made.stdout) == (0, f"{a.folder}\n")
    assert made.stderr.startswith(f"peernode: new cluster: its key is {a.folder / 'cluster.key'}\n")

    again = daemons.command("init", "--name", "a")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.splitlines() == [
        f"error: {a.folder} belongs to a cluster already",
        "hint: start it with: peernode run",
    ]
    assert a.start().ready.endswith("(alone)")


def test_a_data_folder_anywhere(daemons: Daemons, tmp_path: Path) -> None:
    """--data-dir and --socket put things elsewhere; --node finds the daemon all the same."""
    folder, sock = tmp_path / "elsewhere", tmp_path / "s"
    a = daemons("a").start("--data-dir", str(folder), "--socket", str(sock))

    status = json.loads(daemons.command("status", "--node", "a", "--json").stdout)
    assert (status["data_dir"], status["socket"]) == (str(folder), str(sock))
    assert f" socket {sock} " in a.ready
    assert not a.folder.exists()


def test_the_port_is_kept(daemons: Daemons) -> None:
    """The next start listens where the last one did, so that the others find it."""
    a = daemons("a").start()
    first = a.address
    a.terminate()

    assert a.start().address == first
