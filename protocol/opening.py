"""From an envelope's bytes to a message: what must hold before anybody looks into it."""

from __future__ import annotations

import msgspec

from .config import Config
from .gossip import Gossip
from .membership.membership import Membership
from .peerlink import PeerLink
from .types import Keys, Payload
from .wire.envelope import Unopened, check_header, check_signature, read_header
from .wire.registry import Registry, Route, Stream


class Opened(msgspec.Struct, frozen=True):
    """A message, with what it came in."""

    route: Route
    unopened: Unopened
    payload: Payload


class Opener:
    """`run`: this node's own."""

    def __init__(
        self,
        config: Config,
        keys: Keys,
        run: int,
        registry: Registry,
        membership: Membership,
        gossip: Gossip,
    ) -> None:
        self._config, self._keys, self._run, self._registry = config, keys, run, registry
        self._membership, self._gossip = membership, gossip

    def open(self, link: PeerLink, envelope: bytes) -> Opened | None:
        """The cheapest refusal first; the signature is the dearest. None: no news. Raises RemoteFault."""
        unopened = read_header(envelope)
        header = unopened.header
        link.check_version(header.v, self._config)
        check_header(unopened, self._keys.cluster_id)
        route = self._registry.find(header.type, link.established.version)
        if not self._is_news(link, unopened, route):
            return None
        check_signature(unopened, self._keys)
        return Opened(route, unopened, self._registry.decode(route, header.payload))

    def _is_news(self, link: PeerLink, unopened: Unopened, route: Route) -> bool:
        """Whether a message is worth its signature. Raises RemoteFault when it may not come this way."""
        header = unopened.header
        match route.stream:
            case Stream.LINK:
                link.check_order(unopened, bulk=route.bulk)
                return True
            case Stream.RECORD:
                if unopened.origin == self._keys.node_id:
                    return header.run > self._run
                return not self._membership.is_known(unopened.origin, header.run, header.seq)
            case Stream.GOSSIP:
                if unopened.origin != link.peer and not self._membership.is_member(unopened.origin):
                    return False  # its record has not come yet: it will be offered again
                return not self._gossip.has(unopened.origin, header.run, header.seq)
