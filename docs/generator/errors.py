"""The page on errors: what each class means, what cures it, and every message, read from the source code."""

from __future__ import annotations

import ast
from pathlib import Path

import ditzoo.errors
from ditzoo.errors import DitzooError
from docs.generator.markdown import code, docstring, page, table

_ROOT = Path(__file__).parents[2]
_SOURCES = (_ROOT / "ditzoo", _ROOT / "export" / "ditzoo_export")

_CLASSES = {
    kind.__name__: kind for kind in vars(ditzoo.errors).values() if isinstance(kind, type) and issubclass(kind, DitzooError)
}

_INTRODUCTION = """
On the command line, an error is one line on stderr that begins with `error:`. In Python, every error that ditzoo raises on
purpose is a `ditzoo.DitzooError`; the classes below are in `ditzoo.errors`. A message has the cause, and the cure where there
is one: the valid values, or the next command. [Troubleshooting](../troubleshooting.md) starts from symptoms instead.

## Exit statuses

| status | meaning |
| --- | --- |
| 0 | success |
| 1 | a check, an export of `export --matrix` or a step of `run` failed, or the system reported an error: the disk is full |
| 2 | the request is wrong or cannot be fulfilled: every `DitzooError`, and every wrong option |
| 130 | the user stopped the command (Ctrl-C) |
"""

_MESSAGES = """
A word in angle brackets stands for what the message is about. Of two forms of a message, the longer one is shown.
"""


def errors_page() -> str:
    """The text of the page."""
    messages = _messages()
    parts = []
    for name, kind in _CLASSES.items():
        found = table(["message", "from"], [(code(text.replace("`", "'")), where) for text, where in messages[name]])
        parts.append(f"### {name}\n\n{docstring(kind)}{f'{chr(10) * 2}{found}' if messages[name] else ''}")
    return page("Errors and exit statuses", _INTRODUCTION, f"## Errors\n\n{_MESSAGES.strip()}", *parts)


def _messages() -> dict[str, list[tuple[str, str]]]:
    """The messages of each class of errors, and the module that each comes from, in the order of the modules' names."""
    found: dict[str, dict[tuple[str, str], None]] = {name: {} for name in _CLASSES}
    for source in _SOURCES:
        for path in sorted(source.rglob("*.py")):
            if path.name == "errors.py":
                continue  # its functions make messages from what others give them
            module = ".".join(path.relative_to(source.parent).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                    kind, text = _message(node.func.id, node.args)
                    if text:
                        found[kind][text, module] = None
    return {name: list(messages) for name, messages in found.items()}


def _message(function: str, arguments: list[ast.expr]) -> tuple[str, str]:
    """The class and the message of the error that a call makes; the message is "" if the call makes none."""
    first = _text(arguments[0])
    if function in _CLASSES:
        return function, first if " " in first else ""  # an error of another library that is passed on has no words of its own
    if function == "unknown":
        return "UsageError", f"unknown {first} <name>; did you mean <the nearest names>?"
    if function in ("check_type", "wrong_type"):
        return "UsageError", f"{first} must be {_text(arguments[-1])}, not <value>"
    return "", ""


def _text(node: ast.AST) -> str:
    """The text that an expression makes. What is known only at run time is a word in angle brackets."""
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(map(_text, node.values))
        case ast.IfExp():
            return max(_text(node.body), _text(node.orelse), key=len)
        case ast.BinOp(op=ast.Add()):
            return _text(node.left) + _text(node.right)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return f"<{name.strip('_').replace('_', ' ').lower()}>"
    inner = _inner(node)
    return "<value>" if inner is None else _text(inner)


def _inner(node: ast.AST) -> ast.AST | None:
    """The expression that the text of another one is made of: for a call its first argument, or the object of a method."""
    match node:
        case ast.Call(args=[first, *_]):
            return first
        case ast.Call(func=ast.Attribute(value=inner)):
            return inner
        case ast.FormattedValue(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
            return inner
        case ast.GeneratorExp(elt=inner) | ast.ListComp(elt=inner):
            return inner
    return None
