"""Pulling from a real HTTP server, through the real client, in processes of their own; and everything that can go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, save

from recipes.checkpoints import hub_server
from tests.support.damage import damage_silently
from tests.support.hub_models import FILE, TINY, Desk, diffusers, state
from tests.support.mounts import mounted

WEIGHTS = state(TINY)
PUBLISHED = diffusers(WEIGHTS, TINY)
CONTENT = save(PUBLISHED)

as_root = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root to mount a tmpfs")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with hub_server.serving() as hub:
        desk = Desk(tmp_path, hub)
        desk.offers(PUBLISHED)
        yield desk


def assert_pulled(path: str) -> None:
    """The file at `path` is the model, number for number."""
    found = load_file(path.strip())
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)


def stored(desk: Desk) -> list[Path]:
    return sorted((desk.home / "ditzoo" / "weights").glob("[!.]*"))


def test_once_and_never_again(desk: Desk) -> None:
    command = [sys.executable, "-m", "ditzoo", "pull", "tiny"]
    first = subprocess.run(command, env=desk.env(), capture_output=True, text=True)
    assert_pulled(first.stdout)
    commit = next(iter(desk.hub.repos["team/tiny"]))
    assert commit in first.stderr
    assert "recorded" in first.stderr
    asked = len(desk.hub.log)
    again = desk.run("pull", "tiny")
    assert again.stdout == first.stdout
    assert "stored already" in again.stderr
    assert desk.run("pull", "tiny", HF_HUB_OFFLINE="1").stdout == first.stdout
    assert len(desk.hub.log) == asked
    # the newest revision moves: what was recorded stays, until an update is asked for
    moved = state(TINY, seed=1)
    newer = desk.hub.commit("team/tiny", {FILE: save(diffusers(moved, TINY))})
    assert desk.run("cache", "rm", "tiny", "--yes").returncode == 0
    assert_pulled(desk.run("pull", "tiny").stdout)
    updated = desk.run("pull", "tiny", "--update")
    assert newer in updated.stderr
    assert torch.equal(load_file(updated.stdout.strip())["pos_embed"], moved["pos_embed"])
    assert not torch.equal(load_file(updated.stdout.strip())["t_embedder.mlp.0.weight"], WEIGHTS["t_embedder.mlp.0.weight"])


def test_a_pin_holds_before_anything_is_downloaded(desk: Desk) -> None:
    desk.describes(sha256="0" * 64)
    line = desk.fails("pull", "tiny")
    assert "0" * 64 in line
    assert hashlib.sha256(CONTENT).hexdigest() in line
    assert "`ditzoo pull hf:team/tiny@" in line
    desk.describes(size=12)
    assert "size" in desk.fails("pull", "tiny")
    assert desk.hub.downloads() == 0


def test_damage_of_the_same_size_is_fetched_again_once(desk: Desk) -> None:
    desk.hub.faults.garbles = 9
    line = desk.fails("pull", "tiny")
    assert "damaged in both downloads" in line
    assert desk.hub.downloads() == 2
    assert not stored(desk)
    desk.hub.faults.garbles = 0
    done = desk.run("pull", "tiny")  # the bad copy lies in the Hub's cache, where its client would take it as it is
    assert "downloading it again" in done.stderr
    assert_pulled(done.stdout)


def test_a_truncated_answer(desk: Desk) -> None:
    desk.hub.faults.truncates = 1
    assert_pulled(desk.run("pull", "tiny").stdout)
    shutil.rmtree(desk.home / "hf")
    shutil.rmtree(desk.home / "ditzoo")
    desk.hub.faults.truncates = 1_000
    assert "Consistency check" in desk.fails("pull", "tiny", "--timeout", "5")
    assert not stored(desk)


def test_a_copy_damaged_later(desk: Desk) -> None:
    model = Path(desk.run("pull", "tiny").stdout.strip())
    asked = len(desk.hub.log)
    damaged = bytearray(model.read_bytes())
    damaged[-1] ^= 1
    model.write_bytes(damaged)
    assert "`ditzoo pull tiny`" in desk.fails("where", "tiny")
    verified = desk.run("cache", "verify", "--json")
    assert verified.returncode == 1
    problems = [entry["problem"] for entry in json.loads(verified.stdout) if entry["model"] == "tiny"]
    assert [problem is None for problem in problems].count(False) == 1
    repaired = desk.run("pull", "tiny", HF_HUB_OFFLINE="1")  # from the original in the Hub's cache
    assert_pulled(repaired.stdout)
    model.unlink()
    model.symlink_to("/etc/hostname")
    assert "link to a place outside the cache" in desk.fails("where", "tiny")
    blob = next((desk.home / "hf/hub").glob("models--*/blobs/*"))
    os.truncate(blob, 1_000)
    assert "HF_HUB_OFFLINE" in desk.fails("pull", "tiny", HF_HUB_OFFLINE="1")
    assert len(desk.hub.log) == asked
    assert_pulled(desk.run("pull", "tiny").stdout)


def test_a_disk_that_changes_bytes_by_itself_is_found_when_all_is_read_again(desk: Desk) -> None:
    model = Path(desk.run("pull", "tiny").stdout.strip())
    desk.run("where", "tiny")
    damage_silently(model, desk.home / "ditzoo")
    desk.run("where", "tiny")
    assert desk.run("cache", "verify").returncode == 1
    (desk.home / "ditzoo" / "digests").rename(desk.home / "forgotten")
    assert "`ditzoo pull tiny`" in desk.fails("where", "tiny")


def test_a_link_out_of_the_hubs_cache(desk: Desk) -> None:
    desk.run("pull", "tiny")
    shutil.rmtree(desk.home / "ditzoo" / "weights")
    pointer = next((desk.home / "hf/hub").glob(f"models--*/snapshots/*/{FILE}"))
    pointer.unlink()
    pointer.symlink_to("/etc/hostname")
    assert "outside the Hub's cache" in desk.fails("pull", "tiny")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("repo", "no repository"),
        ("file", "no such file"),
        ("gated", "accept its terms"),
        ("revision", "does not have that revision"),
    ],
)
def test_what_the_server_refuses(desk: Desk, setting: str, expected: str) -> None:
    if setting == "repo":
        desk.hub.repos.clear()
    elif setting == "file":
        desk.hub.commit("team/tiny", {"README.md": b""})
    elif setting == "revision":
        desk.describes(revision="f" * 40)
    desk.hub.faults.gated = setting == "gated"
    line = desk.fails("pull", "tiny")
    assert expected in line
    assert "team/tiny" in line


def test_a_token_opens_what_is_gated(desk: Desk) -> None:
    desk.hub.faults.gated = True
    assert "accept its terms" in desk.fails("pull", "tiny", HF_TOKEN="hf_stranger")
    assert_pulled(desk.run("pull", "tiny", HF_TOKEN="hf_member").stdout)


def test_errors_then_recovery(desk: Desk) -> None:
    desk.hub.faults.errors, desk.hub.faults.dies = 3, 1
    assert_pulled(desk.run("pull", "tiny").stdout)


def test_a_server_that_always_dies_and_ignores_ranges(desk: Desk) -> None:
    """Bytes that came before are no progress, so that it ends: a command that hangs would never return."""
    desk.hub.faults.dies, desk.hub.faults.ignores_range = 10_000, True
    assert "nothing came" in desk.fails("pull", "tiny", "--timeout", "3")
    desk.hub.faults.dies = 1
    assert_pulled(desk.run("pull", "tiny").stdout)


def test_a_server_that_falls_silent(desk: Desk) -> None:
    desk.hub.faults.stalls = Event()
    assert "--timeout" in desk.fails("pull", "tiny", "--timeout", "1.5")
    assert desk.hub.faults.stalled.is_set()
    desk.hub.faults.stalls.set()


def test_no_server_at_all(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and never answers
        for endpoint in (f"http://127.0.0.1:{mute.getsockname()[1]}", "http://127.0.0.1:9"):
            assert endpoint in desk.fails("pull", "tiny", "--timeout", "1.5", HF_ENDPOINT=endpoint)
    assert "HF_HUB_OFFLINE" in desk.fails("pull", "tiny", HF_HUB_OFFLINE="1")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_killed_while_downloading(desk: Desk, part: float) -> None:
    desk.hub.faults.stalls, desk.hub.faults.stalls_after = Event(), part
    kill_in_download(desk)
    assert not stored(desk)
    kept = incomplete(desk).stat().st_size
    assert 0 < kept < len(CONTENT)
    assert_pulled(desk.run("pull", "tiny").stdout)
    assert desk.hub.starts == [0, kept]


@pytest.mark.parametrize("damage", ["bytes", "length"])
def test_what_a_killed_download_left_is_checked(desk: Desk, damage: str) -> None:
    desk.hub.faults.stalls = Event()
    kill_in_download(desk)
    kept = incomplete(desk).read_bytes()
    incomplete(desk).write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]) if damage == "bytes" else CONTENT + b"x")
    assert_pulled(desk.run("pull", "tiny").stdout)
    assert desk.hub.starts == ([0, len(kept), 0] if damage == "bytes" else [0, 0])


def test_one_that_waits_says_for_whom(desk: Desk) -> None:
    desk.hub.faults.stalls = Event()
    first = desk.start("pull", "tiny")
    desk.hub.faults.stalled.wait()
    second = desk.start("pull", "tiny")
    while "waiting for tiny, which process" not in second.stderr:
        assert second.returncode is None, second.stderr
    assert f"process {first.process} (`" in second.stderr
    desk.hub.faults.stalls.set()
    assert [first.wait(), second.wait()] == [0, 0]
    assert desk.hub.downloads() == 1


def kill_in_download(desk: Desk) -> None:
    """Kills a pull that has written a part of the file. The server stalls at that time, and works again afterwards."""
    process = desk.start("pull", "tiny")
    desk.hub.faults.stalled.wait()
    while incomplete(desk).stat().st_size == 0:
        assert process.returncode is None
    process.kill()
    assert process.returncode == -signal.SIGKILL
    assert desk.hub.faults.stalls is not None
    desk.hub.faults.stalls.set()


def incomplete(desk: Desk) -> Path:
    """The file with what came of a download that was killed."""
    (path,) = (desk.home / "hf" / "hub").glob("models--*/blobs/*.incomplete")
    return path


def test_eight_at_once_download_once(desk: Desk) -> None:
    pulls = [desk.start("pull", "tiny") for _ in range(8)]
    assert [process.wait() for process in pulls] == [0] * 8
    assert len({process.stdout for process in pulls}) == 1
    assert_pulled(pulls[0].stdout)
    assert desk.hub.downloads() == 1


@as_root
@pytest.mark.filterwarnings("ignore")
def test_a_full_disk(desk: Desk) -> None:
    with mounted(desk.home / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as small:
        line = desk.fails("pull", "tiny", HF_HOME=str(small))
        assert "the disk is full" in line
        assert "HF_HOME" in line
        shutil.rmtree(small / "hub")
        line = desk.fails("pull", "tiny", DITZOO_CACHE=str(small))
        assert "the disk is full" in line
        assert "DITZOO_CACHE" in line
        assert not list((small / "weights").iterdir())
    asked = desk.hub.downloads()
    assert_pulled(desk.run("pull", "tiny").stdout)
    assert desk.hub.downloads() == asked  # what was downloaded is not lost


@as_root
def test_read_only_caches(desk: Desk) -> None:
    ours, hubs = desk.home / "ditzoo", desk.home / "hf"
    ours.mkdir()
    hubs.mkdir()
    with mounted(hubs, "--bind", "-o", "ro", str(hubs)):
        assert "HF_HOME" in desk.fails("pull", "tiny")
    shutil.rmtree(ours)
    ours.mkdir()
    with mounted(ours, "--bind", "-o", "ro", str(ours)):
        assert "read-only" in desk.fails("pull", "tiny")
    pulled = desk.run("pull", "tiny")
    with mounted(ours, "--bind", "-o", "ro", str(ours)):
        assert desk.run("pull", "tiny").stdout == pulled.stdout
        assert desk.run("where", "tiny").stdout == pulled.stdout
