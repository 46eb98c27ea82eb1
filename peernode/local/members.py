"""Members: who is there, and word of every change to those who want to hear it."""

from __future__ import annotations

from collections.abc import Callable

from protocol.effects import MemberChanged
from protocol.errors import Refused
from protocol.types import node_text

from .api import Api
from .notices import Outlet
from .params import NoParams
from .views import members_view

Answer = Callable[[object], None]


def list_all(api: Api, _: NoParams, answer: Answer) -> None:
    answer(members_view(api))


def subscribe(api: Api, _: NoParams, answer: Answer, outlet: Outlet) -> None:
    """The client hears `members.changed` for each member that is new, or in another state than before."""
    subscription = outlet.subscribe()
    if isinstance(subscription, Refused):
        answer(subscription)
        return
    api.member_subscriptions[subscription] = None
    subscription.on_close = lambda: api.member_subscriptions.pop(subscription)
    answer({"subscription": subscription.number})


def follow(api: Api) -> None:
    """From now on tell what changes."""

    def hear(change: MemberChanged) -> None:
        member = api.node.membership.table.members[change.node]
        for subscription in api.member_subscriptions:
            subscription.tell(
                "members.changed",
                name=change.name,
                id=node_text(change.node),
                address=member.record.address,
                state=change.state,
                why=change.why,
                run=member.run,
                at_ms=member.since_ms,
            )

    api.runtime.on_member_changed.append(hear)
