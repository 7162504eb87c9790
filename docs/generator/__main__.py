"""Writes all generated pages, diagrams and the reference of the command line into docs/."""

from __future__ import annotations

from docs.generator.command_line import command_line
from docs.generator.pages import DOCS, pages

if __name__ == "__main__":
    for path, text in {**pages(), DOCS / "cli.md": command_line()}.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
