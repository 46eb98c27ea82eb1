"""The README, run as it stands: every command of its console blocks, and what each prints.

The rules, for whoever writes a block:

- A `python` or `js` block whose first line is a comment with a file name is that file, in the current folder.
- In a `console` block `$ ` begins a command; the lines below it, if there are any, are what a terminal shows.
- `<word>` in what is shown matches one word and remembers it: wherever the same `<word>` stands later, in a command
  too, it is that word. `...` matches anything, alone on a line any number of lines. Blanks in a row count as one.
- A command that ends in `&` starts a daemon: the next one waits for its `ready` line.
- A command that only reads is asked again for a while when it shows something else: news takes a moment.
- What the shell itself says about its jobs is left out.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..waiting import wait_until
from .daemons import Daemons, environment

ROOT = Path(__file__).parents[2]
DEADLINE_S = 15.0
NPM_S = 100.0
READS = re.compile(r"bin/peernode (get|members|health|status|ls)\b")
PLACEHOLDER = re.compile(r"(<[a-z-]+>|\.\.\.)")
FILE_NAME = re.compile(r"(?:#|//) (\S+\.(?:py|mjs))$")
JOB_NOTICE = re.compile(r"^(\[\d+\]|.*\bKilled\b).*\n", re.MULTILINE)
DONE = re.compile(r"\n?\x1e(\d+)\x1e\n")


def test_quick_start(tmp_path: Path) -> None:
    """Every block of the quick start prints what the README shows, from the demo to the goodbye."""
    with shell_in(tmp_path) as shell:
        play("Quick start", shell, {})


MAJORITY = "When a majority has to agree"
PYTHON = ("From Python", "Python, with nothing but msgpack")


def test_every_block_is_run() -> None:
    """No block of the README stands outside the sections that these tests run."""
    run = [block for section in ("Quick start", MAJORITY, *PYTHON, "Node.js") for block in blocks_of(section)]
    assert run == blocks_of("peernode")


def test_transactions_and_locks(tmp_path: Path) -> None:
    """Every block about coordinated keyspaces, on a local cluster of its own."""
    with shell_in(tmp_path) as shell:
        try:
            play(MAJORITY, shell, {})
        finally:
            shell.run("bin/peernode cluster down --purge")


@pytest.mark.parametrize("section", PYTHON)
def test_python_clients(section: str, daemons: Daemons) -> None:
    """The client library's example, and the one that needs no peernode at all, do what they say."""
    known = two_daemons(daemons)
    with shell_in(daemons.home) as shell:
        play(section, shell, known)


@pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="node and npm are not installed"
)
def test_node_js_client(daemons: Daemons) -> None:
    """A stock MessagePack library of another language talks to the socket."""
    known = two_daemons(daemons)
    with shell_in(daemons.home) as shell:
        play("Node.js", shell, known)


def test_a_line_that_differs_is_found() -> None:
    """The comparison can fail: on another word, a missing line, an extra line, a word that was another before."""
    known = {"id": "x"}
    assert matches(["<id>  <new> ...", "...", "end"], "x y z\n1\n2\nend\n", known) == {"id": "x", "new": "y"}
    assert matches(["<id> end"], "y end\n", known) is None
    assert matches(["<one> <one>"], "a b\n", known) is None
    assert matches(["hello"], "hello\nhello\n", known) is None
    assert matches(["hello", "hello"], "hello\n", known) is None


# The README


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    language: str
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Step:
    """One command and the lines that it shall show."""

    command: str
    shown: list[str]


def blocks_of(section: str) -> list[Block]:
    """The fenced blocks below a heading and its subheadings, in order."""
    found: list[Block] = []
    level, fenced = 0, False
    for line in (ROOT / "README.md").read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
            if fenced and level:
                found.append(Block(line.removeprefix("```"), []))
        elif fenced and level:
            found[-1].lines.append(line)
        elif not fenced and (heading := re.match(r"(#+) (.*)", line)):
            if heading[2] == section:
                level = len(heading[1])
            elif len(heading[1]) <= level:
                level = 0
    assert found, f"the README has no blocks under {section!r}"
    return found


def steps_of(block: Block) -> list[Step]:
    steps: list[Step] = []
    for line in block.lines:
        if line.startswith("$ "):
            steps.append(Step(line.removeprefix("$ "), []))
        else:
            steps[-1].shown.append(line)
    return steps


def play(section: str, shell: Shell, known: dict[str, str]) -> None:
    """Run a section; `known` are the words that its placeholders stand for already."""
    for block in blocks_of(section):
        if block.language == "console":
            for step in steps_of(block):
                known = take(step, shell, known)
        else:
            name = FILE_NAME.match(block.lines[0])
            assert name, f"a block of {block.language} without a file name: {block.lines[0]}"
            (shell.folder / name[1]).write_text("\n".join(block.lines) + "\n")


