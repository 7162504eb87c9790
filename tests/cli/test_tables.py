"""Tables: nothing that matters is cut at any width, and off a terminal a row is a line of cells with tabs."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import ditzoo
from ditzoo.cli import output, run, tables

COLUMNS = ["model", ">pixels", "?licence", "~?what it is"]


def shown(columns: list[str], rows: list[list[str]], width: int) -> str:
    """What a terminal of that width shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    kept = tables.fitting(columns, rows, width)
    drawn = tables.drawn(kept, [[row[columns.index(column)] for column in kept] for row in rows], width)
    console.print(drawn, markup=False, highlight=False, soft_wrap=isinstance(drawn, str))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=30)


@given(st.lists(st.tuples(words, words, words, st.lists(words, max_size=6).map(" ".join)), min_size=1, max_size=4), st.data())
def test_no_word_is_cut_at_any_width(rows: list[tuple[str, ...]], data: st.DataObject) -> None:
    width = data.draw(st.integers(10, 200))
    text = shown(COLUMNS, [list(row) for row in rows], width)
    assert "…" not in text
    for name, number, _, _ in rows:
        assert name in text
        assert number in text
    kept = tables.fitting(COLUMNS, [list(row) for row in rows], width)
    for row in rows:
        for column, cell in zip(COLUMNS, row, strict=True):
            if column in kept:
                assert all(word in text for word in cell.split())


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 132, 200])
def test_a_drawn_table_fits_its_width(width: int) -> None:
    rows = [[card.name, str(card.resolution), card.licence, card.summary] for card in ditzoo.CARDS.values()]
    lines = shown(COLUMNS, rows, width).splitlines()
    for card in ditzoo.CARDS.values():
        assert sum(line.split()[:1] in ([card.name], [f"{card.name}:"]) for line in lines) == 1
    if width >= 60:
        assert max(map(len, lines)) <= width


def test_columns_are_left_out_before_rows_become_blocks() -> None:
    row = ["uvit-2b-dcae-f64-512-train2000k", "512", "CC-BY-NC-4.0", "U-ViT on latents"]
    assert tables.fitting(COLUMNS, [row], 100) == COLUMNS
    assert tables.fitting(COLUMNS, [row], 65) == COLUMNS[:3]
    assert tables.fitting(COLUMNS, [row], 50) == COLUMNS[:2]
    assert shown(COLUMNS, [row], 20) == "uvit-2b-dcae-f64-512-train2000k: 512\n"


def test_off_a_terminal_a_row_is_a_line_of_cells_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["name", ">size", "~why"], [["a", "1", "one\ntwo"], ["b\tc", "2", ""]])
    assert capsys.readouterr().out == "name\tsize\twhy\na\t1\tone; two\nb c\t2\t\n"


def test_every_model_is_one_line_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {len(line) for line in lines} == {6}
    assert {line[0] for line in lines} >= set(ditzoo.CARDS)


def test_an_empty_table_is_said_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    output.table(["model"], [])
    out, err = capsys.readouterr()
    assert (out, err) == ("", "nothing to show\n")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (999_700, "1000 kB"), (1_924_000, "1.92 MB"), (2.7e9, "2.70 GB")],
)
def test_sizes_have_three_digits(size: int, text: str) -> None:
    assert output.size(int(size)) == text


def test_one_image_is_not_images() -> None:
    assert [output.count(number, "image") for number in (0, 1, 2, 10_000)] == [
        "0 images",
        "1 image",
        "2 images",
        "10,000 images",
    ]
