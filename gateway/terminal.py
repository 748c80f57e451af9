"""Tables that people read in a terminal: no number, id or word is broken, however narrow the window is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import click
from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway import options

PROSE_WIDTH = 28
"""Least of what is written in words, which goes on in the next line."""
BAR_WIDTH = 16
BETWEEN = 2
"""Spaces around each column."""


@dataclass(frozen=True)
class Grid:
    """Cells as text."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int] = ()
    """Numbers of columns with numbers in them."""
    footer: Sequence[str] = ()
    bars: Sequence[Bar] = ()
    """One beside each row, where there is room."""
    first: Collection[str] = field(default_factory=tuple)
    """Columns that are left out last, beside the very first one."""
    is_whole: bool = False
    """Nothing is left out in a narrow window: each value has a line of its own there."""

    def least(self, column: int) -> int:
        """Width that it needs."""
        return max([*map(cell_len, _parts(self.names[column])), *map(_needs, self._cells(column))], default=0)

    def full(self, column: int) -> int:
        """Width with which nothing takes more lines than it has."""
        lines = [line for cell in self._cells(column) for line in cell.split("\n")]
        return max(map(cell_len, [self.names[column], *lines]))

    def is_empty(self, column: int) -> bool:
        """Whether no row has anything there, but for zeroes."""
        return not any(row[column].strip("0.,") for row in self.rows)

    def _cells(self, column: int) -> list[str]:
        return [row[column] for row in self.rows] + [*self.footer[column : column + 1]]


def show(grid: Grid) -> None:
    """In a window what does not fit is left out, and named on stderr; a file or pipe has no width."""
    console = Console()
    every = list(range(len(grid.names)))
    full = {each: grid.full(each) for each in every}
    if not console.is_terminal:
        console.width = max(console.width, sum(full.values()) + BETWEEN * len(every))
        console.print(_table(grid, full, with_bars=False))
        return
    # What would fill half of the window alone goes over lines: else there were no room for a name of any length.
    least = {each: min(grid.least(each), console.width // 2 - BETWEEN) for each in every}
    kept = _kept(grid, least, console.width)
    if len(kept) < len(every):
        if grid.is_whole or len(kept) * 2 < len(every):
            for row in grid.rows:
                console.print(_record(grid.names, row, console.width // 2 - BETWEEN))
            return
        console.print(_table(grid, {each: least[each] for each in kept}, with_bars=False))
        left_out = ", ".join(grid.names[each] for each in every if each not in kept)
        click.echo(f"Left out, as the window is narrow: {left_out}.", err=True)
        return
    room = console.width - BETWEEN * len(every) - sum(full.values())
    has_bars = bool(grid.bars) and room >= BAR_WIDTH + BETWEEN
    console.print(_table(grid, full if room >= 0 else least, with_bars=has_bars))


def _kept(grid: Grid, least: Mapping[int, int], room: int) -> list[int]:
    """Columns that fit beside each other: the first one, then those that matter, then the others in their order, and
    last those that say nothing."""
    kept = []
    for each in sorted(
        least, key=lambda each: (each > 0, grid.names[each] not in grid.first, grid.is_empty(each), each)
    ):
        if least[each] + BETWEEN <= room:
            room -= least[each] + BETWEEN
            kept.append(each)
    return sorted(kept)


def _table(grid: Grid, widths: Mapping[int, int], *, with_bars: bool) -> Table:
    table = Table(box=None, header_style="bold", show_footer=bool(grid.footer), footer_style="bold")
    for each, width in widths.items():
        table.add_column(
            Text(options.shown(_header(grid.names[each], width))),
            Text(options.shown(grid.footer[each])) if grid.footer else "",
            justify="right" if each in grid.right else "left",
            min_width=width,
            overflow="fold",
        )
    if with_bars:
        table.add_column("", width=BAR_WIDTH)
    for number, row in enumerate(grid.rows):
        cells = (Text(options.shown(row[each])) for each in widths)  # as text: a name may look like markup
        table.add_row(*cells, *([grid.bars[number]] if with_bars else []))
    return table


def _record(names: Sequence[str], row: Sequence[str], width: int) -> Table:
    """A row with a line for each column that has a value. A longer name than `width` goes over lines."""
    record = Table(box=None, show_header=False)
    record.add_column(no_wrap=True)
    record.add_column(overflow="fold")
    for name, value in zip(names, row, strict=True):
        if value:
            record.add_row(Text(options.shown(_header(name, width)), style="bold"), Text(options.shown(value)))
    record.add_row()
    return record


def _parts(name: str) -> list[str]:
    """Where a header may be broken: after `_` and at spaces."""
    return [part for part in name.replace("_", "_ ").split(" ") if part]


def _header(name: str, width: int) -> str:
    """In as many lines as it takes."""
    if cell_len(name) <= width:
        return name
    lines = [""]
    for part in _parts(name):
        between = " " if lines[-1] and not lines[-1].endswith("_") else ""
        if cell_len(lines[-1] + between + part) <= width:
            lines[-1] += between + part
        else:
            lines.append(part)
    return "\n".join(line for line in lines if line)


def _needs(cell: str) -> int:
    width = max(map(cell_len, cell.split("\n")))
    return min(width, PROSE_WIDTH) if " " in cell else width
