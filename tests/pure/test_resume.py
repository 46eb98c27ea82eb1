"""Sync sessions between stores, message by message: what a broken session may go on from, and from where not."""

from __future__ import annotations

from random import Random

from protocol.clock import ClusterTime, HybridClock
from protocol.config import Config
from protocol.effects import Entry
from protocol.replica.entry import to_row
from protocol.replica.messages import Batch, Chunk, Floor, More, Pull
from protocol.replica.replica import Replica
from protocol.replica.serving import Serving
from protocol.replica.settling import Identity, Settling
from protocol.replica.sync import Sync
from protocol.turn import Say, Turn
from protocol.types import CommitNumber, Instant, LinkId, NodeId, Payload

from ..sim.swarm.fakes import Disk

KEYSPACE = 1
LINK = LinkId(1)


class Store:
    """One node's replica, with its disk and both halves of sync; one row a chunk."""

    def __init__(self, name: str) -> None:
        self.id = NodeId(name.encode().ljust(32, b"."))
        self.disk = Disk()
        config = Config(name, f"{name}:1", sync_rows_max=1)
        self.replica = Replica((self.id, 1), self.disk, HybridClock(ClusterTime(Instant(0.0, 0))))
        self.sync = new_sync(config, self.replica, self.disk)
        self.serving = Serving(config, self.replica, self.disk)
        self.commits = 0

    def turn(self) -> Turn:
        return Turn(Instant(1.0, 1000), CommitNumber(self.commits + 1))

    def commit(self, turn: Turn) -> list[Payload]:
        """Store what the turn staged; returns what it said."""
        self.commits += 1
        self.replica.seal(turn)
        self.disk.apply(tuple(turn.rows))
        self.replica.committed(turn.number)
        return [say.payload for say in (*turn.effects, *turn.held) if isinstance(say, Say)]

    def put(self, key: bytes, value: bytes) -> Batch:
        """A write of this node, as the batch that tells others."""
        turn = self.turn()
        entry = self.replica.put(turn, (KEYSPACE, key), value, 0)
        self.commit(turn)
        (batch,) = self.replica.batches([entry])
        return batch

    def take(self, author: Store, batch: Batch) -> None:
        turn = self.turn()
        self.replica.merge_batch(turn, author.id, batch)
        self.commit(turn)

    def value(self, key: bytes) -> bytes | None:
        entry = self.disk.get(KEYSPACE, key)
        return entry.value if isinstance(entry, Entry) else None


def new_sync(config: Config, replica: Replica, disk: Disk) -> Sync:
    settling = Settling(
        config, Identity(1, 0, 1, bytes(16)), replica, ClusterTime(Instant(0.0, 0)), lambda: 0, Random(1)
    )
    return Sync(config, replica, disk, settling)


class Session:
    """What one store pulls from another."""

    def __init__(self, reader: Store, source: Store) -> None:
        self.reader, self.source = reader, source
        turn = reader.turn()
        reader.sync.link_up(turn, LINK, source.id, 0)
        (pull,) = reader.commit(turn)
        assert isinstance(pull, Pull)
        self.pull = pull
        self.rows: list[bytes] = []
        self.question: Payload | None = pull

    def step(self) -> None:
        """One question, one chunk."""
        turn = self.source.turn()
        if isinstance(self.question, Pull):
            self.source.serving.on_pull(turn, LINK, self.question)
        else:
            assert isinstance(self.question, More)
            self.source.serving.on_more(turn, LINK, self.question)
        (chunk,) = self.source.commit(turn)
        assert isinstance(chunk, Chunk)
        self.rows += [row.key for group in chunk.groups for row in group.rows]
        turn = self.reader.turn()
        self.reader.sync.on_chunk(turn, LINK, chunk)
        self.question = next(iter(self.reader.commit(turn)), None)

    def finish(self) -> Session:
        while self.question is not None:
            self.step()
        return self

    def break_off(self) -> None:
        for store in (self.reader, self.source):
            turn = store.turn()
            store.serving.stop(LINK)
            store.sync.link_down(turn, LINK)
            store.commit(turn)


def filled(source: Store, keys: int) -> None:
    for number in range(keys):
        source.put(f"k{number}".encode(), b"v")


def test_a_reader_gets_all_in_one_session() -> None:
    """The vector advances with the last chunk, over exactly what was sent."""
    source, reader = Store("s"), Store("r")
    filled(source, 5)

    session = Session(reader, source)
    session.step()
    assert reader.replica.vector.get((source.id, 1), 0) == 0
    session.finish()

    assert session.rows == [b"k0", b"k1", b"k2", b"k3", b"k4"]
    assert reader.replica.vector == {(source.id, 1): 5}


def test_a_broken_session_goes_on_where_it_stopped() -> None:
    """What came and was stored is not sent again by the same store."""
    source, reader = Store("s"), Store("r")
    filled(source, 5)
    first = Session(reader, source)
    for _ in range(3):
        first.step()
    first.break_off()

    assert Session(reader, source).finish().rows == [b"k3", b"k4"]
    assert reader.replica.vector == {(source.id, 1): 5}


