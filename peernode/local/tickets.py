"""Ticket methods: making, listing and revoking invitations."""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import Refused
from protocol.identity.tickets import Ticket
from protocol.inputs import CreateTicket, RevokeTicket

from .api import Api
from .params import NoParams, Params

Answer = Callable[[object], None]

TICKET_TTL_MS = 15 * 60 * 1000


class TicketCreate(Params, frozen=True):
    """`seeds`: make it only if one of these is an address of this cluster."""

    ttl_ms: int = TICKET_TTL_MS
    uses: int = 1
    seeds: tuple[str, ...] = ()


class TicketRevoke(Params, frozen=True):
    id: str


def create_ticket(api: Api, params: TicketCreate, answer: Answer) -> None:
    if params.seeds and not any(api.is_own_address(seed) for seed in params.seeds):
        answer(
            Refused(
                "not_allowed",
                f"{', '.join(params.seeds)} is no address of this cluster",
                "on any member of the cluster to join: peernode invite",
            )
        )
        return
    entropy = api.runtime.world.entropy

    def reply(outcome: object) -> None:
        match outcome:
            case (Ticket() as ticket, int(expires_ms)):
                answer(
                    {
                        "id": ticket.ticket_id.hex(),
                        "ticket": ticket.text(),
                        "expires_ms": expires_ms,
                        "addresses": list(ticket.addresses),
                    }
                )
            case _:
                answer(outcome)

    addresses = tuple(api.loopback_addresses())
    api.dispatch(CreateTicket(reply, entropy(8), entropy(16), params.ttl_ms, params.uses, addresses))


def list_tickets(api: Api, _: NoParams, answer: Answer) -> None:
    wall_ms = api.now().wall_ms
    answer(
        [
            {
                "id": row.ticket_id.hex(),
                "expires_ms": row.expires_ms,
                "uses_left": row.uses_left,
                "used_by": [node.hex() for node in row.used_by],
                "state": "live" if wall_ms < row.expires_ms and row.uses_left else "over",
            }
            for row in api.node.invitations.rows.values()
        ]
    )


def revoke_ticket(api: Api, params: TicketRevoke, answer: Answer) -> None:
    def reply(outcome: object) -> None:
        answer({"id": params.id} if isinstance(outcome, bytes) else outcome)

    try:
        ticket_id = bytes.fromhex(params.id)
    except ValueError:
        answer(Refused("invalid", f"{params.id!r} is no ticket id", "peernode ticket list shows them"))
        return
    api.dispatch(RevokeTicket(reply, ticket_id))
