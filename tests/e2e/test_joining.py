"""Who gets in and who does not, with real daemons: tickets, what they are worth, and what is left behind."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.identity.certificates import from_pem
from protocol.identity.tickets import Ticket, parse

from ..waiting import wait_until
from .daemons import Daemon, Daemons, daemons_in
from .patched import patched

REFUSED_WITHIN_S = 5.0
HINT = "peernode: hint: on any member: peernode invite"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A member that gives tickets."""
    with daemons_in(tmp_path_factory.mktemp("issuer")) as daemons:
        yield daemons("issuer").start()


@pytest.fixture(autouse=True)
def ticketless(issuer: Daemon) -> None:
    """Each test begins without any ticket."""
    with issuer.connect() as client:
        for ticket in client.call("ticket.list"):
            client.call("ticket.revoke", id=ticket["id"])


def test_a_stranger_without_a_ticket_is_told_how_to_get_one(issuer: Daemon, daemons: Daemons) -> None:
    """With no daemon of the same user to ask, `--seed` alone is not enough: exit 7 and the one hint."""
    before = members(issuer)
    stranger = daemons("stranger")
    stranger.launch("--seed", issuer.address)

    assert refusal(stranger) == [
        f"peernode: error: joining through {issuer.address} needs a ticket",
        HINT,
    ]
    assert files(stranger) == {"lock"}
    assert members(issuer) == before


def test_a_local_daemon_gives_no_ticket_for_another_cluster(issuer: Daemon, daemons: Daemons) -> None:
    """A daemon of the same user is asked, but it speaks for its own cluster only."""
    daemons("other").start()
    stranger = daemons("stranger")
    stranger.launch("--seed", issuer.address)

    error, hint = refusal(stranger)
    assert f"other: {issuer.address} is no address of this cluster" in error
    assert hint == HINT


def test_a_used_ticket_is_refused(issuer: Daemon, daemons: Daemons) -> None:
    """A ticket of one use lets one node in; the next is refused, and both ends say why."""
    ticket = invite(issuer)
    first = daemons("first").start("--ticket", ticket)
    before = tickets(issuer)
    second = daemons("second")
    second.launch("--ticket", ticket)

    assert refusal(second) == [f"peernode: error: the ticket was refused: {USED_UP}", HINT]
    assert_nothing_stored(second, issuer, before, USED_UP)
    assert "second" not in members(issuer)
    first.terminate()


USED_UP = "the ticket is used up"


@pytest.mark.parametrize("another_lives", [True, False])
def test_an_expired_ticket_is_refused(issuer: Daemon, daemons: Daemons, another_lives: bool) -> None:
    """Also where no other ticket lives and joiners are not answered at all."""
    if another_lives:
        invite(issuer)
    ticket = invite(issuer, ttl_ms=1)
    wait_until(lambda: "over" in [row["state"] for row in tickets(issuer)])
    before = tickets(issuer)
    late = daemons("late")
    late.launch("--ticket", ticket)

    error, hint = refusal(late)
    assert error.startswith("peernode: error: the ticket was refused: ")
    assert hint == HINT
    assert_nothing_stored(
        late, issuer, before, "the ticket has expired" if another_lives else "no ticket is alive"
    )


@pytest.mark.parametrize("another_lives", [True, False])
def test_a_ticket_of_another_cluster_is_refused(
    issuer: Daemon, daemons: Daemons, another_lives: bool
) -> None:
    """A ticket of cluster Y at a seed of cluster X: the joiner believes nobody but Y."""
    other = daemons("other").start()
    known = members(issuer)
    ticket = invite(other)
    if another_lives:
        invite(issuer)
    before = tickets(issuer)
    lost = daemons("lost")
    lost.launch("--ticket", ticket, "--seed", issuer.address)

    error, hint = refusal(lost)
    assert error.startswith(f"peernode: error: the ticket was refused: {issuer.address}")
    assert hint == HINT
    assert files(lost) == {"lock", "node.key"}
    assert tickets(issuer) == before
    assert (members(issuer), members(other)) == (known, ["other"])


def test_a_mistyped_ticket_never_reaches_anybody(issuer: Daemon, daemons: Daemons) -> None:
    """A checksum catches what a person may do to a ticket; the folder stays empty."""
    ticket = invite(issuer)
    typo = daemons("typo")
    typo.launch("--ticket", ticket[:20] + ("a" if ticket[20] != "a" else "b") + ticket[21:])

    assert refusal(typo) == [
        "peernode: error: this ticket is mistyped or cut off",
        "peernode: hint: paste the whole line that invite printed",
    ]
    assert files(typo) == {"lock"}


def test_a_guessed_secret_is_refused(issuer: Daemon, daemons: Daemons) -> None:
    """A well-formed ticket with another secret proves nothing, and uses nothing up."""
    genuine = parse(invite(issuer))
    assert isinstance(genuine, Ticket)
    before = tickets(issuer)
    guesser = daemons("guesser")
    guesser.launch("--ticket", msgspec.structs.replace(genuine, secret=bytes(16)).text())

    error, hint = refusal(guesser)
    assert "no such ticket here" in error
    assert hint == HINT
    assert_nothing_stored(guesser, issuer, before, "no such ticket here")


def test_a_refused_folder_can_be_used_again(issuer: Daemon, daemons: Daemons) -> None:
    """After a refusal a good ticket lets the same folder in, under the key that it has already."""
    again = daemons("again")
    again.launch("--ticket", invite(issuer, ttl_ms=1))
    refusal(again)
    key = (again.folder / "node.key").read_bytes()

    again.start("--ticket", invite(issuer))
    assert again.ready.endswith("(through issuer)")
    assert (again.folder / "node.key").read_bytes() == key
    again.terminate()


