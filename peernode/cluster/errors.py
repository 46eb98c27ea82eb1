"""What can go wrong with a local cluster; the exit codes are the client's."""

from __future__ import annotations

from ..client import PeernodeError


class ClusterError(PeernodeError):
    """Without a `code` of its own a plain failure: exit 1."""

    code = "failed"
