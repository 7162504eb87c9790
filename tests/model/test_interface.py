"""The Python interface: load a model and draw; names, folders and paths wherever a model is meant; errors of our own."""

from __future__ import annotations

import pydoc
import re
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
from tests.support import hub_server
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
    assert "has no torch module; ditzoo.load('dit-digits', backend='torch').module is one" in why
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
        with pytest.raises(BackendError, match=r"this model is closed; ditzoo\.load\('uvit-digits'\) loads it again"):
            use()


def test_classes_of_imagenet_have_names() -> None:
    from ditzoo.sampling.classes import choose_classes

    imagenet = ditzoo.card("dit-xl-2-256")
    assert choose_classes(imagenet, ["golden retriever", 7, np.int64(8), "Tench"]) == [207, 7, 8, 0]
    assert choose_classes(DIT, ["Nine", "0-2", 4]) == [9, 0, 1, 2, 4]
    with pytest.raises(UsageError, match="unknown class 'seventy'; did you mean seven"):
        choose_classes(DIT, ["seventy"])


WRONG = {
    "ditzoo.make_plan(3)": "model must be a model's name, a bundle's folder, a Card or a Bundle, not 3",
    "ditzoo.make_plan('dit-digit')": "unknown model 'dit-digit'; did you mean dit-digits",
    "ditzoo.make_plan('./nowhere')": "there is no bundle in nowhere",
    "ditzoo.make_plan(DIT, steps='20')": "steps must be a whole number of steps, not '20'",
    "ditzoo.make_plan(DIT, steps=2.5)": "steps must be a whole number of steps, not 2.5",
    "ditzoo.make_plan(DIT, solver=3)": "solver must be a solver's name, such as 'ddim:eta=0.5', not 3",
    "ditzoo.make_plan(DIT, guidance='high')": "guidance must be a number, not 'high'",
    "ditzoo.make_plan(DIT, guidance_interval=3)": "guidance_interval must be two noise levels, such as (0.28, 2.9), not 3",
    "ditzoo.card(3)": "name must be a model's name, such as 'dit-digits', not 3",
    "ditzoo.load(None)": "model must be a model's name",
    "ditzoo.load('dit-digit')": "unknown model 'dit-digit'; did you mean dit-digits",
    "ditzoo.load('dit-digits', backend=3)": "backend must be a backend's name with its options",
    "ditzoo.load('dit-digits', backend='tosch')": "unknown backend 'tosch'; did you mean torch",
    "ditzoo.load('dit-digits', device='tpu')": "unknown device 'tpu'",
    "ditzoo.open_backend('torch', 3)": "model must be a model's name, a bundle's folder, a Card or a Bundle, not 3",
    "ditzoo.decode(3, np.zeros((1, 1, 8, 8)))": "model must be a model's name",
    "ditzoo.decode(DIT, [1, 2])": "latents must be a numpy array [N, C, h, w], such as sample gives, not [1, 2]",
    "ditzoo.sample('torch', PLAN, classes=[1])": "backend must be an opened backend, such as open_backend gives, not 'torch'",
    "ditzoo.sample(MODEL.backend, 20, classes=[1])": "plan must be a Plan, such as make_plan makes, not 20",
    "ditzoo.sample(MODEL.backend, PLAN, classes=3)": "classes must be a list of class numbers and names, such as [3, 'seven'],",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[2.5])": "or a text such as '0-9', not 2.5",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[10])": "class 10 is out of range; dit-digits knows 0 to 9",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], seed='x')": "seed must be a whole number, 0 to",
    "ditzoo.sample(MODEL.backend, PLAN, classes=[1], batch=1.5)": "batch must be a whole number, 1 or more, not 1.5",
    "MODEL.sample(classes=3)": "classes must be a list of class numbers and names",
    "MODEL.sample(classes=['cat'])": "unknown class 'cat'; known: eight",
    "MODEL.sample(classes=[])": "classes is empty; choose at least one class",
    "MODEL.sample(num=0)": "the number of images must be 1 or more, not 0",
    "MODEL.sample(num='4')": "the number of images must be a whole number, 1 or more, not '4'",
    "MODEL.sample(prompts=['a cat'])": "dit-digits takes no prompts; choose classes",
    "MODEL.sample(prompts=3)": "prompts must be a text or a list of texts, not 3",
    "MODEL.sample(plan=3)": "plan must be a Plan, or the path of one that was saved, not 3",
    "MODEL.sample(batch=0)": "batch must be 1 or more, not 0",
    "ditzoo.Plan.load(3)": "path must be the path of a plan's JSON file, not 3",
    "ditzoo.pull(3)": "model must be a model's name, hf:OWNER/REPO or a Card, not 3",
    "ditzoo.list_models(3)": "pattern must be a text: a pattern such as 'dit-xl-*', or a part of a name, not 3",
    "ditzoo.list_models(family='dot')": "unknown family 'dot'; did you mean dit",
    "ditzoo.export_onnx(3, 'out')": "model must be a model's name",
    "ditzoo.export_onnx('dit-digits', 3)": "out must be the path of a folder, not 3",
    "ditzoo.export_tensorrt('dit-digits', 3)": "out must be the path of a folder, not 3",
    "ditzoo.open_bundle(3)": "path must be the path of a bundle's folder, not 3",
    "ditzoo.parity('dit-digits', backends=3)": "backends must be backends, such as 'torch,onnxruntime'",
    "ditzoo.parity('dit-digits', backends=['torch'])": "backends needs two or more",
    "ditzoo.parity('dit-digits', against='x.npz', classes=[1])": "x.npz says what was drawn; leave out --classes",
    "ditzoo.parity('dit-digits', tolerance={'forwards': 1})": "unknown limit 'forwards'; did you mean forward",
}


