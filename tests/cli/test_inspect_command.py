"""`ditzoo inspect` of bundles and of each of their files, and `--json` of exports."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

import ditzoo
from ditzoo.bundle import Bundle, Engine
from ditzoo.cli import run
from ditzoo.manifests import FileRecord
from ditzoo.model.opening import default_backend
from ditzoo.records import LARGEST_FILE, to_json
from ditzoo.specs import Profile, Range
from ditzoo_export import cached_bundle
from tests.support.terminal import run_in_terminal


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return cached_bundle(ditzoo.card("uvit-digits"))


def facts(capsys: pytest.CaptureFixture[str], path: Path) -> dict[str, Any]:
    assert run(["inspect", str(path), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_bundle_in_json_has_numbers(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, bundle.path)
    assert found["graphs"]["backbone"]["opset"] == 20
    assert found["graphs"]["backbone"]["precision"] == "fp32"
    assert found["graphs_verified"]["tolerance"] == 1e-5
    assert 0 < found["graphs_verified"]["random"] < 1e-5
    assert found["plan"] == {"solver": "dpmpp", "evaluations": 20}
    assert found["files"]["backbone.onnx"] == (bundle.path / "backbone.onnx").stat().st_size
    assert found["needs"] == {"onnxruntime": ">=1.24.1"}


def keys(value: Any) -> Iterator[str]:
    """All keys of dictionaries in a value, except those that are names: of files, packages and operations."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in ("files", "made_by", "ops", "external_data", "opset"):
                yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


@pytest.mark.parametrize("name", [".", "backbone.onnx", "plan.json", "card.json", "manifest.json"])
def test_json_is_for_programs(name: str, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, bundle.path / name)
    assert [key for key in keys(found) if not re.fullmatch(r"[a-z0-9_-]+", key) and not key.isupper()] == []
    graph = found["graphs"]["backbone"] if "graphs" in found else found
    for tensor in (*graph.get("inputs", ()), *graph.get("outputs", ())):
        assert tensor.keys() == {"name", "shape", "dtype"}
    if "inputs" in graph:
        assert graph["inputs"][0] == {"name": "x", "shape": ["batch", 1, 8, 8], "dtype": "float32"}


def test_engines_in_json_and_in_words(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "manifest.json").write_bytes(to_json(with_engine(bundle).manifest))
    found = facts(capsys, tmp_path / "manifest.json")
    assert found["needs"] == {"tensorrt": "==10.16"}
    engine = found["engines"]["backbone"]
    assert (engine["flavour"], engine["version"], engine["gpus"]) == ("tensorrt", "10.16", ["sm89"])
    assert engine["profiles"][0]["axes"]["batch"] == {"min": 1, "opt": 4, "max": 4}
    assert run(["inspect", str(tmp_path / "manifest.json")]) == 0
    shown = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert shown["engines.backbone.runs on"] == "tensorrt 10.16 fp16 on sm89"
    assert shown["engines.backbone.profiles"] == "batch=1-4 height=8 width=8"
    assert shown["needs"] == "tensorrt 10.16"
    assert "verified" not in shown
    assert shown["graphs verified"].endswith("engines: not run; `ditzoo parity` compares them with torch on their GPU")


def test_the_command_of_a_bundle_can_be_copied_from_a_terminal(bundle: Bundle) -> None:
    status, lines = run_in_terminal(["-m", "ditzoo", "inspect", str(bundle.path)])
    assert status == 0
    begin = lines.index("made with:") + 1
    copied = "".join(f"{line:80}" for line in lines[begin:]).rstrip()
    assert copied == f"{bundle.manifest.settings['command']} --out {bundle.path}"


