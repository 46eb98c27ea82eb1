"""Style as a test: what reviewers should not have to look for.

Each rule is a test; what breaks it is shown as `file:line: what`. A rule that hinders is changed here, in the open.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from peernode.cli.root import MODULES, root

ROOT = Path(__file__).parents[1]
LINES_MAX = 500
LONGER: dict[str, str] = {}
"""Files that may be longer, and why."""

IMPURE = re.compile(
    r"(asyncio|concurrent|fcntl|io|logging|multiprocessing|os|pathlib|queue|random|sched|secrets|select|selectors|"
    r"shutil|signal|socket|sqlite3|ssl|subprocess|sys|tempfile|threading|time|trio|uuid|warnings)(\..*)?"
)
"""Modules through which clock, chance, tasks, I/O or a log would enter `protocol/`."""

IMPURE_CALLS = re.compile(
    r"(time|random|secrets|uuid)\.\w+|.*\b(generate|now|today|utcnow|urandom)|open|print|input"
)
"""Calls that do the same; `datetime.now()`, or a key made by `generate()`."""

FORBIDDEN = tuple(
    "".join(parts) for parts in (("/wo", "rk/"), ("/ro", "ot/"), ("py", "pi.org"), ("npm", "js.org"))
)
"""Paths of somebody's machine and hosts of package registries have no place in the project."""

SCRATCH = {".git", ".venv", "__pycache__", "node_modules"}


# What there is to check


@cache
def files() -> tuple[Path, ...]:
    """All files of the project: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # not a clone but an archive
        found = [path for path in ROOT.rglob("*") if not SCRATCH & set(path.parts)]
    return tuple(sorted(path for path in found if path.is_file()))


@cache
def text_of(path: Path) -> str:
    """Its text; nothing for a file of bytes."""
    content = path.read_bytes()
    return "" if b"\0" in content else content.decode(errors="replace")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def python_files(*folders: str) -> list[Path]:
    """Python files below these folders; without any, all of them."""
    below = [ROOT / folder for folder in folders or ("",)]
    return [f for f in files() if f.suffix == ".py" and any(folder in f.parents for folder in below)]


def lines_with(pattern: str, paths: list[Path]) -> Iterator[str]:
    """`file:line: text` for every line in which the pattern is found."""
    for path in paths:
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if re.search(pattern, line):
                yield at(path, number, line.strip())


def nodes_that(is_bad: Callable[[ast.AST], bool], paths: list[Path]) -> Iterator[str]:
    """`file:line: code` for every piece of syntax of which `is_bad` holds."""
    for path in paths:
        for node in ast.walk(tree_of(path)):
            if is_bad(node):
                assert isinstance(node, ast.expr | ast.stmt | ast.excepthandler), node
                yield at(path, node.lineno, ast.unparse(node).splitlines()[0])


def at(path: Path, line: int, what: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def nothing(found: Iterator[str]) -> None:
    """Fail with everything that was found."""
    broken = list(found)
    assert not broken, "\n" + "\n".join(broken)


# protocol/ is pure


def test_protocol_has_no_tasks() -> None:
    """No `async def`, `await`, `async with` or `async for`: deciding never waits."""
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    nothing(nodes_that(lambda node: isinstance(node, waits), python_files("protocol")))


def test_protocol_imports_no_clock_chance_io_or_log() -> None:
    """What is imported for types only, below `if TYPE_CHECKING`, does not count."""

    def imports() -> Iterator[str]:
        for path in python_files("protocol"):
            for name, line in imported(path, with_types=False):
                if IMPURE.fullmatch(name):
                    yield at(path, line, name)

    nothing(imports())


def test_protocol_calls_no_clock_chance_or_console() -> None:
    """Time and chance are arguments; a value that was handed in may be called, its module may not."""

    def is_bad(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and bool(IMPURE_CALLS.fullmatch(ast.unparse(node.func)))

    nothing(nodes_that(is_bad, python_files("protocol")))


# The code


def test_every_module_says_what_it_is_for() -> None:
    """The first statement of each Python file is a docstring."""
    nothing(at(path, 1, "no docstring") for path in python_files() if not ast.get_docstring(tree_of(path)))


def test_every_test_says_what_it_promises() -> None:
    """Each test function has a docstring."""

    def is_bad(node: ast.AST) -> bool:
        is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        return is_test and not ast.get_docstring(node)

    nothing(nodes_that(is_bad, python_files("tests")))


def test_no_file_is_too_long() -> None:
    """A file is read in one sitting; exceptions are named, with their reason."""

    def long() -> Iterator[str]:
        for path in python_files():
            count = len(text_of(path).splitlines())
            if count > LINES_MAX and str(path.relative_to(ROOT)) not in LONGER:
                yield at(path, count, f"{count} lines; the limit is {LINES_MAX}")

    nothing(long())


def test_nothing_is_left_for_later() -> None:
    """What is not done is an issue, not a comment."""
    marks = r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b"
    nothing(lines_with(marks, [path for path in files() if path.suffix in (".py", ".md", ".toml", "")]))


def test_no_error_is_swallowed() -> None:
    """No bare `except`, and no `except Exception` (or BaseException) whose body does nothing."""

    def is_bad(node: ast.AST) -> bool:
        if not isinstance(node, ast.ExceptHandler):
            return False
        is_broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
        does_nothing = all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
        return node.type is None or (is_broad and does_nothing)

    nothing(nodes_that(is_bad, python_files()))


def test_tests_do_not_sleep() -> None:
    """A test waits for a condition with a deadline: `tests/waiting.py` alone may sleep between two looks."""

    def is_bad(node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom):
            return node.module == "time" and any(name.name == "sleep" for name in node.names)
        return isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"

    nothing(nodes_that(is_bad, [path for path in python_files("tests") if path.name != "waiting.py"]))


LIMITS = (ROOT / "protocol" / "limits.py", ROOT / "peernode" / "limits.py")


def bounds() -> Iterator[tuple[Path, ast.Assign, str, ast.stmt | None]]:
    """Each bound with its name and the statement below it."""
    for path in LIMITS:
        body = tree_of(path).body
        for statement, below in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.Assign):
                yield path, statement, ast.unparse(statement.targets[0]), below


def test_every_bound_has_a_reason() -> None:
    """A docstring stands below each bound in the two limits files."""

    def has_reason(below: ast.stmt | None) -> bool:
        return (
            isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        )

    nothing(at(path, bound.lineno, name) for path, bound, name, below in bounds() if not has_reason(below))


def test_every_bound_is_enforced() -> None:
    """A bound that no code reads bounds nothing."""
    code = "\n".join(text_of(path) for path in python_files("protocol", "peernode") if path not in LIMITS)
    nothing(
        at(path, bound.lineno, f"{name} is not used")
        for path, bound, name, _ in bounds()
        if not re.search(rf"\b{name}\b", code)
    )


# Modules


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, with_types: bool = True) -> Iterator[tuple[str, int]]:
    """Names of modules, or of things in them, that a file imports anywhere, and the line."""
    package = path.parent.relative_to(ROOT).parts
    skipped = set[ast.AST]()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not with_types:
            skipped.update(below for statement in node.body for below in ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            yield source, node.lineno
            yield from ((f"{source}.{name.name}", node.lineno) for name in node.names)


def test_no_module_is_dead() -> None:
    """Each module is reached by imports from the command line or the client library."""
    paths = {module_name(path): path for path in python_files("protocol", "peernode")}
    commands = {
        f"peernode.cli.{module}" for module in MODULES.values()
    }  # loaded by name when they are called
    waiting = ["peernode.__main__", "peernode.client", *commands]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in paths and name not in reached:
            reached.add(name)
            parts = name.split(".")
            waiting += [".".join(parts[:length]) for length in range(1, len(parts))]
            waiting += [found for found, _ in imported(paths[name])]

    nothing(at(paths[name], 1, "nothing imports it") for name in sorted(paths.keys() - reached))


# Documents


def documents() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def slug(heading: str) -> str:
    """The anchor of a heading, as the usual web views make it."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()).replace(" ", "-")


