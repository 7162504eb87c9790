"""A fine-tune's weights in refittable engines, on the stand-in for TensorRT: it runs the graph whose weights it took."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ditzoo.backends import cuda, loading_engines
from ditzoo.backends.tensorrt import TensorRTBackend
from ditzoo.bundle import Bundle, Engine, open_bundle
from ditzoo.checkpoint import convert
from ditzoo.cli import run
from ditzoo.errors import BackendError, CheckpointError, UsageError
from ditzoo.files import sha256
from ditzoo.measure.metrics import relative_l2
from ditzoo.model.exporting import refit_tensorrt
from ditzoo.specs import Profile, Range
from ditzoo_export import cached_bundle, make_settings, refitting
from ditzoo_export.engine_bundle import finish_engines
from tests.support.cuda_stand_in import Cuda
from tests.support.export_models import TINY_UVIT, random_model
from tests.support.tensorrt_stand_in import tensorrt as stand_in

EIGHT = Range(min=8, opt=8, max=8)
PROFILE = Profile(axes={"batch": Range(min=1, opt=2, max=2), "height": EIGHT, "width": EIGHT})
CARD, NET = random_model(TINY_UVIT)


def base() -> Bundle:
    """The ONNX graphs of the model before it was tuned."""
    return cached_bundle(CARD, settings=make_settings(CARD, precision="fp16", target="tensorrt"), net=NET)


def engines_in(folder: Path, *options: str) -> Bundle:
    """A bundle of engines for the stand-in, built with these options."""
    source = base()
    graph = source.manifest.graphs["backbone"]
    folder.mkdir()
    (folder / "backbone.engine").write_text("backbone")
    engine = Engine(
        file="backbone.engine",
        graph="backbone",
        flavour="tensorrt_rtx",
        version="1.7",
        gpus=("sm89",),
        precision=graph.precision,
        profiles=(PROFILE,),
        options=options,
        inputs=graph.inputs,
        outputs=graph.outputs,
        seconds=0,
    )
    finish_engines(
        folder,
        source,
        {"backbone": engine},
        key="base",
        made_by={},
        settings={"command": "ditzoo export tensorrt random-uvit"},
    )
    return open_bundle(folder)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same network with other weights, in canonical form."""
    folder = tmp_path_factory.mktemp("tuned")
    save_file({name: 1.25 * value for name, value in NET.state_dict().items()}, folder / "raw.safetensors")
    convert(folder / "raw.safetensors", TINY_UVIT, folder / "tuned.safetensors")
    return folder / "tuned.safetensors"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """A machine with a GPU and TensorRT-RTX: stand-ins for both."""
    device = Cuda()
    monkeypatch.setattr(cuda, "runtime", lambda: device)
    monkeypatch.setattr(cuda, "gpu", lambda: "sm89")
    monkeypatch.setattr(cuda, "arrays", lambda: np)
    monkeypatch.setattr(loading_engines, "cache_dir", lambda: tmp_path / "kernels")
    return device


@pytest.mark.parametrize("stripped", [False, True], ids=["whole", "stripped"])
def test_refitted_engines_compute_what_the_fine_tune_computes(
    stripped: bool, tuned: Path, machine: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engines_in(tmp_path / "before", "refittable", *(["stripped"] if stripped else []))
    module = stand_in(machine, before.manifest.engines, base().path, rtx=True)
    monkeypatch.setattr(refitting, "load", lambda flavour: module)
    after = refit_tensorrt(before.path, tuned, tmp_path / "after")
    assert after.manifest.weights == sha256(tuned)
    assert after.manifest.key != before.manifest.key
    assert after.manifest.settings["command"].endswith(f"--refit {tuned}")
    assert ("backbone" in after.manifest.graphs) == stripped
    assert refit_tensorrt(before.path, tuned, tmp_path / "after").manifest == after.manifest  # found again
    x, t, y = np.ones((2, *CARD.backbone.latent_shape), np.float32), np.full(2, 500, np.float32), np.array([1, 2])
    with TensorRTBackend(after.path, list(after.manifest.engines.values()), after.card, trt=module) as backend:
        drawn = backend({"x": x, "t": t, "y": y})
    tuned_net, inputs = copy.deepcopy(NET), tuple(map(torch.from_numpy, (x, t, y)))
    tuned_net.load_state_dict(load_file(tuned))
    with torch.no_grad():
        expected, old = (net(*inputs).numpy() for net in (tuned_net, NET))
    assert relative_l2(drawn, expected) < 2e-3
    assert relative_l2(old, expected) > 0.1


def with_engine(bundle: Bundle, **changes: object) -> Bundle:
    engines = {name: msgspec.structs.replace(engine, **changes) for name, engine in bundle.manifest.engines.items()}
    return msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, engines=engines))


def test_what_cannot_be_refitted_is_said(tuned: Path, machine: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines, out = engines_in(tmp_path / "before", "refittable"), tmp_path / "after"
    with pytest.raises(UsageError, match="keep their weights; `ditzoo export tensorrt random-uvit --refittable --out DIR`"):
        refit_tensorrt(with_engine(engines, options=("stripped",)), tuned, out)
    with pytest.raises(UsageError, match="are int8, and hold scales that were measured with their own weights"):
        refit_tensorrt(with_engine(engines, precision="int8"), tuned, out)
    with pytest.raises(UsageError, match=r"takes a bundle of engines, and .* has none"):
        refit_tensorrt(base(), tuned, out)
    with pytest.raises(UsageError, match="takes the folder of a bundle of engines, not the name uvit-digits"):
        refit_tensorrt("uvit-digits", tuned, out)
    with pytest.raises(UsageError, match="dit-digits is another network than random-uvit"):
        refit_tensorrt(engines, "dit-digits", out)
    save_file({name: value[..., :-1].contiguous() for name, value in NET.state_dict().items()}, tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match=r"cut.safetensors cannot be used"):
        refit_tensorrt(engines, tmp_path / "cut.safetensors", out)
    module = stand_in(machine, engines.manifest.engines, base().path, rtx=True)
    monkeypatch.setattr(refitting, "load", lambda flavour: module)
    monkeypatch.setattr(cuda, "gpu", lambda: None)
    with pytest.raises(BackendError, match="needs an NVIDIA GPU"):
        refit_tensorrt(engines, tuned, out)
    assert not out.exists()


def test_the_command_refits(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Engines without weights need no GPU: their new graphs are put beside them."""
    engines_in(tmp_path / "before", "refittable", "stripped")
    typed = ["export", "tensorrt", str(tmp_path / "before"), "--refit", str(tuned), "--out", str(tmp_path / "after")]
    assert run(typed) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "after")
    assert open_bundle(tmp_path / "after").manifest.weights == sha256(tuned)
    assert run([*typed, "--batch", "4"]) == 2
    assert "--refit keeps the engines as they were built; leave out --batch" in capsys.readouterr().err
