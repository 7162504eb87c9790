"""Reuse in a plan: which rows evaluate all blocks of the network, and which take the middle blocks from an earlier row.

A full row is followed by rows that run the first and the last few blocks only, and add what the middle blocks contributed in
that full row (`ditzoo.nets.reuse` has the equation and the papers). As in FORA (arXiv 2407.01425), the full rows are evenly
spaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ditzoo.errors import UsageError, check_type, is_whole_number, shortened
from ditzoo.plan.table import Plan, Row, check_outer_blocks, check_plan
from ditzoo.records import Data
from ditzoo.zoo.card import Card

FORM = "every=2,blocks=4"
"""An example of the text that `parse_reuse` reads."""


class Reuse(Data, frozen=True, kw_only=True):
    """How a plan reuses the middle blocks. At least every `every`-th row is full. The other rows run the first `blocks` blocks
    and the last `blocks` blocks."""

    every: int
    blocks: int


def parse_reuse(text: str) -> Reuse:
    """Reads "every=N,blocks=K". Raises UsageError for anything else."""
    check_type("reuse", text, str, f"a text such as {FORM!r}")
    pairs = [part.strip().partition("=")[::2] for part in text.split(",")]
    values = dict(pairs)
    if len(pairs) != 2 or sorted(values) != ["blocks", "every"] or not all(map(_is_count, values.values())):
        raise UsageError(f"reuse takes every=N,blocks=K with N and K of 1 or more, such as {FORM}, not {shortened(text)!r}")
    return Reuse(every=int(values["every"]), blocks=int(values["blocks"]))


def parse_blocks(card: Card, text: str) -> int:
    """Reads "blocks=K", for a graph of the network of `card`. Raises UsageError for anything else, and for too many blocks."""
    check_type("reuse", text, str, "a text such as 'blocks=4'")
    name, _, number = text.strip().partition("=")
    if name != "blocks" or not _is_count(number):
        raise UsageError(f"reuse of an export takes blocks=K with K of 1 or more, such as blocks=4, not {shortened(text)!r}")
    check_outer_blocks(card, int(number))
    return int(number)


def with_reuse(card: Card, plan: Plan, reuse: Reuse) -> Plan:
    """The plan with reuse. It is `plan` itself if no row can reuse anything, as with `every` = 1.

    A row is full if it is the first, if `every` - 1 rows before it reuse, or if it evaluates the null condition and the last
    full row did not. Raises UsageError if the network has too few blocks.
    """
    rows = tuple(_rows(plan.rows, reuse.every))
    planned = plan if rows == plan.rows else msgspec.structs.replace(plan, rows=rows, outer_blocks=reuse.blocks)
    check_plan(card, msgspec.structs.replace(planned, outer_blocks=reuse.blocks))
    return planned


def without_reuse(plan: Plan) -> Plan:
    """The plan in which every row is full."""
    rows = tuple(msgspec.structs.replace(row, evaluation=msgspec.UNSET) for row in plan.rows)
    return msgspec.structs.replace(plan, rows=rows, outer_blocks=msgspec.UNSET)


def _rows(rows: Sequence[Row], every: int) -> Iterator[Row]:
    full, since = rows[0], every
    for row in rows:
        if since == every or (row.guided and not full.guided):
            full, since = row, 0
            yield row
        else:
            yield msgspec.structs.replace(row, evaluation="reuse")
        since += 1


def _is_count(text: str) -> bool:
    return is_whole_number(text) and int(text) >= 1
