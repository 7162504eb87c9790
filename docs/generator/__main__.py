"""Writes all generated pages and diagrams into docs/."""

from __future__ import annotations

from docs.generator.pages import PAGES

if __name__ == "__main__":
    for path, make in PAGES.items():
        text = make()
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
