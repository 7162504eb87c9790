"""What the disk refuses becomes one sentence, and locks are the same for all who name the same thing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from ditzoo.errors import HubError, UsageError
from ditzoo.files import cache_dir, disk_errors, remember, replacing
from ditzoo.folders import appearing, recover
from ditzoo.locks import lock_file, lock_name, lock_named, lock_of
from tests.support.kills import KILL

ROOT = Path(__file__).parents[1]


def refusal(number: int, path: Path | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([] if path is None else [str(path)]))


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the quota is used up"), (errno.EFBIG, "the largest size")],
)
def test_a_full_disk_is_said_with_the_remedy(tmp_path: Path, number: int, said: str) -> None:
    with pytest.raises(UsageError, match=rf"b was not written: .*{said}.* choose another --out"), disk_errors(tmp_path / "b"):
        raise refusal(number)
    with pytest.raises(HubError, match=r"DITZOO_CACHE"), disk_errors(cache_dir(), raises=HubError):
        raise refusal(number)


@pytest.mark.parametrize(("number", "said"), [(errno.EROFS, "it is read-only"), (errno.EACCES, "permission denied")])
def test_a_forbidden_folder_is_said_and_another_files_error_is_left_alone(tmp_path: Path, number: int, said: str) -> None:
    for refused in (tmp_path / "b" / "file", tmp_path, tmp_path / ".b.x.partial"):
        with pytest.raises(UsageError, match=f"b was not written: {said}"), disk_errors(tmp_path / "b"):
            raise refusal(number, refused)
        with pytest.raises(UsageError) as caught, disk_errors(tmp_path / "b", option="--plot"):
            raise refusal(number, refused)
        assert str(caught.value).endswith("; choose another --plot")
        assert "free" not in str(caught.value)
    with pytest.raises(UsageError) as caught, disk_errors(cache_dir() / "b"):
        raise refusal(number, cache_dir() / "b")
    assert str(caught.value).endswith(f"{said}; set DITZOO_CACHE to another folder")
    with pytest.raises(OSError, match="elsewhere"), disk_errors(tmp_path / "b"):
        raise refusal(number, tmp_path.parent / "elsewhere")


def test_every_file_that_is_replaced_says_what_the_disk_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("old")
    message = r"b was not written: the disk is full \(now .*; free some space, or choose another --html"
    with pytest.raises(UsageError, match=message), replacing(tmp_path / "b", option="--html") as scratch:
        scratch.write_text("half")
        raise refusal(errno.ENOSPC)
    assert (tmp_path / "b").read_text() == "old"
    assert names(tmp_path) == ["b"]
    with pytest.raises(RuntimeError), replacing(tmp_path / "b"):
        raise RuntimeError


def test_what_saves_time_later_is_left_out_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise refusal(errno.ENOSPC)

    monkeypatch.setattr(Path, "write_bytes", full)
    remember(tmp_path / "b", b"new")
    assert names(tmp_path) == []


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "b"):
        (tmp_path / "nothing").read_bytes()


def test_a_lock_is_found_by_its_name_and_by_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for held, same, other in (
        (lock_named("hf:team/tiny"), "hf:team/tiny", "hf:team/tiny2"),
        (lock_of(Path("b")), lock_name(tmp_path / "b"), lock_name(tmp_path / "c")),
    ):
        with held:
            with pytest.raises(Timeout):
                FileLock(lock_file(same)).acquire(timeout=0)
            with FileLock(lock_file(other)).acquire(timeout=0):
                pass
        with FileLock(lock_file(same)).acquire(timeout=0):
            pass


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _replace(target: Path, faults: dict[int, int], then: int | None = None) -> tuple[int, int]:
    """Replaces a folder in a child process whose renames fail: its exit status, and how many renames there were."""
    command = [sys.executable, "-m", "tests.support.replacing_attempt", str(target), json.dumps(faults), json.dumps(then)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    return done.returncode, int(done.stdout or 0)


@pytest.mark.parametrize("before", [{}, {0: errno.EINVAL}], ids=["exchanging", "a disk that exchanges nothing"])
@pytest.mark.parametrize(
    ("fault", "then"), [(KILL, None), (errno.EIO, None), (errno.EIO, errno.EIO)], ids=["kill", "one error", "errors"]
)
def test_whatever_rename_fails_the_folder_is_the_old_one_or_the_new_one(
    tmp_path: Path, before: dict[int, int], fault: int, then: int | None
) -> None:
    """What was there is there at once where folders can be exchanged, else after the same command, or any other, again."""
    target = tmp_path / "b"

    def start() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        (target / "says").write_text("old")

    start()
    status, renames = _replace(target, before)
    assert (status, (target / "says").read_text(), names(tmp_path)) == (0, "new", ["b"])
    for number in range(len(before), renames):
        start()
        status, _ = _replace(target, {**before, number: fault}, then)
        assert before or target.is_dir()
        assert status != 0 or (target / "says").read_text() == "new"
        recover(target)
        assert (target / "says").read_text() in (("old", "new") if number else ("old",))
        assert names(tmp_path) == ["b"]
        assert _replace(target, before)[0] == 0
        assert ((target / "says").read_text(), names(tmp_path)) == ("new", ["b"])


def test_recovering_leaves_the_folders_of_other_targets_alone(tmp_path: Path) -> None:
    with appearing(tmp_path / "b.v2") as fresh:
        recover(tmp_path / "b")
        assert fresh.is_dir()
    assert names(tmp_path) == ["b.v2"]
