from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ditzoo
from ditzoo_export import cached_bundle
from tests.support.bare import bare

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "diffusers", "transformers", "sklearn")
NEEDLESS = ("rich", "ssl", "numpy.f2py", "array_api_compat.numpy", "ditzoo.hub.client", "ditzoo.measure.parity")
"""What takes long to import, and what a sampling without a terminal and without a download has no use for."""


def loaded_by(code: str) -> set[str]:
    """The heavy and the needless modules that a fresh interpreter has loaded after running `code`."""
    report = f"{code}\nimport sys; print(*[name for name in {HEAVY + NEEDLESS!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code", ["import ditzoo", "import ditzoo.cli", "import ditzoo; ditzoo.make_plan(ditzoo.card('dit-digits'))"]
)
def test_the_runtime_imports_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


@pytest.mark.parametrize("code", ["import ditzoo", "import ditzoo.cli", "from ditzoo.cli import run; run(['--help'])"])
def test_help_loads_only_what_it_prints_with(code: str) -> None:
    report = f"import sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, cwd=ROOT)
    packages = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()} - sys.stdlib_module_names
    packages -= {"attr"}  # rich imports it where it is installed, as with Selenium
    assert packages <= {"ditzoo", "typer", "rich", "shellingham", "markdown_it", "mdurl", "pygments", "annotated_doc"}


def test_public_names_are_there_whatever_was_imported_before() -> None:
    code = "import ditzoo.pictures.decode, ditzoo.weights.pull, ditzoo.measure.parity, types; from ditzoo import *\n"
    code += "assert ditzoo.sample is sample and ditzoo.card is card\n"
    code += "assert not any(isinstance(getattr(ditzoo, name), types.ModuleType) for name in ditzoo.__all__)\n"
    code += "assert not hasattr(ditzoo, 'nothing')"
    assert not {path.stem for path in (ROOT / "ditzoo").iterdir()} & set(ditzoo.__all__)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stderr == ""


def test_sampling_a_bundle_imports_no_torch_and_nothing_needless(tmp_path: Path) -> None:
    bundle = cached_bundle(ditzoo.card("uvit-digits")).path
    typed = ["sample", str(bundle), "--steps", "2", "--out", str(tmp_path / "x.png")]
    assert loaded_by(f"from ditzoo.cli import run; assert run({typed!r}) == 0") == {"onnxruntime"}


def test_the_runtime_never_imports_the_exporter() -> None:
    for path in (ROOT / "ditzoo").rglob("*.py"):
        if not {"cli", "model"} & set(path.parts):
            assert "ditzoo_export" not in path.read_text(), path


def test_the_wheel_holds_both_packages_and_the_models_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"ditzoo", "ditzoo_export", f"ditzoo-{ditzoo.__version__}.dist-info"}
    assert {"ditzoo/ui/page/index.html", "ditzoo/ui/page/page.js"} <= names
    assert {"ditzoo/py.typed", "ditzoo_export/py.typed", "ditzoo_export/network_graphs.py"} <= names
    for model in ("dit-digits", "uvit-digits", "dit-icons"):
        assert {f"ditzoo/assets/{model}.safetensors", f"ditzoo/assets/{model}.md"} <= names
    assert "ditzoo/assets/dit-icons-decoder.safetensors" in names
    assert all(path.stat().st_size <= 4_000_000 for path in (ROOT / "ditzoo" / "assets").glob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_bundle_runs_where_there_is_no_torch(name: str, bare_python: Path, tmp_path: Path) -> None:
    for package in ("torch", "onnx", "ditzoo_export.network_graphs"):
        absent = subprocess.run([bare_python, "-I", "-c", f"import {package}"], capture_output=True, text=True)
        assert "ModuleNotFoundError" in absent.stderr, package
    bundle = cached_bundle(ditzoo.card("dit-digits")).path
    done = bare(
        bare_python, "sample", str(bundle), "--backend", name, "--steps", "3", "--save-latents", "there.npy", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    import numpy as np

    with ditzoo.open_backend(name, ditzoo.open_bundle(bundle)) as backend:
        here = ditzoo.sample(backend, ditzoo.make_plan(backend.card, steps=3), classes=range(10))
    assert np.abs(np.load(tmp_path / "there.npy") - here).max() <= 1e-6


@pytest.mark.parametrize(
    ("typed", "pip"),
    [
        ("sample dit-digits", "pip install 'ditzoo[torch]'"),
        ("sample dit-digits --backend onnxruntime", "pip install 'ditzoo[export]'"),
        ("export onnx dit-digits --out bundle", "pip install 'ditzoo[export]'"),
        ("demo", "pip install 'ditzoo[torch]'"),
        ("ui", "pip install 'ditzoo[ui]'"),
    ],
)
def test_a_missing_package_is_one_line_with_the_pip_command(bare_python: Path, typed: str, pip: str, tmp_path: Path) -> None:
    done = bare(bare_python, *typed.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert pip in done.stderr
    assert list(tmp_path.iterdir()) == []


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", code_blocks(ROOT / "README.md", "python"))
def test_the_examples_of_the_readme_run(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102
    assert [path.suffix for path in tmp_path.iterdir()] == [".png"]


def test_the_examples_of_the_python_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs alone, as a reader copies it."""
    monkeypatch.chdir(tmp_path)
    for name, folder in (("dit-digits", "digits-bundle"), ("uvit-digits", "uvit-bundle")):  # an export that is there is found
        shutil.copytree(cached_bundle(ditzoo.card(name)).path, tmp_path / folder)
    for example in code_blocks(ROOT / "docs" / "python.md", "python"):
        exec(compile(example, "python.md", "exec"), {})  # noqa: S102
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [line for block in code_blocks(ROOT / "README.md", "sh") for line in block.splitlines() if line.startswith("ditzoo ")],
)
def test_the_commands_of_the_readme_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ditzoo.cli import run

    monkeypatch.chdir(tmp_path)
    if "digits-bundle" in line:  # an export that is there is found
        shutil.copytree(cached_bundle(ditzoo.card("dit-digits")).path, tmp_path / "digits-bundle")
    assert run(shlex.split(line, comments=True)[1:]) == 0


def test_the_readme_starts_with_the_two_commands() -> None:
    assert code_blocks(ROOT / "README.md", "sh")[0].split("\n")[:2] == [
        line for line in code_blocks(ROOT / "README.md", "sh")[0].split("\n") if line.startswith("make ")
    ]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo: \$\(READY\)", makefile, flags=re.MULTILINE)
    assert re.search(r"^test: check", makefile, flags=re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
