"""Pieces of Markdown that the generated pages share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

NOTICE = "<!-- Made from the code by `make docs`. Change the code, not this page. -->"


def page(title: str, *parts: str) -> str:
    """A page: its title, the notice, and its parts."""
    return "\n\n".join([f"# {title}", NOTICE, *(part.strip() for part in parts if part.strip())]) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. A "|" in a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def code(text: object) -> str:
    """A text in code type; an empty one stays empty."""
    return f"`{text}`" if str(text) else ""


def docstring(thing: object) -> str:
    """The docstring of a class or function as Markdown: paragraphs are joined to lines, and indented code is fenced.

    Raises ValueError if there is none.
    """
    text = thing if isinstance(thing, str) else inspect.getdoc(thing)
    if not text:
        raise ValueError(f"{thing!r} has no docstring")
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n\s*\n", inspect.cleandoc(text)))


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if all(line.startswith("    ") for line in lines):
        return "\n".join(["```python", *(line[4:] for line in lines), "```"])
    return " ".join(line.strip() for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
