"""Each file operation of a command fails, or the process is killed there: nothing is lost, and the same command again works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save, save_file

import ditzoo
from ditzoo_export import cached_bundle
from recipes.checkpoints import hub_server
from tests.support.hub_models import FILE, TINY, Desk, diffusers, state

POINTS = int(os.environ.get("DITZOO_TEST_POINTS", "8"))
"""The number of file operations of each command that fail. Set it to 1000 to let each of them fail in every way."""

OLD, NEW = (diffusers(state(TINY, seed=seed), TINY) for seed in (0, 1))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with hub_server.serving() as hub:
        (tmp_path / "home").mkdir()
        desk = Desk(tmp_path / "home", hub)
        desk.offers(OLD)
        yield desk


def survives(desk: Desk, *command: str, prepare: list[list[str]], traced: tuple[str, ...] = ()) -> None:
    folder = desk.home.parent / "said"
    assert desk.survives(*command, prepare=prepare, points=POINTS, folder=folder, traced=traced) >= 5


def test_pull(desk: Desk) -> None:
    survives(desk, "pull", "tiny", prepare=[])


def test_a_pull_deletes_what_a_kill_after_the_last_step_left(desk: Desk) -> None:
    assert desk.run("pull", "tiny").returncode == 0
    (weights,) = (desk.home / "ditzoo" / "weights").iterdir()
    left = weights.with_name(f".{weights.name}.abcdefgh.partial")
    (left / "old").mkdir(parents=True)
    assert desk.run("pull", "tiny").returncode == 0
    assert list(weights.parent.iterdir()) == [weights]


def test_pull_update(desk: Desk) -> None:
    """The first pull is at home already when the newest revision moves."""
    assert desk.run("pull", "tiny").returncode == 0
    desk.hub.commit("team/tiny", {FILE: save(NEW)})
    survives(desk, "pull", "tiny", "--update", prepare=[])


def test_import(desk: Desk) -> None:
    for name, weights in (("old", OLD), ("new", NEW)):
        save_file(weights, desk.home / f"{name}.safetensors")
    command = ["import", "mine", "--like", "tiny", "--overwrite"]
    old, new = (str(desk.home / f"{name}.safetensors") for name in ("old", "new"))
    survives(desk, "import", "mine", new, *command[2:], prepare=[["import", "mine", old, *command[2:]]])


def test_cache_rm(desk: Desk) -> None:
    save_file(OLD, desk.home / "old.safetensors")
    other = ["import", "mine", str(desk.home / "old.safetensors"), "--like", "tiny"]
    survives(desk, "cache", "rm", "tiny", "--yes", prepare=[other, ["pull", "tiny"]])


def test_sample(desk: Desk) -> None:
    out = ["--out", str(desk.home / "picture.png"), "--save-latents", str(desk.home / "latents.npy")]
    sample = ["sample", "dit-digits", "--steps", "1", "--classes", "3", *out]
    survives(desk, *sample, "--seed", "2", prepare=[[*sample, "--seed", "1"]])


def test_export(desk: Desk) -> None:
    """The exporter itself, which replaces a bundle of another precision."""
    export = ["export", "onnx", "uvit-digits", "--out", str(desk.home / "bundle"), "--overwrite", "--precision"]
    survives(desk, *export, "fp16", prepare=[[*export, "fp32"]], traced=("uvit-digits", "fp32", "fp16"))


def test_export_bundle(desk: Desk) -> None:
    bundle = desk.home.parent / "made"
    shutil.copytree(cached_bundle(ditzoo.card("uvit-digits")).path, bundle)
    tar = desk.home / "bundle.tar"
    tar.write_text("old")
    survives(desk, "export", "bundle", str(bundle), "--tar", str(tar), prepare=[])
