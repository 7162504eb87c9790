"""Which distributions bring a module: found by the folders that they write into, not by a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ditzoo.distributions import distributions_of
from ditzoo.measure import machine as described


def install(site: Path, module: str, distribution: str, version: str = "1.0") -> None:
    """What pip writes for a distribution with one module."""
    (site / module).mkdir(parents=True, exist_ok=True)
    (site / module / "__init__.py").touch()
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(f"{module}\n")


def test_distributions_in_one_folder_are_told_from_those_that_hide_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    install(first, "engine_of_tests", "engine-of-tests-gpu", "1.2")
    install(second, "engine_of_tests", "engine-of-tests", "1.0")
    install(second, "engine_of_tests", "engine-of-tests-gpu", "1.1")
    install(second, "other_of_tests", "other-of-tests")
    install(second, "other_of_tests", "other-of-tests-gpu")
    monkeypatch.syspath_prepend(second)
    monkeypatch.syspath_prepend(first)
    assert distributions_of("engine_of_tests") == {"engine-of-tests-gpu": "1.2"}  # the second folder is hidden
    assert distributions_of("other_of_tests") == {"other-of-tests": "1.0", "other-of-tests-gpu": "1.0"}
    assert distributions_of("nothing_of_tests") == {}


def test_a_machine_states_the_version_of_any_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "runtime_of_tests", "runtime-of-tests-gpu", "1.31.1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(described, "PACKAGES", ("runtime_of_tests", "absent_of_tests.bindings"))
    found = described.machine()
    assert found["runtime-of-tests-gpu"] == "1.31.1"
    assert not [name for name in found if "absent" in name]
