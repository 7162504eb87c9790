"""Reuse in a plan: which rows evaluate all blocks of the network, and which take the middle blocks from an earlier row.

A full row is followed by rows that run the first and the last few blocks only, and add what the middle blocks contributed in
that full row (`ditzoo.nets.reuse` has the equation and the papers). The full rows are evenly spaced, as in FORA (arXiv
2407.01425), or listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ditzoo.errors import UsageError, check_type, is_whole_number, shortened
from ditzoo.plan.table import Plan, Row, check_outer_blocks, check_plan
from ditzoo.ranges import parse_ranges, ranges_text
from ditzoo.zoo.card import Card

FORM = "every=2,blocks=4"
"""An example of the text that `parse_reuse` reads."""


LISTED = "full=0-2,5,9,blocks=4"
"""An example with a list of the full rows."""


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """How a plan reuses the middle blocks. At least every `every`-th row is full, or those of `full` if `every` is None. The
    other rows run the first `blocks` blocks and the last `blocks` blocks."""

    every: int | None = None
    full: tuple[range, ...] = ()
    blocks: int


def parse_reuse(text: str) -> Reuse:
    """Reads "every=N,blocks=K", or "full=LIST,blocks=K" with a list such as 0-2,5,9. Raises UsageError for anything else."""
    check_type("reuse", text, str, f"a text such as {FORM!r}")
    pairs = [part.strip().partition("=")[::2] for part in re.split(r",(?=\s*[a-z])", text)]
    values = dict(pairs)
    counts = [value for name, value in values.items() if name != "full"]
    if len(pairs) != 2 or sorted(values) not in (["blocks", "every"], ["blocks", "full"]) or not all(map(_is_count, counts)):
        raise UsageError(
            f"reuse takes every=N,blocks=K with N and K of 1 or more, such as {FORM}, or full=LIST,blocks=K with a list of"
            f" rows, such as {LISTED}, not {shortened(text)!r}"
        )
    blocks = int(values["blocks"])
    if "every" in values:
        return Reuse(every=int(values["every"]), blocks=blocks)
    return Reuse(full=tuple(parse_ranges(values["full"], argument="full of reuse")), blocks=blocks)


def reuse_text(full: Iterable[int], blocks: int) -> str:
    """The text that `parse_reuse` reads, for increasing numbers of full rows."""
    return f"full={ranges_text(full)},blocks={blocks}"


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

    A row is full if it is the first, if `every` - 1 rows before it reuse or `full` has it, or if it evaluates the null
    condition and the last full row did not. Raises UsageError if the network has too few blocks, or the plan too few rows.
    """
    last = max((numbers[-1] for numbers in reuse.full), default=0)
    if last >= len(plan.rows):
        raise UsageError(f"reuse names row {last}, but the plan has the rows 0 to {len(plan.rows) - 1}")
    rows = tuple(_rows(plan.rows, reuse))
    planned = plan if rows == plan.rows else msgspec.structs.replace(plan, rows=rows, outer_blocks=reuse.blocks)
    check_plan(card, msgspec.structs.replace(planned, outer_blocks=reuse.blocks))
    return planned


def without_reuse(plan: Plan) -> Plan:
    """The plan in which every row is full, and evaluates both conditions if it has guidance."""
    full = with_all_blocks(plan)
    rows = tuple(msgspec.structs.replace(row, difference=msgspec.UNSET) for row in full.rows)
    return msgspec.structs.replace(full, rows=rows)


def with_all_blocks(plan: Plan) -> Plan:
    """The plan in which every row is full. The differences of the conditions that it reuses stay."""
    rows = tuple(msgspec.structs.replace(row, evaluation=msgspec.UNSET) for row in plan.rows)
    return msgspec.structs.replace(plan, rows=rows, outer_blocks=msgspec.UNSET)


def _rows(rows: Sequence[Row], reuse: Reuse) -> Iterator[Row]:
    full, since = rows[0], 0
    for i, row in enumerate(rows):
        due = any(i in numbers for numbers in reuse.full) if reuse.every is None else since == reuse.every
        if i == 0 or due or (row.evaluates_null and not full.evaluates_null):
            full, since = row, 0
            yield row
        else:
            yield msgspec.structs.replace(row, evaluation="reuse")
        since += 1


def _is_count(text: str) -> bool:
    return is_whole_number(text) and int(text) >= 1
