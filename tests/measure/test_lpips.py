"""LPIPS, with random weights where the published ones would be."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ditzoo
from ditzoo.backends.torch import TorchBackend
from ditzoo.errors import CheckpointError, MissingPackageError, UsageError
from ditzoo.measure.lpips import ALEXNET, lpips
from ditzoo.measure.parity import compare
from ditzoo.measure.report import html

EXPECTED = 0.06085129
"""What lpips 0.1.4 itself gave for the first three of the pictures, with the planted weights."""

SHAPES = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}


def plant_alexnet(home: Path) -> None:
    rng, weights = np.random.default_rng(1), {}
    for number, shape in SHAPES.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5
        weights[f"features.{number}.weight"] = torch.from_numpy((scale * rng.standard_normal(shape)).astype(np.float32))
        weights[f"features.{number}.bias"] = torch.from_numpy(rng.uniform(-0.1, 0.1, shape[0]).astype(np.float32))
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(weights, home / "hub" / "checkpoints" / ALEXNET)


def plant_package(site: Path) -> None:
    rng = np.random.default_rng(2)
    weights = {
        f"lin{i}.model.1.weight": torch.from_numpy(rng.uniform(0, 1, (1, shape[0], 1, 1)).astype(np.float32))
        for i, shape in enumerate(SHAPES.values())
    }
    (site / "lpips" / "weights" / "v0.1").mkdir(parents=True)
    (site / "lpips" / "__init__.py").write_text("raise ImportError('only its weights are wanted')\n")
    torch.save(weights, site / "lpips" / "weights" / "v0.1" / "alex.pth")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    plant_alexnet(tmp_path / "torch")
    plant_package(tmp_path / "site")
    return tmp_path


def pictures(count: int, *, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    first = rng.uniform(0, 255, (count, 40, 33, channels)).astype(np.float32)
    return first, np.clip(first + rng.normal(0, 20, first.shape), 0, 255).astype(np.float32)


@pytest.mark.usefixtures("planted")
def test_it_is_what_the_package_computes() -> None:
    assert lpips(*pictures(3)) == pytest.approx(EXPECTED, rel=1e-4)


@pytest.mark.usefixtures("planted")
def test_it_is_a_distance() -> None:
    a, b = pictures(10)
    assert lpips(a, a) == 0
    assert lpips(a, b) == pytest.approx(lpips(b, a))
    assert 0 < lpips(a, (a + b) / 2) < lpips(a, b)
    singles = [lpips(a[i : i + 1], b[i : i + 1]) for i in range(10)]
    assert lpips(a, b) == pytest.approx(float(np.mean(singles)), rel=1e-5)
    grey, other = pictures(2, channels=1)
    assert lpips(grey, other) == pytest.approx(lpips(np.repeat(grey, 3, axis=3), np.repeat(other, 3, axis=3)))


def test_without_its_weights_a_line_says_why(planted: Path) -> None:
    a, b = pictures(1)
    with pytest.raises(UsageError, match="pictures of 31 pixels or more; these have 30"):
        lpips(a[:, :30], b[:, :30])
    weights = planted / "torch" / "hub" / "checkpoints" / ALEXNET
    weights.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=f"LPIPS cannot read {weights}"):
        lpips(a, b)
    weights.unlink()
    with pytest.raises(
        MissingPackageError, match=rf"needs AlexNet's weights in {weights}; ditzoo does not download them; run python"
    ):
        lpips(a, b)


def test_without_the_package_a_line_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'ditzoo\[lpips\]'"):
        lpips(*pictures(1))


def test_the_report_says_why_there_is_none() -> None:
    card = ditzoo.card("uvit-digits")
    comparison = compare(TorchBackend(card), TorchBackend(card), ditzoo.make_plan(card, steps=2), classes=[1])
    assert comparison.report.lpips is None
    assert comparison.report.no_lpips == "LPIPS needs pictures of 31 pixels or more; these have 8"
    assert "<p>No LPIPS: LPIPS needs pictures of 31 pixels or more; these have 8.</p>" in html(card, [comparison])
