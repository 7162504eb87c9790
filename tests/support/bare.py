"""Environments without torch: a new virtual environment with the built wheel, and links to distributions installed here."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

from packaging.requirements import Requirement


def link_distribution(name: str, extras: set[str], target: Path, done: set[str]) -> None:
    """Links an installed distribution, and everything that it requires, into another environment's site-packages."""
    if name in done:
        return
    done.add(name)
    distribution = importlib.metadata.distribution(name)
    for top in {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        link = target / top
        if not link.exists():
            link.symlink_to(Path(str(distribution.locate_file(top))).resolve())
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            link_distribution(requirement.name, requirement.extras, target, done)


def bare(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-I", "-m", "ditzoo", *arguments], capture_output=True, text=True, cwd=cwd)
