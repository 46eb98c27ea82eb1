"""Which sockets can be read or written now: `select.epoll`, or the same from what else the system has.

`selectors` would do everywhere, but where one request is waited for at a time it makes each a fifth dearer.
"""

from __future__ import annotations

import select
import selectors

READ, WRITE = select.POLLIN, select.POLLOUT


class Selected:
    """As much of `select.epoll` as is needed here, on any system."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        return self._selector.fileno()

    def register(self, fd: int, events: int) -> None:
        self._selector.register(fd, _kinds(events))

    def modify(self, fd: int, events: int) -> None:
        self._selector.modify(fd, _kinds(events))

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        ready = self._selector.select(timeout_s)
        return [(key.fd, _events(kinds)) for key, kinds in ready]

    def close(self) -> None:
        self._selector.close()


Readiness = select.epoll if hasattr(select, "epoll") else Selected


def _kinds(events: int) -> int:
    return (events & READ and selectors.EVENT_READ) | (events & WRITE and selectors.EVENT_WRITE)


def _events(kinds: int) -> int:
    return (kinds & selectors.EVENT_READ and READ) | (kinds & selectors.EVENT_WRITE and WRITE)
