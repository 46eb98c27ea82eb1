"""Linearizable reads: the newest version that a majority of the voters holds.

A voter answers for a key once no transaction in doubt writes to it. A commit has a majority of YES votes, so of any
majority that answers at least one has applied it, or holds its lock and does not answer yet. What is read therefore
includes every commit that anybody was told of before the read began, and nothing has to be written back: a value
that one voter has applied was decided, and any later majority finds it, or its lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ..config import Config
from ..turn import Turn
from ..types import NodeId
from .messages import Read, Values
from .ports import Electorate, Timers
from .post import Post
from .task import Found
from .transaction import Shard, Slot, majority

if TYPE_CHECKING:
    from random import Random


class Answer(msgspec.Struct, frozen=True):
    """What a majority holds. `repeated`: some voter knows of a transaction for the request in question."""

    found: dict[Slot, Found]
    repeated: bool = False


Done = Callable[[Turn, Answer | None], None]


class Question:
    """One shard's part of a read."""

    def __init__(self, read: Read, voters: tuple[NodeId, ...], reading: Reading) -> None:
        self.read, self.voters, self.reading = read, voters, reading
        self.answers: dict[NodeId, Values] = {}


class Reading:
    """A read under way; `open` questions are to be answered, `found` are."""

    def __init__(self, until_s: float, request: bytes | None, done: Done) -> None:
        self.until_s, self.request, self.done = until_s, request, done
        self.repeated = False
        self.open: set[int] = set()
        self.found: dict[Slot, Found] = {}


class Reads:
    """All reads that this node has asked voters about."""

    def __init__(
        self, config: Config, electorate: Electorate, post: Post, timers: Timers, random: Random
    ) -> None:
        self._config, self._electorate, self._post, self._timers = config, electorate, post, timers
        self._random = random
        self._number = self._random.getrandbits(62)
        """Of the last question. Begins anywhere: a voter may answer, late, what a run before this one has asked."""
        self._questions: dict[int, Question] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def ask(
        self,
        turn: Turn,
        wanted: dict[Shard, list[bytes]],
        until_s: float,
        done: Done,
        request: bytes | None = None,
    ) -> None:
        """`done` is called once, with None when no majority answered in time."""
        reading = Reading(until_s, request, done)
        for shard, keys in wanted.items():
            self._open(turn, shard, keys, reading)

    def on_values(self, turn: Turn, sender: NodeId, step: Values) -> None:
        question = self._questions.get(step.number)
        if question is None or sender not in question.voters or not step.values:
            return
        question.answers[sender] = step
        if len(question.answers) >= majority(len(question.voters)):
            self._close(turn, question)

    def _open(self, turn: Turn, shard: Shard, keys: list[bytes], reading: Reading) -> None:
        self._number += 1
        read = Read(self._number, shard, keys, reading.request)
        question = Question(read, self._electorate.voters(shard), reading)
        self._questions[self._number] = question
        reading.open.add(self._number)
        self._send(turn, question)

    def _send(self, turn: Turn, question: Question) -> None:
        """Ask who has not answered; again after a while, until it is too late."""
        reading, number = question.reading, question.read.number
        if number not in self._questions:
            return
        if turn.now.mono_s >= reading.until_s:
            self._give_up(turn, reading)
            return
        epoch = self._electorate.epoch(question.read.shard[0])
        if (
            epoch != question.read.shard[1]
        ):  # others vote by now, and those that were asked do not answer any more
            self._begin_anew(turn, question, epoch)
            return
        for voter in question.voters:
            if voter not in question.answers:
                self._post.send(voter, question.read)
        delay_s = min(self._config.read_again_s, reading.until_s - turn.now.mono_s)
        self._timers.after(turn.now, delay_s, lambda turn: self._send(turn, question), coarse=True)

    def _begin_anew(self, turn: Turn, question: Question, epoch: int) -> None:
        read, reading = question.read, question.reading
        del self._questions[read.number]
        reading.open.discard(read.number)
        self._open(turn, (read.shard[0], epoch), read.keys, reading)

    def _give_up(self, turn: Turn, reading: Reading) -> None:
        for number in reading.open:
            self._questions.pop(number, None)
        reading.done(turn, None)

    def _close(self, turn: Turn, question: Question) -> None:
        read, reading = question.read, question.reading
        del self._questions[read.number]
        reading.open.discard(read.number)
        answers = list(question.answers.values())
        reading.repeated = reading.repeated or any(answer.repeated for answer in answers)
        answered = min(len(answer.values) for answer in answers)
        for place, key in enumerate(read.keys[:answered]):
            stamp, value = max((answer.values[place] for answer in answers), key=lambda found: found[0])
            reading.found[read.shard[0], key] = Found(stamp, value)
        if 0 < answered < len(read.keys):
            self._open(turn, read.shard, read.keys[answered:], reading)
        if not reading.open:
            reading.done(turn, Answer(reading.found, reading.repeated))
