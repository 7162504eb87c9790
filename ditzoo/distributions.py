"""The installed distributions, such as "onnxruntime-gpu", that bring a module."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed, by the name of the package.

    Another distribution may bring a package, as onnxruntime-gpu brings onnxruntime. The name is then that of the distribution.
    """
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found.update(distributions_of(package.partition(".")[0]))
    return found


@cache
def distributions_of(module: str) -> dict[str, str]:
    """The distributions that write into the folder of the module that Python imports, as version by name, sorted by name.

    More than one wrote over each other. A distribution in another folder of the path, which this one hides, is not among them.
    It is empty if there is no such module.
    """
    spec = find_spec(module)
    folders = {Path(folder).resolve() for folder in (spec.submodule_search_locations or ())} if spec else set()
    names = set(_by_module(tuple(sys.path)).get(module, ()))
    found = [distribution for name in names for distribution in distributions(name=name)]
    return {
        distribution.name: distribution.version
        for distribution in sorted(found, key=lambda distribution: distribution.name)
        if Path(str(distribution.locate_file(module))).resolve() in folders
    }


@cache
def _by_module(path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """The names of the distributions by module, for the folders of `sys.path`. This reads the records of all distributions."""
    return packages_distributions()
