"""Reading the golden files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ditzoo.families import build
from ditzoo.nets.network import Network
from ditzoo.zoo.configs import BackboneConfig, DiTConfig, LightningDiTConfig, UViTConfig

DATA = Path(__file__).parents[1] / "data"


class Golden:
    """A golden file: its metadata, and its tensors by name."""

    def __init__(self, name: str) -> None:
        with safe_open(DATA / f"{name}.safetensors", framework="pt") as file:
            self.metadata: dict[str, str] = file.metadata()
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names begin with `prefix`, by the rest of their names."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    @property
    def config(self) -> BackboneConfig:
        fields: dict[str, Any] = json.loads(self.metadata["config"])
        if "use_rope" in fields:
            return LightningDiTConfig(**fields)
        return DiTConfig(**fields) if "input_size" in fields else UViTConfig(**fields)

    def net(self) -> Network:
        """The network of the file, with its weights. All keys have to match."""
        net = build(self.config)
        net.load_state_dict(self.group("weights."), strict=True)
        return net.eval().requires_grad_(False)


def relative_l2(value: torch.Tensor, reference: torch.Tensor) -> float:
    return float((value - reference).norm() / reference.norm())
