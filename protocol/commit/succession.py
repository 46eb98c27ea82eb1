"""How a store becomes a voter of a later epoch: it learns first what the epoch before has promised to remember.

The voters of an epoch agree on their successors in a transaction of that epoch (a *succession*), so there is one
successor at most, and anybody can finish a transaction that began it. A voter that knows the successor says YES to
nothing more of its epoch, and answers no reads of it. It answers a *survey*, once no transaction that it has voted
YES on is in doubt there, with what has committed and is remembered, and with what it holds: all that its heads cover,
which comes by sync, and what else is stored. A sync session under way brings values that no head covers before its
end, and if it never ends, no head ever will.

A store that is named by the successor surveys the voters before it and begins to vote when it has what a majority of
them has. That is enough: whatever has committed in the epoch before had a YES from a majority, of which one answered
the survey. It knew the outcome by then, and so had the values; and what was not committed by then never will be,
because that majority says NO. A voter that was replaced before it had caught up itself has said YES to nothing, and
may answer: a majority that had caught up has agreed on the successor, and one of those answers, too. Reads of the old
epoch may still end; they were under way when the first transaction of the new epoch began.

Who votes in the new epoch already (is *seated*) has learned all of that, so its word alone is enough: a store that
comes late needs none of the old voters, of which by then a majority may be gone. By the same knowledge, whatever of
the old epoch is in doubt when it is seated, here or with anybody who asks, has *lapsed*: if it had committed, this
store would have been told, for a commit is not forgotten before all know it that may be in doubt about it.

A successor that was *forced* has no majority to ask: its voters take over what those have that can be reached.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from ..config import Config
from ..limits import SURVEY_COMMITS_MAX, TXN_RECORDS_MAX
from ..turn import Turn
from ..types import NodeId
from .messages import Heads, Survey, Surveyed
from .ports import Electorate, Ledger, Timers, Unreadable
from .post import Post
from .records import Records
from .transaction import Header, Shard, Slot, TxnId, majority


class Source:
    """A voter that is surveyed. `after`: the last commit that it has told of; `heads`: it has told of all."""

    def __init__(self) -> None:
        self.after: TxnId | None = None
        self.heads: Heads | None = None
        self.is_seated = False


class Installation:
    """What this store has learned for one shard so far, from the voters before it and those beside it."""

    def __init__(self, old: tuple[NodeId, ...], new: tuple[NodeId, ...], began_s: float) -> None:
        self.old, self.began_s = old, began_s
        self.sources = {voter: Source() for voter in sorted({*old, *new})}


class Succession:
    """`hasten` is called with what is in doubt here and in the way of somebody who takes over, `abandon` with what
    nobody can finish any more, `decided` with what was in doubt here and is not, and whether it has committed."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        electorate: Electorate,
        post: Post,
        timers: Timers,
        records: Records,
        hasten: Callable[[Turn, Header], None],
        abandon: Callable[[Turn, Header], None],
        decided: Callable[[Turn, Header, bool], None],
    ) -> None:
        self._config, self._ledger, self._electorate, self._post = config, ledger, electorate, post
        self._timers, self._records = timers, records
        self._hasten, self._abandon, self._decided = hasten, abandon, decided
        self._installing: dict[Shard, Installation] = {}

    def look(self, turn: Turn) -> None:
        """Called again and again: what is there to learn, has enough been learned?"""
        wanted = self._electorate.to_install()
        self._installing = {shard: one for shard, one in self._installing.items() if shard in wanted}
        for shard in wanted:
            one = self._installing.get(shard)
            if one is None:
                old, new = self._electorate.voters(before(shard)), self._electorate.voters(shard)
                one = self._installing[shard] = Installation(old, new, turn.now.mono_s)
            if self._is_enough(turn, shard, one):
                del self._installing[shard]
                self._electorate.install(turn, shard)
                self._post.staged(turn)
                self._lapse(turn, shard)
                continue
            for voter, source in one.sources.items():
                if source.heads is None:
                    self._post.send(voter, Survey(shard, source.after))
        if self._electorate.has_given_up:
            self._give_up(turn)
        delay_s = self._config.survey_s if self._installing else self._config.succession_s
        self._timers.after(turn.now, delay_s, self.look, coarse=True)

    def failed(self) -> None:
        """What was taken over may not have been stored: it is asked for again."""
        self._installing.clear()

    def _lapse(self, turn: Turn, seat: Shard) -> None:
        """What is in doubt in an earlier epoch has not committed: this store has just learned what has."""
        for header in [record.header for record in self._records.in_doubt() if record.has_voted]:
            old = [shard for shard in header.shards if shard[0] == seat[0] and shard[1] < seat[1]]
            if any(map(self._electorate.is_succeeded_here, old)):
                self._decided(turn, header, False)

    def _give_up(self, turn: Turn) -> None:
        """Drop what is in doubt, and of which a shard has lost its majority for good."""
        for header in [record.header for record in self._records.in_doubt()]:
            if any(map(self._electorate.is_given_up, header.shards)):
                self._abandon(turn, header)

    def on_survey(self, turn: Turn, sender: NodeId, step: Survey) -> None:
        """Silence means: not yet. The sender asks again."""
        is_seated = self._electorate.is_voter(step.shard)
        if not is_seated and not self._is_replaced(turn, step.shard):
            return
        keyspace = step.shard[0]
        loose = self._ledger.loose(keyspace)
        if loose is None:
            return
        some, following = self._commits(keyspace, step.after)
        heads, values = self._ledger.heads(), [(entry.key, entry.hlc, entry.value) for entry in loose]
        if following is not None:  # the last page has these
            heads, values = [], []
        self._post.send_durably(sender, Surveyed(step.shard, some, following, heads, values, is_seated))

    def _is_replaced(self, turn: Turn, by: Shard) -> bool:
        """Whether this voter of the epoch before knows of it, and how all ended that it has said YES to."""
        old = before(by)
        if self._electorate.epoch(by[0]) < by[1] or not self._electorate.is_named(old):
            return False
        doubtful = self._doubtful(old)
        for header in doubtful:
            self._hasten(turn, header)
        return not doubtful

    def _doubtful(self, shard: Shard) -> list[Header]:
        """What this voter said YES to there, and does not know the outcome of."""
        return [r.header for r in self._records.in_doubt() if r.is_prepared and shard in r.header.shards]

    def on_surveyed(self, turn: Turn, sender: NodeId, step: Surveyed) -> None:
        one = self._installing.get(step.shard)
        source = one.sources.get(sender) if one is not None else None
        if source is None or source.heads is not None or len(self._records) >= TXN_RECORDS_MAX:
            return
        for header, is_known in step.commits:
            record = self._records.get(header.txid)
            if record is None:
                self._records.adopt(turn, header, is_known=is_known)
            elif record.outcome is None:
                self._decided(turn, header, True)
        source.after = step.next
        if step.next is not None:
            self._post.send(sender, Survey(step.shard, step.next))
            return
        for key, stamp, value in step.values:
            self._take(turn, (step.shard[0], key), stamp, value)
        source.heads, source.is_seated = step.heads, step.is_seated

    def _take(self, turn: Turn, slot: Slot, stamp: int, value: bytes | None) -> None:
        try:
            newest = self._ledger.newest(slot)
        except Unreadable:
            return  # it may have been newer: this voter abstains there
        if newest is None or newest.hlc < stamp:
            self._ledger.record(turn, slot, value, stamp)
            self._post.staged(turn)

    def _is_enough(self, turn: Turn, shard: Shard, one: Installation) -> bool:
        told = {voter: source.heads for voter, source in one.sources.items() if source.heads is not None}
        known = {voter for voter, heads in told.items() if self._ledger.covers(heads)}
        if any(one.sources[voter].is_seated for voter in known):
            return True
        if not self._electorate.is_forced(shard):
            return len(known.intersection(one.old)) >= majority(len(one.old))
        expected = told.keys() | (set(one.old) - self._electorate.lost(shard))
        is_late = turn.now.mono_s >= one.began_s + self._config.forced_s
        return is_late and not any(map(self._post.reaches, expected - known))

    def _commits(self, keyspace: int, after: TxnId | None) -> tuple[list[tuple[Header, bool]], TxnId | None]:
        """Those behind one of them, and the last if that are not all."""
        commits = sorted(self._records.commits_of(keyspace), key=_txid_of)
        start = 0 if after is None else bisect_right(commits, after, key=_txid_of)
        some = commits[start : start + SURVEY_COMMITS_MAX]
        return some, _txid_of(some[-1]) if start + len(some) < len(commits) else None


def _txid_of(commit: tuple[Header, bool]) -> TxnId:
    return commit[0].txid


def before(shard: Shard) -> Shard:
    """The shard whose voters agreed on those of this one."""
    return shard[0], shard[1] - 1
