"""The public names of the package: all are seen, documented, and typed."""

from __future__ import annotations

import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ditzoo
from ditzoo_export import cached_bundle

ROOT = Path(__file__).parents[2]


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
    reuse: str = ditzoo.tune_reuse("uvit-digits", target=1.2, steps=2).reuse
    assert ditzoo.make_plan("uvit-digits", steps=2, reuse=reuse).outer_blocks == 1
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
    shutil.copytree(cached_bundle(ditzoo.card("uvit-digits")).path, tmp_path / "bundle")  # the script's export finds it
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
