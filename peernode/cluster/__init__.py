"""Several real daemons on this machine, started, broken on purpose, and ended: what `peernode cluster` calls.

    cluster = LocalCluster("dev")
    cluster.up(3)
    cluster.cut("n1", "n2")
    cluster.down(purge=True)

Standard library and the client only, so that the command line starts fast and any test can import it.
"""

from .errors import ClusterError
from .launcher import LocalCluster
from .node import NodeView

__all__ = ["ClusterError", "LocalCluster", "NodeView"]
