"""How many threads a network gets, and whether they spin, for given cores; and what the backends make of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
import torch

import ditzoo
from ditzoo.backends import threads
from ditzoo.backends.options import parse_spec
from ditzoo.backends.threads import (
    Cores,
    SmallWork,
    Threads,
    choose_threads,
    cores_here,
    quota_of,
    running_of,
    state_of,
    work_of,
)
from ditzoo.backends.torch import TorchBackend
from ditzoo.backends.torch_threads import SHORT, Tried, fastest, free_threads
from ditzoo.model.opening import open_model, sampling_batch
from ditzoo_export import cached_bundle, make_settings
from ditzoo_export.rounding import write_rounded

SPINNING, SLEEPING = True, False


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (Cores(online=2, usable=2), (2, SPINNING)),
        (Cores(online=2, usable=2, running=1), (2, SLEEPING)),
        (Cores(online=2, usable=2, running=2), (2, SLEEPING)),
        (Cores(online=16, usable=8, running=2), (8, SPINNING)),  # two hardware threads per core
        (Cores(online=16, usable=16, running=4), (12, SPINNING)),  # most cores are free
        (Cores(online=16, usable=16, running=5), (16, SLEEPING)),
        (Cores(online=64, usable=64, quota=4.0, running=30), (4, SPINNING)),
        (Cores(online=64, usable=64, quota=3.5), (3, SPINNING)),
        (Cores(online=64, usable=64, quota=0.5), (1, SPINNING)),
        (Cores(online=64, usable=2, quota=4.0), (2, SPINNING)),
        (Cores(online=1, usable=1, running=9), (1, SPINNING)),  # one thread waits for no other one
    ],
)
def test_threads_spin_where_each_has_a_free_core(cores: Cores, expected: tuple[int, bool]) -> None:
    number, spin = expected
    assert choose_threads(cores) == Threads(number=number, spin=spin)


@pytest.mark.parametrize(("running", "number"), [(0, 4), (1, 3), (3, 1), (4, 1), (9, 1)])
def test_threads_that_cannot_sleep_are_as_many_as_free_cores(running: int, number: int) -> None:
    cores = Cores(online=4, usable=4, running=running)
    assert choose_threads(cores, can_sleep=False) == Threads(number=number, spin=True)


@pytest.mark.parametrize(("running", "limit"), [(0, 100), (1, 100), (2, 900), (9, 900)])
def test_small_work_gets_one_thread(running: int, limit: int) -> None:
    """On a busy machine, more work counts as small: threads that sleep wait for one another."""
    cores, small = Cores(online=4, usable=4, running=running), SmallWork(free=100, busy=900)
    assert choose_threads(cores, work=limit - 1, small=small) == Threads(number=1, spin=True)
    assert choose_threads(cores, work=limit, small=small).number > 1
    assert choose_threads(cores, work=limit - 1, small=small, asked=3).number == 3
    assert choose_threads(cores, work=None, small=small).number > 1


@pytest.mark.parametrize("can_sleep", [True, False])
@pytest.mark.parametrize("asked", [1, 2, 8])
@pytest.mark.parametrize("running", [0, 2, 20])
def test_a_number_that_was_asked_for_wins(asked: int, running: int, can_sleep: bool) -> None:
    cores = Cores(online=4, usable=4, quota=1.0, running=running)
    assert choose_threads(cores, asked=asked, can_sleep=can_sleep).number == asked


def test_a_graph_is_as_large_as_the_weights_that_it_reads(tmp_path: Path) -> None:
    """Those of a graph with reuse, of a graph that measures its inputs, and of a rounded twin are in the backbone's file."""
    for name in ("backbone", "backbone-reuse", "measuring-backbone", "rounded-backbone"):
        (tmp_path / f"{name}.onnx").write_bytes(b"..backbone.onnx.data..")
    (tmp_path / "conditioning.onnx").write_bytes(b"graph")
    with (tmp_path / "backbone.onnx.data").open("wb") as file:
        file.truncate(1000)
    for name in ("backbone", "backbone-reuse", "measuring-backbone", "rounded-backbone"):
        assert work_of(tmp_path / f"{name}.onnx", 3) == 3 * 1022
    assert work_of(tmp_path / "conditioning.onnx", None) == 5
    assert work_of(tmp_path / "missing.onnx", None) == 0


