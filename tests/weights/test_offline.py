"""What the Hub's own client brought is found without a server; a server whose name cannot be looked up is asked once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from recipes.checkpoints import hub_server
from tests.support.hub_models import FILE, TINY, Desk, diffusers, state

WEIGHTS = state(TINY)
OFFLINE = {"HF_HUB_OFFLINE": "1"}
NOWHERE = {"HF_ENDPOINT": "http://no-such-hub.invalid"}
"""A name under `.invalid` never resolves (RFC 6761)."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with hub_server.serving() as hub:
        desk = Desk(tmp_path, hub)
        desk.offers(diffusers(WEIGHTS, TINY))
        yield desk


def download(desk: Desk, repo: str, *arguments: str) -> Path:
    """`hf download`, as anybody uses it; returns the repository's folder in the Hub's cache."""
    command = [str(Path(sys.executable).parent / "hf"), "download", repo, *arguments]
    subprocess.run(command, env=desk.env(), check=True, capture_output=True)
    return desk.home / "hf" / "hub" / f"models--{repo.replace('/', '--')}"


def assert_pulled(path: str) -> None:
    found = load_file(path.strip())
    assert all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)


@pytest.mark.parametrize("env", [OFFLINE, NOWHERE], ids=["forbidden", "no name"])
def test_what_was_downloaded_is_found(desk: Desk, env: dict[str, str]) -> None:
    download(desk, "team/tiny", FILE)
    (commit,) = desk.hub.repos["team/tiny"]
    asked = len(desk.hub.log)
    done = desk.run("pull", "tiny", **env)
    assert_pulled(done.stdout)
    assert f"using revision {commit} from the Hub's cache" in done.stderr
    assert "recorded" not in done.stderr
    for reference in ("hf:team/tiny", f"hf:team/tiny@{commit}", f"hf:team/tiny@main:{FILE}"):
        assert_pulled(desk.run("pull", reference, "--like", "tiny", **env).stdout)
    assert len(desk.hub.log) == asked
    shutil.rmtree(desk.home / "ditzoo" / "weights")
    newer = desk.hub.commit("team/tiny", {FILE: save(diffusers(state(TINY, seed=1), TINY))})
    assert f"resolved the newest revision of team/tiny to {newer}" in desk.run("pull", "tiny").stderr


def test_a_repository_on_another_disk(desk: Desk) -> None:
    folder = download(desk, "team/tiny", FILE)
    for part in ("", "blobs"):
        linked, moved = folder / part, desk.home / f"disk-{part}"
        shutil.move(linked, moved)
        linked.symlink_to(moved)
        shutil.rmtree(desk.home / "ditzoo", ignore_errors=True)
        assert_pulled(desk.run("pull", "tiny", **OFFLINE).stdout)
    pointer = next((folder / "snapshots").glob(f"*/{FILE}"))
    pointer.unlink()
    pointer.symlink_to("/etc/hostname")
    shutil.rmtree(desk.home / "ditzoo")
    assert "outside the Hub's cache" in desk.fails("pull", "tiny", **OFFLINE)


def test_any_revision_that_is_the_only_one(desk: Desk) -> None:
    (old,) = desk.hub.repos["team/tiny"]
    new = desk.hub.commit("team/tiny", {FILE: save(diffusers(state(TINY, seed=1), TINY))})
    download(desk, "team/tiny", FILE, "--revision", old)
    assert_pulled(desk.run("pull", "tiny", **OFFLINE).stdout)
    download(desk, "team/tiny", FILE, "--revision", new)
    shutil.rmtree(desk.home / "ditzoo")
    line = desk.fails("pull", "tiny", **OFFLINE)
    assert f"hf:team/tiny@{old}" in line
    assert f"hf:team/tiny@{new}" in line
    assert_pulled(desk.run("pull", f"hf:team/tiny@{old}", "--like", "tiny", **OFFLINE).stdout)
    download(desk, "team/tiny", FILE)  # main, which is the new one
    found = load_file(desk.run("pull", "tiny", **OFFLINE).stdout.strip())
    assert torch.equal(found["final_layer.linear.bias"], state(TINY, seed=1)["final_layer.linear.bias"])


def test_a_pinned_revision_is_no_other(desk: Desk) -> None:
    download(desk, "team/tiny", FILE)
    (commit,) = desk.hub.repos["team/tiny"]
    desk.describes(revision="f" * 40)
    line = desk.fails("pull", "tiny", **OFFLINE)
    assert f"of another revision: `ditzoo pull hf:team/tiny@{commit}`" in line
    blob = next((desk.home / "hf/hub").glob("models--team--tiny/blobs/*"))
    desk.describes(revision="f" * 40, sha256=blob.name)  # the same content is the same file
    assert_pulled(desk.run("pull", "tiny", **OFFLINE).stdout)


COUNT = """
import socket, sys
asked = []
sys.addaudithook(lambda event, arguments: asked.append(arguments[0]) if event == "socket.getaddrinfo" else None)
from ditzoo.cli import run
status = run(sys.argv[1:])
print(status, len(asked), file=sys.stderr)
"""


def test_a_name_that_cannot_be_looked_up_is_asked_for_once(desk: Desk) -> None:
    for name in ("tiny", "hf:team/tiny"):
        command = [sys.executable, "-c", COUNT, "pull", name]
        done = subprocess.run(command, env=desk.env(**NOWHERE), capture_output=True, text=True)
        assert "the name of http://no-such-hub.invalid cannot be looked up" in done.stderr
        assert done.stderr.splitlines()[-1] == "2 1"
