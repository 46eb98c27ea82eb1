"""Keyspaces: what a name means, and what a definition is.

A *definition* is a name, a policy and the policy's parameters. It never changes, and the hash of all three is its id:
two creators on two sides of a split have made the same keyspace, or two that never mix their data. In the second case
the name means neither until one of them is dropped. Definitions travel as entries of one hidden keyspace, each under
its name and its id; what does not hash to its key is none. A name without a definition is a keyspace of the policy
`lww`, so most need no creating.

The voters of a definition are those of its first epoch; who votes now is in epochs.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from itertools import islice

import msgspec

from .epochs import MARK, Epochs
from .errors import Refused
from .limits import KEYSPACE_CHARS_MAX, KEYSPACES_REMEMBERED_MAX
from .voters import Voter, check_voters

DEFAULT_KEYSPACE = "default"

SYSTEM_KEYSPACE = 0
"""The id of the hidden keyspace: its entries are synced like all others, and are neither counted nor listed."""

ID_BYTES = 8

CONFLICT_IDS_SHOWN = 4
"""More is no help to anybody, and any member can make more."""

LWW, COORDINATED = "lww", "coordinated"


class Policy(msgspec.Struct, frozen=True):
    """What becomes of writes that meet."""

    about: str
    has_voters: bool = False


POLICIES: dict[str, Policy] = {
    LWW: Policy("every node takes writes, always; the last one wins"),
    COORDINATED: Policy(
        "a majority of its voters decides: all or nothing, also of several keys", has_voters=True
    ),
}


class Candidate(msgspec.Struct, frozen=True):
    """A member that may be asked to vote. `trouble`: why it cannot vote now; empty: it can."""

    name: str
    voter: Voter
    is_willing: bool
    trouble: str


class Definition(msgspec.Struct, frozen=True):
    """Made by `define` and `decode` only, so that the id is the hash of the rest."""

    id: int
    name: str
    policy: str
    voters: tuple[Voter, ...] = ()
    """By node id; empty where the policy has none, or is not known here."""

    @property
    def key(self) -> bytes:
        """Where it stands in the hidden keyspace."""
        return _key(self.name, self.id)


class Keyspaces:
    """All definitions that are stored here, and all `epochs`."""

    def __init__(self) -> None:
        self._named: dict[str, dict[bytes, Definition]] = {}
        self._meanings: dict[str, Definition | Refused] = {}
        self._by_id: dict[int, Definition] = {}
        self.epochs = Epochs()

    def __len__(self) -> int:
        return len(self._by_id)

    def note(self, key: bytes, value: bytes | None) -> None:
        """What stands now under a key of the hidden keyspace."""
        if key.startswith(MARK):
            self.epochs.note(key, value)
            return
        name = key[: -ID_BYTES - 1].decode(errors="replace")
        named = self._named.setdefault(name, {})
        old, new = named.pop(key, None), decode(key, value)
        if old is not None:
            del self._by_id[old.id]
        if new is not None:
            named[key] = self._by_id[new.id] = new
        self._meanings.pop(name, None)
        if named:
            self._meanings[name] = _meaning(named)
        else:
            del self._named[name]

    def resolve(self, name: str) -> Definition | Refused:
        """The keyspace that a name means."""
        meaning = self._meanings.get(name)
        return implicit(name) if meaning is None else meaning

    def by_id(self, keyspace: int) -> Definition | None:
        return self._by_id.get(keyspace)

    def has_voters(self, keyspace: int) -> bool:
        """Whether voters decide what is written there, as far as is known here."""
        known = self._by_id.get(keyspace)
        return known is not None and len(known.voters) > 0

    def named(self, name: str) -> list[Definition]:
        """All definitions of a name: several where two creators did not know of each other."""
        return sorted(self._named.get(name, {}).values(), key=lambda definition: definition.id)

    def all(self) -> list[Definition]:
        """By name."""
        return [definition for name in sorted(self._named) for definition in self.named(name)]


def define(name: str, policy: str = LWW, voters: Iterable[Voter] = ()) -> Definition:
    """The one definition of this name, policy and set of voters."""
    ordered = tuple(sorted(voters))
    return Definition(_hash(_encode(name, policy, ordered)), name, policy, ordered)


@lru_cache(KEYSPACES_REMEMBERED_MAX)
def implicit(name: str) -> Definition | Refused:
    """What a name means that has no definition."""
    return check_name(name) or define(name)


def encode(definition: Definition) -> bytes:
    return _encode(definition.name, definition.policy, definition.voters)


def decode(key: bytes, value: bytes | None) -> Definition | None:
    """The definition that stands under a key; None where none does: it was dropped, or never was one."""
    if value is None:
        return None
    try:
        name, policy, raw = _decoder.decode(value)
        keyspace = _hash(value)
        if key != _key(name, keyspace) or check_name(name) is not None:
            return None
        if policy not in POLICIES:
            return Definition(keyspace, name, policy)
        voters = _parameters.decode(raw).voters
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None
    definition = define(name, policy, voters)
    has_voters = POLICIES[policy].has_voters
    is_sound = definition.id == keyspace and check_voters(voters) is None if has_voters else not voters
    return definition if is_sound else None


def check_name(name: str) -> Refused | None:
    if not name:
        return Refused("invalid", "the name of a keyspace is empty")
    if len(name) > KEYSPACE_CHARS_MAX:
        return Refused(
            "too_large", f"a keyspace's name of {len(name)} characters; {KEYSPACE_CHARS_MAX} is the limit"
        )
    if not name.isprintable():
        return Refused("invalid", f"the keyspace's name {name!r} has characters that cannot be printed")
    return None


def id_text(keyspace: int) -> str:
    """An id for people."""
    return f"{keyspace:016x}"


class _Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    voters: tuple[Voter, ...] = ()


_encode_value = msgspec.msgpack.encode
_decoder = msgspec.msgpack.Decoder(tuple[str, str, msgspec.Raw])
_parameters = msgspec.msgpack.Decoder(_Parameters)


def _encode(name: str, policy: str, voters: tuple[Voter, ...]) -> bytes:
    return _encode_value((name, policy, _Parameters(voters)))


def _hash(encoded: bytes) -> int:
    """63 bits of the hash of name, policy and parameters; never the hidden keyspace."""
    digest = blake2b(encoded, digest_size=ID_BYTES, person=b"pn/keyspace").digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def _key(name: str, keyspace: int) -> bytes:
    return name.encode() + b"\0" + keyspace.to_bytes(ID_BYTES, "big")


def _meaning(named: dict[bytes, Definition]) -> Definition | Refused:
    """What a name with these definitions means."""
    first, *more = islice(named.values(), CONFLICT_IDS_SHOWN)
    if more:
        ids = ", ".join(sorted(id_text(definition.id) for definition in (first, *more)))
        return Refused(
            "conflict",
            f"the keyspace {first.name!r} was created {len(named)} times, differently: {ids}",
            f"peernode keyspace ls shows them; drop all but one: peernode keyspace drop {first.name} --id ID",
        )
    if first.policy not in POLICIES:
        known = ", ".join(POLICIES)
        return Refused(
            "unsupported_version",
            f"the keyspace {first.name!r} has the policy {first.policy!r}; this node knows {known}",
            "run a newer version here, or ask another member",
        )
    return first
