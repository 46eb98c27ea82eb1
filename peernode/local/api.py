"""What the methods stand on: the running node, as one object that every face shares."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import msgspec

from protocol.inputs import Event
from protocol.invalidation import Glob
from protocol.node import Node
from protocol.replica.messages import as_heads
from protocol.types import CommitNumber, Instant

from ..cache import Cache
from ..daemon.runtime import Runtime
from ..leases import Leases
from ..net.dialler import join_address, split_address
from ..version import VERSION
from .notices import Subscription


class Api:
    """`socket` and `listen` are told in `status`."""

    def __init__(self, runtime: Runtime, socket: str, data_dir: str, listen: tuple[str, int]) -> None:
        self.runtime, self.socket, self.data_dir = runtime, socket, data_dir
        host, self.listen_port = listen
        self.listens_on_loopback = host in ("0.0.0.0", "::", "127.0.0.1")
        self.version = VERSION
        self.started_ms = runtime.world.now().wall_ms
        self.cache = Cache(runtime.world.now().mono_s)
        self.locks = Leases()
        self._token = (CommitNumber(-1), "")
        """The last one, and the commit that it is as of."""
        self.cache_subscriptions: dict[Subscription, Glob | None] = {}
        """Who hears of invalidations, and of which keys; None: of all."""
        self.member_subscriptions: dict[Subscription, None] = {}
        """Who hears of members."""

    @property
    def node(self) -> Node:
        return self.runtime.node

    @property
    def protocol(self) -> list[int]:
        return [self.node.config.protocol_min, self.node.config.protocol_max]

    def now(self) -> Instant:
        return self.runtime.world.now()

    def dispatch(self, event: Event) -> None:
        self.runtime.dispatch(event)

    def token(self) -> str:
        """All that this node holds now, for causal reads elsewhere."""
        settled = self.node.settled
        if self._token[0] != settled:
            heads = msgspec.msgpack.encode(as_heads(self.node.replica.vector))
            self._token = (settled, urlsafe_b64encode(heads).decode())
        return self._token[1]

    def is_own_address(self, address: str) -> bool:
        """Whether a seed is this daemon on this machine, or a member's advertised address."""
        try:
            host, port = split_address(address)
        except ValueError:
            return False
        spelt = join_address(host, port)
        members = self.node.membership.table.members.values()
        if spelt == self.node.config.address or any(spelt == m.record.address for m in members):
            return True
        return port == self.listen_port and (host == "localhost" or host.startswith("127.") or host == "::1")

    def loopback_addresses(self) -> list[str]:
        """Where a joiner on this same machine finds this daemon, if it listens there."""
        return [join_address("127.0.0.1", self.listen_port)] if self.listens_on_loopback else []

    def checked_address(self, address: str) -> str:
        """host:port with the port spelt out. Raises ValueError."""
        return join_address(*split_address(address))
