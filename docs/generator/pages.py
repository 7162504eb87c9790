"""The text of every generated page and diagram, by its path."""

from __future__ import annotations

from pathlib import Path

from docs.generator.diagrams import DIAGRAMS, svg
from docs.generator.errors import errors_page
from docs.generator.python_api import python_api_page
from docs.generator.records import card_page, formats_page
from docs.generator.support import support_page

DOCS = Path(__file__).parents[1]


def pages() -> dict[Path, str]:
    """The text of each generated page and diagram, by its path. The reference of the command line is not among them."""
    reference = {
        "python-api": python_api_page(),
        "card": card_page(),
        "formats": formats_page(),
        "errors": errors_page(),
        "support": support_page(),
    }
    made = {DOCS / "reference" / f"{name}.md": text for name, text in reference.items()}
    return made | {DOCS / "diagrams" / f"{name}.svg": svg(diagram) for name, diagram in DIAGRAMS.items()}
