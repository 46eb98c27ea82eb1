"""Transaction methods: txn.commit, txn.status, txn.list; and how outcomes of coordinated writes are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec

from protocol.clock import stamp_ms
from protocol.commit.messages import State
from protocol.commit.task import Committed, Conflicted, Found, Undecided
from protocol.commit.transaction import Header, Instance, TxnId, coordinator_of
from protocol.errors import Refused
from protocol.inputs import ACKS_WAIT_MS, Assign, Expect, Inquire, Transact
from protocol.keyspaces import DEFAULT_KEYSPACE
from protocol.limits import TXN_OPS_MAX
from protocol.transactions import stamp_text
from protocol.types import NodeId

from .api import Api
from .params import Params, each
from .views import keyspace_name, name_of

Answer = Callable[[object], None]


class CheckParams(Params, frozen=True):
    """Exactly one of `version`, `value` and `absent`."""

    key: bytes
    keyspace: str = DEFAULT_KEYSPACE
    version: str | None = None
    value: bytes | None = None
    absent: bool = False

    def expect(self) -> Expect | Refused:
        given = (self.version is not None) + (self.value is not None) + self.absent
        if given != 1:
            return Refused("invalid", "a check has exactly one of version, value and absent")
        if self.version is not None:
            return Expect(self.keyspace, self.key, "version", version=self.version)
        if self.value is not None:
            return Expect(self.keyspace, self.key, "value", value=self.value)
        return Expect(self.keyspace, self.key, "absent")


class WriteParams(Params, frozen=True):
    """Either `value` or `delete`."""

    key: bytes
    keyspace: str = DEFAULT_KEYSPACE
    value: bytes | None = None
    delete: bool = False

    def assign(self) -> Assign | Refused:
        if (self.value is None) != self.delete:
            return Refused("invalid", "a write has either a value or delete: true")
        return Assign(self.keyspace, self.key, self.value)


Ops = msgspec.Meta(max_length=TXN_OPS_MAX)


class TxnCommit(Params, frozen=True):
    checks: Annotated[tuple[CheckParams, ...], Ops] = ()
    writes: Annotated[tuple[WriteParams, ...], Ops] = ()
    request_id: bytes | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = ACKS_WAIT_MS

    @classmethod
    def _named(cls, params: object) -> dict[str, object]:
        return each(each(super()._named(params), "checks", CheckParams.read), "writes", WriteParams.read)


class TxnStatus(Params, frozen=True):
    txid: str


class TxnList(Params, frozen=True):
    pass


def commit(api: Api, params: TxnCommit, answer: Answer) -> None:
    """All or nothing. `versions` has one for each write, in their order."""
    checks = [check.expect() for check in params.checks]
    writes = [write.assign() for write in params.writes]
    for one in (*checks, *writes):
        if isinstance(one, Refused):
            answer(one)
            return

    def reply(outcome: object) -> None:
        if isinstance(outcome, Committed):
            versions = [stamp_text(outcome.stamp)] * len(writes)
            answer({"txid": str(outcome.txid), "versions": versions, "token": api.token()})
        else:
            answer(told(api, outcome))

    api.dispatch(
        Transact(
            reply,
            tuple(check for check in checks if isinstance(check, Expect)),
            tuple(write for write in writes if isinstance(write, Assign)),
            params.timeout_ms,
            params.request_id,
        )
    )


def status(api: Api, params: TxnStatus, answer: Answer) -> None:
    """What the members that answer know of one transaction."""

    def reply(outcome: object) -> None:
        if not isinstance(outcome, dict):
            answer(outcome)
            return
        known = by_transaction(outcome)
        if not known:
            text = "no member that answered knows of this transaction"
            hint = "it was never prepared, or ended long ago and is forgotten: read the keys that it wrote"
            answer(Refused("not_found", text, hint))
        else:
            answer(*(view(api, header, states, outcome) for header, states in known.values()))

    api.dispatch(Inquire(reply, params.txid))


def list_doubtful(api: Api, _: TxnList, answer: Answer) -> None:
    """All transactions in doubt that the members know of, the oldest first."""

    def reply(outcome: object) -> None:
        if not isinstance(outcome, dict):
            answer(outcome)
            return
        known = sorted(by_transaction(outcome).values(), key=lambda pair: pair[0].stamp)
        answer([view(api, header, states, outcome) for header, states in known])

    api.dispatch(Inquire(reply, None))


def told(api: Api, outcome: object) -> object:
    """How anything but a commit is told to the client."""
    match outcome:
        case Conflicted():
            return conflict(api, outcome)
        case Undecided():
            return Refused(
                "unknown_outcome",
                "nobody can say yet whether this was committed: too few voters answered in time",
                f"ask later: peernode txn show {outcome.txid}; a retry with the same request_id is safe",
                retryable=True,
                details=(("txid", str(outcome.txid)),),
            )
        case _:
            return outcome


def conflict(api: Api, outcome: Conflicted) -> Refused:
    (_, key), found = outcome.found[0]
    at = f"has version {stamp_text(found.stamp)}" if found.value is not None else "does not exist"
    more = f", and {len(outcome.found) - 1} more" if len(outcome.found) > 1 else ""
    text = f"nothing was written: {key.decode(errors='backslashreplace')!r} {at}{more}"
    seen = [seen_view(api, keyspace, key, found) for (keyspace, key), found in outcome.found]
    return Refused("conflict", text, "read it again and decide anew", details=(("seen", seen),))


def seen_view(api: Api, keyspace: int, key: bytes, found: Found) -> dict[str, object]:
    """The value is left out: it may be large, and a `get` tells it."""
    at: dict[str, object] = {"absent": True} if found.value is None else {"version": stamp_text(found.stamp)}
    return {"keyspace": keyspace_name(api, keyspace), "key": key, **at}


Known = dict[TxnId, tuple[Header, dict[NodeId, State]]]


def by_transaction(answers: dict[NodeId, tuple[State, ...]]) -> Known:
    known: Known = {}
    for node, states in answers.items():
        for state in states:
            known.setdefault(state.header.txid, (state.header, {}))[1][node] = state
    return known


def view(
    api: Api, header: Header, states: dict[NodeId, State], answered: Iterable[NodeId]
) -> dict[str, object]:
    """`participants`: what each voter has said, as far as it answered."""
    outcome = next((state.outcome for state in states.values() if state.outcome is not None), None)
    coordinator = coordinator_of(header)
    keys = {slot for state in states.values() for slot in state.keys}
    return {
        "txid": str(header.txid),
        "state": {None: "in doubt", True: "committed", False: "aborted"}[outcome],
        "coordinator": name_of(api, coordinator),
        "age_ms": max(0, api.node.time.time_ms(api.now()) - stamp_ms(header.stamp)),
        "keyspaces": [keyspace_name(api, keyspace) for keyspace, _ in header.shards],
        "keys": [{"keyspace": keyspace_name(api, keyspace), "key": key} for keyspace, key in sorted(keys)],
        "participants": participants(api, header, states, set(answered)),
        "why": why(api, header, states, outcome, coordinator in set(answered)),
    }


def participants(
    api: Api, header: Header, states: dict[NodeId, State], answered: set[NodeId]
) -> list[dict[str, object]]:
    seats = api.node.transactions.seats
    return [
        {
            "keyspace": keyspace_name(api, shard[0]),
            "name": name_of(api, voter),
            "state": state_of(states.get(voter), index, has_answered=voter in answered),
        }
        for index, shard in enumerate(header.shards)
        for voter in seats.voters(shard)
    ]


def state_of(state: State | None, index: int, *, has_answered: bool) -> str:
    """Of one voter in one keyspace."""
    if state is None:
        return "knows nothing of it" if has_answered else "does not answer"
    if state.outcome is not None:
        return "committed" if state.outcome else "aborted"
    instance = state.instances[index] if index < len(state.instances) else Instance()
    if instance.accepted is not None:
        return f"accepted {'commit' if instance.accepted[1] else 'abort'} at ballot {instance.accepted[0]}"
    if instance.vote is None:
        return f"promised ballot {instance.promised}" if instance.promised else "has not voted"
    return "prepared" if instance.vote else "voted no"


def why(
    api: Api, header: Header, states: dict[NodeId, State], outcome: bool | None, has_coordinator: bool
) -> str:
    """What it waits for, in words."""
    if outcome is not None:
        return "decided"
    seats = api.node.transactions.seats
    for shard in header.shards:
        voters = seats.voters(shard)
        silent = [voter for voter in voters if voter not in states]
        if not voters:
            return "one of its keyspaces was dropped: nobody can decide it"
        if 2 * len(silent) > len(voters):
            names = ", ".join(sorted(name_of(api, voter) for voter in silent))
            return (
                f"no majority of the voters of {keyspace_name(api, shard[0])} knows of it; not from {names}"
            )
    if not has_coordinator:
        return "its coordinator does not answer: the voters finish it"
    return "under way"
