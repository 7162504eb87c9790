"""The valid files that the changed ones come from. They belong to small models."""

from __future__ import annotations

import io
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from PIL import Image
from torch import Tensor

import ditzoo
from ditzoo.families import build
from ditzoo.pictures.png_metadata import png_info
from ditzoo.sampling.request import make_request
from ditzoo.zoo.configs import BackboneConfig, DiTConfig, UViTConfig

SMALL_DIT = DiTConfig(input_size=4, in_channels=1, hidden_size=8, depth=1, num_heads=1, mlp_ratio=1.0, num_classes=2)
SMALL_UVIT = UViTConfig(img_size=4, in_chans=1, embed_dim=8, depth=2, num_heads=1, mlp_ratio=1.0, num_classes=3)

DIT, UVIT = ditzoo.card("dit-digits"), ditzoo.card("uvit-digits")


@cache
def weights(config: BackboneConfig) -> dict[str, Tensor]:
    """Fresh weights of the network of a configuration."""
    return {key: value.detach().clone() for key, value in build(config).state_dict().items()}


def saved(content: object, *, zipped: bool = True) -> bytes:
    """A torch file."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


@cache
def torch_files() -> list[bytes]:
    """Torch files of small networks, in both formats, and a training checkpoint."""
    dit, uvit = weights(SMALL_DIT), weights(SMALL_UVIT)
    training = {"model": dit, "ema": dit, "opt": {"state": {0: torch.ones(2)}}, "args": Namespace(lr=1e-4), "epoch": 3}
    return [saved(dit), saved(uvit), saved(dit, zipped=False), saved(training)]


_KINDS: tuple[Callable[[Tensor], object], ...] = (
    lambda value: value,
    lambda value: value.to(torch.float8_e4m3fn),
    lambda value: value.to(torch.float8_e5m2),
    lambda value: value.abs().to(torch.float8_e8m0fnu),
    lambda value: torch.zeros(value.shape, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    lambda value: value.to(torch.complex64),
    lambda value: value.to(torch.int64),
    lambda value: value.double() * 1e300,
    lambda value: value * torch.nan,
    lambda value: value.to_sparse(),
    lambda value: value.reshape(1, -1).to_sparse_csr(),
    lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    lambda value: value.to("meta"),
    lambda value: torch.nested.nested_tensor([value, value]),
    lambda value: torch.zeros(1).expand(value.shape),
    lambda value: torch.zeros(1).expand(10**6, 10**6),
    lambda value: torch.tensor(1.0),
    lambda value: value.flatten(),
    lambda value: value[None],
    lambda value: value[:0],
    torch._neg_view,
    lambda value: {"inner": value},
    lambda value: [value, value],
    lambda value: "text",
    lambda value: None,
)
"""What may stand in the place of a weight."""

_KEYS: tuple[Any, ...] = (0, 5, -1, 10**5000, None, 1.5, ("a", "b"), b"x", "", ".", "a\nb", "x" * 5000, "\x1b[31m", True)


@st.composite
def odd_checkpoints(draw: DrawFn) -> bytes:
    """A torch file with other tensors, keys and dictionaries than a network has."""
    content: dict[Any, Any] = dict(draw(st.sampled_from((weights(SMALL_DIT), weights(SMALL_UVIT)))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on unusual kinds of tensors
        for key in draw(st.lists(st.sampled_from(sorted(content)), max_size=3, unique=True)):
            content[key] = draw(st.sampled_from(_KINDS))(content[key])
    for key in draw(st.lists(st.sampled_from(_KEYS), max_size=2, unique_by=id)):
        content[key] = torch.ones(2, 2)
    shape = draw(st.integers(0, 15))  # mostly none of the changes below
    if shape == 1:
        content["self"] = content
    elif shape == 2:
        content = {"model": content, "ema": dict(content), "list": [content]}
    elif shape == 3:
        content = {f"module.{key}" if isinstance(key, str) else key: value for key, value in content.items()}
    elif shape == 4:
        for _ in range(30):
            content = {"a": content, "b": content}
    return saved(content, zipped=draw(st.booleans()))


_GLOBALS = (
    *(
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_sparse_tensor",
        "torch FloatStorage",
    ),
    *("torch._tensor _rebuild_from_type_v2", "torch Size", "__builtin__ bytearray", "os system", "pathlib PosixPath"),
    *("numpy ndarray", "builtins eval", "torch._utils _rebuild_meta_tensor_no_storage"),
)
_OPCODES = (
    *(f"c{name}\n".replace(" ", "\n").encode() for name in _GLOBALS),
    *(b"(", b")", b"]", b"}", b"N", b"K\x01", b"X\x01\x00\x00\x00a", b"q\x00", b"h\x00", b"R", b"b", b"s", b"u", b"e", b"t"),
    *(b"\x81", b"\x85", b"\x86", b".", b"0", b"2", b"Q", b"J\xff\xff\xff\x7f"),
)


def raw_pickles() -> st.SearchStrategy[bytes]:
    """Pickles of random operations."""
    return st.lists(st.sampled_from(_OPCODES), max_size=25).map(lambda parts: b"\x80\x02" + b"".join(parts) + b".")


@cache
def plans() -> list[Any]:
    """Plans as JSON values: with a learned variance, and without."""
    made = (ditzoo.make_plan(DIT, solver="ddpm", steps=3), ditzoo.make_plan(UVIT, solver="dpmpp", steps=3))
    return [msgspec.to_builtins(plan) for plan in made]


@cache
def pictures() -> list[bytes]:
    """PNG files with a request."""
    found = []
    for card in (DIT, UVIT):
        out = io.BytesIO()
        request = make_request(card, ditzoo.make_plan(card, steps=2), num=1)
        Image.new("L", (4, 4)).save(out, "png", pnginfo=png_info(request))
        found.append(out.getvalue())
    return found


@cache
def recordings() -> list[bytes]:
    """NPZ files of latents with their noise and plan."""
    plan = ditzoo.make_plan(UVIT, solver="dpmpp", steps=2).to_json()
    latents = np.zeros((1, *UVIT.backbone.latent_shape), np.float32)
    shared = {"plan": np.frombuffer(plan, np.uint8), "classes": np.array([3]), "latents": latents}
    found = []
    for more in ({"noise": latents}, {"seed": np.uint64(0), "first": np.int64(0)}):
        out = io.BytesIO()
        np.savez(out, **shared, **more)
        found.append(out.getvalue())
    return found
