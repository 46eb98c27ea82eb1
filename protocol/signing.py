"""From a message to the bytes that leave: its number in its stream, and its author's signature."""

from __future__ import annotations

from .clock import HybridClock
from .effects import Effect, Send
from .gossip import Gossip
from .turn import Say
from .types import Instant, Keys
from .wire.envelope import Sealer
from .wire.registry import Registry, Stream


class Signer:
    """`run`: this node's own."""

    def __init__(
        self, keys: Keys, registry: Registry, version: int, run: int, clock: HybridClock, gossip: Gossip
    ) -> None:
        self._node, self._run = keys.node_id, run
        self._registry, self._clock, self._gossip = registry, clock, gossip
        self._sealer = Sealer(keys, registry, version, run)
        self._link_seq = 0

    def signed(self, effect: Effect | Say, now: Instant) -> Effect:
        """What is said as what is sent; all else as it is."""
        if not isinstance(effect, Say):
            return effect
        route = self._registry.route_of(effect.payload)
        if route.stream is Stream.GOSSIP:
            seq = self._gossip.next_number()
        elif effect.seq is None:
            seq = self._link_seq = self._link_seq + 1
        else:
            seq = effect.seq
        sealed = self._sealer.seal(effect.payload, seq, self._clock.last)
        if route.stream is Stream.GOSSIP:
            self._gossip.keep(now, self._node, self._run, seq, sealed)
        return Send(effect.links, sealed, route.bulk)
