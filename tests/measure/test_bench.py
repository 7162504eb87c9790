from __future__ import annotations

import importlib
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

import ditzoo
import ditzoo_export
from ditzoo.backends import cuda, open_backend
from ditzoo.cli import run as cli
from ditzoo.cli import tables
from ditzoo.cli.bench import _COLUMNS, _REUSE
from ditzoo.errors import BackendError, UsageError
from ditzoo.measure import gpu
from ditzoo.measure.bench import Bench, parse_batches, run
from ditzoo.measure.machine import ceilings, machine
from ditzoo.measure.operations import multiply_adds
from ditzoo.plan.make import make_plan
from ditzoo.zoo.configs import BackboneConfig, DiTConfig, UViTConfig
from ditzoo_export import EngineSettings, cached_bundle, make_settings
from tests.support.cuda_stand_in import Cuda

ROOT = Path(__file__).parents[2]
CARD = ditzoo.card("uvit-digits")
PLAN = make_plan(CARD, steps=3)
BUNDLE = partial(cached_bundle, CARD)

PAPERS: dict[
    str, tuple[BackboneConfig, float]
] = {  # Gflops of arXiv 2212.09748, table 4 and section 5, and arXiv 2209.12152, table 9
    "DiT-S/2": (DiTConfig(hidden_size=384, depth=12, num_heads=6), 6.06),
    "DiT-B/2": (DiTConfig(hidden_size=768, depth=12, num_heads=12), 23.01),
    "DiT-L/2": (DiTConfig(hidden_size=1024, depth=24, num_heads=16), 80.71),
    "DiT-XL/2": (DiTConfig(), 118.64),
    "DiT-XL/2 at 512": (DiTConfig(input_size=64), 524.60),
    "U-ViT-H/2": (UViTConfig(num_classes=1001, conv=False), 133.25),
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_count_is_that_of_the_papers(name: str) -> None:
    config, gflops = PAPERS[name]
    assert multiply_adds(config) / 1e9 == pytest.approx(gflops, rel=1e-3)
    assert multiply_adds(config, batch=3) == pytest.approx(3 * multiply_adds(config))


def openers(*names: str) -> list[partial]:  # type: ignore[type-arg]
    return [partial(open_backend, name, BUNDLE()) for name in names]


def test_every_backend_is_measured_at_every_batch() -> None:
    rounds = []
    result = run(openers("torch", "onnxruntime"), PLAN, batches=[1, 3], repeats=4, warmup=1, advance=lambda: rounds.append(1))
    assert [(entry.backend, entry.batch) for entry in result.measurements] == [
        (f"{name} fp32 cpu", batch) for batch in (1, 3) for name in ("torch", "onnxruntime")
    ]
    assert len(rounds) == 2 * (4 + 1)
    for entry in result.measurements:
        assert 0 < entry.evaluation.low <= entry.evaluation.median <= entry.evaluation.high
        assert entry.evaluation.repeats == 4
        assert entry.images_per_second == pytest.approx(entry.batch / (3 * entry.evaluation.median))
        assert entry.load > 0
        assert entry.first_image > 0
        assert entry.speed is None
    assert msgspec.json.decode(msgspec.json.encode(result), type=Bench) == result


def test_evaluations_with_reuse_are_measured_beside_whole_ones() -> None:
    """A reuse row of `reuse="every=2"` counts with its own time, and the error is that of both kinds."""
    plan = make_plan(CARD, steps=5, reuse="every=2,blocks=1")
    bundle = cached_bundle(CARD, settings=make_settings(CARD, reuse="blocks=1"))
    both = [partial(open_backend, name, bundle) for name in ("torch", "onnxruntime")]
    result = run(both, plan, batches=[2], repeats=6, warmup=1)
    assert [entry.backend for entry in result.measurements] == ["torch fp32 cpu", "onnxruntime fp32 cpu"]
    for entry in result.measurements:
        assert entry.reuse is not None
        assert entry.reuse.repeats == 6
        taken = 3 * entry.evaluation.median + 2 * entry.reuse.median
        assert entry.images_per_second == pytest.approx(2 / taken)
    assert result.measurements[0].error == 0
    assert 0 < result.measurements[1].error < 1e-5
    assert msgspec.json.decode(msgspec.json.encode(result), type=Bench) == result
    with pytest.raises(BackendError, match="has no graph with reuse, and the plan needs blocks=1"):
        run(openers("onnxruntime"), plan, batches=[1], repeats=1)


def test_the_command_measures_reuse(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "uvit-digits", "--backends", "torch,onnxruntime", "--repeats", "2", "--steps", "4"]
    assert cli([*command, "--reuse", "every=2,blocks=1"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    place = head.split("\t").index("reuse ms")
    assert len(rows) == 2
    assert all(float(row.split("\t")[place]) > 0 for row in rows)
    assert cli(command) == 0
    assert "reuse" not in capsys.readouterr().out


@pytest.mark.parametrize(("width", "also"), [(80, "error"), (100, "of limit"), (120, "load s"), (140, "outside")])
def test_a_terminal_shows_backends_side_by_side(width: int, also: str) -> None:
    """Columns that matter less are left out where they do not fit. None is left out where the output is not a terminal."""
    row = [
        "onnxruntime fp32 cpu",
        "1",
        "12.34",
        "11.22-13.44",
        "2.03x",
        "90.9",
        "20%",
        "2.4e-07",
        "139",
        "0.49",
        "0.02",
        "55.8%",
    ]
    columns = [column for column in _COLUMNS if column != _REUSE]
    shown = tables.fitting(columns, [row], width)
    assert {"backend", "batch", "ms", "ratio", "images/s", "error", also} <= {column.lstrip(tables.SIGNS) for column in shown}
    assert not isinstance(tables.drawn(shown, [[row[columns.index(column)] for column in shown]], width), str)


def test_contestants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
    from ditzoo.backends.torch import TorchBackend

    calls: list[tuple[str, int]] = []
    for kind in (TorchBackend, OnnxRuntimeBackend):
        original = kind.__call__

        def recorded(self: object, inputs: Mapping[str, object], *, _call: object = original) -> object:
            calls.append((type(self).__name__, len(inputs["x"])))  # type: ignore[arg-type]
            return _call(self, inputs)  # type: ignore[operator]

        monkeypatch.setattr(kind, "__call__", recorded)
    run(openers("torch", "onnxruntime"), PLAN, batches=[2], repeats=2, warmup=1)
    turns = [call for call in calls if call[1] == 4]  # both halves of guidance on two images; the first image is smaller
    assert turns == [("TorchBackend", 4), ("OnnxRuntimeBackend", 4)] * 3


def test_the_share_of_the_limit_is_work_over_time() -> None:
    work = multiply_adds(CARD.backbone)
    (entry,) = run(openers("onnxruntime"), PLAN, batches=[2], repeats=2, multiply_adds=work).measurements
    assert entry.speed == pytest.approx(2 * 2 * work / entry.evaluation.median)
    (entry,) = run(
        openers("onnxruntime"), make_plan(CARD, steps=3, guidance=1.0), batches=[2], repeats=2, multiply_adds=work
    ).measurements
    assert entry.speed == pytest.approx(2 * work / entry.evaluation.median)


def test_a_share_is_of_the_rate_of_its_own_device() -> None:
    result = run(openers("onnxruntime"), PLAN, batches=[1], repeats=1, multiply_adds=10**6)
    (entry,), (cpu, *_) = result.measurements, result.ceilings
    gpu = msgspec.structs.replace(cpu, device="cuda", multiply_adds=4 * entry.speed)
    both = msgspec.structs.replace(result, ceilings=(msgspec.structs.replace(cpu, multiply_adds=2 * entry.speed), gpu))
    assert both.share(entry) == pytest.approx(0.5)
    elsewhere = msgspec.structs.replace(entry, backend="onnxruntime fp32 cuda")
    assert both.share(elsewhere) == pytest.approx(0.25)
    assert msgspec.structs.replace(both, ceilings=both.ceilings[:1]).share(elsewhere) is None


def test_memory_of_what_a_backend_holds_is_seen() -> None:
    class Hoarder:
        def __enter__(self) -> object:
            self.hoard = np.ones(2**25)  # 256 MB
            self.backend = open_backend("onnxruntime", BUNDLE())
            return self.backend

        def __exit__(self, *_: object) -> None:
            del self.hoard

    (entry,) = run([Hoarder], PLAN, batches=[1], repeats=1).measurements  # type: ignore[list-item]
    if entry.host_memory is None:
        pytest.skip("this system does not tell the peak of a process's memory")
    assert 250e6 < entry.host_memory < 900e6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_is_described_with_its_driver_clocks_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.describe() == {}
    assert gpu.free_memory() is None
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        '#!/bin/sh\necho "$*" >&2\n[ "$3" = --id=0000:65:00.0 ] && echo "580.95, 2040 MHz, 2520 MHz, 10501 MHz, 320.00 W"\n'
    )
    smi.chmod(0o755)
    device = Cuda()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(cuda, "runtime", lambda: device)
    found = machine()
    assert (found["GPU"], found["driver"], found["GPU clock"]) == ("NVIDIA L4/24", "580.95", "2040 MHz")
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert gpu.describe()["GPU"] == "NVIDIA L4/24"
    assert "driver" not in gpu.describe()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_memory_is_what_the_backend_took_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        """A backend that takes 1 MB of the GPU, on top of what is taken already."""

        def __enter__(self) -> object:
            device.cudaMalloc(10**6)
            backend = open_backend("onnxruntime", BUNDLE())
            backend.name = "onnxruntime fp32 cuda"  # type: ignore[misc]
            return backend

        def __exit__(self, *_: object) -> None: ...

    device = Cuda()
    device.cudaMalloc(3 * 10**6)
    monkeypatch.setattr(cuda, "runtime", lambda: device)
    first, second, third = run([*openers("onnxruntime"), OnGpu, OnGpu], PLAN, batches=[1], repeats=1).measurements  # type: ignore[list-item]
    assert first.device_memory is None
    assert (second.device_memory, third.device_memory) == (10**6, 10**6)


@pytest.mark.parametrize(
    ("typed", "profiles"),
    [
        ("bench dit-digits --backends tensorrt_rtx --batch 4,64", ["2", "8", "128"]),
        ("bench dit-digits --backends tensorrt_rtx --batch 64 --guidance 1", ["1", "64"]),
        ("sample dit-digits --backend tensorrt_rtx --num 12 --out x.png", ["1-32"]),
        ("sample dit-digits --backend tensorrt_rtx --num 500 --out x.png", ["1-128"]),
        ("sample dit-digits --backend tensorrt_rtx --num 500 --batch 2 --out x.png", ["1-4"]),
        ("parity dit-digits --backends tensorrt_rtx,torch --classes 3", ["1-2"]),
    ],
)
def test_engines_are_built_for_the_batches_that_are_asked_for(
    typed: str, profiles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class AskedError(Exception):
        """Carries the settings, so that no engine is built."""

    def ask(card: object, *, settings: EngineSettings, display: object) -> None:
        raise AskedError(settings)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ditzoo_export, "cached_engines", ask)
    with pytest.raises(AskedError) as caught:
        cli(typed.split())
    settings = caught.value.args[0]
    assert [str(profile.axes["batch"]) for profile in settings.profiles] == profiles
    assert settings.merged == (len(profiles) > 1)


def test_ceilings_are_positive_and_finite() -> None:
    found = ceilings(side=256, repeats=2)
    assert 0 < found.multiply_adds < np.inf
    assert 0 < found.copy < np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": [0]}, "batch must be 1 or more, not 0"),
        ({"repeats": 0}, "repeats must be 1 or more"),
        ({"warmup": -1}, "warmup must be 0 or more"),
    ],
)
def test_impossible_benchmarks_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(openers("torch"), PLAN, **{"batches": [1], **change})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least one backend"):
        run([], PLAN, batches=[1])


