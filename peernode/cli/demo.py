"""`peernode demo`: three real daemons on this machine, from the first write to a crash and back.

Each step states what it will show, does it, and checks it; a step that does not hold ends the demo with exit 1
and the daemons' last words. Everything it starts, it ends, by its own process id; its folder is removed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from ..client import Client, PeernodeError

STEP_S = 10.0
POLL_S = 0.01

T = TypeVar("T")


class DemoError(Exception):
    """A step did not hold."""


class Daemon:
    """One real daemon process."""

    def __init__(self, home: Path, name: str) -> None:
        self.home, self.name = home, name
        self.address = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.log = home / f"{name}.log"

    def start(self, *options: str) -> str:
        """Start it and wait until it says `ready`; returns that line."""
        command = [
            sys.executable,
            "-P",
            "-m",
            "peernode",
            "run",
            "--name",
            self.name,
            "--listen",
            "127.0.0.1:0",
        ]
        environment = {**os.environ, "PEERNODE_HOME": str(self.home)}
        environment.pop("PEERNODE_SOCKET", None)
        said = self.home / f"{self.name}.out"
        with self.log.open("a") as log, said.open("w") as out:
            process = subprocess.Popen([*command, *options], stdout=out, stderr=log, env=environment)
        self.process = process

        def ready() -> str | None:
            if process.poll() is not None:
                raise DemoError(f"{self.name} ended instead of starting")
            line = said.read_text()
            return line.strip() if line.endswith("\n") else None

        line = wait_for(f"{self.name} to be ready", ready)
        self.address = line.split(" peers ")[1].split()[0]
        return line

    def connect(self) -> Client:
        return Client(self.home / "dev" / self.name / "sock")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()


def wait_for(what: str, condition: Callable[[], T | None]) -> T:
    """Poll until the condition gives something. Raises DemoError after STEP_S."""
    until = time.monotonic() + STEP_S
    while (found := condition()) is None:
        if time.monotonic() > until:
            raise DemoError(f"waited {STEP_S:.0f} s for {what}")
        time.sleep(POLL_S)
    return found


def check(holds: bool, what: str) -> None:
    if not holds:
        raise DemoError(what)


class Account:
    """Tells what happens, to a person or as one JSON object at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self._number = 0
        self.facts: dict[str, Any] = {}

    def step(self, text: str) -> None:
        self._number += 1
        self._print(f"\n{self._number}. {text}")

    def tell(self, text: str, **facts: Any) -> None:
        self._print(f"   {text}")
        self.facts.update(facts)

    def finish(self) -> None:
        took_s = time.monotonic() - self._began
        self.facts["took_s"] = round(took_s, 2)
        if self._as_json:
            print(json.dumps({"ok": True, **self.facts}))
        self._print(f"\nEverything held. {took_s:.1f} s in all.")
        self._print("Your own: `peernode run --name a`, and elsewhere `peernode run --name b --seed ADDRESS`")

    def _print(self, text: str) -> None:
        if not self._as_json:
            print(text, flush=True)


@click.command("demo")
@click.option("--json", "as_json", is_flag=True, help="One object with the figures.")
def demo(as_json: bool) -> int:
    """Three real daemons: join, write, crash, detect, restart, catch up. Checks itself; under 20 s."""
    with daemons() as (a, b, c):
        try:
            play(Account(as_json), a, b, c)
        except (DemoError, PeernodeError) as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            for daemon in (a, b, c):
                if daemon.log.exists():
                    tail = "".join(daemon.log.read_text().splitlines(keepends=True)[-15:])
                    print(f"\n--- the end of {daemon.name}'s log\n{tail}", file=sys.stderr)
            return 1
    return 0


@contextmanager
def daemons() -> Iterator[tuple[Daemon, Daemon, Daemon]]:
    home = Path(tempfile.mkdtemp(prefix="peernode-demo-"))
    a, b, c = (Daemon(home, name) for name in "abc")
    try:
        yield a, b, c
    finally:
        for daemon in (c, b, a):
            daemon.stop()
        shutil.rmtree(home, ignore_errors=True)