@cache
def anchors_of(path: Path) -> frozenset[str]:
    prose = re.sub(r"^```.*?^```", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    return frozenset(slug(heading) for heading in re.findall(r"^#+ (.*)$", prose, re.MULTILINE))


def test_every_link_leads_somewhere() -> None:
    """Relative links in all documents name a file that exists, and a heading in it."""

    def broken() -> Iterator[str]:
        for path in documents():
            for number, line in enumerate(text_of(path).splitlines(), 1):
                for target in re.findall(r"\]\(([^)\s]+)\)", line):
                    if "://" in target:
                        continue
                    name, _, anchor = target.partition("#")
                    there = (path.parent / name).resolve() if name else path
                    if not there.exists() or (anchor and anchor not in anchors_of(there)):
                        yield at(path, number, target)

    nothing(broken())


def test_every_concept_has_its_command_and_file() -> None:
    """In the table of ideas each command exists with its options, and each file is there."""
    rows = re.findall(
        r"^\| (.+?) \| `peernode (.+?)` \| \[(.+?)\]", text_of(ROOT / "README.md"), re.MULTILINE
    )
    assert len(rows) > 10

    def broken() -> Iterator[str]:
        for concept, command, file in rows:
            if not (ROOT / file).is_file():
                yield f"README.md: {concept}: no file {file}"
            if missing := missing_of(command.split()):
                yield f"README.md: {concept}: no {missing} in: peernode {command}"

    nothing(broken())


def missing_of(words: list[str]) -> str | None:
    """The first word that the command line does not know."""
    command: click.Command | None = root
    for word in words:
        assert command is not None
        if word.startswith("--"):
            known = [name for parameter in command.params for name in parameter.opts]
            if word not in known:
                return word
            continue
        command = (
            command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
        )
        if command is None:
            return word
    return None


@pytest.mark.parametrize(("words", "missing"), [("run --seed", None), ("run --sed", "--sed"), ("ran", "ran")])
def test_a_command_that_does_not_exist_is_found(words: str, missing: str | None) -> None:
    """The look-up of the rule above can fail."""
    assert missing_of(words.split()) == missing


# The project


def test_pinned_dependencies_name_no_address() -> None:
    """Whoever installs chooses the index: no URL and no host in the lock files."""
    locks = sorted((ROOT / "bin").glob("requirements*.txt"))
    assert locks
    nothing(lines_with(r"://|--(extra-)?index-url|--find-links|\b[a-z0-9-]+\.(com|org|net|io)\b", locks))


def test_no_word_that_belongs_elsewhere() -> None:
    """No path of a machine and no host of a registry in any file."""
    nothing(lines_with("|".join(map(re.escape, FORBIDDEN)), list(files())))
