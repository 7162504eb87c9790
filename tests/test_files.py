"""What the disk refuses becomes one sentence, and locks are the same for all who name the same thing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from filelock import Timeout

from ditzoo.errors import HubError, UsageError
from ditzoo.files import cache_dir, disk_errors
from ditzoo.locks import lock_named, lock_of


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
    with pytest.raises(OSError, match="elsewhere"), disk_errors(tmp_path / "b"):
        raise refusal(number, tmp_path.parent / "elsewhere")


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "b"):
        (tmp_path / "nothing").read_bytes()


def test_a_lock_is_found_by_its_name_and_by_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for held, same, other in (
        (lock_named("hf:team/tiny"), lock_named("hf:team/tiny"), lock_named("hf:team/tiny2")),
        (lock_of(Path("b")), lock_of(tmp_path / "b"), lock_of(tmp_path / "c")),
    ):
        with held:
            with pytest.raises(Timeout):
                same.acquire(timeout=0)
            with other.acquire(timeout=0):
                pass
        with same.acquire(timeout=0):
            pass
