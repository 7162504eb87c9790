"""Numbers that fill memory, overflow or are no numbers are one clear line, before any work is done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ditzoo
from ditzoo.cli import run
from ditzoo.errors import BackendError, DitzooError, UsageError
from ditzoo.hub.client import look_up
from ditzoo.measure.parity import compared_rows
from ditzoo.pictures.decode import pixel_values

DIGITS = "9" * 5000
DIT = ditzoo.card("dit-digits")

BAD = {  # what is typed: a part of the one line that comes back
    "sample dit-digits --num 10000000000": "the number of images must be at most 1,000,000",
    "sample dit-digits --classes 0-10000000000": "class 10000000000 is out of range",
    "sample dit-digits --classes DIGITS": "is neither a number nor a range",
    "sample dit-digits --classes 0-DIGITS": "is neither a number nor a range",
    "sample dit-digits --resolution DIGITS": "is none; write 256",
    "sample dit-digits --batch DIGITS": "Invalid value for '--batch'",
    "sample dit-digits --threads 2147483648": "threads must be at most 1,024",
    "sample dit-digits --threads 1025 --backend onnxruntime": "threads must be at most 1,024",
    "sample dit-digits --solver ddim:eta=1e400": "takes a finite number",
    "sample dit-digits --solver ddim:eta=nan": "takes a finite number",
    "sample dit-digits --solver dpmpp:order=100000000000": "takes a whole number of at most 100,000",
    "sample dit-digits --guidance 1e308 --steps 2": "NaN or infinity in step 1 of 2",
    "bench dit-digits --batch DIGITS": "is neither a number nor a range",
    "bench dit-digits --batch 1-10000000000": "batch must be at most 1,000,000",
    "bench dit-digits --batch 0-2": "batch must be 1 or more",
    "bench dit-digits --repeats 100000000000": "repeats must be at most 1,000,000",
    "bench dit-digits --warmup 100000000000": "warmup must be at most 1,000,000",
    "export tensorrt dit-digits --out x --gpu sm89 --batch 2147483648": "a batch size must be at most 65,536",
    "export tensorrt dit-digits --out x --gpu sm89 --batch DIGITS": "is not a batch size",
    "export tensorrt dit-digits --out x --gpu sm89 --resolution DIGITS": "is none; write 256",
}


@pytest.mark.parametrize("typed", BAD)
def test_a_hostile_number_is_one_clear_line(
    typed: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(typed.replace("DIGITS", DIGITS).split()) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 400
    assert BAD[typed] in error
    assert list(tmp_path.iterdir()) == []


def test_more_times_than_steps_compare_every_step() -> None:
    plan = ditzoo.make_plan(DIT, steps=7)
    for times in (7, 8, 10**11):
        assert compared_rows(plan, times) == list(range(7))


@pytest.mark.parametrize("patience", [float("inf"), float("nan"), 1e300, 0.0, -1.0])
def test_a_timeout_is_a_number_of_seconds(patience: float) -> None:
    with pytest.raises(UsageError, match="--timeout must be a number of seconds, more than 0 and at most 86,400"):
        look_up("team/model", "file", revision=None, patience=patience)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ("DDIMScheduler:num_train_timesteps=100000", "num_train_timesteps of DDIMScheduler come from the card"),
        ("DDIMScheduler:steps_offset=100000", "DDIMScheduler does not take this"),
        ("DDIMScheduler:timestep_spacing=never", "DDIMScheduler does not take this"),
        ("DPMSolverMultistepScheduler:solver_order=0", "DPMSolverMultistepScheduler"),
        ("UniPCMultistepScheduler:solver_order=-1", "UniPCMultistepScheduler"),
    ],
)
def test_options_that_make_a_scheduler_fail_are_one_line(solver: str, message: str) -> None:
    with pytest.raises(DitzooError, match=message) as caught:
        ditzoo.make_plan(DIT, solver=f"diffusers:{solver}", steps=4)
    assert "\n" not in str(caught.value)


def test_pictures_with_nan_are_an_error() -> None:
    latents = np.zeros((3, 1, 8, 8), dtype=np.float32)
    with pytest.raises(BackendError, match="the decoder gave NaN or infinity for image 1 of 3"):
        pixel_values(DIT, latents, decoder=lambda given: np.where(np.arange(3)[:, None, None, None] == 1, np.nan, given))
    latents[2, 0, 0, 0] = np.inf
    with pytest.raises(BackendError, match="the latents have NaN or infinity for image 2 of 3"):
        pixel_values(DIT, latents)
    latents[2, 0, 0, 0] = 3e38
    assert pixel_values(DIT, latents)[2, 0, 0, 0] == 255
