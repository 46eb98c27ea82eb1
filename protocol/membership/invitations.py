"""Tickets that this node gave out: made, used, revoked; each change is durable before it is told.

What is stored is never enough to use a ticket: only the hash of its secret.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from ..config import Config
from ..effects import RecordRow
from ..errors import Refused
from ..identity.certificates import PathTooLong
from ..identity.tickets import JoinGranted, JoinRequest, Ticket, TicketRow, judge
from ..inputs import CreateTicket, Redeem, RevokeTicket
from ..limits import TICKET_ADDRESSES_MAX, TICKET_TTL_MS_MAX, TICKET_USES_MAX, TICKETS_MAX
from ..turn import Turn
from ..types import Keys, NodeId

TICKET_RECORD = "ticket"


class Invitations:
    """`stored` are the tickets of former runs."""

    def __init__(self, config: Config, keys: Keys, stored: dict[bytes, bytes]) -> None:
        self._config, self._keys = config, keys
        self.rows = _decoded(stored)

    def has_live(self, wall_ms: int) -> bool:
        """Whether joiners are answered at all."""
        return any(row.is_live(wall_ms) for row in self.rows.values())

    def create(self, turn: Turn, event: CreateTicket) -> None:
        self._drop_expired(turn)
        if len(self.rows) >= TICKETS_MAX:
            refusal = Refused("overloaded", f"{TICKETS_MAX} tickets are alive here", "revoke some")
            turn.reply_after_commit(event.ref, refusal)
            return
        if not 0 < event.ttl_ms <= TICKET_TTL_MS_MAX or not 0 < event.uses <= TICKET_USES_MAX:
            bounds = f"a ticket lives up to 7 days and has up to {TICKET_USES_MAX} uses"
            turn.reply_after_commit(event.ref, Refused("invalid", bounds))
            return
        row = TicketRow(
            event.ticket_id, sha256(event.secret).digest(), turn.now.wall_ms + event.ttl_ms, event.uses
        )
        self._keep(turn, row)
        addresses = tuple(dict.fromkeys((self._config.address, *event.addresses)))[:TICKET_ADDRESSES_MAX]
        ticket = Ticket(event.ticket_id, event.secret, self._keys.cluster_key, addresses)
        turn.reply_after_commit(event.ref, (ticket, row.expires_ms))

    def revoke(self, turn: Turn, event: RevokeTicket) -> None:
        if self.rows.pop(event.ticket_id, None) is None:
            turn.reply_after_commit(event.ref, Refused("not_found", "no such ticket was made here"))
            return
        turn.stage(RecordRow(TICKET_RECORD, event.ticket_id, None))
        turn.reply_after_commit(event.ref, event.ticket_id)

    def redeem(self, turn: Turn, event: Redeem) -> None:
        request = event.request
        row = self.rows.get(request.ticket_id)
        verdict = judge(row, request, event.nonce, self._keys.credential[0], turn.now.wall_ms)
        if isinstance(verdict, TicketRow):
            turn.reply_after_commit(event.ref, self._grant(turn, verdict, request))
        else:
            turn.reply_after_commit(event.ref, verdict)

    def save_failed(self, stored: dict[bytes, bytes]) -> None:
        """Nothing of what was staged is stored: go on from what is."""
        self.rows = _decoded(stored)

    def _grant(self, turn: Turn, row: TicketRow, request: JoinRequest) -> JoinGranted | Refused:
        try:
            grant = self._keys.issue(NodeId(request.node_id))
        except PathTooLong as error:
            return Refused("not_allowed", str(error))
        self._keep(turn, row)
        return JoinGranted(grant.chain, grant.issuing, (self._config.address,))

    def _keep(self, turn: Turn, row: TicketRow) -> None:
        self.rows[row.ticket_id] = row
        turn.stage(RecordRow(TICKET_RECORD, row.ticket_id, msgspec.msgpack.encode(row)))

    def _drop_expired(self, turn: Turn) -> None:
        expired = [row.ticket_id for row in self.rows.values() if row.expires_ms <= turn.now.wall_ms]
        for ticket_id in expired:
            del self.rows[ticket_id]
            turn.stage(RecordRow(TICKET_RECORD, ticket_id, None))


def _decoded(stored: dict[bytes, bytes]) -> dict[bytes, TicketRow]:
    decode = msgspec.msgpack.Decoder(TicketRow).decode
    return {ticket_id: decode(row) for ticket_id, row in stored.items()}
