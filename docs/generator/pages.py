"""The table of all generated pages and diagrams."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from docs.generator.command_line import command_line
from docs.generator.diagrams import DIAGRAMS, svg
from docs.generator.errors import errors_page
from docs.generator.python_api import python_api_page
from docs.generator.records import card_page, formats_page
from docs.generator.support import support_page

DOCS = Path(__file__).parents[1]


PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "reference" / "python-api.md": python_api_page,
    DOCS / "reference" / "card.md": card_page,
    DOCS / "reference" / "formats.md": formats_page,
    DOCS / "reference" / "errors.md": errors_page,
    DOCS / "reference" / "support.md": support_page,
    DOCS / "cli.md": command_line,
    **{DOCS / "diagrams" / f"{name}.svg": partial(svg, diagram) for name, diagram in DIAGRAMS.items()},
}
"""The function that makes the text of each generated page and diagram, by its path."""
