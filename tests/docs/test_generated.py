"""The pages that are made from the code: they are up to date, and hold what they should."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

import ditzoo
from docs.generator.diagrams import DIAGRAMS
from docs.generator.markdown import docstring
from docs.generator.pages import DOCS, PAGES
from docs.generator.support import EVIDENCE, check


@cache
def made(name: str) -> str:
    """The text of a page, by its path in docs/."""
    return PAGES[DOCS / name]()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text() == made(path.relative_to(DOCS).as_posix()), "run `make docs`"


@pytest.mark.parametrize("name", ditzoo.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert f"\n## ditzoo.{name}\n" in made("reference/python-api.md")


def test_every_card_is_in_the_support_matrix() -> None:
    page = made("reference/support.md")
    assert [name for name in ditzoo.CARDS if page.count(f"`{name}`") == 0] == []


def test_a_backend_without_evidence_stops_the_support_matrix() -> None:
    with pytest.raises(ValueError, match=r"openvino.*int8"):
        check(tuple(item for item in EVIDENCE if item.backend != "openvino"))
    with pytest.raises(ValueError, match=r"no tests/absent\.py"):
        check((msgspec.structs.replace(EVIDENCE[0], tests="tests/absent.py"), *EVIDENCE[1:]))


def test_messages_are_those_of_the_code() -> None:
    """One of each kind: plain, with values, with a condition, from a helper."""
    page = made("reference/errors.md")
    for message in (
        "`this model is closed; load it again with ditzoo.load(<name>)`",
        "`there is no GPU <index>, which <device> names; <remedy>`",
        "`unknown backend <name>; did you mean <the nearest names>?`",
        "`path must be the path of a plan's JSON file, not <value>`",
        "`steps must be a whole number of steps, not <value>`",
        "`threads must be at most <most>, not <value>`",
        "`prompts must be a text or a list of texts, not <value>`",
        "`overwrite must be True or False (a bool), not <value>`",
        "`unknown family <name>; did you mean <the nearest names>?`",
    ):
        assert message in page


def test_indented_code_of_a_docstring_is_fenced() -> None:
    assert docstring("One\nline.\n\n    a = 1\n    b = 2\n\nEnd.") == "One line.\n\n```python\na = 1\nb = 2\n```\n\nEnd."


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_shows_its_texts_and_loads_nothing(name: str) -> None:
    text = made(f"diagrams/{name}.svg")
    shown = {element.text for element in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")}  # noqa: S314
    assert shown >= {line for box in DIAGRAMS[name].boxes for line in box.text.split("\n")}
    assert text.count("http") == text.count("http://www.w3.org/2000/svg")
