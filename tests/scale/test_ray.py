"""Shards on Ray: the same files as in one process, with workers that are killed. Ray is an extra and may be missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import ditzoo
from ditzoo.cli import run
from ditzoo.errors import BackendError, UsageError
from ditzoo.scale.on_ray import ShardActor, on_ray
from ditzoo.scale.run import here, run_job
from tests.scale.test_shards import DIT, JOB, Work, files

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning:ray", "ignore::ResourceWarning")]


@pytest.fixture(autouse=True)
def _modules_of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Actors import the checkout, and this module, as this process does."""
    root = Path(ditzoo.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "export")]))
    yield
    ray.shutdown()


def test_workers_that_die_are_replaced_and_the_files_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker kills itself on the first try of shards 0 and 2, as the system would with SIGKILL."""
    run_job(Work(job=JOB, model=DIT, place=str(tmp_path / "one")), execute=here)

    class Mortal(ShardActor):
        def draw(self, shard: int):  # type: ignore[no-untyped-def]
            mark = tmp_path / f"{shard}.tried"
            if shard != 1 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().draw(shard)

    monkeypatch.setattr("ditzoo.scale.on_ray.ShardActor", Mortal)
    run_job(Work(job=JOB, model=DIT, place=str(tmp_path / "two")), execute=on_ray(None, workers=2))
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert len(list(tmp_path.glob("*.tried"))) == 2


def test_a_shard_that_kills_every_worker_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(ShardActor):
        def draw(self, shard: int):  # type: ignore[no-untyped-def]
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("ditzoo.scale.on_ray.ShardActor", Dying)
    monkeypatch.setattr("ditzoo.scale.on_ray.DEATHS", 2)
    with pytest.raises(BackendError, match="2 workers died while they drew shard 0"):
        run_job(Work(job=JOB, model=DIT, place=str(tmp_path)), execute=on_ray(None, workers=1))


def test_an_error_of_a_worker_is_one_clear_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    typed = f"sample dit-digits --num 2 --shard-size 2 --precision fp8 --ray local --workers 1 --out {tmp_path}"
    assert run(typed.split()) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_wrong_numbers_of_workers() -> None:
    with pytest.raises(UsageError, match="--workers must be 1 or more, not 0"):
        on_ray(None, workers=0)