def test_different_models_are_not_compared() -> None:
    other = partial(open_backend, "torch", ditzoo.card("dit-digits"))
    with pytest.raises(UsageError, match="different models"):
        run([*openers("torch"), other], PLAN, batches=[1])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    typed = "bench uvit-digits --batch 1,2 --steps 2 --repeats 2 --plot speed.svg"
    assert cli(typed.split()) == 0
    out, err = capfd.readouterr()
    assert out.count("onnxruntime fp32 cpu") == 2
    assert "1.00x" in out
    assert "GMAC/s in a matrix multiplication" in err
    assert ET.parse("speed.svg").getroot().tag.endswith("svg")  # noqa: S314
    assert cli([*typed.split()[:-2], "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["model"] == "uvit-digits"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("bench uvit-digits --batch 0", "batch must be 1 or more"),
        ("bench uvit-digits --batch 8-4", "in --batch runs backwards"),
        ("bench uvit-digits --repeats 0", "repeats must be 1 or more"),
        ("bench uvit-digits --plot speed.png", "--plot writes an .svg file"),
        ("bench uvit-digits --plot missing/speed.svg", "--plot: there is no folder missing"),
        ("bench uvit-digits --backends torch,jax", "unknown backend 'jax'"),
    ],
)
def test_a_wrong_request_is_one_clear_line(typed: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli(typed.split()) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("text", "sizes"), [("1,1", [1]), ("2,1-3,3", [2, 1, 3])])
def test_every_batch_is_measured_once(text: str, sizes: list[int]) -> None:
    assert parse_batches(text) == sizes


