"""Packs a bundle as one file, to be copied to other machines."""

from __future__ import annotations

import tarfile
from pathlib import Path

from ditzoo.bundle import MANIFEST, Bundle, consistently
from ditzoo.errors import UsageError
from ditzoo.files import check_output_file, replacing


def pack(bundle: Bundle, archive: Path) -> None:
    """Writes a bundle as the tar file `archive`, which is replaced in one step. Equal bundles give equal bytes.

    Raises UsageError if the name of `archive` does not end in .tar, or if it cannot be written.
    """
    if archive.suffix != ".tar":
        raise UsageError(f"--tar writes a .tar file, not {archive}")
    check_output_file(archive, "--tar")
    with replacing(archive, option="--tar") as scratch:
        consistently(bundle, lambda bundle: _write_tar(bundle, scratch, folder=archive.stem))


def _write_tar(bundle: Bundle, path: Path, *, folder: str) -> None:
    """Links become files, because the archive is opened elsewhere."""
    with tarfile.open(path, "w", dereference=True) as tar:
        for name in sorted([MANIFEST, *bundle.manifest.files]):
            tar.add(bundle.path / name, arcname=f"{folder}/{name}", filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
