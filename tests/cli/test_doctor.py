"""`ditzoo doctor`: what it finds on a machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ditzoo.backends.gpus import gpu_count, gpus
from ditzoo.backends.table import ROWS
from ditzoo.cli import run
from ditzoo.distributions import distributions_of
from ditzoo.errors import MissingPackageError
from ditzoo.hub import client
from ditzoo.model import checkup as library
from ditzoo.model.checkup import Finding, checkup
from ditzoo.model.requirements import Unmet, unmet_requirements
from tests.test_distributions import install


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the backends, only the one without a large library is imported."""
    monkeypatch.setattr(library, "ROWS", [row for row in ROWS if row.name == "onnxruntime"])


def found(findings: list[Finding], area: str, subject: str) -> Finding:
    (one,) = [each for each in findings if (each.area, each.subject) == (area, subject)]
    return one


@pytest.mark.usefixtures("quick")
def test_doctor_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--offline", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {each["area"] for each in findings} == {"python", "gpu", "cache", "runs"}
    (runtime,) = [each for each in findings if each["subject"] == "onnxruntime"]
    assert runtime["outcome"] == "ok"
    assert distributions_of("onnxruntime")["onnxruntime"] in runtime["found"]


def test_a_part_that_is_not_installed_has_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    for row in ROWS:
        finding = library.checkup_backend(row)
        assert finding.outcome == "absent"
        assert finding.remedy == f"pip install 'ditzoo[{row.extra}]'"


@pytest.mark.usefixtures("quick")
def test_a_library_that_cannot_be_imported_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('its libraries do not load')")
    monkeypatch.syspath_prepend(tmp_path)
    assert run(["doctor", "--offline"]) == 1
    out, err = capsys.readouterr()
    assert "its libraries do not load" in out
    assert err.splitlines()[-1] == "1 problem: onnxruntime"


@pytest.mark.usefixtures("quick")
def test_two_packages_over_each_other_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "engine_of_doctor", "engine-of-doctor")
    install(tmp_path, "engine_of_doctor", "engine-of-doctor-gpu")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(library, "_SHARED_FOLDERS", ("engine_of_doctor",))
    finding = found(checkup(hub=False), "packages", "engine_of_doctor")
    assert finding.outcome == "problem"
    assert finding.remedy.startswith("pip uninstall engine-of-doctor engine-of-doctor-gpu")


def test_versions_that_are_not_allowed_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "one_of_doctor", "one-of-doctor", "1.9.2+cpu")
    install(tmp_path, "two_of_doctor", "two-of-doctor", "11.0")
    install(tmp_path, "asking_of_doctor", "asking-of-doctor")
    metadata = tmp_path / "asking_of_doctor-1.0.dist-info" / "METADATA"
    requirements = [
        "one-of-doctor>=1.10",
        "one-of-doctor>=1.9",
        "two-of-doctor<11,>=10.16; extra == 'gpu'",
        "absent-of-doctor>=1",
        "one-of-doctor[extra]",
    ]
    metadata.write_text(metadata.read_text() + "".join(f"Requires-Dist: {line}\n" for line in requirements))
    monkeypatch.syspath_prepend(tmp_path)
    assert unmet_requirements("asking-of-doctor") == [
        Unmet(package="one-of-doctor", version="1.9.2+cpu", limits=">=1.10", extra=None),
        Unmet(package="two-of-doctor", version="11.0", limits="<11,>=10.16", extra="gpu"),
    ]


@pytest.mark.usefixtures("quick")
def test_a_cache_that_cannot_be_written_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.isdir("/proc"):  # noqa: PTH112
        pytest.skip("no /proc here")
    monkeypatch.setenv("DITZOO_CACHE", "/proc/ditzoo")
    finding = found(checkup(hub=False), "cache", "ditzoo's cache")
    assert finding.outcome == "problem"
    assert "DITZOO_CACHE" in finding.remedy


@pytest.mark.usefixtures("quick")
def test_a_hub_that_does_not_answer_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "is_offline", lambda: True)
    assert found(checkup(), "hub", "hub").outcome == "note"


@pytest.mark.usefixtures("quick")
def test_advice_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "is_offline", lambda: False)
    monkeypatch.setattr(client, "is_resolvable", lambda endpoint, patience: False)
    monkeypatch.setattr(library, "check_exporter", unable_to_export)
    findings = checkup()
    hub, exporter = found(findings, "hub", "hub"), found(findings, "runs", "export")
    assert "check the network" not in hub.found
    assert hub.remedy.startswith("check the network")
    assert (exporter.found, exporter.remedy) == ("exporting needs the package onnx", "pip install 'ditzoo[export]'")


def unable_to_export() -> None:
    raise MissingPackageError("exporting needs the package onnx: pip install 'ditzoo[export]'")


@pytest.mark.usefixtures("quick")
def test_a_terminal_of_80_columns_shows_a_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen = [
        Finding(area="runs", subject="torch", outcome="ok", found="torch 2.13.0"),
        Finding(
            area="runs", subject="export", outcome="absent", found=" ".join(["missing"] * 20), remedy="pip install 'ditzoo'"
        ),
    ]
    monkeypatch.setattr(library, "checkup", lambda **_: seen)
    monkeypatch.setattr("ditzoo.cli.output.terminal_width", lambda: 80)
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok       torch: torch 2.13.0"
    assert lines[1].startswith("absent   export: missing")
    assert lines[-1] == "           pip install 'ditzoo'"
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).split().count("missing") == 20


def test_the_driver_describes_each_gpu() -> None:
    there = gpus()
    assert len(there) == gpu_count()
    assert all(gpu.architecture.startswith("sm") and gpu.memory > 2**30 for gpu in there)
