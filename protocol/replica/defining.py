"""Making and dropping definitions of keyspaces, and choosing the voters of a new one.

Decided by this node alone, from what it knows: a definition is an entry like any other, durable here before it is
answered and spread from here. Two nodes that do not hear each other may define one name differently; the table of
definitions then says so (see keyspaces.py) and somebody drops one. To make the same definition again is no error.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..clock import ClusterTime
from ..errors import Refused
from ..inputs import Created, CreateKeyspace, DropKeyspace, Dropped
from ..keyspaces import (
    POLICIES,
    SYSTEM_KEYSPACE,
    Candidate,
    Definition,
    check_name,
    decode,
    define,
    encode,
    id_text,
)
from ..limits import KEYSPACES_MAX
from ..turn import Turn
from ..types import node_text
from ..voters import Voter, check_voters
from .replica import Replica
from .settling import Settling
from .store import DamagedRow

VOTERS_PICKED = 3
ID_CHARS_MIN = 8
"""What `members` shows of an id is enough to name a member by."""

Voters = tuple[Voter, ...]


class Defining:
    """`members`: this node first, then the others by id."""

    def __init__(
        self,
        replica: Replica,
        settling: Settling,
        time: ClusterTime,
        members: Callable[[], list[Candidate]],
    ) -> None:
        self._replica, self._settling, self._time, self._members = replica, settling, time, members

    def create(self, turn: Turn, create: CreateKeyspace) -> None:
        turn.reply_after_commit(create.ref, self._create(turn, create))

    def drop(self, turn: Turn, drop: DropKeyspace) -> None:
        found = next((known for known in self._known(drop.name) if known.id == drop.id), None)
        if found is None:
            text = f"no keyspace {drop.name!r} with the id {id_text(drop.id)}"
            turn.reply_after_commit(drop.ref, Refused("not_found", text, "peernode keyspace ls shows all"))
            return
        self._replica.put(turn, (SYSTEM_KEYSPACE, found.key), None, 0)
        turn.reply_after_commit(drop.ref, Dropped(found))

    def _create(self, turn: Turn, create: CreateKeyspace) -> Created | Refused:
        refusal = check_name(create.name) or check_policy(create.policy, create.voters)
        if refusal is not None:
            return refusal
        candidates = self._candidates()
        named = find_all(candidates, create.voters)
        if isinstance(named, Refused):
            return named
        known = self._known(create.name)
        if known:
            return same(known, create.policy, named)
        voters = self._voters(create.policy, candidates, named)
        if isinstance(voters, Refused):
            return voters
        definition = define(create.name, create.policy, voters)
        return self._refuse(turn, definition) or self._store(turn, definition)

    def _candidates(self) -> list[Candidate]:
        own, *others = self._members()
        if not self._settling.is_confirmed and not own.trouble:
            trouble = "no peer has confirmed yet where it had stopped"
            own = msgspec.structs.replace(own, trouble=trouble)
        return [own, *others]

    def _known(self, name: str) -> list[Definition]:
        """The definitions of a name once all that is staged is stored: two requests must not make two."""
        known = {definition.key: definition for definition in self._replica.keyspaces.named(name)}
        for entry in self._replica.staged_in(SYSTEM_KEYSPACE):
            known.pop(entry.key, None)
            definition = decode(entry.key, entry.value)
            if definition is not None and definition.name == name:
                known[definition.key] = definition
        return list(known.values())

    def _voters(self, policy: str, candidates: list[Candidate], named: list[Candidate]) -> Voters | Refused:
        if not POLICIES[policy].has_voters:
            return ()
        return judge(named) if named else pick(candidates)

    def _refuse(self, turn: Turn, definition: Definition) -> Refused | None:
        time_ms = self._time.time_ms(turn.now)
        if len(self._replica.keyspaces) >= KEYSPACES_MAX:
            return Refused("overloaded", f"there are {KEYSPACES_MAX} keyspaces already", "drop one")
        before = define(definition.name).id
        if before != definition.id and self._holds_keys(before, time_ms):
            text = f"{definition.name!r} is in use as a keyspace of the policy lww: its keys would be out of reach"
            return Refused("exists", text, "take another name, or delete those keys before")
        return self._replica.refuse((SYSTEM_KEYSPACE, definition.key), None, False, time_ms)

    def _holds_keys(self, keyspace: int, time_ms: int) -> bool:
        try:
            stored = self._replica.scan(keyspace, b"", None, 1, time_ms).items
        except DamagedRow:
            return True
        return bool(stored or self._replica.staged_in(keyspace))

    def _store(self, turn: Turn, definition: Definition) -> Created:
        self._replica.put(turn, (SYSTEM_KEYSPACE, definition.key), encode(definition), 0)
        return Created(definition, is_new=True)


def check_policy(policy: str, voters: tuple[str, ...]) -> Refused | None:
    known = POLICIES.get(policy)
    if known is None:
        choice = "; ".join(f"{name}: {one.about}" for name, one in POLICIES.items())
        return Refused("invalid", f"there is no policy {policy!r}", choice)
    if voters and not known.has_voters:
        return Refused("invalid", f"the policy {policy} has no voters", "leave them out")
    return None


def same(known: list[Definition], policy: str, named: list[Candidate]) -> Created | Refused:
    """A name that is taken: fine, if what is asked for is what it means already. Voters that are not named do."""
    first = known[0]
    wanted = {candidate.voter.node for candidate in named}
    has_them = not wanted or wanted == {voter.node for voter in first.voters}
    if len(known) == 1 and first.policy == policy and has_them:
        return Created(first, is_new=False)
    return Refused(
        "exists",
        f"the keyspace {first.name!r} exists with another definition",
        f"peernode keyspace ls shows it; to get rid of one: peernode keyspace drop {first.name} --id ID",
    )


def find_all(candidates: list[Candidate], texts: tuple[str, ...]) -> list[Candidate] | Refused:
    """The members that are meant by names, ids, or beginnings of ids."""
    found: list[Candidate] = []
    for text in texts:
        meant = [candidate for candidate in candidates if is_meant(candidate, text)]
        if not meant:
            return Refused("not_found", f"no member is called {text!r}", "peernode members lists them")
        if len(meant) > 1:
            ids = ", ".join(node_text(candidate.voter.node)[:ID_CHARS_MIN] for candidate in meant)
            return Refused("invalid", f"{text!r} may be any of {ids}", "name the member by its id")
        found += meant
    return found


def is_meant(candidate: Candidate, text: str) -> bool:
    is_id = len(text) >= ID_CHARS_MIN and node_text(candidate.voter.node).startswith(text)
    return is_id or candidate.name == text


def judge(named: list[Candidate]) -> Voters | Refused:
    """Whether these can be the voters."""
    voters = tuple(candidate.voter for candidate in named)
    for candidate in named:
        if candidate.trouble:
            text = f"{candidate.name} cannot be made a voter: {candidate.trouble}"
            return Refused("unavailable", text, "name others, or none: then they are picked", retryable=True)
    return check_voters(voters) or voters


def pick(candidates: list[Candidate]) -> Voters | Refused:
    """Three that can vote now; one, this node if it can, where the cluster has fewer than three that ever do.

    The three with the lowest ids: who creates the same keyspace at the same time elsewhere picks the same.
    """
    wanted = VOTERS_PICKED if sum(candidate.is_willing for candidate in candidates) >= VOTERS_PICKED else 1
    able = [candidate.voter for candidate in candidates if not candidate.trouble]
    if len(able) < wanted:
        text = f"of the members {len(able)} can be made voters now, and {wanted} are wanted"
        hint = "peernode members shows who is there; --voters names others, or fewer"
        return Refused("unavailable", text, hint, retryable=True)
    return tuple(sorted(able)[:wanted] if wanted > 1 else able[:1])
