"""The help of each command: its examples, and what its options show."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ditzoo.cli import output

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "ditzoo demo",
        "ditzoo sample dit-digits --classes 0-9 --out digits.png",
        "ditzoo export onnx dit-digits --out digits-bundle",
        "ditzoo parity dit-digits --backends torch,onnxruntime",
    ),
    "list": ("ditzoo list --family sit", "ditzoo list --state cached --json"),
    "info": ("ditzoo info dit-digits", "ditzoo info facebook/DiT-XL-2-256 --json"),
    "where": ("ditzoo where dit-digits",),
    "pull": (
        "ditzoo pull dit-xl-2-256",
        "ditzoo pull hf:OWNER/REPO --like dit-xl-2-256 --classes 12",
    ),
    "import": (
        "ditzoo import uvit-h-2-256 imagenet256_uvit_huge.pth",
        "ditzoo import moths last.pt --like dit-xl-2-256 --classes 12",
    ),
    "push": ("ditzoo push moths USER/moths --private",),
    "to-diffusers": ("ditzoo to-diffusers dit-xl-2-256 dit-diffusers",),
    "sample": (
        "ditzoo sample dit-digits --classes 3,seven --num 8 --out digits.png",
        "ditzoo sample dit-xl-2-256 --classes 'golden retriever' --backend torch:bf16 --device cuda",
        "ditzoo sample digits-bundle --solver ddim --steps 20 --guidance 1.5 --seed 7 --out pictures/",
        "ditzoo sample --like seven.png --backend onnxruntime",
        "ditzoo sample dit-digits --num 20000 --shard-size 1000 --labels balanced --out digits-set",
    ),
    "pack": ("ditzoo pack digits-set --npz",),
    "evaluate": ("ditzoo evaluate digits-set --reference reference.npz",),
    "parity": (
        "ditzoo parity dit-digits --backends torch,onnxruntime,openvino",
        "ditzoo parity dit-digits --exact --backends torch,onnxruntime:int8 --html report.html",
        "ditzoo parity dit-digits --backends torch,onnxruntime:fp16 --bisect",
    ),
    "bench": ("ditzoo bench dit-digits --backends torch,onnxruntime,openvino --batch 1,8",),
    "demo": ("ditzoo demo --out demo.png",),
    "doctor": ("ditzoo doctor", "ditzoo doctor --offline --json"),
    "run": ("ditzoo run reproduce dit-xl-2-256", "ditzoo run recipe.toml --only export"),
    "inspect": ("ditzoo inspect digits-bundle", "ditzoo inspect digits-bundle/backbone.onnx --json"),
    "ui": ("ditzoo ui", "ditzoo ui --port 0 --open"),
    "cache": ("ditzoo cache ls", "ditzoo cache rm dit-digits --yes"),
    "cache ls": ("ditzoo cache ls --json",),
    "cache verify": ("ditzoo cache verify",),
    "cache rm": ("ditzoo cache rm dit-digits --yes",),
    "cache prune": ("ditzoo cache prune --downloads",),
    "export": ("ditzoo export onnx dit-digits --out digits-bundle", "ditzoo export --matrix matrix.toml"),
    "export onnx": (
        "ditzoo export onnx dit-digits --out digits-bundle",
        "ditzoo export onnx dit-xl-2-256 --precision fp16 --resolution dynamic --out dit-fp16",
    ),
    "export tensorrt": (
        "ditzoo export tensorrt dit-xl-2-256 --gpu sm89 --batch 1,8 --out engines",
        "ditzoo export tensorrt dit-xl-2-256 --flavour tensorrt_rtx --resolution 256,512 --profiles merged --out engines",
    ),
    "export triton": ("ditzoo export triton dit-digits --repo model-repository --client",),
    "export bundle": ("ditzoo export bundle digits-bundle --tar digits.tar",),
    "plan": ("ditzoo plan show dit-digits --steps 4",),
    "plan show": ("ditzoo plan show dit-digits --solver dpmpp:order=2 --steps 4",),
    "plan tune": (
        "ditzoo plan tune dit-digits --target 1.8x",
        "ditzoo plan tune dit-digits --target 2x --solver dpmpp --steps 20 --json",
    ),
    "plan save": ("ditzoo plan save dit-digits --solver ddim --steps 20 --out plan.json",),
}
"""Command lines by the name of their command; "" is `ditzoo` itself."""


_LONGEST_SUMMARY = 300
"""The most characters of a command's first sentence in a list of commands. The reference shows that sentence in full."""


def described(command: str) -> dict[str, Any]:
    """The arguments for typer that all commands and groups have in common, for the one called `command`."""
    kind = _Group if any(name.startswith(f"{command} ".lstrip()) for name in EXAMPLES if name) else _Command
    return {"cls": kind, "epilog": "\n".join(["Examples:", "", *(f"    {line}" for line in EXAMPLES[command])])}


def show_help(context: typer.Context) -> None:
    """Shows the help of a group without a command."""
    if context.invoked_subcommand is None:
        output.data(context.get_help())


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_type(super().get_params(ctx))

    def get_short_help_str(self, limit: int = _LONGEST_SUMMARY) -> str:
        return super().get_short_help_str(max(limit, _LONGEST_SUMMARY))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_type(super().get_params(ctx))

    def get_short_help_str(self, limit: int = _LONGEST_SUMMARY) -> str:
        return super().get_short_help_str(max(limit, _LONGEST_SUMMARY))


def _without_type(parameters: list[Any]) -> list[Any]:
    """The parameters, where an option without a value, such as --json, shows no type of a value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
