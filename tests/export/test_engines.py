"""TensorRT-RTX engines, which build with no GPU: profiles, GPUs, and clear lines for what cannot be (precisions: the grid)."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

import ditzoo
from ditzoo.backends import cuda
from ditzoo.bundle import MANIFEST, REUSE_GRAPH, open_bundle
from ditzoo.cli import run
from ditzoo.errors import BackendError, ExportError, UsageError
from ditzoo.specs import RESIDUAL, Profile, Range
from ditzoo.zoo.configs import BackboneConfig
from ditzoo_export import cached_bundle, cached_engines, export_engines, make_engine_settings, make_settings
from ditzoo_export.builder_phases import Phases
from ditzoo_export.engines import _configure, _flags, _labels, build, load
from ditzoo_export.gpus import CARDS
from ditzoo_export.refitting import graph_settings
from ditzoo_export.settings import check_precision
from ditzoo_export.sizes import exactly
from ditzoo_export.triton import models
from tests.support.export_models import TINY_DIT, TINY_LIGHTNINGDIT, TINY_UVIT, random_model

no_gpu = pytest.mark.skipif(cuda.gpu() is not None, reason="there is a GPU")


@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_engines_for_two_gpus(name: str) -> None:
    card = ditzoo.card(name)
    settings = make_engine_settings(card, gpu="sm89,sm120", precision="bf16", batch="1,2-4")
    engines = cached_engines(card, settings=settings).manifest.engines
    assert {"backbone-8x8-b1", "backbone-8x8-b2-4"} <= set(engines)
    assert engines["backbone-8x8-b1"].gpus == ("sm89", "sm120")


@pytest.mark.parametrize("config", [TINY_DIT, TINY_LIGHTNINGDIT], ids=["dit", "lightningdit"])
def test_merged_profiles_and_resolutions(config: BackboneConfig) -> None:
    card, net = random_model(config)
    settings = make_engine_settings(card, gpu="sm89", resolution="8,16x12", batch="1,2-4", merged=True)
    engines = cached_engines(card, settings=settings, net=net).manifest.engines
    (name,) = [name for name in engines if name.startswith("backbone")]
    assert name == "backbone-8x8-b1+8x8-b2-4+16x12-b1+16x12-b2-4"
    assert [str(profile) for profile in engines[name].profiles] == [
        "batch=1 height=8 width=8",
        "batch=2-4 height=8 width=8",
        "batch=1 height=16 width=12",
        "batch=2-4 height=16 width=12",
    ]


@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_with_reuse(name: str, precision: str) -> None:
    card = ditzoo.card(name)
    settings = make_engine_settings(card, gpu="sm89", precision=precision, batch="1,2-4", reuse="blocks=1")
    assert " --reuse blocks=1" in settings.command(card)
    bundle = cached_engines(card, settings=settings)
    assert graph_settings(bundle) == settings.onnx
    engines = {engine.file: engine for engine in bundle.manifest.engines.values()}
    for batch in ("b1", "b2-4"):
        backbone, reuse = (engines[f"{graph}-8x8-{batch}.engine"] for graph in ("backbone", REUSE_GRAPH))
        assert [spec.name for spec in backbone.outputs] == ["prediction", RESIDUAL]
        assert reuse.inputs == (*backbone.inputs, backbone.outputs[1])
        assert (backbone.outer_blocks, reuse.outer_blocks) == (msgspec.UNSET, 1)
        assert reuse.profiles == backbone.profiles
    whole, outer = (
        sum((bundle.path / file).stat().st_size for file in engines if file.startswith(f"{graph}-8"))
        for graph in ("backbone", REUSE_GRAPH)
    )
    assert outer < 0.8 * whole  # the weights of two blocks, not of all


def test_engines_with_reuse_have_one_resolution() -> None:
    card, net = random_model(msgspec.structs.replace(TINY_DIT, depth=3))
    settings = make_engine_settings(card, gpu="sm89", resolution="16x12", reuse="blocks=1")
    bundle = cached_engines(card, settings=settings, net=net)
    assert graph_settings(bundle) == settings.onnx
    assert {engine.inputs[0].shape[2:] for engine in bundle.manifest.engines.values() if engine.graph != "conditioning"} == {
        (16, 12)
    }
    with pytest.raises(UsageError, match="graphs with reuse take one resolution"):
        make_engine_settings(card, gpu="sm89", resolution="8,16", reuse="blocks=1")


def test_many_profiles_have_a_short_name() -> None:
    card, net = random_model(TINY_DIT)
    settings = make_engine_settings(card, gpu="sm89", resolution="8,12,16,20,24,28", batch="1,2,4,8,16", merged=True)
    engines = cached_engines(card, settings=settings, net=net).manifest.engines
    (backbone,) = [engine for engine in engines.values() if engine.graph == "backbone"]
    assert len(backbone.profiles) == 30
    assert re.fullmatch(r"backbone-30-profiles-[0-9a-f]{8}\.engine", backbone.file)


def test_builds_are_the_same_from_run_to_run_and_report_progress(caplog: pytest.LogCaptureFixture) -> None:
    card, net = random_model(TINY_UVIT)
    bundle = cached_bundle(card, settings=make_settings(card, precision="fp16", target="tensorrt"), net=net)
    graph, profile = bundle.manifest.graphs["backbone"], Profile(axes={"batch": Range(min=1, opt=2, max=2)})
    reported: list[tuple[str, float]] = []
    make = partial(build, load("tensorrt_rtx"), bundle.path / graph.file, graph, [profile], ["sm89"], [])
    with caplog.at_level(logging.INFO, "ditzoo_export"):
        first, second = make(report=lambda doing, done: reported.append((doing, done))), make()
    assert first == second
    assert any(re.search(r"tensorrt_rtx: Building engine \(\d+ steps\)", message) for message in caplog.messages)
    assert {"Building engine", "Optimizing graph"} <= {doing for doing, _ in reported}
    parts = [done for _, done in reported]
    assert parts == sorted(parts)
    assert parts[0] == 0
    assert 0.5 < parts[-1] <= 1


STOPPED_BUILD = """
import os, signal, sys
from pathlib import Path
from ditzoo.bundle import open_bundle
from ditzoo.specs import Profile, Range
from ditzoo_export.engines import build, load

