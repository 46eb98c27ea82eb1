"""A request that comes again with its id is answered like the first and carried out once; answers are bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.effects import Entry, RecordRow, Stage
from protocol.inputs import Delete, Nothing, Put, PutMany
from protocol.limits import REQUEST_ITEMS_KEPT_MAX, REQUESTS_KEPT_MS
from protocol.replica.messages import Holding
from protocol.replica.writing import REQUEST_RECORD, Result

from .rig import Peer, Rig, of, outcomes
from .test_writing import REQUEST, codes, head, linked, many, put, staged, versions

B = Peer("b")
WRITES = [
    put(request_id=REQUEST),
    put(if_absent=True, request_id=REQUEST),
    many(b"1", b"2", request_id=REQUEST),
    Delete("d", "default", b"old", request_id=REQUEST),
]


def with_old() -> Rig:
    rig = linked()
    rig.handle(put(b"old"))
    rig.commit()
    return rig


@pytest.mark.parametrize("write", WRITES)
def test_a_repeated_request_is_answered_like_the_first(write: Put | PutMany | Delete) -> None:
    """Before the first is durable, after it, and after a restart: carried out once."""
    rig = with_old()
    effects = rig.handle(write)
    assert staged(effects) != []
    assert rig.handle(write) == []
    first, second = versions(rig.commit())
    assert first == second

    again = rig.handle(write)
    assert (versions(again), of(again, Stage)) == ([first], [])
    restarted = Rig(disk=rig.disk, run=2).start()
    again = restarted.handle(write)
    assert (versions(again), staged(again)) == ([first], [])


@pytest.mark.parametrize("write", WRITES)
def test_a_request_whose_commit_failed_is_carried_out_when_it_is_repeated(
    write: Put | PutMany | Delete,
) -> None:
    """Nothing of it was stored, its answer neither."""
    rig = with_old()
    rig.handle(write)
    assert codes(rig.fail()) == ["storage_full"]
    assert staged(rig.handle(write)) != []
    assert len(versions(rig.commit())) == 1


def test_a_request_that_was_stored_survives_the_failure_of_a_later_one() -> None:
    """Only what was staged is forgotten."""
    rig, other = linked(), bytes(15) + b"2"
    rig.handle(put(request_id=REQUEST))
    first = versions(rig.commit())
    rig.handle(put(b"other", request_id=other))
    rig.fail()
    assert versions(rig.handle(put(request_id=REQUEST))) == first


def test_a_repeated_request_waits_for_the_others_too() -> None:
    """As many as it asks for now."""
    rig = linked(B)
    rig.handle(put(request_id=REQUEST))
    first = versions(rig.commit())
    assert outcomes(rig.handle(put(request_id=REQUEST, acks=1))) == []
    assert versions(rig.receive(B, B.says(Holding([head(rig)])))) == first


@pytest.mark.parametrize(
    "write",
    [
        put(b"other", request_id=REQUEST),
        put(request_id=bytes(15) + b"2"),
        Put("k", "elsewhere", b"k", b"v", request_id=REQUEST),
        many(b"k", b"2", request_id=REQUEST),
    ],
)
def test_another_request_is_carried_out(write: Put | PutMany) -> None:
    """For other keys, or under another id."""
    rig = linked()
    rig.handle(put(request_id=REQUEST))
    rig.commit()
    assert staged(rig.handle(write)) != []


def test_a_refused_request_may_be_repeated() -> None:
    """It had no effect that could be repeated."""
    rig = with_old()
    write = put(b"old", if_version="none", request_id=REQUEST)
    assert (codes(rig.handle(write)), codes(rig.handle(write))) == (["conflict"], ["conflict"])
    assert outcomes(rig.handle(Delete("d", "default", b"k", request_id=REQUEST))) == [Nothing()]
    assert staged(rig.handle(put(request_id=REQUEST))) != []


def test_a_short_request_id_is_refused() -> None:
    """Two clients would meet by chance."""
    assert codes(linked().handle(put(request_id=REQUEST[1:]))) == ["invalid"]


def requests(rig: Rig) -> set[bytes]:
    return set(rig.disk.records(REQUEST_RECORD))


def test_answers_are_kept_for_a_while() -> None:
    """Then they go, also from the disk, when another takes their place."""
    rig, other, third = linked(), bytes(15) + b"2", bytes(15) + b"3"
    rig.handle(put(request_id=REQUEST))
    rig.now_s += REQUESTS_KEPT_MS / 1000
    rig.handle(put(b"2", request_id=other))
    rig.commit()
    assert requests(rig) == {REQUEST, other}

    rig.now_s += 0.001
    rig.handle(put(b"3", request_id=third))
    rig.commit()
    assert requests(rig) == {other, third}
    assert staged(rig.handle(put(request_id=REQUEST))) != []


def test_what_is_kept_of_answers_is_bounded() -> None:
    """In versions, of which an answer may have many: the oldest goes early."""
    rig = linked()
    writing, entry = rig.node.writing, Entry(1, b"k", 1, rig.keys.node_id, 1, 1, None)
    oldest = Result(rig.now.wall_ms, (entry,) * REQUEST_ITEMS_KEPT_MAX)
    writing._results[b"oldest".rjust(16)] = oldest
    writing._kept_items = len(oldest.entries)
    effects = rig.handle(put(request_id=REQUEST))
    records = [row for stage in of(effects, Stage) for row in stage.rows if isinstance(row, RecordRow)]
    assert [(row.key, row.value is None) for row in records] == [
        (b"oldest".rjust(16), True),
        (REQUEST, False),
    ]
    assert (list(writing._results), writing._kept_items) == ([REQUEST], 1)


ids = st.sampled_from([bytes(15) + b"%d" % n for n in range(3)])
keys = st.lists(st.sampled_from([b"1", b"2", b"3"]), min_size=1, max_size=3)
steps = st.lists(st.tuples(st.sampled_from(["write", "commit", "fail", "later"]), ids, keys), max_size=15)


@given(steps)
def test_what_is_kept_of_answers_is_counted(plan: list[tuple[str, bytes, list[bytes]]]) -> None:
    """Whatever is repeated, lost or dropped, and also where one id is used for two requests."""
    rig = linked()
    for step, request, names in plan:
        match step:
            case "write":
                rig.handle(many(*names, request_id=request))
            case "commit":
                rig.commit()
            case "fail":
                rig.fail()
            case "later":
                rig.now_s += REQUESTS_KEPT_MS / 2000
        kept = rig.node.writing._results
        assert rig.node.writing._kept_items == sum(len(result.entries) for result in kept.values())
        assert [result.at_ms for result in kept.values()] == sorted(r.at_ms for r in kept.values())