def test_every_backend_is_measured_once_and_only_new_choices_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The cache holds a choice for another number of images, which an earlier command made."""
    monkeypatch.setenv("DITZOO_CACHE", str(tmp_path))
    monkeypatch.setattr("ditzoo.model.automatic.candidates", lambda model, device: ["torch"])
    typed = "bench uvit-digits --steps 2 --repeats 1 --warmup 0 --backends"
    assert cli([*typed.split(), "auto,torch,torch:fp32:cpu,auto:bf16", "--batch", "2"]) == 0
    out, err = capfd.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()[1:]] == ["torch fp32 cpu", "torch bf16 cpu"]
    assert err.count("auto: torch for uvit-digits") == 2
    assert cli([*typed.split(), "auto"]) == 0
    assert capfd.readouterr().err.count("auto: ") == 1
    assert cli([*typed.split(), "torch"]) == 0
    assert "auto" not in capfd.readouterr().err


def test_peers_are_measured_on_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "recipes")
    peers = importlib.import_module("bench_peers")
    card = ditzoo.card("dit-digits")
    texts = ["openvino", "onnxruntime", "torch:bf16:split"]
    results = peers.measure_in_groups(card, make_plan(card, steps=2), texts, base="diffusers", together=2, repeats=2)
    assert [[entry.backend for entry in result.measurements] for result in results] == [
        ["torch fp32 cpu", "diffusers fp32 cpu", "openvino fp32 cpu", "onnxruntime fp32 cpu"],
        ["torch fp32 cpu", "diffusers fp32 cpu", "torch bf16 cpu split"],
    ]
    assert all(entry.error < 1e-5 for entry in results[0].measurements if "diffusers" not in entry.backend)
    assert 1e-4 < results[1].measurements[2].error < 5e-2
    assert [line.split(" | ")[0] for line in peers.table(results, "diffusers")[2:]] == [
        f"| {entry.backend}" for entry in (*results[0].measurements, results[1].measurements[2])
    ]