def play(tell: Account, a: Daemon, b: Daemon, c: Daemon) -> None:
    tell.step("Three daemons on this machine: a makes a cluster, b and c join through a's address.")
    for daemon in (a, b, c):
        began = time.monotonic()
        daemon.start(*(() if daemon is a else ("--seed", a.address)))
        tell.tell(f"{daemon.name} is ready at {daemon.address} after {ms(began)} ms")
    for daemon in (a, b, c):
        wait_for(f"{daemon.name} to reach the others", lambda d=daemon: reaches_all(d) or None)  # type: ignore[misc]
    tell.tell("each of them has reached both others")

    tell.step("A write on a is read on c.")
    with a.connect() as on_a, c.connect() as on_c:
        on_a.put("greeting", "hello from a")
        began = time.monotonic()
        item = wait_for("the write to arrive", lambda: on_c.get("greeting"))
        check(item.value == b"hello from a", f"c reads {item.value!r}")
        tell.tell("peernode set greeting 'hello from a'   on a, durable before it was acknowledged")
        tell.tell(
            f"peernode get greeting   on c: {item.value.decode()!r}, {ms(began)} ms later",
            visible_ms=ms(began),
        )

        tell.step("b is killed (kill -9): it cannot say goodbye.")
        killed_ms = time.time() * 1000
        b.kill()
        for name, node in (("a", on_a), ("c", on_c)):
            seen = wait_for(f"{name} to notice", lambda n=node: dead(n, "b"))  # type: ignore[misc]
            took_ms = round(max(0.0, seen["since_ms"] - killed_ms))
            tell.tell(
                f"{name} says b is dead after {took_ms} ms: {seen['why']}", **{f"dead_ms_{name}": took_ms}
            )
        check(states(a) == {"alive": 2, "dead": 1}, f"a sees {states(a)}")

        tell.step("Life goes on without b: 100 writes on a and c.")
        for number in range(50):
            on_a.put(f"while-b-was-away/a{number}", str(number))
            on_c.put(f"while-b-was-away/c{number}", str(number))
        tell.tell("all of them acknowledged, each durable where it was written")

        tell.step("b starts again, by itself and without any option: it remembers its cluster.")
        began = time.monotonic()
        line = b.start()
        tell.tell(f"b is ready after {ms(began)} ms {line[line.rindex('(') :]}", restart_ms=ms(began))
        with b.connect() as on_b:
            caught_up(tell, [on_a, on_b, on_c])
    tell.finish()


def caught_up(tell: Account, nodes: list[Client]) -> None:
    def equal() -> dict[str, Any] | None:
        found = [node.status() for node in nodes]
        return found[0] if len({status["digest"] for status in found}) == 1 else None

    status = wait_for("equal digests", equal)
    check(status["keys"] == 101, f"{status['keys']} keys, not 101")
    greeting = nodes[1].get("greeting")
    check(greeting is not None and greeting.value == b"hello from a", "b lost what it had before the crash")
    held = sum(1 for _ in nodes[1].scan("while-b-was-away/"))
    check(held == 100, f"b has {held} of the 100 writes that it missed")
    tell.tell("b has what it had before, and the 100 writes that it missed: nothing is lost")
    tell.tell(f"digest {status['digest']} on all three", digest=status["digest"], keys=status["keys"])


def states(daemon: Daemon) -> dict[str, int]:
    with daemon.connect() as node:
        return dict(node.status()["members"])


def reaches_all(daemon: Daemon) -> bool:
    with daemon.connect() as node:
        members = node.members()
        return len(members) == 3 and all(m["state"] == "alive" and m["reached"] for m in members)


def dead(node: Client, name: str) -> dict[str, Any] | None:
    found = [m for m in node.members() if m["name"] == name and m["state"] == "dead"]
    return found[0] if found else None


def ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


COMMANDS = {"demo": demo}
