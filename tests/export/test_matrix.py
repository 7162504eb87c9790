"""`ditzoo export --matrix`, `ditzoo inspect`, and what the command line says to bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ditzoo
from ditzoo.cli import run
from ditzoo_export import cached_bundle, cached_engines, make_engine_settings
from ditzoo_export.matrix import cells, read_matrix

ROOT = Path(__file__).parents[2]

MATRIX = """
out = "made"

[[export]]
models = ["uvit-digits"]
flavours = ["onnx", "tensorrt_rtx"]
precisions = ["fp16"]
batches = ["2"]
gpus = ["sm89", "sm90"]
"""


@pytest.mark.slow
def test_a_matrix_is_made_then_found_and_a_failure_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "export.toml").write_text(MATRIX)
    command = ["export", "--matrix", str(tmp_path / "export.toml"), "--json"]
    for state in ("made", "found"):
        assert run(command) == 1
        outcomes = {outcome["cell"]: outcome for outcome in json.loads(capsys.readouterr().out)}
        assert {cell: outcome["state"] for cell, outcome in outcomes.items()} == {
            "uvit-digits-onnx-onnxruntime-fp16": state,
            "uvit-digits-tensorrt_rtx-fp16-sm89": state,
            "uvit-digits-tensorrt_rtx-fp16-sm90": "failed",
        }
    assert "not for sm90" in outcomes["uvit-digits-tensorrt_rtx-fp16-sm90"]["message"]
    assert run(command[:-1]) == 1
    assert "found" in capsys.readouterr().out


def test_the_matrices_of_the_recipes_can_be_read() -> None:
    assert len(cells(read_matrix(ROOT / "recipes/export-digits.toml"))) == 10
    assert read_matrix(ROOT / "recipes/export-xl2.toml").export[0].resolutions == ("256", "512")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out = 1", "is not an export matrix"),
        ('out = "x"\nexport = [{models = ["dit-digits"], precision = ["fp16"]}]', "unknown field `precision`"),
        ('out = "x"\nexport = [{models = ["dit-digit"]}]', "did you mean dit-digits"),
        (MATRIX.replace("sm90", "sm75").replace("fp16", "bf16"), "sm75 cannot compute in bf16"),
        ("out = ", "is not an export matrix"),
    ],
)
def test_a_bad_matrix_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "export.toml").write_text(text)
    assert run(["export", "--matrix", str(tmp_path / "export.toml")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["export.toml"]


def test_inspect_shows_graphs_engines_and_bundles(capsys: pytest.CaptureFixture[str]) -> None:
    card = ditzoo.card("uvit-digits")
    engines = cached_engines(card, settings=make_engine_settings(card, gpu="sm89", precision="fp16", batch="1-4"))
    bundle = cached_bundle(card)
    wanted = {
        bundle.path: [
            "kind\tbundle",
            "model\tuvit-digits",
            "ditzoo export onnx uvit-digits",
            "onnxruntime",
            "tolerance: 1e-05",
        ],
        bundle.path / "backbone.onnx": ["x: float32[batch, 1, 8, 8]", "MatMul", "FLOAT", "ai.onnx: 20"],
        engines.path: ["tensorrt_rtx 1.7", "backbone-8x8-b1-4"],
        engines.path / "backbone-8x8-b1-4.engine": ["fp16 on sm89", "batch=1-4 height=8 width=8", "prediction: float32"],
    }
    for path, parts in wanted.items():
        assert run(["inspect", str(path)]) == 0
        shown = capsys.readouterr().out
        assert [part for part in parts if part not in shown] == []


def test_inspect_of_what_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.onnx").write_text("this is no graph")
    (tmp_path / "loose.engine").write_bytes(b"vtrt")
    for name, message in (
        ("text.onnx", "is not an ONNX graph"),
        ("loose.engine", "is not in a ditzoo bundle"),
        ("nothing.onnx", "there is no"),
        (".", "no bundle at"),
    ):
        assert run(["inspect", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tensorrt", "dit-digits", "--gpu", "sm89", "--batch", "0"], "a batch size must be 1 or more"),
        (["tensorrt", "dit-digits", "--gpu", "sm89", "--batch", "8-4"], "runs backwards; write 4-8"),
        (["tensorrt", "dit-digits", "--gpu", "sm89", "--resolution", "9"], "no multiple of 2"),
        (["tensorrt", "dit-digits", "--gpu", "sm75", "--precision", "bf16"], "sm75 cannot compute in bf16"),
        (["tensorrt", "dit-digits", "--gpu", "rtx"], "unknown GPU"),
        (["tensorrt", "dit-digits", "--gpu", "sm89", "--profiles", "all"], "separate or merged"),
        (["onnx", "dit-digits", "--precision", "int3"], "unknown precision"),
    ],
)
def test_bad_input_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["export", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_not_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "bundle", "dit-digits", "--tar", str(tmp_path / "a.tar")]) == 2
    assert "dit-digits is a name, not a bundle; first run `ditzoo export onnx" in capsys.readouterr().err
