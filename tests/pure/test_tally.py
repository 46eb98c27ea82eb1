"""The content digest and the count of live records: kept by hand, always what the disk itself would say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.replica.entry import item_hash
from protocol.replica.tally import Change, Tally

from .copies import ME, Copy
from .samples import histories

keys = st.sampled_from([b"a", b"b", b"c"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.integers(1, 9)),
        st.tuples(st.just("put"), keys, st.just(0)),
        st.tuples(st.just("delete"), keys, st.just(0)),
        st.tuples(st.just("sweep"), st.just(b""), st.integers(0, 10)),
        st.tuples(st.sampled_from(["commit", "fail", "restart"]), st.just(b""), st.just(0)),
    ),
    max_size=25,
)


@given(steps)
def test_the_tally_is_what_the_disk_holds(plan: list[tuple[str, bytes, int]]) -> None:
    """Through writes, expiries, sweeps, commits, failures and restarts, in any order."""
    copy = Copy()
    for step, key, number in [*plan, ("commit", b"", 0)]:
        match step:
            case "put" | "delete":
                copy.put(key, b"v" if step == "put" else None, expires_ms=number)
            case "sweep":
                copy.replica.sweep(number)
            case "commit":
                copy.commit()
            case "fail":
                copy.fail()
            case "restart":
                copy = Copy(ME, copy.disk)
        if not copy.staged:
            assert copy.replica.tally.durable == copy.replica.tally.staged == copy.counted()


@given(histories())
def test_the_stored_tally_belongs_to_the_stored_rows(history: list) -> None:  # type: ignore[type-arg]
    """What is stored with a commit is the tally that the commit makes true."""
    copy = Copy()
    copy.merge(history)
    copy.commit()
    assert Tally(copy.disk.mark("tally")).durable == copy.counted()


def test_an_expired_put_counts_for_nothing() -> None:
    """From the sweep that passes its time on, and not before."""
    copy = Copy()
    kept, dated = copy.put(b"kept"), copy.put(b"dated", expires_ms=5)
    copy.commit()
    both = Change(item_hash(kept), 1) + Change(item_hash(dated), 1)
    copy.replica.sweep(4)
    assert copy.replica.tally.durable == both
    copy.replica.sweep(5)
    assert copy.replica.tally.durable == Change(item_hash(kept), 1)
