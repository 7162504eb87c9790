"""Each command that writes a file says in one line that the disk is full, names the file, and loses no result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ditzoo.cli import run
from tests.support.mounts import mounted

FILL = "fill"


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder "full", a disk without a free byte. The working folder is beside it."""
    monkeypatch.chdir(tmp_path)
    with mounted(tmp_path / "full", "-t", "tmpfs", "-o", "size=64k", "tmpfs") as folder:
        fill(folder)
        yield folder


def fill(folder: Path) -> None:
    with (folder / FILL).open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))


def fails(typed: str, file: str, option: str, capfd: pytest.CaptureFixture[str], *, left: tuple[str, ...] = ()) -> str:
    """Runs a command that cannot write `file`. Returns its output. Afterwards, the disk holds `left` and nothing else."""
    assert run(typed.split()) == 2
    out, err = capfd.readouterr()
    (said,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert said.startswith(f"error: {file} was not written: the disk is full (now 0 bytes are free on the disk of ")
    assert said.endswith(f"free some space, or choose another {option}")
    assert sorted(os.listdir("full")) == sorted([FILL, *left])  # noqa: PTH208
    return out


DRAWING = "sample dit-digits --backend torch --num 100 --steps 2"


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".gif", ".bmp", ".tiff"])
@pytest.mark.parametrize("free", [0, 4096])
def test_a_sheet(full: Path, suffix: str, free: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The disk is full before the first byte, and within the file."""
    if free:
        os.truncate(full / FILL, (full / FILL).stat().st_size - free)
    typed = [*DRAWING.split(), "--out", f"full/x{suffix}"]
    assert run(typed) == 2
    assert capfd.readouterr().err.startswith(f"error: full/x{suffix} was not written: the disk is full (now ")
    assert os.listdir(full) == [FILL]  # noqa: PTH208


@pytest.mark.parametrize(
    ("options", "file", "option"),
    [
        ("--out x.png --animate full/x.gif", "full/x.gif", "--animate"),
        ("--out x.png --animate full/x.webp", "full/x.webp", "--animate"),
        ("--out full/x.png --preview 1", "full/x.step0001.png", "--out"),
        ("--save-latents full/x.npz", "full/x.npz", "--save-latents"),
        ("--save-latents full/x.npy", "full/x.npy", "--save-latents"),
    ],
)
def test_other_files_of_a_drawing(full: Path, options: str, file: str, option: str, capfd: pytest.CaptureFixture[str]) -> None:
    fails(f"{DRAWING} {options}", file, option, capfd)


def test_a_folder_of_pictures(full: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fails(f"{DRAWING} --classes 3 --out full/x", "full/x/0000-class3.png", "--out", capfd, left=("x",))


def test_a_plan(full: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fails("plan save dit-digits --out full/plan.json", "full/plan.json", "--out", capfd)


def test_a_plot_whose_numbers_are_printed(full: Path, capfd: pytest.CaptureFixture[str]) -> None:
    typed = "bench dit-digits --backends torch --steps 2 --repeats 1 --warmup 0 --plot full/x.svg"
    assert "torch fp32 cpu" in fails(typed, "full/x.svg", "--plot", capfd)
    assert json.loads(fails(f"{typed} --json", "full/x.svg", "--plot", capfd))["model"] == "dit-digits"


def test_a_report_whose_numbers_are_printed(full: Path, capfd: pytest.CaptureFixture[str]) -> None:
    typed = "parity dit-digits --backends torch,torch:bf16 --steps 2 --times 1 --html full/x.html"
    assert "pass" in fails(typed, "full/x.html", "--html", capfd)


def test_scores_that_are_printed_and_a_packed_file(full: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(f"{DRAWING} --shard-size 50 --out shards".split()) == 0
    assert "FID" in fails("evaluate shards --out full/x.json --no-precision-recall", "full/x.json", "--out", capfd)
    fails("pack shards --out full/x.npz", "full/x.npz", "--out", capfd)


def test_a_folder_of_shards_and_one_of_a_recipe(full: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fails(f"{DRAWING} --shard-size 50 --out full/s", "full/s/job.json", "--out", capfd, left=("s",))
    Path("r.toml").write_text('model = "dit-digits"\n[[steps]]\nname = "one"\ncommand = ["info", "dit-digits"]\n')
    fails("run r.toml --dir full/r", "full/r/run.json", "--dir", capfd, left=("s", "r"))
