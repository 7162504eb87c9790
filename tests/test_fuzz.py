"""The inputs that once broke a parser, and a few new ones. `make fuzz SECONDS=60` tries many more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fuzz.generating import with_long_texts
from tests.fuzz.parsers import PARSERS, cards, manifests
from tests.fuzz.seeds import plans
from tests.fuzz.trying import CORPUS, corpus, try_input, try_many

RECORDED = [path for name in PARSERS for path in corpus(name)]
ACCEPTED = {"plan/no-states"}
"""The recorded inputs that are valid, though unusual. Every other one is refused."""


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_parser(path: Path) -> None:
    accepted = try_input(PARSERS[path.parent.name], path.read_bytes())
    assert accepted == (f"{path.parent.name}/{path.name}" in ACCEPTED)


@pytest.mark.parametrize("name", PARSERS)
def test_new_inputs(name: str) -> None:
    try_many(name, examples=10, start=1)


@pytest.mark.parametrize("name", ["card", "manifest", "plan"])
def test_long_texts(name: str) -> None:
    """A file may have very long texts where short ones belong. The message then shows a part of them only."""
    for base in {"card": cards, "manifest": manifests, "plan": plans}[name]():
        for data in with_long_texts(json.loads(json.dumps(base))):
            try_input(PARSERS[name], data)


def test_every_folder_of_inputs_has_a_parser() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(PARSERS)
