"""Membership drills: one trouble each, in a cluster that is quiet otherwise, and what must come of it in time.

Each takes a swarm of any size that it makes sense for, and raises a Violation: V1 the dead are not called dead in
time, V2 the living are called dead, V3 somebody is not alive again in time, V4 a wrong state otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace

from protocol.inputs import Leave
from protocol.membership.table import State

from .checks import require
from .swarm import Swarm

KILLED_S = 1.0
"""A refused redial, a report, a majority and the refute window: some 0.3 s. The rest is for second attempts."""
CUT_OFF_S = 1.8
"""The silence bound, a heartbeat, the refute window."""
NEVER_MET_S = 4.0
"""The silence bound and the grace for who was never met, a dial, a heartbeat, the refute window."""
HEALED_S = 3.0
START_S = 5.0
HANG_UP_S = 10.0
"""After so long the others cut a silent link."""
LASTING_S = 3.0
"""A link that broke sooner is not always dialled again at once."""
LONG_S = 20.0

Drill = Callable[[Swarm], None]


def settled(swarm: Swarm) -> list[str]:
    """Everybody is up, linked, and was reached at its address. Returns the names."""
    swarm.start()
    until_alive(swarm, START_S)
    swarm.until(lambda: all_reached(swarm), START_S, "V4: not all reached all")
    return sorted(swarm.hosts)


def all_alive(swarm: Swarm) -> bool:
    return all(swarm.views.state(j, x) is State.ALIVE for j in swarm.hosts for x in swarm.hosts if j != x)


def all_reached(swarm: Swarm) -> bool:
    return all(has_reached(swarm, j, x) for j in swarm.hosts for x in swarm.hosts if j != x)


def has_reached(swarm: Swarm, judge: str, other: str) -> bool:
    member = swarm.views.member(judge, other)
    return member is not None and (member.reached is not None or other in swarm.plan.outbound_only)


def all_say(swarm: Swarm, judges: Collection[str], accused: Collection[str], state: State) -> bool:
    return all(swarm.views.state(j, x) is state for j in judges for x in accused if j != x)


def until_said(
    swarm: Swarm, judges: Collection[str], accused: Collection[str], state: State, within_s: float, check: str
) -> None:
    """By all of the judges about all of the accused."""
    swarm.until(
        lambda: all_say(swarm, judges, accused, state),
        within_s,
        f"{check}: {accused} not {state} to {judges}",
    )


def until_dead(swarm: Swarm, judges: Collection[str], accused: Collection[str], within_s: float) -> None:
    until_said(swarm, judges, accused, State.DEAD, within_s, "V1")


def until_alive(swarm: Swarm, within_s: float = HEALED_S) -> None:
    """Everybody to everybody."""
    swarm.until(lambda: all_alive(swarm), within_s, "V3: not all are alive")


def all_suspect(swarm: Swarm, judges: Collection[str], accused: Collection[str]) -> None:
    require(all_say(swarm, judges, accused, State.SUSPECT), f"V4: not suspect\n{swarm.views.text()}")


def nobody_died(swarm: Swarm, but: Collection[str] = ()) -> None:
    wrong = sorted((j, x) for j, x, state in swarm.views.said if state == State.DEAD and x not in but)
    require(not wrong, f"V2: called dead: {wrong}\n{swarm.views.text()}")


def split(swarm: Swarm, one: Collection[str], other: Collection[str]) -> None:
    swarm.block(*((a, b) for a in one for b in other), *((b, a) for a in one for b in other))


def settled_behind_nat(swarm: Swarm) -> list[str]:
    """The same, where the last one is reached by nobody: it reaches the others."""
    swarm.plan = replace(swarm.plan, outbound_only=(sorted(swarm.hosts)[-1],))
    return settled(swarm)


def drop_links(swarm: Swarm, name: str) -> None:
    for pipe in list(swarm.hosts[name].pipes.values()):
        swarm.break_pipe(pipe, "reset by the network")


def votes(swarm: Swarm, judge: str, accused: str) -> int:
    """How many report the accused as unreachable, by what the judge gives as its reason."""
    member = swarm.views.member(judge, accused)
    found = re.match(r"unreachable: ([^(]*)", member.why) if member is not None else None
    return len(found[1].split(",")) if found else 0


def killed(swarm: Swarm) -> None:
    """One is killed: everybody says so, of nobody else; started again it is alive."""
    *rest, victim = settled(swarm)
    host = swarm.hosts[victim]
    swarm.crash(host)
    until_dead(swarm, rest, [victim], KILLED_S)
    swarm.advance(LONG_S)
    nobody_died(swarm, but=[victim])
    require(all_say(swarm, rest, [victim], State.DEAD), "V1: it did not stay dead")
    swarm.boot(host)
    until_alive(swarm)


def killed_just_joined(swarm: Swarm) -> None:
    """One is killed when only the member that it joined through has reached it."""
    first, *rest = swarm.hosts.values()
    victim = rest.pop()
    swarm.boot(first)
    for host in rest:
        swarm.boot(host, first.address)
    others = [first.name, *(host.name for host in rest)]
    until_said(swarm, others, others, State.ALIVE, START_S, "V3")
    split(swarm, [victim.name], others[1:])
    swarm.boot(victim, first.address)
    swarm.until(lambda: has_reached(swarm, first.name, victim.name), START_S, "V4: not reached")
    swarm.crash(victim)
    until_dead(swarm, others, [victim.name], KILLED_S)
    nobody_died(swarm, but=[victim.name])


def killed_one_by_one(swarm: Swarm) -> None:
    """Down to the last one: each death is seen by all who are left, the last by one alone."""
    names = settled(swarm)
    while len(names) > 1:
        victim = names.pop()
        swarm.crash(swarm.hosts[victim])
        until_dead(swarm, names, [victim], KILLED_S)


def killed_together(swarm: Swarm) -> None:
    """All but two (but one, of two) at once: the rest agree, and all come back."""
    names = settled(swarm)
    rest = names[: 1 if len(names) == 2 else 2]
    victims = [name for name in names if name not in rest]
    for victim in victims:
        swarm.crash(swarm.hosts[victim])
    until_dead(swarm, rest, victims, KILLED_S)
    nobody_died(swarm, but=victims)
    for victim in victims:
        swarm.boot(swarm.hosts[victim])
    until_alive(swarm)


def restarted_together(swarm: Swarm) -> None:
    """All at once."""
    settled(swarm)
    for host in swarm.hosts.values():
        swarm.crash(host)
    swarm.advance(swarm.rng.uniform(0.1, 3.0))
    for host in swarm.hosts.values():
        swarm.boot(host)
    until_alive(swarm)
    nobody_died(swarm)


def lost_power(swarm: Swarm) -> None:
    """A machine is gone without a word: dead where there is a majority; of two, suspect for ever."""
    *rest, victim = settled(swarm)
    swarm.crash(swarm.hosts[victim], power=False)
    if len(rest) == 1:
        swarm.advance(LONG_S)
        nobody_died(swarm)
        all_suspect(swarm, rest, [victim])
    else:
        until_dead(swarm, rest, [victim], CUT_OFF_S)
        swarm.advance(LONG_S)
        nobody_died(swarm, but=[victim])
    swarm.boot(swarm.hosts[victim])
    until_alive(swarm)


def lost_power_one_by_one(swarm: Swarm) -> None:
    """Down to two, who agree about all the others; of the other of the two each says suspect."""
    names = settled(swarm)
    while len(names) > 2:
        victim = names.pop()
        swarm.crash(swarm.hosts[victim], power=False)
        until_dead(swarm, names, [victim], CUT_OFF_S)
    last = names.pop()
    swarm.crash(swarm.hosts[last], power=False)
    swarm.advance(LONG_S)
    all_suspect(swarm, names, [last])


def left(swarm: Swarm) -> None:
    """It says goodbye: left, not dead, also where it was not linked."""
    *rest, leaver = settled(swarm)
    if len(rest) > 1:
        split(swarm, [leaver], rest[:1])
        swarm.advance(5.0)
    swarm.handle(swarm.hosts[leaver], Leave(2.0, 2.0))
    until_said(swarm, rest, [leaver], State.LEFT, KILLED_S, "V4")
    swarm.advance(LONG_S)
    require(all_say(swarm, rest, [leaver], State.LEFT), f"V4: it did not stay left\n{swarm.views.text()}")
    nobody_died(swarm)


def pair_cut(swarm: Swarm) -> None:
    """Two do not reach each other: nobody dies; each is suspect to the other, alive to everybody else."""
    a, b, *others = settled(swarm)
    split(swarm, [a], [b])
    until_said(swarm, [a, b], [a, b], State.SUSPECT, CUT_OFF_S, "V4")
    for _ in range(40):
        swarm.advance(LONG_S / 40)
        all_suspect(swarm, [a, b], [a, b])
        require(all_say(swarm, others, [a, b, *others], State.ALIVE), f"V4: not alive\n{swarm.views.text()}")
    member = swarm.views.member(a, b)
    assert member is not None
    heard_by = f"; heard by {', '.join(others)}" if others else ""
    require(
        member.why.startswith(f"unreachable: {a} (not reached at {b}:1")
        and member.why.endswith(f"){heard_by}"),
        f"V4: the reason is: {member.why}",
    )
    nobody_died(swarm)
    swarm.unblock(*swarm.blocked)
    until_alive(swarm)


def one_way_cut(swarm: Swarm) -> None:
    """From one to another nothing gets through, the other way everything: nobody dies."""
    a, b, *_ = settled(swarm)
    swarm.block((a, b))
    swarm.advance(LONG_S)
    nobody_died(swarm)
    swarm.unblock((a, b))
    until_alive(swarm)


def heard_by_one(swarm: Swarm) -> None:
    """Cut from all but one: that one's word keeps it alive, until it is dead to that one, too."""
    victim, witness, *others = settled(swarm)
    split(swarm, [victim], others)
    swarm.advance(LONG_S)
    nobody_died(swarm)
    require(all_say(swarm, [witness], [victim], State.ALIVE), f"V4: not alive\n{swarm.views.text()}")
    swarm.crash(swarm.hosts[victim])
    until_dead(swarm, [witness, *others], [victim], KILLED_S)


