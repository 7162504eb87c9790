"""Tuning reuse on the embedded models: what is found, and that it is better than evenly spaced rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ditzoo
from ditzoo.cli import run
from ditzoo.errors import BackendError, UsageError
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.tuning import EVENLY, Residuals
from ditzoo.plan.tuning import block_runs

CLASSES = list(range(5))


@pytest.mark.parametrize(
    ("name", "solver", "steps", "every"), [("dit-digits", "dpmpp", 20, 3), ("uvit-digits", "dpmpp-fast", 14, 2)]
)
def test_the_tuned_rows_are_better_than_evenly_spaced_ones(name: str, solver: str, steps: int, every: int) -> None:
    """Of the same cost, and also for noise that was not drawn to tune."""
    card, even = ditzoo.card(name), f"every={every},blocks=1"
    plans = [ditzoo.make_plan(card, solver=solver, steps=steps, reuse=reuse) for reuse in (None, even)]
    factor = block_runs(plans[0], card.backbone.blocks) / block_runs(plans[1], card.backbone.blocks)
    tuned = ditzoo.tune_reuse(name, target=factor, blocks=1, classes=CLASSES, solver=solver, steps=steps)
    assert tuned.best.full[0] == 0
    assert tuned.best.factor >= factor
    assert tuned.best.error <= next(each.error for each in (tuned.best, *tuned.others) if each.how == EVENLY)
    plans.append(ditzoo.make_plan(card, solver=solver, steps=steps, reuse=tuned.reuse))
    with ditzoo.open_backend("torch", name) as backend:
        without, evenly, found = (ditzoo.sample(backend, plan, classes=CLASSES, seed=5) for plan in plans)
    assert 0 < relative_l2(found, without) < relative_l2(evenly, without)


def test_a_target_of_one_changes_nothing() -> None:
    tuned = ditzoo.tune_reuse("dit-digits", target=1, steps=4, solver="ddim")
    assert (tuned.best.factor, tuned.best.expected, tuned.best.error) == (1, 0, 0)
    plan = ditzoo.make_plan("dit-digits", steps=4, solver="ddim", reuse=tuned.reuse)
    assert plan.to_json() == ditzoo.make_plan("dit-digits", steps=4, solver="ddim").to_json()


def test_the_changes_are_those_of_the_residuals() -> None:
    random = np.random.default_rng(0)
    residuals = [random.standard_normal((rows, 3, 4)).astype(np.float32) for rows in (4, 4, 2, 4)]

    class Given(Residuals):
        def __init__(self) -> None:
            with ditzoo.open_backend("torch", "dit-digits") as backend:
                super().__init__(backend)

    given = Given()
    for residual in residuals:
        given.take(residual)
    distances, relative = given.changes(relative=False), given.changes(relative=True)
    assert distances[0, 1] == pytest.approx(np.linalg.norm(residuals[1] - residuals[0]), rel=1e-6)
    assert distances[1, 2] == pytest.approx(np.linalg.norm(residuals[2] - residuals[1][:2]), rel=1e-6)
    assert np.isinf(distances[2, 3])
    assert relative[0, 3] == pytest.approx(distances[0, 3] / np.linalg.norm(residuals[3]), rel=1e-6)
    assert np.isinf(distances[np.tril_indices(4)]).all()


def test_rows_that_evaluate_one_condition_count_half() -> None:
    options = {"solver": "ddim", "steps": 8, "guidance_every": 2}
    tuned = ditzoo.tune_reuse("dit-digits", target=1.6, **options)  # type: ignore[arg-type]
    plans = [ditzoo.make_plan("dit-digits", **options, reuse=reuse) for reuse in (None, tuned.reuse)]  # type: ignore[arg-type]
    assert block_runs(plans[0], 6) == 6 * plans[0].evaluations == 72
    assert block_runs(plans[0], 6) / block_runs(plans[1], 6) == pytest.approx(tuned.best.factor)
    assert tuned.best.factor >= 1.6
    assert tuple(i for i, row in enumerate(plans[1].rows) if not row.reuses) == tuned.best.full


@pytest.mark.parametrize("target", [0.5, 100])
def test_a_target_is_refused_before_the_model_is_opened(target: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DITZOO_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="target"):
        ditzoo.tune_reuse("dit-digits", target=target, backend="onnxruntime")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_reached_names_the_largest() -> None:
    message = r"no rows with blocks=2 make the plan 1.5x cheaper; it is at most 1.33x: choose a smaller target or fewer blocks"
    with pytest.raises(UsageError, match=message):
        ditzoo.tune_reuse("dit-digits", target=1.5, blocks=2, steps=4, solver="ddim")
    assert ditzoo.tune_reuse("dit-digits", target=1.33, blocks=2, steps=4, solver="ddim").best.full == (0,)
    with pytest.raises(UsageError, match="no middle blocks in dit-digits"):
        ditzoo.tune_reuse("dit-digits", target=1.5, blocks=3)
    with pytest.raises(BackendError, match="diffusers cannot reuse the middle blocks"):
        ditzoo.tune_reuse("dit-digits", target=1.5, backend="diffusers")


def test_the_command_prints_the_option_that_other_commands_take(
    capfd: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--solver", "ddim", "--steps", "8"]
    command = ["plan", "tune", "dit-digits", "--target", "1.6x", "--classes", "3,seven", *given]
    assert run(command) == 0
    shown = capfd.readouterr()
    option = shown.out.strip()
    assert option.endswith(",blocks=1")
    assert "x fewer blocks, mean change of the residual" in shown.err
    assert run([*command, "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["best"]["reuse"], facts["images"], facts["blocks"]) == (option, 2, 1)
    picture = ["sample", "dit-digits", "--classes", "3", "--reuse", option, *given, "--out", "a.png", "--save-latents", "a.npy"]
    assert run(picture) == 0
    assert run(["sample", "--like", "a.png", "--out", "b.png", "--save-latents", "b.npy"]) == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert run(["plan", "tune", "dit-digits", "--target", "fast"]) == 2
    assert "--target takes a factor, such as 1.8x, not 'fast'" in capfd.readouterr().err
