"""lock: run a command while this node holds a lock."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from types import FrameType

import click

from ..client import Client, Conflict, Lease, NoDaemon, PeernodeError
from .common import Context, Duration, client_command

GRACE_S = 5.0
"""A command that has to stop is killed when it still runs after this time."""
FENCE_VARIABLE, NAME_VARIABLE = "PEERNODE_FENCE", "PEERNODE_LOCK"
PAUSE_S = 0.05


@client_command("lock")
@click.argument("name")
@click.argument("command", nargs=-1, required=True, metavar="-- CMD...")
@click.option(
    "--ttl",
    type=Duration(),
    default="10s",
    metavar="10s",
    help="Others get it so long after this node is gone.",
)
@click.option(
    "--wait", type=Duration(), metavar="1m", help="Give up after this time; 0s: at once. Default: never."
)
def lock(context: Context, name: str, command: tuple[str, ...], ttl: int, wait: int | None) -> int:
    """Wait for the lock NAME, run CMD while this node holds it, and exit with CMD's code.

    CMD finds a number in PEERNODE_FENCE that is higher than that of any holder before. Whatever the lock protects
    has to refuse lower ones than it has seen: a holder that was paused does not know that its time is over.

    When the lock is lost CMD gets SIGTERM, and SIGKILL 5 s later; the exit code is 6 then, as it is when others hold
    it longer than --wait.

    \b
    peernode lock nightly-backup -- ./backup.sh
    peernode lock leader --ttl 3s -- sh -c 'serve --fence $PEERNODE_FENCE'
    """
    with context.connect() as node:
        lease = acquire(context, node, name, ttl / 1000, math.inf if wait is None else wait / 1000)
        try:
            code = run(node, lease, list(command), context.timeout_s)
        finally:
            give_back(context, node, lease)
    if code is None:
        raise Conflict(
            f"the lock {name!r} was lost, and the command was stopped",
            hint="is this node cut off from the others?",
        )
    return code


def acquire(context: Context, node: Client, name: str, ttl_s: float, wait_s: float) -> Lease:
    """Says so when it has to wait."""
    try:
        return node.acquire(name, ttl=ttl_s)
    except PeernodeError as refused:
        if not refused.retryable or wait_s <= 0:
            raise
        context.output.say(f"waiting: {refused.message}")
    return node.acquire(name, ttl=ttl_s, wait=wait_s)


def run(node: Client, lease: Lease, command: list[str], timeout_s: float) -> int | None:
    """Its exit code, as a shell counts; None: the lock was lost, and it was stopped."""
    fence = {FENCE_VARIABLE: str(lease.fence), NAME_VARIABLE: lease.name}
    try:
        child = subprocess.Popen(command, env={**os.environ, **fence})
    except OSError as error:
        text = f"cannot run {command[0]}: {error.strerror}"
        raise PeernodeError(text, code="invalid", hint="peernode lock NAME -- CMD") from None
    with forwarded_to(child):
        while True:
            try:
                return shell_code(child.wait(lease.renewal_s))
            except subprocess.TimeoutExpired:
                if not renew(node, lease, timeout_s):
                    stop(child)
                    return None
            except KeyboardInterrupt:
                continue  # the terminal told the command, too: it decides


def renew(node: Client, lease: Lease, timeout_s: float) -> bool:
    """Whether it is still held: tried until its time is over."""
    while lease.left_s > 0:
        node.timeout_s = max(PAUSE_S, min(timeout_s, lease.left_s))
        try:
            node.renew(lease)
            return True
        except Conflict as lost:
            if not lost.retryable:
                return False
        except NoDaemon:
            reconnect(node)
        except PeernodeError:
            pass  # tried again
        time.sleep(min(PAUSE_S, max(0.0, lease.left_s)))
    return False


def reconnect(node: Client) -> None:
    try:
        node.reconnect()
    except NoDaemon:
        pass  # it may come back before the lease is over


def stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def give_back(context: Context, node: Client, lease: Lease) -> None:
    """If that fails, its time runs out by itself."""
    if lease.left_s <= 0:
        return
    try:
        node.release(lease)
    except PeernodeError as error:
        context.output.say(f"not released, it is free in {lease.left_s:.1f} s: {error.message}")


class forwarded_to:
    """SIGTERM and SIGHUP to this process go to the child: it ends, and the lock is given back."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._forward)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _forward(self, number: int, _: FrameType | None) -> None:
        self._child.send_signal(number)


def shell_code(code: int) -> int:
    return 128 - code if code < 0 else code


COMMANDS = {"lock": lock}
