"""Three voters, broken on purpose: `python -m tests.e2e.coordinated takeover --rounds 50`, `transfer --seconds 60`.

takeover: a coordinator is killed between the two phases, when voters hold locks for it. How long until another node
can write the same keys? transfer: clients move money between accounts while voters are killed at random; the total
must never change, in no snapshot on the way, and at the end on no node.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from peernode.client import Client, Conflict, NoDaemon, PeernodeError, UnknownOutcome

from ..waiting import wait_until
from .daemons import Daemon, Daemons, daemons_in

NAMES = ("a", "b", "c")
KEYSPACE = "bank"
KEYS = [f"key/{number}" for number in range(4)]
ACCOUNTS = [f"account/{number}" for number in range(10)]
BALANCE = 1000
PATIENCE_S = 20.0
KILL_S = (0.3, 1.2)
DOWN_S = (0.1, 1.0)
TELL_EVERY_S = 10


@contextmanager
def voters(home: Path) -> Iterator[Daemons]:
    """Daemons a, b and c, and a keyspace of theirs."""
    with daemons_in(home) as daemons:
        first = daemons(NAMES[0]).start()
        for name in NAMES[1:]:
            daemons(name).start("--seed", first.address)
        meet(daemons)
        with first.connect() as client:
            client.create_keyspace(KEYSPACE, "coordinated", voters=NAMES)
        for daemon in daemons.all:
            with daemon.connect() as client:
                wait_until(lambda c=client: any(k["name"] == KEYSPACE for k in c.keyspaces()))
        yield daemons


def meet(daemons: Daemons) -> None:
    for daemon in daemons.all:
        with daemon.connect() as client:
            wait_until(lambda c=client: c.status()["links"] == len(daemons.all) - 1, what="all links")


# A coordinator that dies between the phases


def takeover(daemons: Daemons, number: int) -> float:
    """Seconds from the death of a coordinator, a voter itself, until another node has written what it had locked."""
    victim, other, third = daemons.all
    victim.faults.write_text(json.dumps({"dies_on_vote": True}))
    victim.kill()
    victim.start()
    meet(daemons)
    with other.connect(PATIENCE_S) as survivor:
        die_between_phases(victim, f"{number}")
        began_s = time.monotonic()
        survivor.commit({"writes": write_all(f"{number} after"), "timeout_ms": 10_000})
        took_s = time.monotonic() - began_s
        wait_until(lambda: survivor.transactions() == [], what="nothing in doubt")
        values = {item.value for item in survivor.snapshot(KEYS, keyspace=KEYSPACE) if item}
    assert values == {f"{number} after".encode()}
    victim.faults.unlink()
    victim.start()
    for daemon in (victim, other, third):
        with daemon.connect() as client:
            wait_until(lambda c=client: {v.value for v in c.get_many(KEYS, keyspace=KEYSPACE) if v} == values)
    return took_s


def die_between_phases(victim: Daemon, value: str) -> None:
    with victim.connect(PATIENCE_S) as doomed:
        number = doomed.ask("txn.commit", writes=write_all(value), timeout_ms=10_000)
        try:
            answer = doomed.answer_to(number)
        except NoDaemon:
            victim.wait()
            return
    raise AssertionError(f"it should have died, and answered {answer}")


def write_all(value: str) -> list[dict[str, str]]:
    return [{"keyspace": KEYSPACE, "key": key, "value": value} for key in KEYS]


# Money


class Transfers:
    """Clients that move money, an auditor that adds it up, and what became of it."""

    def __init__(self, daemons: Daemons, seed: int) -> None:
        self._daemons, self._random = daemons, random.Random(seed)
        self.ended = threading.Event()
        self.results: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.kills = 0

    def run(self, seconds: float, clients: int) -> None:
        with self._daemons.all[0].connect() as client, client.transaction(KEYSPACE) as opening:
            for account in ACCOUNTS:
                opening.put(account, str(BALANCE))
        workers = [
            threading.Thread(
                target=self._guarded, args=(self._move, random.Random(f"{self._random.random()}"))
            )
            for _ in range(clients)
        ]
        workers.append(threading.Thread(target=self._guarded, args=(self._audit, random.Random(0))))
        for worker in workers:
            worker.start()
        until_s = time.monotonic() + seconds
        told_s = time.monotonic()
        try:
            while time.monotonic() < until_s:
                self._kill_one()
                if time.monotonic() - told_s > TELL_EVERY_S:
                    told_s = time.monotonic()
                    print(f"{dict(self.results)}, {self.kills} kills", flush=True)
        finally:
            self.ended.set()
            for worker in workers:
                worker.join()

    def check_end(self) -> None:
        """Every node, asked for its own copy, has the same money."""
        meet(self._daemons)
        balances: list[list[bytes]] = []
        for daemon in self._daemons.all:
            with daemon.connect() as client:
                wait_until(lambda c=client: c.transactions() == [], what="nothing in doubt")
                wait_until(lambda c=client: c.sync_status()["in_sync"], what="all copies")
        for daemon in self._daemons.all:
            with daemon.connect() as client:
                balances.append([item.value for item in client.get_many(ACCOUNTS, keyspace=KEYSPACE) if item])
        self._add_up(balances[0], "at the end")
        if balances.count(balances[0]) < len(balances):
            self.wrong.append(f"the nodes differ: {balances}")

    def _kill_one(self) -> None:
        """One at a time: a majority lives."""
        self.ended.wait(self._random.uniform(*KILL_S))
        victim = self._random.choice(self._daemons.all)
        victim.kill()
        self.kills += 1
        self.ended.wait(self._random.uniform(*DOWN_S))
        victim.start()

    def _guarded(self, work: object, chance: random.Random) -> None:
        assert callable(work)
        try:
            while not self.ended.is_set():
                daemon = chance.choice(self._daemons.all)
                try:
                    with daemon.connect() as client:
                        while not self.ended.is_set():
                            work(client, chance)
                except NoDaemon:
                    self.ended.wait(0.02)
        except BaseException as error:
            self.wrong.append(f"a client failed: {error!r}")
            raise

    def _move(self, client: Client, chance: random.Random) -> None:
        giver, taker = chance.sample(ACCOUNTS, 2)
        try:
            with client.transaction(KEYSPACE) as t:
                amount = min(chance.randint(1, 100), int(t.get(giver) or b""))
                t.put(giver, str(int(t.get(giver) or b"") - amount))
                t.put(taker, str(int(t.get(taker) or b"") + amount))
            self.results["moved"] += 1
        except Conflict:
            self.results["conflicts"] += 1
        except UnknownOutcome:
            self.results["unknown"] += 1
            raise NoDaemon("take another") from None
        except NoDaemon:
            raise
        except PeernodeError as error:
            self.results[error.code] += 1

    def _audit(self, client: Client, chance: random.Random) -> None:
        try:
            found = client.snapshot(ACCOUNTS, keyspace=KEYSPACE)
        except NoDaemon:
            raise
        except PeernodeError as error:
            self.results[f"snapshot {error.code}"] += 1
            return
        self.results["snapshots"] += 1
        self._add_up([item.value for item in found if item], "in a snapshot")

    def _add_up(self, balances: list[bytes], where: str) -> None:
        total = sum(map(int, balances))
        if total != BALANCE * len(ACCOUNTS):
            self.wrong.append(f"{total} {where}: {balances}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.coordinated", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("takeover").add_argument("--rounds", type=int, default=50)
    moving = what.add_parser("transfer")
    moving.add_argument("--seconds", type=float, default=60)
    moving.add_argument("--clients", type=int, default=8)
    moving.add_argument(
        "--seed", type=int, default=1, help="chooses victims and amounts; processes are not exact"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, voters(Path(home)) as daemons:
        if options.what == "takeover":
            return tell_takeovers(daemons, options.rounds)
        transfers = Transfers(daemons, options.seed)
        transfers.run(options.seconds, options.clients)
        transfers.check_end()
    print(f"{dict(transfers.results)}, {transfers.kills} kills")
    print("\n".join(transfers.wrong[:10]) or "the total never changed")
    return 1 if transfers.wrong else 0


def tell_takeovers(daemons: Daemons, rounds: int) -> int:
    took_s: list[float] = []
    for number in range(rounds):
        took_s.append(takeover(daemons, number))
        print(f"round {number + 1}: {took_s[-1] * 1000:.0f} ms", flush=True)
    took_s.sort()
    late_s = took_s[min(len(took_s) - 1, round(len(took_s) * 0.99))]
    print(f"{rounds} rounds: p50 {median(took_s) * 1000:.0f} ms, p99 {late_s * 1000:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
