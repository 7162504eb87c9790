"""The Python interface: load a model and draw; names, folders and paths wherever a model is meant; errors of our own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save
from torch import nn

import ditzoo
from ditzoo.errors import BackendError, BundleError, PlanError, UsageError
from ditzoo.sampling.loop import Step
from ditzoo.specs import Array
from ditzoo_export import cached_bundle
from recipes.checkpoints import hub_server
from tests.support.hub_models import FILE, TINY, Desk, diffusers, state

ROOT = Path(__file__).parents[2]
DIT, UVIT = ditzoo.card("dit-digits"), ditzoo.card("uvit-digits")

SNIPPET = """
model = ditzoo.load({model})
images = model.sample(classes=[3, "seven"], num=4, seed=0, steps=20, guidance=1.5)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interface") / "bundle"
    return Path(shutil.copytree(cached_bundle(DIT).path, folder))


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def test_the_snippet_draws_what_the_parts_draw() -> None:
    namespace: dict[str, object] = {"ditzoo": ditzoo}
    exec(SNIPPET.format(model="'dit-digits'"), namespace)  # noqa: S102
    model, images = namespace["model"], namespace["images"]
    assert isinstance(model, ditzoo.Model)
    assert isinstance(images, list)
    assert all(isinstance(image, Image.Image) for image in images)
    plan = ditzoo.make_plan(DIT, steps=20, guidance=1.5)
    with ditzoo.open_backend("torch", DIT) as backend:
        latents = ditzoo.sample(backend, plan, classes=[3, 7, 3, 7], seed=0)
    assert np.array_equal(pixels(images), ditzoo.decode(DIT, latents)[..., 0])
    assert isinstance(model.module, nn.Module)
    assert sum(value.numel() for value in model.module.state_dict().values()) == DIT.backbone.parameters
    model.close()


