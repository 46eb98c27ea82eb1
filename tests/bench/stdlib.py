"""Real input: the interpreter's standard library through a cluster of three, and to a fourth node that joins later.

    .venv/bin/python -m tests.bench.stdlib

Imports it on one node, waits until the others hold the same, exports it from another node and compares every byte,
then lets a fourth node join and compares digests. Prints how long each took; exits with 1 when a byte differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peernode.client.bulk import VALUE_BYTES_MAX
from peernode.cluster import LocalCluster

from ..waiting import wait_until

STDLIB = Path(sysconfig.get_path("stdlib"))
LEFT_OUT = ("site-packages", "__pycache__")
PATIENCE_S = 120.0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="peernode-") as home:
        os.environ["PEERNODE_HOME"] = home
        cluster = LocalCluster()
        try:
            return run(cluster, Path(home))
        finally:
            cluster.down(purge=True)


def run(cluster: LocalCluster, home: Path) -> int:
    with timed("three nodes start"):
        cluster.up(3)
    with timed("import on n1, durable there"):
        exclude = [option for name in LEFT_OUT for option in ("--exclude", name)]
        imported = command("kv", "import", str(STDLIB), *exclude, "--node", "n1")
    with timed("until n2 and n3 hold the same"):
        await_equal(cluster, "n2", "n3")
    with timed("export from n3, as files"):
        exported = command("kv", "export", str(home / "files"), "--node", "n3")
    with timed("export from n2, as lines"):
        command("kv", "export", str(home / "lines.jsonl"), "--node", "n2")
    with timed("a fourth node joins"):
        cluster.up(4)
    with timed("until n4 holds the same"):
        await_equal(cluster, "n4")
    print(f"{imported['imported']} files, {imported['bytes'] / (1 << 20):.1f} MiB", end=" ")
    print(f"in {imported['took_s']:.2f} s; {len(imported['skipped'])} skipped")
    print(f"{exported['exported']} files exported in {exported['took_s']:.2f} s")
    for name in ("n1", "n2", "n3", "n4"):
        print(f"{name}: {resident_mib(cluster, name)} MiB resident at most")
    return compare(home / "files", {skipped["path"] for skipped in imported["skipped"]})


def command(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "peernode", *arguments, "--json", "--timeout", "30s"],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def await_equal(cluster: LocalCluster, *names: str) -> None:
    wanted = status(cluster, "n1")["digest"]
    for name in names:
        wait_until(lambda name=name: status(cluster, name)["digest"] == wanted, PATIENCE_S, name)


def status(cluster: LocalCluster, name: str) -> dict:
    with cluster.connect(name, timeout_s=30) as client:
        return client.status()


def compare(exported: Path, skipped: set[str]) -> int:
    """Every file of the one tree is in the other, byte by byte, and no other is there."""
    there = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    wrong = []
    for path in source_files():
        name = str(path.relative_to(STDLIB))
        if name in skipped:
            if path.stat().st_size <= VALUE_BYTES_MAX or name in there:
                wrong.append(name)
        elif name not in there or path.read_bytes() != (exported / name).read_bytes():
            wrong.append(name)
        there.discard(name)
    wrong += sorted(there)
    print("every byte is the same" if not wrong else f"NOT THE SAME: {', '.join(wrong)}")
    return 1 if wrong else 0


def source_files() -> Iterator[Path]:
    for path in STDLIB.rglob("*"):
        if path.is_file() and not set(path.relative_to(STDLIB).parts) & set(LEFT_OUT):
            yield path


def resident_mib(cluster: LocalCluster, name: str) -> int:
    pid = next(node["pid"] for node in cluster.nodes() if node["name"] == name)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


@contextmanager
def timed(what: str) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    print(f"{what:<32} {time.monotonic() - began_s:6.2f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
