"""Fixed keys, one fixed sample of every message, and strategies that make random ones."""

from __future__ import annotations

from hypothesis import strategies as st

from protocol.commit import messages as commits
from protocol.commit.messages import Steps
from protocol.commit.transaction import Header, Instance, Op, TxnId
from protocol.effects import Entry
from protocol.errors import Fault, RemoteFault
from protocol.gossip import Held, Want
from protocol.identity.certificates import found, issue
from protocol.identity.keys import Ed25519Keys, NodeKey
from protocol.invalidation import Invalidation
from protocol.membership.evidence import Evidence, Report
from protocol.membership.record import Goodbye, Heartbeat, MemberRecord
from protocol.node import build_registry
from protocol.replica.entry import Row
from protocol.replica.messages import Batch, Chunk, Floor, Group, Holding, More, Pull
from protocol.types import NodeId, Payload
from protocol.wire.hello import Confirm, Hello

from .rig import AUTHORITY

COUNTER_MAX = 2**63 - 1
STAMP_MAX = 2**62 - 1


def key(number: int) -> NodeKey:
    """The same node key for the same number, always."""
    return NodeKey.from_seed(bytes([number]) * 32)


CLUSTER_KEY = key(200)
ALICE_GRANT = found(CLUSTER_KEY.private, key(1).node_id)
BOB_GRANT = issue(key(1).private, ALICE_GRANT.issuing, key(2).node_id)
ALICE, BOB = Ed25519Keys(key(1), ALICE_GRANT), Ed25519Keys(key(2), BOB_GRANT)
STRANGER_GRANT = found(key(201).private, key(3).node_id)
STRANGER = Ed25519Keys(key(3), STRANGER_GRANT)
"""A member of another cluster."""

REGISTRY = build_registry()
REPORT = Report(key(2).node_id, 1_700_000_000_000, Evidence.CLOSED, False)
HEAD = (key(1).node_id, 1_700_000_000_000, 7)
ROW = Row(7, 5, b"key", 1_700_000_000_000 << 16, b"value", 0)
HEADER = Header(
    TxnId(key(1).node_id, 1_700_000_000_000, 9), 1_700_000_000_000 << 16, b"sixteen random b", [(5, 1)]
)
SAMPLES: dict[type[Payload], Payload] = {
    type(sample): sample
    for sample in (
        Confirm(bytes(range(32))),
        MemberRecord(
            "alice",
            "10.0.0.1:7000",
            "1.0",
            1,
            1,
            1_700_000_000_000,
            False,
            [("zone", "x")],
            [b"leaf", b"root"],
            [(1_700_000_000_000, 1_700_000_000_001 << 16)],
            b"a store's own id",
            True,
        ),
        Heartbeat(1, 2, 1_700_000_000_000, 3, bytes(16), [HEAD], [HEAD], [(b"8 bytes.", 4, 5)], [REPORT]),
        Goodbye(1_700_000_000_000, 1),
        Batch(1_700_000_000_000, 6, 8, [ROW, Row(8, 5, b"gone", 1_700_000_000_001 << 16, None)], True),
        Pull(1, [HEAD], 2, [(3, 4)], Floor(5, [HEAD]), 6 << 16),
        Chunk(1, 0, 2, [Group(key(2).node_id, 1_700_000_000_002, [ROW])], [HEAD], HEAD, True),
        More(1, 1),
        Holding([HEAD]),
        Steps(
            [
                commits.Prepare(HEADER, [[Op(b"key", 3 << 16, True, b"value"), Op(b"seen", 0, False)]]),
                commits.Vote(HEADER.txid, 0, False, "conflict", ((0, 4 << 16),)),
                commits.Waiting(HEADER.txid, 0),
                commits.Abstain(HEADER.txid, 0),
                commits.Accept(HEADER, 0, 1, True),
                commits.Accepted(HEADER.txid, 0, 1, True),
                commits.Ask(HEADER, 0, 2),
                commits.Promise(HEADER.txid, 0, 2, True, (1, True)),
                commits.Outrun(HEADER.txid, 0, 3),
                commits.Outcome(HEADER, True),
                commits.Known([HEADER.txid]),
                commits.Forget([HEADER.txid]),
                commits.Read(1, (5, 1), [b"key"], b"sixteen random b"),
                commits.Values(1, [(3 << 16, b"value")], True),
                commits.Inquire(1, HEADER.txid),
                commits.Report(
                    1, [commits.State(HEADER, [Instance(True, 2, (1, True))], None, [(5, b"key")])]
                ),
                commits.Survey((5, 2), HEADER.txid),
                commits.Surveyed(
                    (5, 2), [(HEADER, True)], HEADER.txid, [HEAD], [(b"key", 3 << 16, b"value")], True
                ),
                commits.Lapsed(HEADER.txid, 0),
            ]
        ),
        Held([HEAD]),
        Want(*HEAD[:2], [7, 9]),
        Invalidation(b"user/*", True),
    )
}