@pytest.fixture(scope="module")
def model() -> ditzoo.Model:
    return ditzoo.load("dit-digits")


@pytest.mark.parametrize("code", WRONG)
def test_wrong_arguments_are_our_own_errors(code: str, model: ditzoo.Model) -> None:
    names = {"ditzoo": ditzoo, "np": np, "DIT": DIT, "MODEL": model, "PLAN": ditzoo.make_plan(DIT, steps=2)}
    with pytest.raises(UsageError, match=re.escape(WRONG[code])):
        eval(code, names)  # noqa: S307


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


def test_the_public_names_are_seen() -> None:
    names = {"load", "list_models", "pull", "export_onnx", "export_tensorrt", "parity", "Model"}
    assert names <= set(dir(ditzoo)) == {*ditzoo.__all__, "__version__"}
    submodules = {path.stem for path in (ROOT / "ditzoo").iterdir()}
    assert not submodules & {name for name in ditzoo.__all__ if callable(getattr(ditzoo, name))}
    for folder in (ROOT / "ditzoo" / "model").iterdir():
        assert folder.stem not in ditzoo.__all__
    for name in ditzoo.__all__:
        value = getattr(ditzoo, name)
        assert not callable(value) or (value.__doc__ and value.__module__.startswith("ditzoo."))


def test_help_reads_well() -> None:
    text = pydoc.render_doc(ditzoo, renderer=pydoc.plaintext)
    assert 'model = ditzoo.load("dit-digits")' in text
    for name in ("load(", "list_models(", "pull(", "export_onnx(", "export_tensorrt(", "parity(", "class Model("):
        assert re.search(rf"^    {re.escape(name)}", text, flags=re.MULTILINE), name


SCRIPT = """
from __future__ import annotations

from pathlib import Path

import numpy as np

import ditzoo


def main(folder: Path) -> None:
    names: list[str] = ditzoo.list_models("digits")
    cards: list[ditzoo.Card] = [ditzoo.CARDS[name] for name in names]
    card: ditzoo.Card = ditzoo.card(names[0])
    path: Path = ditzoo.pull(card).path
    assert path.is_file() and card in cards
    plan: ditzoo.Plan = ditzoo.make_plan("uvit-digits", steps=2)
    plan.save(folder / "plan.json")
    done: list[int] = []
    with ditzoo.load("uvit-digits", backend="torch", threads=1) as model:
        loaded: ditzoo.Model = model
        images = loaded.sample(
            classes=[3, "seven"], num=4, seed=1, plan=folder / "plan.json", callback=lambda step: done.append(step.done)
        )
        size: tuple[int, int] = images[0].size
        assert size == (8, 8) and len(images) == 4 and done == [1, 2] and model.module is not None
    with ditzoo.open_backend("torch", "uvit-digits") as backend, ditzoo.open_backend("torch", "uvit-digits") as other:
        latents = ditzoo.sample(backend, ditzoo.Plan.load(folder / "plan.json"), classes=["one", 2], seed=1)
        same: bool = ditzoo.compare(backend, other, plan, classes=[1]).report.passed
    assert same and np.isfinite(latents).all()
    ditzoo.contact_sheet(ditzoo.decode("uvit-digits", latents), columns=2).save(folder / "sheet.png")
    bundle: ditzoo.Bundle = ditzoo.export_onnx("uvit-digits", folder / "bundle", precision="fp32")
    assert ditzoo.open_bundle(folder / "bundle").card == bundle.card
    passed: bool = ditzoo.parity(folder / "bundle", backends=["torch", "onnxruntime"], classes=[1], plan=plan).passed
    try:
        ditzoo.export_tensorrt("uvit-digits", folder / "engines", gpu="sm1", batch=2)
    except ditzoo.DitzooError as error:
        assert "sm1" in str(error) and passed
"""


def test_a_script_of_all_public_names_runs_and_is_strictly_typed(bare_python: Path, tmp_path: Path) -> None:
    used = set(re.findall(r"ditzoo\.(\w+)", SCRIPT))
    assert used == set(ditzoo.__all__)
    namespace: dict[str, object] = {"__name__": "script"}
    exec(compile(SCRIPT, "script.py", "exec"), namespace)  # noqa: S102
    main = namespace["main"]
    assert callable(main)
    main(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    options = ["--strict", "--python-executable", str(bare_python), "--config-file", "", "--cache-dir", str(tmp_path / "cache")]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "script.py"], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.stdout.startswith("Success"), done.stdout + done.stderr
    (tmp_path / "script.py").write_text(SCRIPT.replace("num=4", 'num="4"'))
    wrong = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "script.py"], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert 'Argument "num" to "sample" of "Model" has incompatible type "str"' in wrong.stdout
