"""Paths that no file can have, and folders that cannot be written, are refused in one short line with exit status 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ditzoo
from ditzoo.bundle import open_bundle
from ditzoo.cli import run
from ditzoo.errors import BundleError, UsageError
from tests.support.mounts import mounted

LONG, VERY_LONG = "a" * 300, "a" * 5000

TYPED = {
    "sample LONG": "unknown model 'aaaa",
    "sample LONG/b": "no bundle at 'aaaa",
    "sample a/VERY_LONG": "no bundle at 'a/aaaa",
    "sample dit-digits --out LONG": "--out: 'aaaa",
    "sample dit-digits --out LONG.png": "--out: 'aaaa",
    "sample dit-digits --out MIDDLE.png": "--out: the name 'bbbb",
    "sample dit-digits --out LONG/x.png": "--out: 'aaaa",
    "sample dit-digits --save-latents LONG.npz": "--save-latents: 'aaaa",
    "sample dit-digits --animate LONG.gif": "--animate: 'aaaa",
    "sample dit-digits --plan VERY_LONG": "cannot read the plan aaaa",
    "sample --like VERY_LONG": "cannot read the picture aaaa",
    "sample dit-digits --shard-size 2 --num 2 --out LONG": "'aaaa",
    "sample dit-digits --shard-size 2 --num 2 --out x --labels VERY_LONG": "cannot read aaaa",
    "export onnx dit-digits --out LONG": "--out: 'aaaa",
    "export onnx dit-digits --out MIDDLE": "--out: the name 'bbbb",
    "export triton dit-digits --repo LONG": "--repo: 'aaaa",
    "plan save dit-digits --out LONG.json": "--out: 'aaaa",
    "inspect LONG": "cannot inspect 'aaaa",
    "inspect VERY_LONG": "cannot inspect 'aaaa",
    "run VERY_LONG": "cannot read the recipe aaaa",
    "run VERY_LONG VERY_LONG": "the recipe aaaa",
    "run reproduce dit-digits --dir LONG": "--dir: 'aaaa",
    "run reproduce dit-digits --dir /dev/null": "--dir: /dev/null is not a folder; choose another folder",
    "run reproduce dit-digits --dir /proc/x": "--dir: cannot create /proc/x: No such file or directory; choose another folder",
    "demo --out LONG.png": "--out: 'aaaa",
    "bench dit-digits --plot LONG.svg": "--plot: 'aaaa",
    "parity dit-digits --html LONG.html": "--html: 'aaaa",
    "pack LONG": "'aaaa",
    "evaluate LONG": "'aaaa",
    "evaluate LONG.npz": "'aaaa",
    "import mine LONG --like dit-digits": "FILE: 'aaaa",
    "push dit-digits VERY_LONG": "'aaaa",
    "cache prune LONG": "FOLDER: 'aaaa",
    "sample ./loop": "no bundle at 'loop': its links lead in a circle",
    "sample dit-digits --out loop": "--out: 'loop' cannot be used: its links lead in a circle",
}


@pytest.mark.parametrize("typed", TYPED)
def test_an_unusable_path_is_one_short_line(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    words = typed.replace("VERY_LONG", VERY_LONG).replace("LONG", LONG).replace("MIDDLE", "b" * 240)
    assert run(words.split()) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert TYPED[typed] in error
    assert len(error) < 800
    assert os.listdir() == ["loop"]  # noqa: PTH208


@pytest.mark.parametrize("path", [LONG, "a" * 100_000, "a\0b", "\ud800"])
def test_the_functions_raise_errors_of_their_own(path: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown model"):
        ditzoo.load(path)
    for refused in (path, Path(path), f"folder/{path}"):
        with pytest.raises(BundleError, match="no bundle at"):
            open_bundle(refused)
    with pytest.raises(BundleError, match=r"no bundle at .*; give the path of a bundle's folder"):
        ditzoo.load(Path(path))
    with pytest.raises(UsageError, match="cannot be used"):
        ditzoo.export_onnx("dit-digits", tmp_path / path)


def test_a_plan_is_not_saved_under_a_name_that_is_too_long(tmp_path: Path) -> None:
    plan = ditzoo.make_plan("dit-digits", steps=2)
    with pytest.raises(UsageError, match=r"was not written: its name is too long; choose another --out"):
        plan.save(tmp_path / LONG)
    plan.save(tmp_path / ("b" * 232 + ".json"))  # the longest name
    assert len(list(tmp_path.iterdir())) == 1


def test_a_recipe_in_a_read_only_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").mkdir()
    with mounted(tmp_path, "--bind", "-o", "ro", str(tmp_path)):
        for name in ("old", "new/inner"):
            assert run(["run", "reproduce", "dit-digits", "--dir", str(tmp_path / name)]) == 2
            error = capfd.readouterr().err
            assert f"{tmp_path / name}: Read-only file system; choose another folder" in error
            assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (LONG, "DITZOO_CACHE must be a folder, and 'aaaa"),
        ("a\udcff/" * 1500, "DITZOO_CACHE must be a folder, and"),
        ("/proc/x", "/proc/x/bundles was not created: No such file or directory; set DITZOO_CACHE to another folder"),
        ("/dev/null/x", "/dev/null/x/bundles was not created: Not a directory; set DITZOO_CACHE to another folder"),
    ],
)
def test_a_cache_that_cannot_be_made(
    place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DITZOO_CACHE", place)
    assert run(["sample", "dit-digits", "--backend", "onnxruntime", "--out", str(tmp_path / "x.png")]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert len(error) < 400
    assert error.count("\n") == 1


def test_a_cache_on_a_read_only_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DITZOO_CACHE", str(tmp_path / "disk" / "cache"))
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "ro", "tmpfs"):
        assert run(["sample", "dit-digits", "--backend", "onnxruntime", "--out", str(tmp_path / "x.png")]) == 2
    error = capfd.readouterr().err
    assert "was not written: it is read-only; set DITZOO_CACHE to another folder\n" in error
    assert "free" not in error
