"""What the installed packages are, against what ditzoo requires of them. No package is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from ditzoo.records import Data

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(\[[^]]*\])?\s*\(?(?P<limits>[^;)]*)\)?\s*(;.*extra\s*==\s*[\"'](?P<extra>[\w-]+)[\"'])?.*"
)


class Unmet(Data, frozen=True, kw_only=True):
    """An installed package whose version ditzoo does not allow. `extra` is None for a package that is always required."""

    package: str
    version: str
    limits: str
    extra: str | None


def unmet_requirements(distribution: str = "ditzoo") -> list[Unmet]:
    """The installed packages whose versions break a requirement of a distribution. Packages that are missing do not count.

    Limits of the form ">=2.6,<3" are compared number by number; others are ignored.
    """
    return list(_unmet(requires(distribution) or []))


def _unmet(requirements: list[str]) -> Iterator[Unmet]:
    for text in requirements:
        found = _REQUIREMENT.fullmatch(text)
        if found is None:
            continue
        try:
            installed = version(found["name"])
        except PackageNotFoundError:
            continue
        limits = found["limits"].replace(" ", "")
        if not all(_allows(limit, installed) for limit in limits.split(",")):
            yield Unmet(package=found["name"], version=installed, limits=limits, extra=found["extra"])


def _allows(limit: str, installed: str) -> bool:
    found = re.fullmatch(r"(>=|<)([\d.]+)", limit)
    if found is None:
        return True
    here, there = _numbers(installed), _numbers(found[2])
    length = max(len(here), len(there))
    here, there = (numbers + [0] * (length - len(numbers)) for numbers in (here, there))
    return here >= there if found[1] == ">=" else here < there


def _numbers(text: str) -> list[int]:
    """The numbers at the start of a version: [2, 13, 0] for "2.13.0+cpu"."""
    start = re.match(r"\d+(\.\d+)*", text)
    return [int(part) for part in start[0].split(".")] if start else []
