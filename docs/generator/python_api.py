"""The page on the Python interface: every public name with its signature and docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType

import msgspec

import ditzoo
from docs.generator.markdown import docstring, page

_INTRODUCTION = """
These are the public names of the package `ditzoo`, and no others are. [From Python](../python.md) shows how they work together.
[Versions and deprecations](../versions.md) says what may change in them.
"""


def python_api_page() -> str:
    """The text of the page."""
    names = sorted(ditzoo.__all__, key=str.lower)
    return page("Python API", _INTRODUCTION, *(_entry(name) for name in names))


def _entry(name: str) -> str:
    value = getattr(ditzoo, name)
    if isinstance(value, FunctionType):
        return f"## ditzoo.{name}\n\n{_signature(name, value)}\n\n{docstring(value)}"
    if isinstance(value, type):
        return f"## ditzoo.{name}\n\n{_class(name, value)}"
    return f"## ditzoo.{name}\n\nThe cards that come with the package, as a dictionary from a model's name to its `Card`."


def _class(name: str, kind: type) -> str:
    parts = [docstring(kind)]
    if issubclass(kind, msgspec.Struct):
        parts.append(f"Fields: {', '.join(f'`{field}`' for field in kind.__struct_fields__)}.")
    parts += [_member(name, member, value) for member, value in _members(kind)]
    return "\n\n".join(parts)


def _members(kind: type) -> Iterator[tuple[str, FunctionType | property]]:
    """The public methods and properties that a class defines itself, in the order of its source."""
    for member, value in vars(kind).items():
        plain = value.__func__ if isinstance(value, staticmethod) else value
        if not member.startswith("_") and isinstance(plain, FunctionType | property):
            yield member, plain


def _member(owner: str, name: str, value: FunctionType | property) -> str:
    if isinstance(value, property):
        return f"### ditzoo.{owner}.{name}\n\n{docstring(value)}"
    return f"### ditzoo.{owner}.{name}()\n\n{_signature(name, value)}\n\n{docstring(value)}"


def _signature(name: str, function: FunctionType) -> str:
    """The signature, one parameter a line if it is long. Annotations are written as in the source."""
    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    words: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        words.append(_parameter(parameter))
    line = f"{name}({', '.join(words)}) -> {signature.return_annotation}"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f") -> {signature.return_annotation}"
    return f"```python\n{line}\n```"


def _parameter(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return f"{parameter.name}: {parameter.annotation}"
    shown = repr(parameter.default)
    return f"{parameter.name}: {parameter.annotation} = {'...' if ' at 0x' in shown else shown}"
