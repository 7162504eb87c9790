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


_CHECKS = ("check_type", "wrong_type", "check_callable", "each_of", "whole_number", "real_number")
"""The functions whose last argument says what their first argument, which names an argument, must be."""


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
            tree = ast.parse(path.read_text())
            named = _named_texts(tree)
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    kind = node.func.id if node.func.id in _CLASSES else "UsageError"
                    found[kind].update({(text, module): None for text in _texts(node.func.id, node, named)})
    return {name: list(messages) for name, messages in found.items()}


def _texts(function: str, call: ast.Call, named: dict[str, ast.expr]) -> list[str]:
    """The messages of the errors that a call of a function makes: none, one, or several."""
    if function == "check_flags":
        return [f"{flag.arg} must be True or False (a bool), not <value>" for flag in call.keywords if flag.arg]
    if not call.args:
        return []
    first = _text(call.args[0])
    if function in _CLASSES:
        return [first] if " " in first else []  # an error of another library that is passed on has no words of its own
    if function in ("unknown", "check_known"):
        return [f"unknown {first} <name>; did you mean <the nearest names>?"]
    if function == "check_count":
        limits = ["at most <most>"] if call.keywords else []
        return [f"{first} must be {takes}, not <value>" for takes in ("a whole number, 1 or more", "1 or more", *limits)]
    if function in _CHECKS:
        takes = call.args[-1]
        return [f"{first} must be {_text(named.get(takes.id, takes) if isinstance(takes, ast.Name) else takes)}, not <value>"]
    return []


def _named_texts(tree: ast.Module) -> dict[str, ast.expr]:
    """The texts of a module that have a name, by this name."""
    assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    texts = [node for node in assigned if isinstance(node.value, ast.JoinedStr | ast.Constant)]
    return {node.targets[0].id: node.value for node in texts if isinstance(node.targets[0], ast.Name)}


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
