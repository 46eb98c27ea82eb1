"""Clients: each does one thing after the other, through any node; a retry keeps its request id."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from protocol.commit.task import Change, Check, Committed, Conflicted, Found, ReadTask, Task, Undecided
from protocol.commit.transaction import Slot
from protocol.errors import Refused
from protocol.turn import Turn

from .peers import Peer
from .trace import answer_text

if TYPE_CHECKING:
    from .model import Model

KEYS = (b"a", b"b", b"c", b"d", b"e", b"f")
TIMEOUT_S = 2.0
PATIENCE_S = 3.0
"""Without any answer for so long, the node is taken to be gone."""

Reply = Callable[[object], None]


class Load:
    """What clients do in one run.

    `heat`: how much more often each key is used than the next. `skew`: how many writes check one key and write
    another, so that two of them can each invalidate what the other checked.
    """

    def __init__(self, random: Random) -> None:
        self.clients = random.choice([2, 4, 6])
        self.keys = KEYS[: random.choice([1, 2, 3, 6])]
        self.heat = random.choice([1.0, 1.0, 2.0, 5.0])
        self.reads = random.choice([0.2, 0.35, 0.6])
        self.checks = random.choice([0.2, 0.5, 0.9])
        self.skew = random.choice([0.0, 0.0, 0.5, 0.9])
        self.requests = random.choice([0.0, 0.6, 1.0])
        self.pause_s = 0.05 if self.skew else random.choice([0.1, 0.4])

    def some_slots(self, random: Random, keyspaces: list[int]) -> list[Slot]:
        """Different ones, in any order: mostly few, mostly hot."""
        left = [(keyspace, key) for key in self.keys for keyspace in keyspaces]
        weights = [self.heat ** -self.keys.index(key) for _, key in left]
        slots: list[Slot] = []
        for _ in range(min(len(left), random.choice([1, 1, 2, 3, random.randint(1, len(left))]))):
            (place,) = random.choices(range(len(left)), weights)
            slots.append(left.pop(place))
            weights.pop(place)
        return slots

    def some_pair(self, random: Random, keyspaces: list[int]) -> list[Slot]:
        """The two hottest, in any order; of two keyspaces if there are."""
        slots = [(keyspace, key) for key in KEYS for keyspace in keyspaces]
        return random.sample(slots[:2], 2)


class Client:
    def __init__(self, model: Model, number: int, until_s: float) -> None:
        self._model, self._number, self._until_s = model, number, until_s
        self._load = model.load
        self._random = Random(f"client/{model.seed}/{number}")
        self._count = 0
        self._last: dict[Slot, Found] = {}

    def __str__(self) -> str:
        return f"c{self._number}"

    def next(self) -> None:
        if self._model.now > self._until_s:
            return
        self._count += 1
        keyspaces = sorted(self._model.voters)
        slots = self._load.some_slots(self._random, keyspaces)
        if self._random.random() < self._load.reads:
            self._read(tuple(slots))
        elif self._random.random() < self._load.skew:
            checked, changed = self._load.some_pair(self._random, keyspaces)
            self._write([self._check(checked)] if checked in self._last else [], [changed])
        else:
            known = [slot for slot in slots if slot in self._last]
            checks = [self._check(slot) for slot in known if self._random.random() < self._load.checks]
            self._write(checks, slots[: self._random.choice([1, 1, 2, 3, len(slots)])])

    def _later(self) -> None:
        self._model.after(self._random.uniform(0.01, self._load.pause_s), self.next)

    def _read(self, slots: tuple[Slot, ...]) -> None:
        began_s, checks, was_faulty = self._model.now, self._model.checks, self._model.faults_on

        def reply(outcome: object) -> None:
            if isinstance(outcome, dict):
                checks.read(began_s, self._model.now, outcome)
                self._last.update(outcome)
            checks.count(isinstance(outcome, dict), faults=was_faulty)
            self._later()

        self._submit(lambda peer, turn, ref: peer.commit.read(turn, ReadTask(ref, slots, TIMEOUT_S)), reply)

    def _write(self, checks: list[Check], changed: list[Slot]) -> None:
        name = f"{self._number}.{self._count}".encode()
        changes = [Change(slot, None if self._random.random() < 0.15 else name) for slot in changed]
        request = name.rjust(16, b"-") if self._random.random() < self._load.requests else None
        self._attempt(tuple(checks), tuple(changes), request, self._model.now)

    def _check(self, slot: Slot) -> Check:
        """That a key still is as it was seen."""
        found = self._last[slot]
        if found.value is None:
            return Check(slot, "absent")
        if self._random.random() < 0.5:
            return Check(slot, "version", stamp=found.stamp)
        return Check(slot, "value", value=found.value)

    def _attempt(
        self, checks: tuple[Check, ...], changes: tuple[Change, ...], request: bytes | None, began_s: float
    ) -> None:
        model, was_faulty = self._model, self._model.faults_on

        def reply(outcome: object) -> None:
            match outcome:
                case Committed():
                    model.checks.committed(began_s, model.now, outcome, request)
                    self._last.update({c.slot: Found(outcome.stamp, c.value) for c in changes})
                case Conflicted():
                    for slot, found in outcome.found:  # each for itself: they are no snapshot
                        model.checks.read(began_s, model.now, {slot: found})
                    self._last.update(dict(outcome.found))
                    model.checks.refused(request)
                case Undecided() | None if request is not None:
                    model.after(0.2, lambda: self._attempt(checks, changes, request, began_s))
                    return
                case _:
                    assert isinstance(outcome, Refused | Undecided | None)
                    model.checks.count_refusal(outcome)
            model.checks.count(isinstance(outcome, Committed | Conflicted), faults=was_faulty)
            self._later()

        self._submit(
            lambda peer, turn, ref: peer.commit.begin(turn, Task(ref, checks, changes, TIMEOUT_S, request)),
            reply,
        )

    def _submit(self, call: Callable[[Peer, Turn, Reply], None], reply: Reply) -> None:
        """Ask one node; the first answer counts, and none after a while is one, too."""
        up = [peer for peer in self._model.peers if peer.is_up]
        if not up:
            self._model.after(0.1, self.next)
            return
        peer, is_over = self._random.choice(up), False

        def first(outcome: object) -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._model.note(f"{self} hears from {peer}: {answer_text(outcome)}")
                reply(outcome)

        self._model.after(PATIENCE_S, lambda: first(None))
        peer.do(lambda: peer.turn(lambda turn: call(peer, turn, first)))