bundle, reported = open_bundle(sys.argv[1]), []
graph, profile = bundle.manifest.graphs["backbone"], Profile(axes={"batch": Range(min=1, opt=2, max=2)})

def press(doing, done):
    reported.append(doing)
    if len(reported) == 3:
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where Ctrl-C is ignored
try:
    build(load("tensorrt_rtx"), bundle.path / graph.file, graph, [profile], ["sm89"], [], report=press)
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print(*reported, sep="\\n")
"""
"""Builds an engine of the bundle at its argument, and presses Ctrl-C as the builder reports for the third time."""


def test_ctrl_c_stops_a_build() -> None:
    """It is no error of the build, and TensorRT has nothing to say about it. A process of its own gets the signal."""
    card, net = random_model(TINY_UVIT)
    bundle = cached_bundle(card, settings=make_settings(card, precision="fp16", target="tensorrt"), net=net)
    done = subprocess.run([sys.executable, "-c", STOPPED_BUILD, str(bundle.path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) >= 3
    assert "Building engine from subgraph" not in done.stdout


def test_the_part_of_a_build_that_is_done_counts_the_steps_of_all_phases() -> None:
    reported: list[tuple[str, float]] = []
    phases = Phases(lambda doing, done: reported.append((doing, done)))
    phases.start("all", 4)
    phases.step("all", 0)
    phases.start("inside", 2)
    phases.step("inside", 0)
    phases.finish("inside")
    phases.step("all", 1)
    phases.start("empty", 0)
    phases.finish("empty")
    phases.finish("all")
    assert reported == [
        ("all", 0),
        ("all", 0.25),
        ("inside", 0.25),
        ("inside", 0.375),
        ("all", 0.375),
        ("all", 0.5),
        ("empty", 0.5),
        ("all", 0.5),
    ]


@pytest.mark.parametrize("options", [(), ("tf32",)], ids=str)
def test_engines_of_fp32_compute_in_tf32_only_if_asked(options: tuple[str, ...]) -> None:
    trt = load("tensorrt_rtx")
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()
    assert config.get_flag(trt.BuilderFlag.TF32)  # what TensorRT does by itself
    _configure(trt, config, ["sm89"], options)
    assert config.get_flag(trt.BuilderFlag.TF32) == bool(options)
    settings = make_engine_settings(ditzoo.card("dit-digits"), gpu="sm89", precision="fp32", options=options)
    assert ("--tf32" in settings.command(ditzoo.card("dit-digits"))) == bool(options)


def test_engines_without_weights_say_which_weights_they_take() -> None:
    trt = load("tensorrt_rtx")
    other = SimpleNamespace(BuilderFlag=trt.BuilderFlag)  # TensorRT has the same flags, and no list of GPUs
    for module, options, expected in (
        (trt, ("stripped",), ["STRIP_PLAN", "REFIT"]),
        (other, ("stripped",), ["STRIP_PLAN", "REFIT_IDENTICAL"]),
        (other, ("refittable", "stripped"), ["REFIT", "STRIP_PLAN"]),
    ):
        assert [flag.name for flag in _flags(module, options)] == expected


def test_memory_is_limited_where_that_is_asked_for() -> None:
    """An engine whose weights are streamed is larger: it can run with any part of them on the host."""
    card, net = random_model(TINY_UVIT)
    bundle = cached_bundle(card, settings=make_settings(card, precision="fp16", target="tensorrt"), net=net)
    graph, profile = bundle.manifest.graphs["backbone"], Profile(axes={"batch": Range(min=1, opt=2, max=2)})
    place = load("tensorrt_rtx"), bundle.path / graph.file, graph, [profile], ["sm89"]
    assert build(*place, ["weight_streaming"], workspace=64) != build(*place, [])
    settings = make_engine_settings(card, gpu="sm89", options=["weight_streaming"], workspace=64)
    assert settings.command(card).endswith("--workspace 64 --weight-streaming")
    with pytest.raises(UsageError, match="the MB of --workspace must be 1 or more, not 0"):
        make_engine_settings(card, gpu="sm89", workspace=0)


def test_gpus_have_the_names_of_their_cards() -> None:
    names = {
        "sm70": "V100",
        "sm75": "Tesla T4,RTX 2080",
        "sm80": "a100,NVIDIA A100-SXM4-80GB",
        "sm86": "RTX 3090,A10,A40",
        "sm87": "Orin,Jetson AGX Orin",
        "sm89": "rtx4090,RTX 6000 Ada,L4,L40,L40S,NVIDIA GeForce RTX 4070 Ti SUPER,sm89",
        "sm90": "H100,h200,GH200,NVIDIA H100 80GB HBM3,SM90",
        "sm100": "B200",
        "sm103": "B300",
        "sm120": "RTX 5090",
    }
    card = ditzoo.card("dit-digits")
    for architecture, cards in names.items():
        assert make_engine_settings(card, gpu=cards).gpus == (architecture,)
    assert make_engine_settings(card, gpu="H100, sm89,L4").gpus == ("sm90", "sm89")
    assert make_engine_settings(card, gpu="Current").gpus is None
    assert make_engine_settings(card, gpu="H100") == make_engine_settings(card, gpu="sm90")
    for name, message in (("h10", "H100"), ("RTX 6000", r"RTX 6000 Ada \(sm89\)"), ("rtx4091", r"RTX 4090 \(sm89\)")):
        with pytest.raises(UsageError, match=f"unknown GPU '{name}'; did you mean .*{message}"):
            make_engine_settings(card, gpu=name)


def test_every_architecture_of_tensorrt_rtx_has_a_name() -> None:
    known = {name.lower() for name in dir(load("tensorrt_rtx").ComputeCapability) if re.fullmatch(r"SM\d+", name)}
    assert known
    assert known <= set(CARDS)


def test_names_of_engines_are_short_for_any_number_of_profiles() -> None:
    longest = Range(min=1024, opt=2048, max=4096)
    for count in range(1, 40):
        profiles = [
            Profile(axes={"batch": longest, "height": exactly(8 * i), "width": exactly(1024)}) for i in range(1, count + 1)
        ]
        assert len(_labels(profiles)) <= 80
        assert _labels(profiles) != _labels([*profiles, profiles[0]])


def test_gpus_that_are_not_in_any_list_have_a_capability() -> None:
    check_precision("sm103", "fp8")
    for gpu, precision in (("sm70", "bf16"), ("sm87", "fp8")):
        with pytest.raises(UsageError, match=f"{gpu} cannot compute in {precision}, which needs sm"):
            check_precision(gpu, precision)  # type: ignore[arg-type]


def test_parser_errors_are_all_shown(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in "xy"]
    node = helper.make_node("NoSuchOp", ["x"], ["y"], name="culprit", domain="nowhere")
    onnx.save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])), tmp_path / "bad.onnx")
    card, net = random_model(TINY_UVIT)
    graph = cached_bundle(card, settings=make_settings(card, precision="fp16", target="tensorrt"), net=net).manifest.graphs[
        "backbone"
    ]
    with pytest.raises(ExportError, match=r"tensorrt_rtx cannot read bad.onnx: .*culprit.*NoSuchOp"):
        build(load("tensorrt_rtx"), tmp_path / "bad.onnx", graph, [], ["sm89"], [])


def test_what_the_builder_says_is_passed_on() -> None:
    card, net = random_model(TINY_UVIT)
    bundle = cached_bundle(card, settings=make_settings(card, precision="bf16", target="tensorrt"), net=net)
    graph, profile = bundle.manifest.graphs["backbone"], Profile(axes={"batch": Range(min=1, opt=2, max=2)})
    with pytest.raises(ExportError, match=r"cannot build backbone.onnx: .*sm75"):
        build(load("tensorrt_rtx"), bundle.path / graph.file, graph, [profile], ["sm75"], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": "0"}, "a batch size must be 1 or more"),
        ({"batch": "8-4"}, "runs backwards"),
        ({"resolution": "7"}, "no multiple of 2"),
        ({"resolution": "dynamic"}, "cannot be built for the resolution dynamic"),
        ({"precision": "int4"}, "unknown precision"),
        ({"gpu": "sm88"}, "unknown GPU 'sm88'; did you mean"),
        ({"gpu": "sm75", "precision": "bf16"}, "sm75 cannot compute in bf16, which needs sm80 or newer"),
        ({"gpu": "sm86", "precision": "fp8"}, "sm86 cannot compute in fp8, which needs sm89 or newer"),
        ({"flavour": "tensorflow"}, "unknown flavour"),
        ({"options": ["fast"]}, "unknown option"),
        ({"options": ["tf32"], "precision": "fp16"}, "--tf32 is a way to compute fp32, and this is fp16"),
    ],
)
def test_bad_settings(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_engine_settings(ditzoo.card("dit-digits"), **{"gpu": "sm89", **arguments})  # type: ignore[arg-type]


@no_gpu
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpu": "current"}, "this machine has no GPU; name one, such as --gpu sm89"),
        ({"gpu": "sm90"}, r"is for .*sm89.*, not for sm90"),
        ({"gpu": "sm89", "options": ["stripped"]}, "stripped engines only on a machine with a GPU"),
        ({"gpu": "sm89", "options": ["refittable"]}, "refittable engines only on a machine with a GPU"),
        ({"gpu": "sm89", "options": ["version_compatible"]}, "has no version-compatible engines"),
        ({"gpu": "sm89", "options": ["hardware_compatible"]}, "name all of them: --gpu"),
    ],
)
def test_what_cannot_be_built_here(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    card, net = random_model(TINY_UVIT)
    settings = make_engine_settings(card, **arguments)  # type: ignore[arg-type]
    with pytest.raises((UsageError, BackendError), match=message):
        export_engines(card, tmp_path / "e", settings=settings, net=net)
    assert list(tmp_path.iterdir()) == []


def test_engines_of_an_older_bundle_are_found_by_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They ended in .plan."""
    card = ditzoo.card("uvit-digits")
    newer = cached_engines(card, settings=make_engine_settings(card, gpu="sm89", precision="fp16", batch="1-4"))
    older = Path(shutil.copytree(newer.path, tmp_path / "older"))
    (older / MANIFEST).write_text((older / MANIFEST).read_text().replace('.engine"', '.plan"'))
    for path in older.glob("*.engine"):
        path.rename(path.with_suffix(".plan"))
    opened = open_bundle(older)
    assert set(opened.manifest.engines) == set(newer.manifest.engines)
    assert [model.name for model in models(opened)] == [model.name for model in models(newer)]
    assert run(["inspect", str(older / "backbone-8x8-b1-4.plan")]) == 0
    assert "fp16 on sm89" in capsys.readouterr().out
