"""One node of a PySyncObj cluster, for comparison: `python -m tests.bench.syncobj FOLDER ME OTHER OTHER`.

Its defaults, with a journal on disk. A line `COUNT` on stdin makes it write so many times, each write waiting for the
majority, and answer with the seconds that took.
"""

from __future__ import annotations

import sys
import time

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.batteries import ReplDict

from ..waiting import wait_until

PATIENCE_S = 30.0


def main() -> None:
    folder, me, *others = sys.argv[1:]
    shared = ReplDict()
    conf = SyncObjConf(journalFile=f"{folder}/journal", flushJournal=True)
    node = SyncObj(me, others, conf=conf, consumers=[shared])
    wait_until(node.isReady, PATIENCE_S, "a leader")
    print("ready", flush=True)
    number = 0
    for line in sys.stdin:
        began_s = time.perf_counter()
        for _ in range(int(line)):
            number += 1
            shared.set(f"{me}/{number}", "x" * 100, sync=True, timeout=PATIENCE_S)
        print(time.perf_counter() - began_s, flush=True)


if __name__ == "__main__":
    main()
