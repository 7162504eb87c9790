"""Folders that cannot be replaced are refused before the work; a full disk leaves no half folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ditzoo.bundle import provide, provide_folder
from ditzoo.cli import run
from ditzoo.errors import UsageError


def never(folder: Path) -> None:
    raise AssertionError("the work began")


@pytest.mark.parametrize("place", [".", "..", "", "../here", "inner/..", "/", "/proc"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_cannot_be_replaced_is_refused_first(
    place: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "inner").mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(UsageError, match="cannot be replaced; choose a folder inside it"):
        provide(Path(place), "key", never, overwrite=overwrite)
    with (
        pytest.raises(UsageError, match="cannot be replaced; choose a folder inside it"),
        provide_folder(Path(place), overwrite=overwrite) as folder,
    ):
        never(folder)
    assert list(tmp_path.iterdir()) == [here]


def test_the_command_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["export", "onnx", "dit-digits", "--out", ".", "--overwrite"]) == 2
    error = capfd.readouterr().err
    assert "error: --out: . holds the working folder, so it cannot be replaced" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("sample dit-digits --out file", "--out: file is a file without the suffix of a picture"),
        ("parity dit-digits --html folder.html", "--html: folder.html is a folder; give the path of a file"),
        ("bench dit-digits --plot folder.svg", "--plot: folder.svg is a folder; give the path of a file"),
        ("export triton dit-digits --repo file", "--repo: file is not a folder; choose another folder"),
    ],
)
def test_an_output_of_the_wrong_kind_is_refused_first(
    typed: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name in ("folder.html", "folder.svg"):
        (tmp_path / name).mkdir()
    assert run(typed.split()) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