def partitioned(swarm: Swarm) -> None:
    """The larger side calls the smaller one dead, the smaller one nobody; healed, all are alive at once."""
    names = settled(swarm)
    for size in range(1, (len(names) + 1) // 2):
        swarm.views.said.clear()
        few, many = names[:size], names[size:]
        split(swarm, few, many)
        until_dead(swarm, many, few, CUT_OFF_S)
        swarm.advance(swarm.rng.uniform(0, LONG_S))
        nobody_died(swarm, but=few)
        all_suspect(swarm, few, many)
        swarm.unblock(*swarm.blocked)
        until_alive(swarm)


def split_in_half(swarm: Swarm) -> None:
    """Of an even number each half may call the other dead, of two neither; healed, all are alive at once."""
    names = settled(swarm)
    one, other = names[: len(names) // 2], names[len(names) // 2 :]
    split(swarm, one, other)
    swarm.advance(LONG_S)
    if len(names) == 2:
        nobody_died(swarm)
        all_suspect(swarm, names, names)
    swarm.unblock(*swarm.blocked)
    until_alive(swarm)


def paused(swarm: Swarm) -> None:
    """A stopped process is suspect and no more, for a short and a long time; itself it blames nobody."""
    *rest, victim = settled(swarm)
    for pause_s in (0.3, 0.9, 1.5, 5.0, 40.0):
        swarm.pause(swarm.hosts[victim])
        swarm.views.said.clear()
        swarm.advance(pause_s)
        nobody_died(swarm)
        if pause_s >= CUT_OFF_S:
            all_suspect(swarm, rest, [victim])
        swarm.resume(swarm.hosts[victim])
        until_alive(swarm, KILLED_S)
        blamed = sorted(x for j, x, state in swarm.views.said if j == victim and state != State.ALIVE)
        require(not blamed or pause_s > HANG_UP_S, f"V4: it blames {blamed}")
    nobody_died(swarm)


def paused_and_killed(swarm: Swarm) -> None:
    """While one is stopped another is killed: all agree when the first goes on."""
    *rest, sleeper, victim = settled(swarm)
    swarm.pause(swarm.hosts[sleeper])
    swarm.advance(3.0)
    swarm.crash(swarm.hosts[victim])
    swarm.advance(3.0)
    swarm.resume(swarm.hosts[sleeper])
    until_dead(swarm, [*rest, sleeper], [victim], KILLED_S)
    nobody_died(swarm, but=[victim])


def refuses_where_never_reached(swarm: Swarm) -> None:
    """Behind a NAT: its address refuses, it dials. Lost links do not kill it, a kill does."""
    *rest, victim = settled_behind_nat(swarm)
    for stopped_s in (0.0, 0.4, 0.8, 0.9) * 2:
        drop_links(swarm, victim)
        swarm.pause(swarm.hosts[victim])
        swarm.advance(stopped_s)
        swarm.resume(swarm.hosts[victim])
        until_alive(swarm, KILLED_S)
        swarm.advance(LASTING_S)
    nobody_died(swarm)
    swarm.crash(swarm.hosts[victim])
    if len(rest) == 1:
        swarm.advance(LONG_S)
        all_suspect(swarm, rest, [victim])
    else:
        until_dead(swarm, rest, [victim], CUT_OFF_S)


def refuted(swarm: Swarm) -> None:
    """Reported by a majority, and back within the refute window: not dead."""
    *rest, victim = settled_behind_nat(swarm)
    drop_links(swarm, victim)
    swarm.pause(swarm.hosts[victim])
    swarm.until(
        lambda: any(votes(swarm, j, victim) > len(rest) / 2 for j in rest), CUT_OFF_S, "V1: not reported"
    )
    swarm.resume(swarm.hosts[victim])
    until_alive(swarm, KILLED_S)
    swarm.advance(KILLED_S)
    nobody_died(swarm)


def reported_before(swarm: Swarm) -> None:
    """What was said and withdrawn does not count when the one judge is alone with its own doubts."""
    judge, accused, *others = settled(swarm)
    for other in others:
        split(swarm, [accused], [other])
        swarm.advance(3.0)
        swarm.unblock(*swarm.blocked)
        until_alive(swarm)
    split(swarm, [judge], [accused, *others])
    swarm.advance(LONG_S)
    nobody_died(swarm, but=[judge])


def newcomer_hears_of_the_dead(swarm: Swarm) -> None:
    """Who joins when most are dead agrees with the survivor."""
    first, *rest = swarm.hosts.values()
    newcomer = rest.pop()
    swarm.boot(first)
    for host in rest:
        swarm.boot(host, first.address)
    victims = [host.name for host in rest]
    everybody = [first.name, *victims]
    until_said(swarm, everybody, everybody, State.ALIVE, START_S, "V3")
    swarm.advance(1.0)
    for host in rest:
        swarm.crash(host)
    until_dead(swarm, [first.name], victims, KILLED_S)
    swarm.boot(newcomer, first.address)
    until_dead(swarm, [first.name, newcomer.name], victims, NEVER_MET_S)
    nobody_died(swarm, but=victims)


DRILLS: dict[Drill, tuple[int, ...]] = {
    killed: (2, 3, 4, 5),
    killed_just_joined: (2, 3, 4, 5),
    killed_one_by_one: (2, 3, 4, 5),
    killed_together: (2, 3, 4, 5),
    restarted_together: (2, 3, 4, 5),
    lost_power: (2, 3, 4, 5),
    lost_power_one_by_one: (3, 4, 5),
    left: (2, 3, 4, 5),
    pair_cut: (2, 3, 4, 5),
    one_way_cut: (2, 3, 4, 5),
    heard_by_one: (3, 4, 5),
    partitioned: (3, 4, 5),
    split_in_half: (2, 4),
    paused: (2, 3, 4, 5),
    paused_and_killed: (3, 4, 5),
    refuses_where_never_reached: (2, 3, 4, 5),
    refuted: (3, 4, 5),
    reported_before: (4, 5),
    newcomer_hears_of_the_dead: (3, 4, 5),
}
"""Every drill, and the sizes that it makes sense for."""
