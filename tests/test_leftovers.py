"""What killed processes leave, beside pictures and bundles and in the cache, is found again, replaced, or removed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ditzoo.bundle import provide_folder
from ditzoo.cache import leftovers, remove
from ditzoo.cli import run
from ditzoo.digests import digest, memo_of
from ditzoo.files import replacing
from ditzoo.folders import temporary_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, as others of this run have leftovers too."""
    monkeypatch.setenv("DITZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    tmp_path.joinpath("out").mkdir()
    return tmp_path / "out"


def kill_in(writing: Callable[[], AbstractContextManager[Path]]) -> None:
    """Kills a process that has written a part of a file or folder."""
    child = os.fork()
    if child == 0:
        with writing() as path:
            (path / "half" if path.is_dir() else path).write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_same_command_again_leaves_no_hidden_picture(out: Path) -> None:
    kill_in(lambda: replacing(out / "picture.png"))
    assert names(out) == [".picture.partial.png"]
    with replacing(out / "picture.png") as scratch:
        assert scratch.read_bytes() == b""
        scratch.write_text("whole")
    assert names(out) == ["picture.png"]


def test_two_at_once_write_the_same_picture(out: Path) -> None:
    with replacing(out / "picture.png") as first, replacing(out / "picture.png") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (names(out), (out / "picture.png").read_text()) == (["picture.png"], "first")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_where_the_temporary_file_belongs_is_not_followed(out: Path, link: Callable[[Path, Path], None]) -> None:
    (out / "victim").write_text("precious")
    link(out / "victim", out / ".picture.partial.png")
    with replacing(out / "picture.png") as scratch:
        scratch.write_text("new")
    assert ((out / "victim").read_text(), (out / "picture.png").read_text()) == ("precious", "new")


def test_files_get_the_mode_of_the_umask(out: Path) -> None:
    mask = os.umask(0o027)
    try:
        with provide_folder(out / "folder", overwrite=False) as folder:
            (folder / "inner").mkdir(mode=0o700)
            (folder / "inner" / "graph.onnx.data").touch(mode=0o600)
        with replacing(out / "picture.png") as scratch:
            scratch.chmod(0o600)
    finally:
        os.umask(mask)
    assert {path.name: path.stat().st_mode & 0o777 for path in out.rglob("*")} == {
        "folder": 0o750,
        "inner": 0o750,
        "graph.onnx.data": 0o640,
        "picture.png": 0o640,
    }


def test_prune_removes_every_leftover_and_nothing_that_is_in_use(cache: Path, out: Path) -> None:
    for folder in ("pins", "weights", "bundles"):
        (cache / folder).mkdir(parents=True)
    (out / "gone").write_text("gone")
    digest(out / "gone")
    (out / "gone").unlink()
    (out / "mine").write_text("mine")
    digest(out / "mine")
    kill_in(lambda: replacing(out / "picture.png"))
    kill_in(lambda: replacing(cache / "pins" / "team--tiny.json"))
    kill_in(lambda: replacing(memo_of(out / "other")))
    kill_in(temporary_folder)
    for target in (out / "bundle", cache / "weights" / "tiny-0", cache / "bundles" / "tiny-0"):
        kill_in(lambda target=target: provide_folder(target, overwrite=False))  # type: ignore[misc]
    (out / ".hidden").touch()
    (out / ".x.partial.png").mkdir()
    with temporary_folder() as used, provide_folder(out / "second", overwrite=False) as made, replacing(out / "b.png") as drawn:
        assert len(leftovers([], downloads=False)) == 6
        assert run(["cache", "prune", str(out), "--yes"]) == 0
        assert used.is_dir()
        assert made.is_dir()
        assert drawn.is_file()
    assert names(out) == [".hidden", "b.png", "mine", "second"]
    assert names(cache / "digests") == [memo_of(out / "mine").name]
    assert [names(cache / folder) for folder in ("pins", "weights", "bundles")] == [[], [], []]
    assert not list(cache.glob(".*"))


def test_what_is_used_again_by_now_stays(out: Path) -> None:
    kill_in(lambda: replacing(out / "picture.png"))
    found = leftovers([], downloads=False, folders=[out])
    with replacing(out / "picture.png") as scratch:
        scratch.write_text("new")
        remove(found)
    assert (out / "picture.png").read_text() == "new"


def test_the_only_copy_of_a_bundle_is_no_leftover(out: Path) -> None:
    (out / ".bundle.abcdefgh.partial" / "old").mkdir(parents=True)
    assert leftovers([], downloads=False, folders=[out]) == []
    (out / "bundle").mkdir()
    assert [item.path.name for item in leftovers([], downloads=False, folders=[out])] == [".bundle.abcdefgh.partial"]