def test_the_command_of_a_bundle_runs_as_it_is_printed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundle.path, tmp_path / "a bundle")
    monkeypatch.chdir(tmp_path)
    command = facts(capsys, Path("a bundle"))["command"]
    assert shlex.split(command)[0] == "ditzoo"
    assert run(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out == "a bundle\n"


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("plan", "plan", "solver\tdpmpp"),
        ("card", "card", "null_label\t10"),
        ("manifest", "bundle", "model\tuvit-digits"),
    ],
)
def test_each_json_file_is_described(
    name: str, kind: str, part: str, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert facts(capsys, bundle.path / f"{name}.json")["kind"] == kind
    assert run(["inspect", str(bundle.path / f"{name}.json")]) == 0
    assert f"\n{part}\n" in capsys.readouterr().out


def test_a_plan_says_what_a_client_has_to_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ditzoo.make_plan("dit-digits", solver="dpmpp:order=2", steps=4)
    plan.save(tmp_path / "any name.json")
    found = facts(capsys, tmp_path / "any name.json")
    assert found["evaluations"] == len(found["times"]) == 4
    assert found["states_kept"] == max(len(row.states) for row in plan.rows)
    assert found["predictions_kept"] == max(len(row.predictions) for row in plan.rows)


@pytest.mark.parametrize("content", [b"{}", b"no json", b'{"format": "ditzoo-bundle/2"}', b""])
def test_another_json_file_is_refused_in_one_line(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert run(["inspect", str(tmp_path / "x.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(f"no {kind}" in error for kind in ("plan", "card", "manifest"))


def test_a_large_json_file_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is larger than its limit, and has no bytes on the disk."""
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read without a limit"))
    assert run(["inspect", str(tmp_path / "x.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("the file has more than 67,108,864 bytes") == 3
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["pipe", "pipe.json", "pipe.onnx", "/dev/null"])
def test_what_is_no_regular_file_is_called_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if not Path(name).exists():
        os.mkfifo(name)
    assert run(["inspect", name]) == 2
    assert f"{name} is not a regular file; inspect reads a bundle's folder" in capsys.readouterr().err
    assert run(["inspect", "missing"]) == 2
    assert "there is no missing; inspect reads a bundle's folder" in capsys.readouterr().err


def test_missing_weights_of_a_graph_are_said(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(bundle.path / "backbone.onnx", tmp_path / "backbone.onnx")
    assert facts(capsys, tmp_path / "backbone.onnx")["external_data"] == {"backbone.onnx.data": "missing"}
    shutil.copyfile(bundle.path / "backbone.onnx.data", tmp_path / "backbone.onnx.data")
    size = (tmp_path / "backbone.onnx.data").stat().st_size
    assert facts(capsys, tmp_path / "backbone.onnx")["external_data"] == {"backbone.onnx.data": size}


@pytest.mark.parametrize("name", ["three.png", "backbone.onnx.data"])
def test_a_file_that_is_no_graph_is_refused_with_what_inspect_reads(
    name: str, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "three.png")
    shutil.copyfile(bundle.path / "backbone.onnx.data", tmp_path / "backbone.onnx.data")
    assert run(["inspect", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert f"{name} is not an ONNX graph, or it is damaged; inspect reads a bundle's folder" in error
    assert "proto" not in error


def test_reading_a_graph_names_the_extra(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ditzoo_export.inspection.find_spec", lambda name: None)
    assert run(["inspect", str(bundle.path / "backbone.onnx")]) == 2
    assert "pip install 'ditzoo[export]'" in capsys.readouterr().err


def test_a_bundle_is_inspected_and_served_without_torch_and_onnx(bundle: Bundle, tmp_path: Path) -> None:
    """An import of torch, onnx or onnxruntime fails in the process."""
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnx_ir', 'onnxscript', 'onnxruntime'):\n"
        "    sys.modules[name] = None\n"
        "from ditzoo.cli import run\n"
        f"assert run(['inspect', {str(bundle.path)!r}]) == 0\n"
        f"assert run(['export', 'triton', {str(bundle.path)!r}, '--repo', {str(tmp_path / 'repo')!r}, '--json']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "repo" / "uvit-digits-backbone" / "config.pbtxt").is_file()


def test_an_export_in_json_is_its_manifest(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    assert run(["export", "onnx", "uvit-digits", "--out", str(tmp_path / "bundle"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(tmp_path / "bundle")
    assert told["key"] == bundle.manifest.key
    assert run(["export", "bundle", str(tmp_path / "bundle"), "--tar", str(tmp_path / "b.tar"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == (tmp_path / "b.tar").stat().st_size


def with_engine(bundle: Bundle) -> Bundle:
    """The bundle, as if it held an engine beside its graphs."""
    graph = bundle.manifest.graphs["backbone"]
    size = Range(min=8, opt=8, max=8)
    engine = Engine(
        file="backbone.engine",
        graph="backbone",
        flavour="tensorrt",
        version="10.16",
        gpus=("sm89",),
        precision="fp16",
        profiles=(Profile(axes={"batch": Range(min=1, opt=4, max=4), "height": size, "width": size}),),
        options=("stripped",),
        inputs=graph.inputs,
        outputs=graph.outputs,
        seconds=1.0,
    )
    files = {**bundle.manifest.files, engine.file: FileRecord(size=0, sha256="")}
    manifest = msgspec.structs.replace(bundle.manifest, engines={"backbone": engine}, files=files)
    return msgspec.structs.replace(bundle, manifest=manifest)


def test_engines_run_on_their_own_backend_even_beside_their_graphs(bundle: Bundle) -> None:
    assert default_backend(bundle) == "onnxruntime"
    assert default_backend(with_engine(bundle)) == "tensorrt"
