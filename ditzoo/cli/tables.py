"""Lays out a table so that it fits the width of a terminal and shows every cell whole.

A column is its name with signs before it: see `ditzoo.cli.output.table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

SIGNS = ">~?"


def fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The columns without those that may be left out, as far as that is needed to fit the width."""
    shown = list(columns)
    for column in reversed(columns):
        cells = [[row[columns.index(each)] for each in shown] for row in rows]
        if not _fits(shown, cells, width) and "?" in _signs(column):
            shown.remove(column)
    return shown


def drawn(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table | str:
    """The table for a width. If it does not fit, each row is a block of lines "name  value"."""
    if _fits(columns, rows, width):
        return _table(columns, rows, width)
    return _blocks([column.lstrip(SIGNS) for column in columns], rows)


def _fits(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    return sum(_least_widths(columns, rows)) <= _room(columns, width)


def _signs(column: str) -> str:
    return column[: len(column) - len(column.lstrip(SIGNS))]


def _room(columns: Sequence[str], width: int) -> int:
    """The part of a width that the cells of a row get: three characters stand between two columns, one at each side."""
    return width - 3 * (len(columns) - 1) - 2


def _least_widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column that shows every cell whole, or every word where words may continue on the next line."""
    return [_widest(column, [row[i] for row in rows], words="~" in _signs(column)) for i, column in enumerate(columns)]


def _widest(column: str, cells: Sequence[str], *, words: bool) -> int:
    """The width of the longest line or word of a column."""
    from rich.cells import cell_len

    texts = [column.lstrip(SIGNS), *cells]
    return max(cell_len(part) for text in texts for part in (text.split() if words else text.splitlines()))


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The width of each column: at least that of `_least_widths`. The columns of the longest texts share the rest."""
    widths = _least_widths(columns, rows)
    wanted = [_widest(column, [row[i] for row in rows], words=False) for i, column in enumerate(columns)]
    for _ in range(_room(columns, width) - sum(widths)):
        lacking = [want - have for want, have in zip(wanted, widths, strict=True)]
        if max(lacking) > 0:
            widths[lacking.index(max(lacking))] += 1
    return widths


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, wide in zip(columns, _widths(columns, rows, width), strict=True):
        justify = "right" if ">" in _signs(column) else "left"
        table.add_column(Text(column.lstrip(SIGNS)), justify=justify, width=wide)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _blocks(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows as lines "name: value". Rows of more than two cells are blocks that begin with their first cell."""
    if len(names) == 2:
        return "\n".join(f"{name}: {f'{chr(10)}  '.join(value.splitlines())}" for name, value in rows)
    width = max(map(len, names[1:]))
    return "\n".join(
        f"{first}\n" + "".join(f"  {name:{width}}  {cell}\n" for name, cell in zip(names[1:], rest, strict=True) if cell)
        for first, *rest in rows
    ).rstrip()
