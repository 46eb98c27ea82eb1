"""What a node keeps of one authenticated link, and what it checks of all that comes over it.

The cheap checks: how much comes, in which version, by whom, and in which order. Nothing here costs a signature.
"""

from __future__ import annotations

import msgspec

from .config import Config
from .errors import Fault, RemoteFault
from .limits import LINK_FRAMES_BURST_MAX, LINK_FRAMES_PER_S_MAX
from .types import LinkId, NodeId
from .wire.envelope import Unopened
from .wire.hello import Established


class PeerLink(msgspec.Struct):
    """`refilled_s`: when its quota was last reckoned."""

    id: LinkId
    established: Established
    refilled_s: float
    frames_left: float = LINK_FRAMES_BURST_MAX
    last_seq: dict[bool, int] = {}
    """The highest number of each class: bulk waits while control goes ahead, within a class order is kept."""

    @property
    def peer(self) -> NodeId:
        return self.established.peer

    def take_quota(self, frames: int, now_s: float) -> None:
        """A token bucket: LINK_FRAMES_PER_S_MAX on the long run, LINK_FRAMES_BURST_MAX at once. Raises QUOTA."""
        refill = (now_s - self.refilled_s) * LINK_FRAMES_PER_S_MAX
        self.frames_left = min(LINK_FRAMES_BURST_MAX, self.frames_left + refill) - frames
        self.refilled_s = now_s
        if self.frames_left < 0:
            raise RemoteFault(Fault.QUOTA, f"more than {LINK_FRAMES_PER_S_MAX} messages a second")

    def check_version(self, version: int, config: Config) -> None:
        """Raises UNSUPPORTED_VERSION, naming both ranges."""
        if version != self.established.version:
            theirs, ours = self.established.protocol, (config.protocol_min, config.protocol_max)
            raise RemoteFault(
                Fault.UNSUPPORTED_VERSION,
                f"a message of version {version}: we speak protocol versions {ours[0]} to {ours[1]}, "
                f"the peer said it speaks {theirs[0]} to {theirs[1]}",
            )

    def check_order(self, unopened: Unopened, *, bulk: bool) -> None:
        """A message of this link's own stream: by the peer itself, and newer than the last. Raises RemoteFault."""
        header = unopened.header
        if unopened.origin != self.peer or header.run != self.established.run:
            raise RemoteFault(Fault.NOT_A_MEMBER, "a message of this link is signed by somebody else")
        last_seq = self.last_seq.get(bulk, -1)
        if header.seq <= last_seq:
            raise RemoteFault(Fault.REPLAYED, f"message {header.seq} after {last_seq}")
        self.last_seq[bulk] = header.seq
