"""kv import, kv export: many keys at once, between the store and a folder or a file of JSON lines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

import click

from ..client import Client, Item, NewItem, PeernodeError
from ..client.bulk import beyond, put_batches
from .common import Context, client_command
from .folder import FolderWriter, Skipped, paths_below, read_folder, reason_of
from .keys import KEYSPACE, encoded
from .lines import line_of, read_lines, whole_file
from .output import Output, as_json, printable

LISTED_MAX = 10_000
"""Skipped things that are named; more are only counted."""

Step = Callable[[int], None]

STRICT = click.option("--strict", is_flag=True, help="Exit 1 also when something was skipped.")


class Piece(NamedTuple):
    """What one file or line came to, under a name for people, and how far it brings the bar."""

    name: bytes
    step: int
    found: NewItem | Skipped


class Report:
    """What came of it, for people and for programs; `done` is the word for that."""

    def __init__(self, done: str, *, dry_run: bool = False) -> None:
        self._done, self._dry_run, self._began_s = done, dry_run, time.monotonic()
        self.count = self.bytes = self._failures = self._skips = 0
        self._listed: list[Skipped] = []

    def add(self, items: Iterable[NewItem] | Iterable[Item]) -> None:
        for item in items:
            self.count += 1
            self.bytes += len(item.value)

    def skip(self, skipped: Skipped) -> None:
        self._skips += 1
        self._failures += skipped.is_failure
        if len(self._listed) < LISTED_MAX:
            self._listed.append(skipped)

    @contextmanager
    def told(self, output: Output) -> Iterator[None]:
        """Name in the end what was skipped, also when it ends early."""
        try:
            yield
        finally:
            if not output.is_json:  # there they are in the document
                self._tell_skipped(output)

    def _tell_skipped(self, output: Output) -> None:
        for path, reason, is_failure in self._listed:
            output.say(f"{'failed' if is_failure else 'skipped'} {printable(path)}: {reason}")
        if (more := self._skips - len(self._listed)) > 0:
            output.say(f"and {more} more")

    def tell(self, output: Output, stream: TextIO) -> None:
        """The summary: on `stream` for programs, for people it is talk."""
        took_s = time.monotonic() - self._began_s
        if output.is_json:
            skipped = [{**as_json("path", path), "reason": reason} for path, reason, _ in self._listed]
            document = {
                self._done: self.count,
                "bytes": self.bytes,
                "took_s": round(took_s, 3),
                "skipped": skipped,
                "skipped_total": self._skips,
                "failed": self._failures,
                "dry_run": self._dry_run,
            }
            output.document(document, stream)
            return
        words = "dry run: " if self._dry_run else ""
        words += f"{self._done} {self.count} keys, {size_text(self.bytes)}, in {took_s:.1f} s"
        words += f"; skipped {self._skips}" if self._skips else ""
        words += f", {self._failures} of them failures" if self._failures else ""
        output.say(words)

    def exit_code(self, strict: bool) -> int:
        return 1 if self._failures or (strict and self._skips) else 0


# Import


@client_command("import")
@click.argument("source", metavar="DIR|FILE.jsonl|-")
@click.option("--prefix", default="", metavar="TEXT", help="Put in front of every key.")
@click.option(
    "--exclude", "globs", multiple=True, metavar="GLOB", help="Leave out files and folders of this name."
)
@click.option("--acks", type=click.IntRange(0), metavar="N", help="Wait until N other members have it, too.")
@click.option("--dry-run", is_flag=True, help="Write nothing; tell what would be.")
@STRICT
@KEYSPACE
def import_keys(
    context: Context,
    source: str,
    prefix: str,
    globs: tuple[str, ...],
    acks: int | None,
    dry_run: bool,
    strict: bool,
    keyspace: str | None,
) -> int:
    """Write all files of a folder, or all lines of a file, as keys.

    DIR: each file below it is a key, its path with / the name, its bytes the value. What no key can hold is named and
    skipped: files of more than 256 KiB, paths of more than 1024 bytes, sockets, devices, links that lead out of DIR
    or to a folder. A link to a file in DIR is written like that file.

    FILE.jsonl, or - for standard input: an object a line, {"key": K, "value": V, "expires_in_ms": T}; for bytes that
    are no UTF-8 key_b64 and value_b64, in base64; expires_in_ms may be left out. This is what export writes.

    A key is written whole or not at all, and keys that are there already are overwritten. All together is not atomic:
    when it stops half-way (exit 4, 5), do it again. When only the daemon restarts meanwhile, it goes on by itself if
    --timeout lets it wait so long. Exit 0: everything went in but for what was skipped; 1: a file could not be read
    or a line was bad, the rest went in.

    \b
    peernode kv import ./config --prefix config/ --exclude '*.bak'
    peernode kv import backup.jsonl --acks 1
    peernode kv import ./site --dry-run --json
    """
    report = Report("imported", dry_run=dry_run)
    with (
        open_source(source, [encoded(glob) for glob in globs]) as (pieces, length),
        nullcontext() if dry_run else context.connect() as node,
        report.told(context.output),
        progress(context.output, "importing", length) as step,
    ):
        items = importable(pieces, encoded(prefix), report, step)
        if node is None:
            report.add(items)
        else:
            write_all(node, items, report, keyspace, acks)
    report.tell(context.output, sys.stdout)
    return report.exit_code(strict)


def write_all(
    node: Client, items: Iterable[NewItem], report: Report, keyspace: str | None, acks: int | None
) -> None:
    """Raises PeernodeError, saying how much had been written."""
    try:
        for written, _ in put_batches(node, items, keyspace=keyspace, acks=acks):
            report.add(written)
    except PeernodeError as error:
        if report.count:
            error.message = f"after {report.count} keys: {error.message}"
        raise


def importable(pieces: Iterable[Piece], prefix: bytes, report: Report, step: Step) -> Iterator[NewItem]:
    """Those that a daemon takes."""
    for name, size, found in pieces:
        step(size)
        if isinstance(found, NewItem):
            item = found._replace(key=prefix + found.key)
            refusal = beyond(item)
            if refusal is None:
                yield item
                continue
            found = Skipped(name, refusal.message, is_failure=refusal.code == "invalid")
        report.skip(found)


@contextmanager
def open_source(
    source: str, exclude: Sequence[bytes]
) -> Iterator[tuple[Iterator[Piece], Callable[[], int | None]]]:
    """What is to be imported, and how many steps that will be, counted when it is wanted."""
    path = Path(source)
    with told_as_ours(source):
        if source == "-":
            yield from_lines(source, sys.stdin.buffer), lambda: None
        elif path.is_dir():
            yield from_folder(path, exclude), lambda: sum(1 for _ in paths_below(os.fsencode(path), exclude))
        elif path.suffix != ".jsonl" and path.exists():
            hint = f"for one file: peernode set KEY - < {source}"
            raise click.UsageError(f"{source} is neither a folder nor a .jsonl file; {hint}")
        else:
            with path.open("rb") as file:
                yield from_lines(source, file), lambda: path.stat().st_size


def from_folder(path: Path, exclude: Sequence[bytes]) -> Iterator[Piece]:
    for found in read_folder(path, exclude):
        item = found if isinstance(found, Skipped) else NewItem(found.path, found.content)
        yield Piece(found.path, 1, item)


def from_lines(name: str, file: BinaryIO) -> Iterator[Piece]:
    for number, size, item, reason in read_lines(file):
        place = f"{name}:{number}".encode(errors="surrogateescape")
        yield Piece(place, size, Skipped(place, reason, is_failure=True) if item is None else item)


# Export


@client_command("export")
@click.argument("target", metavar="DIR|FILE.jsonl|-")
@click.option("--prefix", default="", metavar="TEXT", help="Only keys that begin with it.")
@click.option("--force", is_flag=True, help="Write into a DIR that is not empty, and replace files there.")
@STRICT
@KEYSPACE
def export_keys(
    context: Context, target: str, prefix: str, force: bool, strict: bool, keyspace: str | None
) -> int:
    """Write all keys as files into a folder, or as lines into a file.

    DIR: the reverse of import: each key is a file, with --prefix named by what follows the prefix. Nothing is ever
    written outside DIR. Keys that are no safe relative path, and those that would be a file and a folder at once,
    are named and skipped; a .jsonl file takes them all. DIR must be new or empty, since keys may be called like
    files that you have; with --force those are replaced, and all others stay.

    FILE.jsonl, or - for standard output: one key a line, whole, with the time that it has still to live. FILE appears
    when it is complete and takes the place of an older one.

    It reads page by page: a key that is written meanwhile comes as it was or as it is, and keys that were written
    together need not come together. For one moment of the whole store stop the writers.

    Exit 0: everything came but for what was skipped; 1: something could not be written.

    \b
    peernode kv export ./config --prefix config/
    peernode kv export backup.jsonl
    peernode kv export - | jq -r .key
    """
    report = Report("exported")
    output = context.output
    with told_as_ours(target), context.connect() as node:
        items = node.scan(encoded(prefix), keyspace=keyspace)
        length = partial(count_of, node, prefix, keyspace)
        with report.told(output), progress(output, "exporting", length) as step:
            if target == "-":
                write_lines(sys.stdout.buffer, items, report, step)
            elif is_lines(target):
                with whole_file(Path(target)) as file:
                    write_lines(file, items, report, step)
            else:
                write_files(Path(target), items, encoded(prefix), report, step, force=force)
    report.tell(output, sys.stderr if target == "-" else sys.stdout)
    return report.exit_code(strict)


def is_lines(target: str) -> bool:
    path = Path(target)
    return path.suffix == ".jsonl" and not path.is_dir()


def write_lines(file: BinaryIO, items: Iterable[Item], report: Report, step: Step) -> None:
    for item in items:
        file.write(line_of(item))
        report.add([item])
        step(1)
    file.flush()


def write_files(
    root: Path, items: Iterable[Item], prefix: bytes, report: Report, step: Step, *, force: bool
) -> None:
    check_folder(root, force=force)
    with FolderWriter(root, replace=force) as writer:
        for item in items:
            for skipped in writer.write(item.key.removeprefix(prefix), item.value):
                report.skip(skipped._replace(path=prefix + skipped.path))
            report.count, report.bytes = writer.files, writer.bytes
            step(1)


def check_folder(root: Path, *, force: bool) -> None:
    """Raises PeernodeError when it is no place to write into."""
    if not root.exists():
        return
    if not root.is_dir():
        raise PeernodeError(
            f"{root} is there and is no folder", code="invalid", hint="FILE.jsonl, or a folder"
        )
    if not force and any(root.iterdir()):
        hint = "a new folder, or --force to replace what has the same name"
        raise PeernodeError(f"{root} is not empty", code="invalid", hint=hint)


def count_of(node: Client, prefix: str, keyspace: str | None) -> int | None:
    """How many keys there are, where that is known."""
    return None if prefix or keyspace else int(node.status()["keys"])


# Telling


@contextmanager
def told_as_ours(path: str) -> Iterator[None]:
    """What the system says of a file becomes an error like all others."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PeernodeError(f"{error.filename or path}: {reason_of(error)}") from None


@contextmanager
def progress(output: Output, label: str, length: Callable[[], int | None]) -> Iterator[Step]:
    """A bar on a terminal, else nothing; without a length it only shows that something happens."""
    if output.quiet or not sys.stderr.isatty():
        yield lambda steps: None
        return
    nothing: Iterator[None] = iter(())
    with click.progressbar(nothing, length=length(), label=label, file=sys.stderr) as bar:
        yield bar.update


def size_text(size: int) -> str:
    """Bytes for people."""
    for unit, digits in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >> digits:
            return f"{size / (1 << digits):.1f} {unit}"
    return f"{size} bytes"
