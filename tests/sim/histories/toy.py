"""Toy stores, one right and the others each wrong in one way, and seeded clients that record what they were told.

A client is a generator that stops wherever others may go on; the scheduler draws who goes next. The right stores do
all of an operation at one moment between its begin and its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from .history import (
    Action,
    Append,
    CompareAndSet,
    Delete,
    Get,
    History,
    Read,
    Recorder,
    Transaction,
    Value,
    Write,
)

T = TypeVar("T")
Steps = Generator[None, None, T]
Lists = dict[str, tuple[int, ...]]


class Refused(Exception):
    """The store did nothing and says so."""


@dataclass(slots=True)
class World:
    """Chance, time, and what runs."""

    random: Random
    now: float = 0.0
    running: list[Steps[None]] = field(default_factory=list)

    def run(self) -> None:
        while self.running:
            self.now += self.random.choice((0.0, 0.001, 0.002))
            steps = self.random.choice(self.running)
            try:
                next(steps)
            except StopIteration:
                self.running.remove(steps)


def record(
    world: World,
    perform: Callable[[Action], Steps[Action]],
    draw: Callable[[Random, int], Action],
    *,
    clients: int,
    operations: int,
) -> History:
    """What the clients were told; one answer in twenty is lost, and half of the requests with it."""
    recorder = Recorder(lambda: world.now)
    left = iter(range(1, operations + 1))

    def client(process: int) -> Steps[None]:
        for number in left:
            action = draw(world.random, number)
            with recorder.begin(process, action) as pending:
                yield
                if world.random.random() < 0.05:
                    if world.random.random() < 0.5:
                        world.running.append(unheard(perform(action)))
                    continue
                try:
                    result = yield from perform(action)
                except Refused:
                    pending.fail()
                else:
                    yield
                    pending.ok(result)

    world.running += [client(process) for process in range(clients)]
    world.run()
    return recorder.history()


def unheard(steps: Steps[Action]) -> Steps[None]:
    """Happens when it happens; nobody waits for the answer."""
    try:
        yield from steps
    except Refused:
        return


# Registers


def draw_register(random: Random, number: int) -> Action:
    key = random.choice("xyz")
    return random.choice(
        (
            Read(key),
            Read(key),
            Write(key, number),
            Write(key, random.randint(1, 3)),
            CompareAndSet(key, random.choice((None, 1, 2, 3)), random.randint(1, 3)),
            Delete(key),
        )
    )


class Registers:
    """Right."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.values: dict[str, Value] = {}
        self.older: dict[str, Value] = {}

    def perform(self, action: Action) -> Steps[Action]:
        yield
        return self.do(action)

    def do(self, action: Action) -> Action:
        match action:
            case Read(key):
                return Read(key, self.values.get(key))
            case Write(key, value):
                self.set(key, value)
            case Delete(key):
                self.set(key, None)
            case CompareAndSet(key, expected, new):
                is_set = self.values.get(key) == expected
                if is_set:
                    self.set(key, new)
                return CompareAndSet(key, expected, new, is_set)
        return action

    def set(self, key: str, value: Value) -> None:
        self.older[key] = self.values.get(key)
        self.values[key] = value


class StaleRead(Registers):
    """One read in ten is answered by a replica that lags."""

    def do(self, action: Action) -> Action:
        if isinstance(action, Read) and self.random.random() < 0.1:
            return Read(action.key, self.older.get(action.key))
        return super().do(action)


class LostWrite(Registers):
    """One write in ten is acknowledged and forgotten."""

    def set(self, key: str, value: Value) -> None:
        if self.random.random() > 0.1:
            super().set(key, value)


class SplitCompareAndSet(Registers):
    """It compares, and sets later: what was written between is lost."""

    def perform(self, action: Action) -> Steps[Action]:
        yield
        if not isinstance(action, CompareAndSet) or self.values.get(action.key) != action.expected:
            return self.do(action)
        yield
        self.set(action.key, action.new)
        return CompareAndSet(action.key, action.expected, action.new, is_set=True)


class WritesTwice(Registers):
    """A write is retried although the first try went through."""

    def perform(self, action: Action) -> Steps[Action]:
        yield
        if isinstance(action, Write):
            self.do(action)
            yield
            yield
        return self.do(action)


# Lists


def draw_transaction(random: Random, number: int) -> Action:
    keys = [f"{random.choice('abc')}{number // 500}" for _ in range(random.randint(1, 4))]
    return Transaction(
        tuple(
            Get(key) if random.random() < 0.5 else Append(key, number * 10 + place)
            for place, key in enumerate(keys)
        )
    )


class Serial:
    """Right: a transaction happens at one moment, or, one time in ten, not at all."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lists: Lists = defaultdict(tuple)
        self.older: list[Lists] = []

    def perform(self, action: Action) -> Steps[Action]:
        assert isinstance(action, Transaction)
        yield
        return (yield from self.transact(action))

    def transact(self, action: Transaction) -> Steps[Transaction]:
        yield
        if self.random.random() < 0.1:
            raise Refused
        return self.commit(action, self.read(action, self.lists))

    def read(self, action: Transaction, lists: Lists) -> Transaction:
        """The result over these lists."""
        own: Lists = defaultdict(tuple)
        steps: list[Append | Get] = []
        for step in action.steps:
            if isinstance(step, Append):
                own[step.key] += (step.element,)
                steps.append(step)
            else:
                steps.append(Get(step.key, lists.get(step.key, ()) + own[step.key]))
        return Transaction(tuple(steps))

    def commit(self, action: Transaction, result: Transaction) -> Transaction:
        self.older.append(dict(self.lists))
        for step in action.steps:
            if isinstance(step, Append):
                self.lists[step.key] += (step.element,)
        return result


class StaleSnapshot(Serial):
    """One transaction in ten reads what was there some transactions ago."""

    def transact(self, action: Transaction) -> Steps[Transaction]:
        yield
        is_stale = self.older and self.random.random() < 0.1
        return self.commit(action, self.read(action, self.older[-3:][0] if is_stale else self.lists))


class LostUpdate(Serial):
    """Lists are read, and written later with the new elements: what came between is overwritten."""

    def transact(self, action: Transaction) -> Steps[Transaction]:
        before = dict(self.lists)
        result = self.read(action, before)
        yield
        for step in action.steps:
            if isinstance(step, Append):
                before[step.key] = (*before.get(step.key, ()), step.element)
                self.lists[step.key] = before[step.key]
        return result


class DirtyRead(Serial):
    """Others see what is appended before it is decided; what fails is then taken away."""

    def transact(self, action: Transaction) -> Steps[Transaction]:
        result = self.commit(action, self.read(action, self.lists))
        yield
        if self.random.random() < 0.2:
            own = {(step.key, step.element) for step in action.steps if isinstance(step, Append)}
            for key, elements in self.lists.items():
                self.lists[key] = tuple(element for element in elements if (key, element) not in own)
            raise Refused
        return result


class WriteSkew(Serial):
    """Snapshot isolation: only what is written must be unchanged since the snapshot, not what is read."""

    def transact(self, action: Transaction) -> Steps[Transaction]:
        snapshot = dict(self.lists)
        yield
        written = [step.key for step in action.steps if isinstance(step, Append)]
        if any(self.lists.get(key) != snapshot.get(key) for key in written):
            raise Refused
        return self.commit(action, self.read(action, snapshot))


class AppendsTwice(Serial):
    """One transaction in ten is retried although the first try went through."""

    def commit(self, action: Transaction, result: Transaction) -> Transaction:
        if self.random.random() < 0.1:
            super().commit(action, result)
        return super().commit(action, result)