def test_the_snippet_runs_on_a_bundle_with_the_extra_onnx_alone(bundle: Path, bare_python: Path, tmp_path: Path) -> None:
    script = f"""
import sys, ditzoo
{SNIPPET.format(model=repr(str(bundle)))}
import numpy as np
np.save("there.npy", np.stack([np.asarray(image) for image in images]))
print(model, *[name for name in ("torch", "onnx", "ditzoo_export") if name in sys.modules])
try:
    model.module
except ditzoo.DitzooError as error:
    print(error)
model.close()
"""
    done = subprocess.run([bare_python, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""
    shown, why = done.stdout.splitlines()
    assert shown == "<ditzoo.Model dit-digits on onnxruntime fp32 cpu>"
    assert "has no torch module; use ditzoo.load('dit-digits', backend='torch').module" in why
    with ditzoo.load("dit-digits") as model:
        here = model.sample(classes=[3, "seven"], num=4, seed=0, steps=20, guidance=1.5)
    assert np.abs(np.load(tmp_path / "there.npy").astype(int) - pixels(here)).max() <= 1


def test_without_torch_the_error_is_the_pip_line(bare_python: Path, tmp_path: Path) -> None:
    script = "import ditzoo\ntry: ditzoo.load('dit-digits')\nexcept ditzoo.DitzooError as error: print(error)"
    done = subprocess.run([bare_python, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert "pip install 'ditzoo[torch]'" in done.stdout


def test_everything_that_means_a_model_is_taken(bundle: Path) -> None:
    drawn = []
    for source in ("dit-digits", DIT, bundle, str(bundle), ditzoo.open_bundle(bundle)):
        with ditzoo.load(source, threads=1) as model:
            assert model.card == DIT
            drawn.append(pixels(model.sample(classes=[5], steps=2)).astype(int))
        assert ditzoo.make_plan(source, steps=3) == ditzoo.make_plan(DIT, steps=3)
        with ditzoo.open_backend("torch", source) as backend:
            assert backend.card == DIT
        latents = np.zeros((1, 1, 8, 8), np.float32)
        assert np.array_equal(ditzoo.decode(source, latents), ditzoo.decode(DIT, latents))
    assert all(np.abs(other - drawn[0]).max() <= 1 for other in drawn)


def test_a_backend_comes_with_its_options(bundle: Path) -> None:
    with ditzoo.load("uvit-digits", backend="onnxruntime:int8") as model:
        assert repr(model) == "<ditzoo.Model uvit-digits on onnxruntime int8 cpu>"
        assert len(model.sample(classes="0-2", steps=2)) == 3
    with ditzoo.load(bundle, backend="torch:bf16") as model:
        assert repr(model) == "<ditzoo.Model dit-digits on torch bf16 cpu>"


def test_the_callback_sees_every_step_of_every_batch() -> None:
    seen: list[tuple[range, int, tuple[int, ...]]] = []
    shapes: list[Array] = []

    def callback(step: Step) -> None:
        seen.append((step.images, step.done, tuple(step.x.shape)))
        shapes.append(step.x)

    with ditzoo.load("uvit-digits") as model:
        images = model.sample(classes=range(3), steps=4, batch=2, callback=callback)
        assert np.array_equal(pixels(images), pixels(model.sample(classes=range(3), steps=4)))
    parts = ((range(2), 2), (range(2, 3), 1))
    assert seen == [(images, done, (size, 1, 8, 8)) for images, size in parts for done in (1, 2, 3, 4)]


def test_a_plan_or_its_file_takes_the_place_of_the_options(tmp_path: Path) -> None:
    plan = ditzoo.make_plan("uvit-digits", solver="ddim", steps=3, guidance=2)
    for path in (tmp_path / "plan.json", str(tmp_path / "again.json")):
        plan.save(path)
        assert ditzoo.Plan.load(path) == plan
    with ditzoo.load("uvit-digits") as model:
        expected = pixels(model.sample(classes=[4], solver="ddim", steps=3, guidance=2))
        for given in (plan, tmp_path / "plan.json", str(tmp_path / "plan.json")):
            assert np.array_equal(pixels(model.sample(classes=[4], plan=given)), expected)
        with pytest.raises(UsageError, match="says it all: leave out"):
            model.sample(plan=plan, steps=3)
    with pytest.raises(PlanError, match=r"cannot read the plan .*missing\.json"):
        ditzoo.Plan.load(tmp_path / "missing.json")


def test_a_closed_model_says_so() -> None:
    model = ditzoo.load("uvit-digits")
    model.close()
    model.close()
    assert repr(model) == "<ditzoo.Model uvit-digits on torch fp32 cpu, closed>"
    for use in (model.sample, lambda: model.module):
        with pytest.raises(BackendError, match=r"this model is closed; load it again with ditzoo\.load\('uvit-digits'\)"):
            use()


def test_classes_of_imagenet_have_names() -> None:
    from ditzoo.sampling.classes import choose_classes

    imagenet = ditzoo.card("dit-xl-2-256")
    assert choose_classes(imagenet, ["golden retriever", 7, np.int64(8), "Tench"]) == [207, 7, 8, 0]
    assert choose_classes(DIT, ["Nine", "0-2", 4]) == [9, 0, 1, 2, 4]
    with pytest.raises(UsageError, match="unknown class 'seventy'; did you mean seven"):
        choose_classes(DIT, ["seventy"])


def test_a_folder_without_a_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="it has no manifest"):
        ditzoo.load(tmp_path)


def test_models_are_listed_by_pattern_and_by_what_they_are() -> None:
    assert ditzoo.list_models("digits") == ["dit-digits", "uvit-digits"]
    assert ditzoo.list_models("dit-xl-2-*") == ["dit-xl-2-256", "dit-xl-2-512"]
    assert ditzoo.list_models("nothing like it") == []
    assert set(ditzoo.list_models(family="sit", resolution=256)) < set(ditzoo.list_models("sit"))
    assert ditzoo.list_models() == list(ditzoo.CARDS)


def test_parity_takes_names_and_gives_numbers() -> None:
    run = ditzoo.parity("uvit-digits", backends=["torch", "onnxruntime"], classes=["two"], steps=3, times=2)
    (comparison,) = run.comparisons
    assert run.passed
    assert (comparison.report.reference, comparison.report.candidate) == ("torch fp32 cpu", "onnxruntime fp32 cpu")
    assert len(comparison.report.forward) == 2
    assert [error.label for error in comparison.report.forward[0].labels] == ["2", "null"]
    strict = ditzoo.parity("uvit-digits", classes=["two"], steps=3, tolerance={"psnr": 500})
    assert not strict.passed


def test_parity_bisects_with_the_exporter() -> None:
    run = ditzoo.parity("uvit-digits", backends="torch,torch:bf16", classes=[2], steps=2, times=1, bisect=True)
    (bisection,) = run.bisections
    assert bisection.candidate == "torch bf16 cpu"
    assert bisection.finite


def test_weights_on_the_hub_are_pulled_once(tmp_path: Path) -> None:
    code = "import sys, ditzoo; print(sum(x.numel() for x in ditzoo.load(sys.argv[1]).module.state_dict().values()))"
    with hub_server.serving() as hub:
        desk = Desk(tmp_path, hub)
        weights = diffusers(state(TINY), TINY)
        desk.offers(weights)
        card = msgspec.structs.replace(ditzoo.card("dit-s-2"), backbone=TINY, null_label=10)
        hub.commit("team/own", {FILE: save(weights), "card.json": msgspec.json.encode(card)})
        for name, downloads in (("tiny", 1), ("tiny", 1), ("hf:team/own", 3), ("hf:team/own", 3)):
            done = subprocess.run([sys.executable, "-c", code, name], env=desk.env(), capture_output=True, text=True)
            assert done.stdout == f"{TINY.parameters}\n", done.stderr
            assert hub.downloads() == downloads
