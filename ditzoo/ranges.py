"""Lists of whole numbers as text, such as "0-9" and "1,3,5-7"."""

from __future__ import annotations

from collections.abc import Iterable

from ditzoo.errors import UsageError, is_whole_number, shortened


def parse_ranges(text: str, *, argument: str) -> list[range]:
    """The ranges in a list like "0-9" or "1,3,5-7". A number is a range of its own.

    Raises UsageError if a part is neither a number nor a range. The ranges may be huge, so check their ends before use.
    """
    ranges: list[range] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not is_whole_number(first) or (dash and not is_whole_number(last)):
            shown = shortened(part.strip())
            raise UsageError(f"{shown!r} in {argument} is neither a number nor a range; write 3, 0-9 or 1,3,5-7")
        if dash and int(last) < int(first):
            raise UsageError(f"the range {part.strip()!r} in {argument} runs backwards; write {last}-{first}")
        ranges.append(range(int(first), int(last or first) + 1))
    return ranges


def ranges_text(numbers: Iterable[int]) -> str:
    """The numbers, which increase, as a list that `parse_ranges` reads: [0, 1, 2, 5] is "0-2,5"."""
    ranges: list[range] = []
    for number in numbers:
        if ranges and ranges[-1].stop == number:
            ranges[-1] = range(ranges[-1].start, number + 1)
        else:
            ranges.append(range(number, number + 1))
    return ",".join(f"{each.start}-{each[-1]}" if len(each) > 1 else f"{each.start}" for each in ranges)
