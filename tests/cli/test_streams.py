"""Locales without Unicode, closed streams, readers that leave, and names of files that are not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ditzoo.cli import options, run
from ditzoo.cli.options import read_prompts
from ditzoo.errors import UsageError

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "export")])
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
NO_TEXT = os.fsdecode(b"a\xff")


def shell(line: str, folder: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of the shell, in which `$D` is the command line of ditzoo."""
    command = f"{sys.executable} -m ditzoo"
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, "PYTHONPATH": PATHS, "D": command, **env}, capture_output=True
    )


def test_an_ascii_locale_gets_escapes(tmp_path: Path) -> None:
    done = shell("$D plan show dit-digits --steps 2", tmp_path, **ASCII)
    assert done.returncode == 0, done.stderr
    assert b"exp \\u00bd[" in done.stdout
    done = shell("$D sample dit-digits --classes \U0001f3a8", tmp_path, **ASCII)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: unknown class '\\udcf0\\udc9f")


def test_closed_streams_are_like_the_null_device(tmp_path: Path) -> None:
    done = shell("$D info dit-digits --json 0<&- >&- && $D --version >&- && $D info nobody 2>&-; echo $?", tmp_path)
    assert done.stdout == b"2\n"
    assert done.stderr == b""


def test_a_reader_that_leaves_is_no_error_to_talk_about(tmp_path: Path) -> None:
    """The pipe has no reader from the beginning."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ditzoo", "list", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": PATHS}, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_names_that_are_not_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["sample", "dit-digits", "--classes", "3", "--steps", "2", "--out", f"{NO_TEXT}.png", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["files"] == [f"{NO_TEXT}.png"]
    assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [b"a\xff.png"]
    for typed in (["sample", NO_TEXT], ["inspect", NO_TEXT], ["sample", "dit-digits", "--prompt", NO_TEXT]):
        assert run(typed) == 2
        assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "typed", ["sample NAME", "inspect NAME", "import NAME", "run NAME", "sample dit-digits --out NAME/a.png"]
)
def test_a_path_with_brackets_is_shown_as_it_is(typed: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(typed.replace("NAME", "[/x][bold]").split()) == 2
    error = capfd.readouterr().err
    assert "[/x][bold]" in error
    assert error.count("\n") == 1


def test_prompts_that_are_no_text_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_MOST_PROMPTS", 20)
    (tmp_path / "long").write_text("a dog\n" * 4)
    with pytest.raises(UsageError, match="has more than 20 bytes; split it"):
        read_prompts(None, tmp_path / "long")
    with pytest.raises(UsageError, match="has more than 20 bytes; split it"):
        read_prompts(None, Path("/dev/zero"))