counters = st.one_of(st.integers(0, 3), st.integers(0, COUNTER_MAX))
stamps = st.one_of(st.integers(0, 3), st.integers(0, STAMP_MAX))
id32s = st.binary(min_size=32, max_size=32) | st.sampled_from([key(1).node_id, AUTHORITY.node_id("me")])
heads = st.lists(st.tuples(id32s, counters, counters), max_size=3)
values = st.one_of(st.none(), st.binary(max_size=20))
rows = st.lists(
    st.builds(Row, counters, counters, st.binary(max_size=4), stamps, values, counters), max_size=3
)
txids = st.builds(TxnId, id32s, counters, counters)
shards = st.lists(st.tuples(counters, counters), min_size=1, max_size=2)
requests = st.none() | st.binary(min_size=16, max_size=64)
headers = st.builds(Header, txids, stamps, requests, shards)
indexes = st.integers(0, 255)
op_lists = st.lists(
    st.builds(Op, st.binary(max_size=4), st.none() | stamps, st.booleans(), values), max_size=2
)
ballots = st.none() | st.tuples(counters, st.booleans())
instances = st.builds(Instance, st.none() | st.booleans(), counters, ballots)
states = st.builds(
    commits.State,
    headers,
    st.lists(instances, max_size=2),
    st.none() | st.booleans(),
    st.lists(st.tuples(counters, st.binary(max_size=4)), max_size=2),
)
steps = st.one_of(
    st.builds(commits.Prepare, headers, st.lists(op_lists, max_size=2)),
    st.builds(commits.Vote, txids, indexes, st.booleans()),
    st.builds(commits.Waiting, txids, indexes),
    st.builds(commits.Abstain, txids, indexes),
    st.builds(commits.Accept, headers, indexes, counters, st.booleans()),
    st.builds(commits.Accepted, txids, indexes, counters, st.booleans()),
    st.builds(commits.Ask, headers, indexes, counters),
    st.builds(commits.Promise, txids, indexes, counters, st.none() | st.booleans(), ballots),
    st.builds(commits.Outrun, txids, indexes, counters),
    st.builds(commits.Outcome, headers, st.booleans()),
    st.builds(commits.Known, st.lists(txids, max_size=2)),
    st.builds(commits.Forget, st.lists(txids, max_size=2)),
    st.builds(
        commits.Read,
        counters,
        st.tuples(counters, counters),
        st.lists(st.binary(max_size=4), max_size=2),
        requests,
    ),
    st.builds(commits.Values, counters, st.lists(st.tuples(stamps, values), max_size=2), st.booleans()),
    st.builds(commits.Inquire, counters, st.none() | txids),
    st.builds(commits.Report, counters, st.lists(states, max_size=2)),
    st.builds(commits.Survey, st.tuples(counters, counters), st.none() | txids),
    st.builds(
        commits.Surveyed,
        st.tuples(counters, counters),
        st.lists(st.tuples(headers, st.booleans()), max_size=2),
        st.none() | txids,
        st.lists(st.tuples(id32s, counters, counters), max_size=2),
        st.lists(st.tuples(st.binary(max_size=4), stamps, values), max_size=2),
        st.booleans(),
    ),
    st.builds(commits.Lapsed, txids, indexes),
)
groups = st.builds(Group, id32s, counters, rows)
names = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True)
texts = st.text(max_size=8)
small = st.integers(1, 255)
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(Confirm, id32s),
    st.builds(
        MemberRecord,
        name=names,
        address=texts,
        software=texts,
        protocol_min=small,
        protocol_max=small,
        started_ms=counters,
        left=st.booleans(),
        tags=st.lists(st.tuples(texts, texts), max_size=3),
        credential=st.lists(st.binary(max_size=8), max_size=3),
        voided=st.lists(st.tuples(counters, stamps), max_size=3),
        store_id=st.binary(min_size=16, max_size=16),
        votes=st.booleans(),
    ),
    st.builds(
        Heartbeat,
        counters,
        counters,
        counters,
        counters,
        st.binary(max_size=16),
        heads,
        heads,
        st.lists(st.tuples(st.binary(max_size=8), counters, counters), max_size=3),
        st.lists(st.builds(Report, id32s, counters, small, st.booleans()), max_size=3),
    ),
    st.builds(Goodbye, counters, counters),
    st.builds(Batch, counters, counters, counters, rows, st.booleans()),
    st.builds(
        Pull,
        counters,
        heads,
        counters,
        st.lists(st.tuples(counters, counters), max_size=3),
        st.none() | st.builds(Floor, counters, heads),
        stamps,
    ),
    st.builds(
        Chunk,
        counters,
        counters,
        counters,
        st.lists(groups, max_size=2),
        st.none() | heads,
        st.none() | st.tuples(id32s, counters, counters),
        st.booleans(),
    ),
    st.builds(More, counters, counters),
    st.builds(Holding, heads),
    st.builds(Steps, st.lists(steps, max_size=3)),
    st.builds(Held, heads),
    st.builds(Want, id32s, counters, st.lists(counters, max_size=3)),
    st.builds(Invalidation, st.binary(min_size=1, max_size=8), st.booleans()),
)

ORIGINS = tuple((NodeId(bytes([n]) * 32), lineage) for n in (1, 2) for lineage in (10, 11))


@st.composite
def histories(draw: st.DrawFn, size: int = 12) -> list[Entry]:
    """Entries as several nodes may write them: no dot twice, on few keys, in the order of each origin."""
    shapes = draw(
        st.lists(
            st.tuples(
                st.sampled_from(ORIGINS),
                st.sampled_from([b"a", b"b", b"c"]),
                st.integers(1, 4),
                st.one_of(st.none(), st.binary(max_size=2)),
            ),
            max_size=size,
        )
    )
    heads_of = dict.fromkeys(ORIGINS, 0)
    entries = []
    for (node, lineage), name, hlc, value in shapes:
        heads_of[node, lineage] += 1
        entries.append(Entry(1, name, hlc, node, lineage, heads_of[node, lineage], value))
    return entries


def hello(keys: Ed25519Keys = ALICE, low: int = 1, high: int = 1, *, probe: bool = False) -> Hello:
    return Hello(low, high, keys.cluster_id, keys.node_id, 1_000, 999, 1_700_000_000_000, bytes(16), probe)


def fault_of(raised: RemoteFault) -> tuple[Fault, str]:
    return raised.fault, raised.detail
