"""Text from files is never markup and steers no terminal; one damaged entry breaks no listing."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import ditzoo
from ditzoo.cli import output, run
from ditzoo.weights.local import weights_file

STEERING = "[/x] [bold]red[/bold] \x1b[31m \x9b31m \x07 \u202e [link=https://example.org]"
SHOWN = "[/x] [bold]red[/bold] \\u001b[31m \\u009b31m \\u0007 \\u202e [link=https://example.org]"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model of one's own, in a cache that has nothing else."""
    monkeypatch.setenv("DITZOO_CACHE", str(tmp_path / "cache"))
    assert run(["import", "moths", str(weights_file(ditzoo.card("dit-digits"))), "--like", "dit-digits"]) == 0
    (folder,) = (tmp_path / "cache" / "weights").iterdir()
    return folder


def said(capfd: pytest.CaptureFixture[str], *command: str) -> str:
    """What a command that succeeds writes to stdout."""
    capfd.readouterr()
    assert run(command) == 0
    return capfd.readouterr().out


def row(table: str, name: str) -> str:
    """The row of a table that begins with a name."""
    (found,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
    return found


def test_text_from_a_card_is_shown_as_it_is(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    card = json.loads((own / "card.json").read_text())
    (own / "card.json").write_text(json.dumps({**card, "licence": STEERING, "summary": STEERING}))
    for command in (("list",), ("info", "moths")):
        shown = said(capfd, *command)
        assert shown.count(SHOWN) == 2
        assert "\x1b" not in shown
    assert json.loads(said(capfd, "info", "moths", "--json"))["licence"] == STEERING


def test_talk_errors_and_warnings_steer_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    output.talk(STEERING)
    output.error(STEERING)
    with output.warnings(), output.status(STEERING):
        logging.getLogger("ditzoo.cache").warning("%s", STEERING)
    shown = capfd.readouterr().err
    assert shown.splitlines() == [SHOWN, f"error: {SHOWN}", SHOWN]
    output.data("a\udc80b")
    assert capfd.readouterr().out == "a\\udc80b\n"


@pytest.mark.parametrize("file", ["manifest.json", "card.json"])
@pytest.mark.parametrize("content", [b'{"licence": "\xff"}', b"{}", b"", None], ids=["no text", "another", "empty", "gone"])
def test_a_damaged_entry_is_listed_as_damaged(
    own: Path, file: str, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    (own / file).unlink()
    if content is not None:
        (own / file).write_bytes(content)
    assert "damaged" in row(said(capfd, "list"), "moths")
    assert "moths" in said(capfd, "list", "--state", "damaged")
    assert "damaged weights" in row(said(capfd, "cache", "ls"), "moths")
    assert run(["where", "moths"]) == 2
    assert "delete that folder" in capfd.readouterr().err
    assert said(capfd, "where", "dit-digits")
    assert run(["cache", "verify"]) == 1
    assert "cannot read" in capfd.readouterr().out
    said(capfd, "cache", "rm", "moths", "--yes")
    assert not own.exists()


def test_damaged_bundles_and_pins_break_no_listing(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = own.parents[1] / "bundles" / "dit-digits-0123"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_bytes(b'{"model": "\xff"}')
    (own.parents[1] / "pins").mkdir()
    (own.parents[1] / "pins" / "facebook--DiT-XL-2-256.json").write_bytes(b"\xff")
    shown = said(capfd, "cache", "ls")
    assert "damaged ONNX bundle" in shown
    assert "moths" in shown