def test_the_rounded_twin_of_an_export_is_as_large_as_the_backbone(tmp_path: Path) -> None:
    bundle = cached_bundle(ditzoo.card("dit-digits"), settings=make_settings(ditzoo.card("dit-digits"), precision="fp16"))
    for file in bundle.path.iterdir():
        shutil.copy(file, tmp_path)
    twin = write_rounded(tmp_path, bundle.manifest.graphs["backbone"])
    assert work_of(tmp_path / twin.file, None) > 0.9 * work_of(tmp_path / "backbone.onnx", None) > 500_000


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_number_of_images_decides_the_threads_of_a_small_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the backbone. Its modulations are computed ahead, in one evaluation that the images do not change."""
    asked = list[int | None]()

    def record(graph: Path, rows: int | None) -> int:
        asked.append(rows)
        return work_of(graph, rows)

    for module in ("openvino", "sessions"):
        monkeypatch.setattr(f"ditzoo.backends.{module}.work_of", record)
    open_model("dit-digits", parse_spec(name), batch=sampling_batch(5)).close()
    assert asked[-2:] == [16, None]


def test_the_smallest_quota_of_nested_groups_counts() -> None:
    assert quota_of([["max", "100000"], ["250000", "100000"], ["400000", "100000"]]) == 2.5
    assert quota_of([["-1", "100000"]]) is None
    assert quota_of([]) is None


def test_running_threads_are_read_off_the_load() -> None:
    assert running_of("10.73 9.59 7.35 12/184 5142") == 12


def test_the_state_of_a_thread_is_read_after_its_name() -> None:
    assert [state_of("7 (a) S (b) R 1 7 0"), state_of("7 (python) S 1 7 0")] == ["R", "S"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system has no /proc")
def test_a_thread_of_this_process_that_computes_is_its_own() -> None:
    work = Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 3_000_000))  # it computes without Python's lock
    work.start()
    seen = 1
    while work.is_alive() and seen < 2:
        seen = threads.own_running()
    work.join()
    assert seen >= 2


@pytest.mark.parametrize(("running", "expected"), [(1, 0), (3, 0), (5, 2)])
def test_own_threads_are_no_load(running: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After torch's last work, its threads still spin: they must not make the next network take fewer."""
    monkeypatch.setattr(threads, "running_now", lambda: running)
    monkeypatch.setattr(threads, "own_running", lambda: 3)
    assert cores_here().running == expected


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ({}, 2),
        ({2: Tried(count=3, shortest=0.002)}, 1),
        ({2: Tried(count=3, shortest=2 * SHORT)}, 2),
        ({2: Tried(count=3, shortest=0.002), 1: Tried(count=2, shortest=0.003)}, 1),
        ({2: Tried(count=3, shortest=0.002), 1: Tried(count=3, shortest=0.003)}, 2),
        ({2: Tried(count=3, shortest=0.003), 1: Tried(count=3, shortest=0.002)}, 1),
    ],
)
def test_short_evaluations_run_on_the_faster_number_of_threads(tried: dict[int, Tried], expected: int) -> None:
    assert fastest(tried, 2) == expected


@pytest.mark.parametrize(
    ("now", "running", "expected"),
    [
        (2, 1, 2),  # its own thread alone
        (2, 2, 2),  # both of its own, which still spin
        (2, 4, 1),  # two others beside them
        (1, 3, 1),
        (1, 1, 2),  # the others are gone
    ],
)
def test_spinning_threads_leave_cores_to_others(now: int, running: int, expected: int) -> None:
    assert free_threads(Cores(online=2, usable=2), most=2, now=now, running=running) == expected


def test_torch_gets_its_number_of_threads_back() -> None:
    """The first evaluations take all threads, and the next ones a single thread, because they are short."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with TorchBackend(ditzoo.card("dit-digits")) as backend:
            for _ in range(8):
                backend({"x": torch.zeros(2, 1, 8, 8), "t": torch.zeros(2), "y": torch.zeros(2, dtype=torch.int64)})
                assert torch.get_num_threads() <= 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


_WAITING = """
import os, sys
from ditzoo.backends import threads
threads.cores_here = lambda: threads.Cores(online=2, usable=2, running=int(sys.argv[1]))
threads.settle_waiting()
print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("running", "given", "expected"),
    [(0, {}, "None"), (2, {}, "passive"), (2, {"OMP_WAIT_POLICY": "active"}, "active"), (2, {"GOMP_SPINCOUNT": "5"}, "None")],
)
def test_threads_of_openmp_sleep_on_a_busy_machine(running: int, given: dict[str, str], expected: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", _WAITING, str(running)], env={**clean, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected, "False"]
