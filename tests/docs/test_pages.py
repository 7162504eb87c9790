"""The commands and snippets of the tutorial and the how-to pages, each page from top to bottom in a folder of its own."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import ditzoo
from ditzoo.bundle import Bundle
from ditzoo.cli import run
from ditzoo_export import cached_bundle, cached_engines, make_engine_settings, make_settings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md")))

REASONS = (
    "needs a C++ compiler",
    "needs a GPU",
    "needs the network",
    "needs a Triton server",
    "needs another machine",
    "takes ",
)
"""Why a block is not run, as its title begins behind `NOT_RUN` or `RUN_ELSEWHERE`."""

NOT_RUN = "Not run by the tests: "
RUN_ELSEWHERE = "Run by another test: "

DIT, UVIT = ditzoo.card("dit-digits"), ditzoo.card("uvit-digits")

EXPORTED: dict[str, Callable[[], Bundle]] = {
    "digits-bundle": lambda: cached_bundle(DIT),
    "graphs": lambda: cached_bundle(DIT, settings=make_settings(DIT, precision="fp16", target="tensorrt")),
    "engines": lambda: cached_engines(UVIT, settings=make_engine_settings(UVIT, gpu="sm89", precision="fp16", batch="1-4")),
}
"""The exports of the pages by their folder. They are there before a page runs, so that its command finds them."""


class Block(NamedTuple):
    """A fenced block: its language, what follows the language, and its text."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r'^```(sh|python)(?: title="([^"]*)")?\n(.*?)^```$', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def run_line(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line, comments=True)
    if words[:1] == ["ditzoo"]:
        assert run(words[1:]) == 0, line
    elif words[:1] == ["export"]:
        monkeypatch.setenv(*words[1].split("=", 1))
    else:
        subprocess.run(line, shell=True, check=True, cwd=folder, capture_output=True)  # noqa: S602


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    to_run = [block for block in blocks(page) if not block.title]
    commands = "\n".join(block.text for block in to_run)
    for name, exported in EXPORTED.items():
        if re.search(rf"--out {name}$", commands, flags=re.MULTILINE):
            shutil.copytree(exported().path, folder / name)
    if "ditzoo import" in commands:
        monkeypatch.setenv("DITZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    namespace: dict[str, object] = {}
    for block in to_run:
        if block.language == "python":
            exec(compile(block.text, str(page), "exec"), namespace)  # noqa: S102
        else:
            for line in block.text.splitlines():
                run_line(line, folder, monkeypatch)
    assert to_run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    fences = re.findall(r"^```(?:sh|python|console|bash)\b.*$", page.read_text(), flags=re.MULTILINE)
    assert len(fences) == len(blocks(page)), "a fence is neither plain `sh` or `python` nor has a title alone"
    for block in blocks(page):
        assert not block.title or block.title.removeprefix(NOT_RUN).removeprefix(RUN_ELSEWHERE).startswith(REASONS), block.title


def test_every_page_shows_something() -> None:
    assert len(PAGES) > 5
    assert all(blocks(page) for page in PAGES)