def test_going_on_survives_a_restart_of_the_reader() -> None:
    """How far the walk has come is stored with the rows."""
    source, reader = Store("s"), Store("r")
    filled(source, 5)
    first = Session(reader, source)
    for _ in range(3):
        first.step()

    again = Store("r")
    again.disk = reader.disk
    again.replica = Replica((again.id, 1), again.disk, HybridClock(ClusterTime(Instant(0.0, 0))))
    again.sync = new_sync(Config("r", "r:1"), again.replica, again.disk)
    assert Session(again, source).finish().rows == [b"k3", b"k4"]


def test_what_was_superseded_meanwhile_comes_with_what_superseded_it() -> None:
    """A row that was sent in the broken session and overwritten since is sent as it is now."""
    source, other, reader = Store("s"), Store("a"), Store("r")
    filled(source, 3)
    first = Session(reader, source)
    first.step()
    first.step()
    first.break_off()
    other.take(source, source.put(b"x", b"v"))
    source.take(other, other.put(b"k0", b"newer"))

    Session(reader, source).finish()

    assert reader.value(b"k0") == b"newer"
    assert reader.replica.vector == source.replica.vector


def overtaken(*, forgets: bool) -> Store:
    """While a session streams, a row ahead of the walk is overwritten by one whose place the walk has passed."""
    source, before, behind, reader = Store("s"), Store("a"), Store("z"), Store("r")
    source.take(before, before.put(b"first", b"v"))
    before.take(behind, behind.put(b"k", b"old"))
    source.take(behind, batch_of(behind, b"k"))
    session = Session(reader, source)
    session.step()
    assert session.rows == [b"first"]
    if forgets:
        source.replica.walks[LINK].replaced = lambda old: None  # type: ignore[method-assign]
    source.take(before, before.put(b"k", b"new"))
    session.finish()
    return reader


def test_a_row_overtaken_by_the_walk_comes_at_its_end() -> None:
    """What supersedes a row of the cut is sent before the cut counts."""
    reader = overtaken(forgets=False)
    assert reader.replica.vector[NodeId(b"z".ljust(32, b".")), 1] == 1
    assert reader.value(b"k") == b"new"


def test_a_walk_that_forgets_overtaken_rows_loses_them() -> None:
    """The danger is real: the reader would cover the old row and hold neither it nor the new one."""
    reader = overtaken(forgets=True)
    assert reader.replica.vector[NodeId(b"z".ljust(32, b".")), 1] == 1
    assert reader.value(b"k") is None


def foreign_floor(honest: bool) -> tuple[Store, Session]:
    """A session breaks at one store and goes on at another, which has not heard of an overwrite yet.

    z writes k, both stores have it; a overwrites k, only the first store hears of it, and its walk passes k's old
    place before it comes to the new one. There it breaks.
    """
    author, overwriter, reader = Store("a"), Store("z"), Store("r")
    first, second = Store("s"), Store("t")
    author.put(b"k", b"old")
    for store in (first, second, overwriter):
        store.take(author, batch_of(author, b"k"))
    first.take(overwriter, overwriter.put(b"k", b"new"))
    filled(first, 1)
    session = Session(reader, first)
    session.step()
    assert reader.value(b"k") is None
    session.break_off()

    session = Session(reader, second)
    if not honest:
        floor = Floor(second.replica.lineage, [(author.id, 1, 1)])
        session.question = Pull(session.pull.session, session.pull.vector, 0, [], floor)
    return reader, session.finish()


def batch_of(author: Store, key: bytes) -> Batch:
    """An entry that was written before, as the batch that told of it."""
    entry = author.disk.get(KEYSPACE, key)
    assert entry is not None
    return Batch(entry.lineage, entry.seq, entry.seq, [to_row(entry)])


def test_a_session_never_goes_on_at_another_store() -> None:
    """There it would lose rows for ever: covered, and held by nobody's word."""
    reader, session = foreign_floor(honest=True)
    assert session.pull.floor is None
    assert reader.value(b"k") == b"old"


def test_a_foreign_floor_would_lose_rows() -> None:
    """The danger is real: with the floor of another store the reader covers what it does not hold."""
    reader, _ = foreign_floor(honest=False)
    assert reader.replica.vector[NodeId(b"a".ljust(32, b".")), 1] == 1
    assert reader.value(b"k") is None


def test_a_floor_names_the_store_that_it_is_for() -> None:
    """A store that was restored has a new lineage: the floor of its former life does not count."""
    source, reader = Store("s"), Store("r")
    filled(source, 3)
    first = Session(reader, source)
    first.step()
    first.break_off()
    restored = Store("s")
    restored.disk = source.disk
    restored.replica = Replica((restored.id, 2), restored.disk, HybridClock(ClusterTime(Instant(0.0, 0))))
    restored.serving = Serving(Config("s", "s:1", sync_rows_max=1), restored.replica, restored.disk)

    assert Session(reader, restored).finish().rows == [b"k0", b"k1", b"k2"]
