"""The acceptance of a GPU, as far as a machine without one can run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_acceptance import line, run_stage

RECIPE = Path(__file__).parents[2] / "recipes/gpu_acceptance.py"
STAGES = ["facts", "raw", "tests", "parity", "placement", "engines", "memory", "bench-base", "bench-large", "bench-large-graph"]


def test_the_dry_run_passes(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE), "--device", "cpu", "--out", str(tmp_path)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    document = json.loads((tmp_path / "acceptance.json").read_text())
    checks = [check for stage in document["stages"] for check in stage["checks"]]
    statuses = [check["status"] for check in checks]
    passed, skipped = statuses.count("passed"), statuses.count("skipped")
    assert ran.stdout.splitlines()[-1] == f"ACCEPTANCE {passed} passed, 0 failed, {skipped} skipped", ran.stdout
    assert (ran.returncode, [stage["stage"] for stage in document["stages"]]) == (0, STAGES)
    names = {check["name"] for check in checks if check["status"] == "passed"}
    assert {"dit-digits on onnxruntime", "uvit-digits on torch", "dit-digits in fp32"} <= names
    assert all(check["reason"] for check in checks if check["status"] == "skipped")


def test_a_stage_that_crashes_is_a_failed_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "numpy"
    broken.mkdir()
    (broken / "__init__.py").write_text("import os\nprint('no such library', flush=True)\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (check,) = run_stage("raw", device="cpu", folder=tmp_path)
    assert line(check) == "failed   the stage ends  the process ended with status 3: no such library"


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE), "--stages", "facts,speed", "--out", str(tmp_path)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "no stage is called speed; there are facts, raw, tests" in ran.stderr
