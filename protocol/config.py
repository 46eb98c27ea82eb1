"""What a node is told once, at its start, and what each time constant trades."""

from __future__ import annotations

import msgspec

from .limits import SYNC_ROWS_MAX


class Config(msgspec.Struct, frozen=True):
    """Times in seconds. The defaults are for a LAN and for one machine."""

    name: str
    address: str  # host:port where others reach this node
    software: str = "0"
    tags: tuple[tuple[str, str], ...] = ()
    protocol_min: int = 1
    protocol_max: int = 1
    votes: bool = True  # whether it may be named a voter of a coordinated keyspace

    heartbeat_s: float = 0.25
    """Shorter notices silence sooner and costs one signature and n verifications a beat."""
    beat_gap_s: float = 0.02
    """News for the judges does not wait for the next heartbeat, but so long for more news to go with it."""
    silence_s: float = 1.2
    """Without a byte for so long a peer is suspect: four heartbeats and some jitter."""
    probe_after_s: float = 0.7
    """Without a byte for so long, two heartbeats overdue, a linked peer is asked on a second connection. Sooner
    costs handshakes whenever a machine stutters; later leaves less of `silence_s` for the answer."""
    probe_s: float = 0.5
    """How long a dial may take to connect before it counts as unreachable, and a probe then to be answered; four
    round trips to that member, where they are longer. With `probe_after_s` it makes up `silence_s`: who is cut
    off is reported when that bound passes, not later. A longer one is kinder to networks that lose packets (a
    lost SYN is sent again after 1 s), and slower to tell."""
    never_met_s: float = 2.0
    """A member that was never linked has so much longer to show itself: it may be starting, or dialling us."""
    refute_s: float = 0.2
    """A majority must stand for so long before anybody is called dead: a heartbeat of whoever still hears it
    arrives within that time on a LAN. All of it is added to every detection."""
    hang_up_s: float = 10.0
    """A silent link whose far end still takes connections is cut and dialled anew after so long; shorter
    would punish a paused process."""
    lag_credit_s: float = 0.1
    """When our own turn is later than this, the peers' silence is partly ours."""
    hold_s: float = 0.5
    """After a lag of more than this, no verdict for as long: what was heard before it is out of date."""

    settle_s: float = 2.0
    """How long the first write after a start waits for peers that confirm our numbers and tell their clocks."""

    redial_min_s: float = 0.05
    redial_max_s: float = 2.0
    """Jittered exponential back-off towards members that should be alive, and seeds. Its upper end is how long
    the smaller side of a healed split may sleep."""
    redial_stalled_s: float = 0.5
    """Who takes connections and does not answer is asked this often: it may be gone by now."""
    redial_brief_max_s: float = 0.3
    """The longest pause after links that did not last: two ends that cut each other off, or a bad network."""
    redial_dead_s: float = 1.0
    """Each dead member is dialled about this often by the whole cluster together, for ever, so that a split
    heals by itself: each of n live members waits n times as long."""
    redial_dead_max_s: float = 30.0
    """But no member waits longer."""
    patience_max_s: float = 1.5
    """Dials that fail are given more time to connect, up to this, so that slow networks connect in the end. It
    bounds what round trips add to a verdict, too: beyond 0.4 s of them, raise it together with `silence_s`."""
    reprobe_s: float = 5.0
    """A linked member whose address did not answer a probe is probed again this often."""
    yield_dial_s: float = 0.5
    """The higher id lets the lower one dial first: one handshake a pair, not two."""

    catch_up_s: float = 0.5
    """An announced head that gossip does not bring within this time is pulled by a sync session."""
    sync_idle_s: float = 5.0
    """A sync session without progress for so long is given up and begun anew."""
    sync_progress_s: float = 2.0
    """How often a long session tells the log how far it is."""
    sync_rows_max: int = SYNC_ROWS_MAX
    """Rows of one chunk; the simulator makes it small, so that sessions have many."""
    gossip_grace_s: float = 0.05
    """What a peer announces may be on its way to us from its author: asking sooner brings it twice."""
    gossip_retry_s: float = 0.3
    """A question that brought nothing is asked again, perhaps of another peer."""
    gossip_tries: int = 4
    """After so many questions a message is given up; the store has its own sync."""
    head_announce_s: float = 1.0
    """How long a changed head is repeated in heartbeats."""
    record_resend_s: float = 1.0
    """Whole member tables are sent again at most this often to a peer whose table differs."""

    fast_s: float = 0.02
    """With a majority of YES the coordinator waits so long for the rest: all of them save it a round trip."""
    lock_wait_s: float = 0.05
    """A voter lets a transaction wait so long for a lock before it says NO: two that hold what the other wants
    are told apart by it."""
    vote_s: float = 0.5
    """An attempt that is not decided by then is finished like one whose coordinator died."""
    doubt_s: float = 0.6
    """A voter that has not heard for so long how a transaction ended finishes it, each rank a fifth later."""
    hasten_s: float = 0.1
    """The same where somebody waits for it, or the link to its coordinator is gone; each rank as much later."""
    recover_s: float = 0.2
    """A ballot that has not come to an end is followed by a higher one, twice as patient, with jitter."""
    recover_max_s: float = 3.0
    txn_s: float = 5.0
    """A voter says NO to transactions that are older: their client has given up."""
    read_wait_s: float = 1.0
    """A voter lets a read wait so long for a transaction in doubt; the reader asks again."""
    read_again_s: float = 0.25
    """A voter that has not answered a read is asked again."""
    outcome_s: float = 0.003
    """How long the word of a commit stays behind its values, where nobody waits for it."""
    survey_s: float = 0.1
    """A store that is to vote asks those before it again, and looks whether it has caught up with them."""
    succession_s: float = 0.25
    """How soon it notices that it is to vote."""
    forced_s: float = 1.0
    """How long voters that were forced wait at least for what those before them still have."""
    useless_s: float = 2.0
    """A majority that can be reached, and answers no read for so long, does not know what it must to vote: it may be
    replaced by force."""
    tidy_s: float = 0.2
    """Acknowledgements of outcomes are gathered so long."""
    remind_s: float = 1.0
    """An outcome that a voter has not acknowledged is told again."""
