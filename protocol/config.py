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

    heartbeat_s: float = 0.25
    """Shorter notices silence sooner and costs one signature and n verifications a beat."""
    silence_s: float = 1.2
    """Without a byte for so long a peer is suspect: four heartbeats and some jitter."""
    hang_up_s: float = 10.0
    """A silent link is cut and dialled anew; shorter would punish a paused process."""
    lag_credit_s: float = 0.1
    """When our own tick is later than this, the peers' silence is partly ours."""

    settle_s: float = 2.0
    """How long the first write after a start waits for peers that confirm our numbers and tell their clocks."""

    redial_min_s: float = 0.05
    redial_max_s: float = 5.0
    """Jittered exponential back-off towards members that should be alive."""
    redial_dead_s: float = 2.0
    """Dead members and silent seeds are dialled for ever, so that a split heals by itself."""
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
