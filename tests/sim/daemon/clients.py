"""Clients of whole daemons: what they ask for, what they are told, recorded as a history.

A node's `unavailable`, `timeout` and other refusals promise that nothing was written, so they are recorded as `fail`,
and the checkers hold the node to it. What was answered by nothing, or by "nobody can say yet", is `unknown`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from random import Random

import trio

from protocol.commit.task import Committed, Conflicted, Found, Undecided
from protocol.errors import Refused
from protocol.inputs import Assign, Delete, Expect, Put, QuorumRead, Transact
from protocol.transactions import stamp_text

from ..histories.history import Append, CompareAndSet, Get, Pending, Read, Recorder, Transaction, Write
from ..histories.history import Delete as Erase
from .simulation import Host

KEYSPACE = "bank"
TIMEOUT_MS = 1500
PATIENCE_S = 3.0
PAUSE_S = (0.0, 0.6)


class Work:
    """What all clients of a run share. `limit`: so many operations in all."""

    def __init__(self, hosts: list[Host], recorder: Recorder, limit: int) -> None:
        self.hosts, self.recorder, self.limit = hosts, recorder, limit
        self.begun = 0
        self.are_faults_on = True
        self.answers: Counter[str] = Counter()
        self.tried = {True: 0, False: 0}
        self.done = {True: 0, False: 0}
        self._news = trio.lowlevel.ParkingLot()

    def begin(self) -> None:
        self.begun += 1
        self._news.unpark_all()

    async def is_begun(self, operations: int) -> None:
        """Wait until so many have begun."""
        while self.begun < operations:
            await self._news.park()


class Client:
    """Does one thing after the other, each through any node that runs."""

    def __init__(self, work: Work, number: int, random: Random) -> None:
        self._work, self._number, self._random = work, number, random
        self._count = 0

    async def run(self) -> None:
        while self._work.begun < self._work.limit:
            up = [host for host in self._work.hosts if host.is_up and host.is_ready]
            if not up:
                await trio.sleep(0.05)
                continue
            self._work.begin()
            self._count += 1
            were_faults_on = self._work.are_faults_on
            self._work.tried[were_faults_on] += 1
            is_done = await self._do_one(self._random.choice(up))
            self._work.done[were_faults_on] += is_done
            await trio.sleep(self._random.uniform(*PAUSE_S))

    async def _do_one(self, host: Host) -> bool:
        """Whether it was answered as hoped for."""
        raise NotImplementedError

    async def ask(self, host: Host, request: Callable[[object], object]) -> object:
        """None: no answer in time, or the node died."""
        told: object = None
        with trio.move_on_after(PATIENCE_S):
            told = await host.ask(request)
        kind = told.code if isinstance(told, Refused) else type(told).__name__
        self._work.answers[kind] += 1
        return told


class Registers(Client):
    """Reads, writes, deletes and compares single keys."""

    KEYS = ("x", "y", "z")

    _last: tuple[str, str | None] = ("", None)
    """What it has read last."""

    async def _do_one(self, host: Host) -> bool:
        key = self._random.choice(self.KEYS)
        value = f"{self._number}.{self._count}"
        kind = self._random.choice(
            (self._read, self._read, self._write, self._compare, self._compare, self._erase)
        )
        return await kind(host, key, value)

    async def _read(self, host: Host, key: str, _: str) -> bool:
        with self._work.recorder.begin(self._number, Read(key)) as pending:
            found = await self.ask(host, lambda ref: QuorumRead(ref, ((KEYSPACE, key.encode()),), TIMEOUT_MS))
            if isinstance(found, dict):
                (one,) = found.values()
                self._last = (key, text_of(one))
                pending.ok(Read(key, text_of(one)))
            elif isinstance(found, Refused):
                pending.fail()
            return isinstance(found, dict)

    async def _write(self, host: Host, key: str, value: str) -> bool:
        def put(ref: object) -> Put:
            return Put(ref, KEYSPACE, key.encode(), value.encode(), acks_wait_ms=TIMEOUT_MS)

        with self._work.recorder.begin(self._number, Write(key, value)) as pending:
            return self._end(pending, await self.ask(host, put), Write(key, value))

    async def _erase(self, host: Host, key: str, _: str) -> bool:
        """A key that is not there is as good as deleted."""
        with self._work.recorder.begin(self._number, Erase(key)) as pending:
            told = await self.ask(
                host, lambda ref: Delete(ref, KEYSPACE, key.encode(), acks_wait_ms=TIMEOUT_MS)
            )
            if isinstance(told, Conflicted):
                pending.ok(Erase(key))
            return self._end(pending, told, Erase(key)) or isinstance(told, Conflicted)

    async def _compare(self, host: Host, key: str, value: str) -> bool:
        expected = self._last[1] if self._last[0] == key else None
        action = CompareAndSet(key, expected, value)
        check = (
            Expect(KEYSPACE, key.encode(), "absent")
            if expected is None
            else Expect(KEYSPACE, key.encode(), "value", value=expected.encode())
        )
        write = Assign(KEYSPACE, key.encode(), value.encode())
        with self._work.recorder.begin(self._number, action) as pending:
            told = await self.ask(host, lambda ref: Transact(ref, (check,), (write,), TIMEOUT_MS))
            if isinstance(told, Conflicted):
                pending.ok(CompareAndSet(key, expected, value, False))
            return self._end(pending, told, CompareAndSet(key, expected, value, True)) or isinstance(
                told, Conflicted
            )

    def _end(self, pending: Pending, told: object, action: Write | Erase | CompareAndSet) -> bool:
        if isinstance(told, Committed):
            pending.ok(action)
        elif isinstance(told, Refused):
            pending.fail()
        else:
            assert told is None or isinstance(told, Undecided | Conflicted), told
        return isinstance(told, Committed)


class Lists(Client):
    """Transactions that read some lists and append to some of them."""

    KEYS = ("p", "q", "r", "s")

    async def _do_one(self, host: Host) -> bool:
        keys = self._random.sample(self.KEYS, self._random.choice((1, 2, 2, 3)))
        appended = [key for key in keys if self._random.random() < 0.6]
        element = self._number * 1_000_000 + self._count
        wanted = Transaction((*(Get(key) for key in keys), *(Append(key, element) for key in appended)))
        with self._work.recorder.begin(self._number, wanted) as pending:
            slots = tuple((KEYSPACE, key.encode()) for key in keys)
            found = await self.ask(host, lambda ref: QuorumRead(ref, slots, TIMEOUT_MS))
            if not isinstance(found, dict):
                pending.fail()  # nothing was written
                return False
            lists = dict(zip(keys, [elements_of(one) for one in in_order(found, keys)], strict=True))
            steps = (*(Get(key, lists[key]) for key in keys), *(Append(key, element) for key in appended))
            if not appended:
                pending.ok(Transaction(steps))
                return True
            stamps = dict(zip(keys, in_order(found, keys), strict=True))
            checks = tuple(expect(key, stamps[key]) for key in keys)
            writes = tuple(
                Assign(KEYSPACE, key.encode(), json.dumps([*lists[key], element]).encode())
                for key in appended
            )
            told = await self.ask(host, lambda ref: Transact(ref, checks, writes, TIMEOUT_MS))
            if isinstance(told, Committed):
                pending.ok(Transaction(steps))
            elif isinstance(told, Refused | Conflicted):
                pending.fail()
            return isinstance(told, Committed | Conflicted)


def in_order(found: dict[tuple[int, bytes], Found], keys: list[str]) -> list[Found]:
    by_key = {key: one for (_, key), one in found.items()}
    return [by_key[key.encode()] for key in keys]


def expect(key: str, found: Found) -> Expect:
    if found.value is None:
        return Expect(KEYSPACE, key.encode(), "absent")
    return Expect(KEYSPACE, key.encode(), "version", version=stamp_text(found.stamp))


def elements_of(found: Found) -> tuple[int, ...]:
    return tuple(json.loads(found.value)) if found.value is not None else ()


def text_of(found: Found) -> str | None:
    return found.value.decode() if found.value is not None else None
