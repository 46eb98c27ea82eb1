"""What was measured, and its tables: medians, ranges, and ratios of values that belong to the same round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Row:
    """`values`: by quantity and server, one a round."""

    label: str
    aim: str = ""
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, quantity: str, server: str, value: float) -> None:
        self.values.setdefault((quantity, server), []).append(value)


class Table:
    """`quantities`: what the columns hold for each server. Of the first one the ratios are shown, too."""

    def __init__(self, title: str, *quantities: str, servers: Sequence[str] | None = None) -> None:
        self.title, self.quantities, self.servers = title, quantities, servers
        self.rows: dict[str, Row] = {}

    def row(self, label: str, aim: str = "") -> Row:
        return self.rows.setdefault(label, Row(label, aim))

    def markdown(self, servers: Sequence[str]) -> str:
        """`servers`: the columns, if it has none of its own; the first one is ours."""
        servers = self.servers or servers
        lines = [self._head(servers), ["---"] * len(self._head(servers))]
        lines += [list(self._cells(row, servers)) for row in self.rows.values()]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"### {self.title}\n\n{table}\n"

    @property
    def _has_aims(self) -> bool:
        return any(row.aim for row in self.rows.values())

    def _head(self, servers: Sequence[str]) -> list[str]:
        first, *more = self.quantities
        head = ["", *(f"{server} {first}".strip() for server in servers)]
        head += [f"of {server}" for server in servers[1:]]
        head += ["aim"] if self._has_aims else []
        return head + [f"{server} {quantity}" for quantity in more for server in servers]

    def _cells(self, row: Row, servers: Sequence[str]) -> Iterator[str]:
        first, *more = self.quantities
        yield row.label
        for server in servers:
            yield spread(row.values.get((first, server), []))
        ours = row.values.get((first, servers[0]), [])
        for server in servers[1:]:
            theirs = row.values.get((first, server), [])
            pairs = zip(ours, theirs, strict=False)
            yield spread([our / their for our, their in pairs if their], suffix="x")
        if self._has_aims:
            yield row.aim or "-"
        for quantity in more:
            for server in servers:
                yield spread(row.values.get((quantity, server), []))


def spread(values: Sequence[float], suffix: str = "") -> str:
    """The median, and the range where there is one."""
    if not values:
        return "-"
    low, middle, high = (shown(value) for value in (min(values), median(values), max(values)))
    return f"{middle}{suffix}" if low == high else f"{middle}{suffix} [{low}-{high}]"


def shown(value: float) -> str:
    """Three digits are more than such a measurement has."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