def test_a_joiner_that_was_killed_before_it_stored_its_grant_gets_in(
    issuer: Daemon, daemons: Daemons
) -> None:
    """The same node may use its ticket again: it gets the same certificates, and no further use is counted."""
    ticket = invite(issuer)
    joiner = daemons("joiner")
    joiner.launch("--ticket", ticket, prefix=patched(DIES_WITH_ITS_GRANT))
    assert joiner.wait() == 9
    assert files(joiner) == {"lock", "node.key"}
    assert [row["uses_left"] for row in tickets(issuer)] == [0]

    joiner.start("--ticket", ticket)
    assert joiner.ready.endswith("(through issuer)")
    assert [len(row["used_by"]) for row in tickets(issuer)] == [1]
    joiner.terminate()


DIES_WITH_ITS_GRANT = """
import os
from peernode.daemon.folder import Folder
Folder.enrol = lambda *_: os._exit(9)
"""


def test_members_far_from_the_first_invite_too(daemons: Daemons) -> None:
    """a invited b, b invited c, c invited d: d is a member like any other, and invites e."""
    chain = [daemons("a").start()]
    for name in "bcde":
        line = daemons.command("invite", "--node", chain[-1].name).stdout.split()
        chain.append(daemons(name).start(*line[2:]))
        assert chain[-1].ready.endswith(f"(through {chain[-2].name})")

    depths = [len(from_pem((daemon.folder / "chain.pem").read_bytes())) for daemon in chain]
    assert depths == [2, 3, 4, 5, 6]  # leaf and root, and the inviters between them
    for daemon in chain:
        wait_until(lambda d=daemon: members(d) == ["a", "b", "c", "d", "e"])


def test_an_enrolled_folder_ignores_a_ticket(daemons: Daemons) -> None:
    """Who is a member already starts as one, whatever ticket the command line still holds."""
    a = daemons("a").start()
    ticket = invite(a)
    b = daemons("b").start("--ticket", ticket)
    b.kill()

    b.start("--ticket", ticket)
    assert [len(row["used_by"]) for row in tickets(a)] == [1]


def test_keys_are_for_their_user_alone(daemons: Daemons) -> None:
    """Keys have mode 0600 in a folder of mode 0700, and a key that others may read is not used."""
    a = daemons("a").start()
    assert [mode(a.folder / name) for name in ("node.key", "cluster.key", ".")] == [0o600, 0o600, 0o700]

    a.terminate()
    (a.folder / "node.key").chmod(0o640)
    a.launch()
    assert a.wait() == 1
    mend = f"mend it with: chmod 600 {a.folder / 'node.key'}"
    assert mend in a.log.read_text().splitlines()[-1]


def test_the_founder_is_told_where_the_cluster_key_is(daemons: Daemons) -> None:
    """The first start of a new cluster names its key and what to do with it; later starts do not."""
    a = daemons("a").start()
    told = a.log.read_text().splitlines()[:2]
    assert told == [
        f"peernode: new cluster: its key is {a.folder / 'cluster.key'}",
        "peernode: keep a copy of that file elsewhere: it alone can expel members for good",
    ]
    assert a.ready.endswith("(new)")

    a.terminate()
    read = len(a.log.read_text())
    a.start()
    assert "cluster.key" not in a.log.read_text()[read:]


def test_a_seed_that_is_down_is_tried_again(daemons: Daemons) -> None:
    """An unreachable issuer is no refusal: the joiner waits for it."""
    a = daemons("a").start()
    ticket = invite(a)
    a.kill()
    b = daemons("b")
    b.launch("--ticket", ticket)
    wait_until(lambda: b.log.read_text().count("join.retry") >= 2)

    a.start(listen=a.address)
    assert wait_until(lambda: b.out.read_text()).strip().endswith("(through a)")


def invite(daemon: Daemon, ttl_ms: int = 60_000) -> str:
    with daemon.connect() as client:
        return str(client.call("ticket.create", ttl_ms=ttl_ms, uses=1)["ticket"])


def tickets(daemon: Daemon) -> list[dict[str, Any]]:
    with daemon.connect() as client:
        return list(client.call("ticket.list"))


def members(daemon: Daemon) -> list[str]:
    with daemon.connect() as client:
        return sorted(member["name"] for member in client.members())


def refusal(joiner: Daemon) -> list[str]:
    """What a joiner says for good: exit 7, soon, and never ready."""
    wait_until((joiner.folder / "lock").exists, what="the joiner to begin")
    began = time.monotonic()
    assert joiner.wait() == 7, joiner.log.read_text()
    assert time.monotonic() - began < REFUSED_WITHIN_S
    assert joiner.out.read_text() == ""
    return [line for line in joiner.log.read_text().splitlines() if line.startswith("peernode:")]


def files(daemon: Daemon) -> set[str]:
    return {file.name for file in daemon.folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def assert_nothing_stored(joiner: Daemon, issuer: Daemon, before: list[dict[str, Any]], reason: str) -> None:
    """The joiner has its key and nothing else, the issuer only a line in its log."""
    assert files(joiner) == {"lock", "node.key"}
    assert tickets(issuer) == before
    lines = [line for line in issuer.log.read_text().splitlines() if "reason=refused_ticket" in line]
    assert reason in lines[-1]