def take(step: Step, shell: Shell, known: dict[str, str]) -> dict[str, str]:
    """Run one command; returns what is known then."""
    command = PLACEHOLDER.sub(lambda found: known[found[0].strip("<>")], step.command)
    said = shell.run(command)
    if READS.search(command):

        def ask_again() -> bool:
            nonlocal said
            fits = matches(step.shown, said, known) is not None
            if not fits:
                said = shell.run(command)
            return fits

        with suppress(AssertionError):  # what differs is shown below
            wait_until(ask_again)
    learnt = matches(step.shown, said, known)
    assert learnt is not None, f"$ {command}\n{said}\nThe README shows:\n" + "\n".join(step.shown)
    return learnt


def matches(shown: list[str], said: str, known: dict[str, str]) -> dict[str, str] | None:
    """`known` and what the placeholders stand for now; None where the output is another."""
    if not shown:
        return known
    new: list[str] = []
    pattern = "".join(line_pattern(" ".join(line.split()), known, new) for line in shown)
    lines = (" ".join(line.split()) for line in said.strip("\n").split("\n"))
    found = re.fullmatch(pattern, "".join(f"{line}\n" for line in lines))
    if found is None:
        return None
    return known | {name: found[name.replace("-", "_")] for name in new}


def line_pattern(line: str, known: dict[str, str], new: list[str]) -> str:
    if line == "...":
        return r"(?:.*\n)*?"
    parts = []
    for part in PLACEHOLDER.split(line):
        name = part[1:-1]
        if part == "...":
            parts.append(".*?")
        elif not PLACEHOLDER.match(part):
            parts.append(re.escape(part))
        elif name in known:
            parts.append(re.escape(known[name]))
        elif name in new:
            parts.append(f"(?P={name.replace('-', '_')})")
        else:
            new.append(name)
            parts.append(rf"(?P<{name.replace('-', '_')}>[^\s\"]+)")
    return "".join(parts) + r"\n"


# The shell


class Shell:
    """A shell whose output goes to a terminal, so that commands show what they show to a person."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", ".venv"):
            (folder / name).symlink_to(ROOT / name)
        self._terminal, theirs = os.openpty()
        self.process = subprocess.Popen(
            ["sh"],
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={
                **environment(folder),
                "PEERNODE_LISTEN": "127.0.0.1:0",
                "NPM_CONFIG_PREFER_OFFLINE": "true",
                "NPM_CONFIG_UPDATE_NOTIFIER": "false",
            },
            start_new_session=True,
        )
        os.close(theirs)
        self._said = ""

    def run(self, command: str) -> str:
        """What it printed; for one that ends in `&`, up to its `ready` line."""
        assert self.process.stdin is not None
        asked = f"{command}\nrc=$?; printf '\\n\\036%s\\036\\n' $rc; (exit $rc)\n"
        self.process.stdin.write(asked.encode())
        self.process.stdin.flush()
        said = self._read_until(DONE, command)
        if command.endswith("&") and "ready " not in said:
            said += self._read_until(re.compile("^ready .*()\n", re.MULTILINE), command)
        return JOB_NOTICE.sub("", DONE.sub("", said))

    def close(self) -> None:
        """End the shell and whatever it started: they are one process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        os.close(self._terminal)

    def _read_until(self, end: re.Pattern[str], command: str) -> str:
        def ended() -> re.Match[str] | None:
            ready, _, _ = select.select([self._terminal], [], [], 0)
            if ready:
                self._said += os.read(self._terminal, 65536).decode().replace("\r\n", "\n")
            return end.search(self._said)

        patience_s = NPM_S if command.startswith("npm ") else DEADLINE_S
        try:
            found = wait_until(ended, patience_s, f"the end of: {command}")
        except AssertionError as late:
            logs = "".join(
                f"\n--- {log.name}\n{log.read_text()}" for log in sorted(self.folder.glob("*.log"))
            )
            raise AssertionError(f"{late}; it printed:\n{self._said}{logs}") from None
        said, self._said = self._said[: found.end()], self._said[found.end() :]
        return said


@contextmanager
def shell_in(folder: Path) -> Iterator[Shell]:
    shell = Shell(folder)
    try:
        yield shell
    finally:
        shell.close()


def two_daemons(daemons: Daemons) -> dict[str, str]:
    """What the reader has after the quick start: a and b, which know each other."""
    a = daemons("a").start()
    b = daemons("b").start("--seed", a.address)
    wait_until(lambda: a.state_of("b") == b.state_of("a") == "alive", what="a and b to know each other")
    return {"socket-b": str(b.folder / "sock")}
