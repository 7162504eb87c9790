"""Tensors and files that are no plain weights: each is one line, and nothing is built or allocated for them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ditzoo.checkpoint import convert, fixed, shapes
from ditzoo.errors import CheckpointError
from ditzoo.zoo.configs import BackboneConfig
from tests.support.hub_models import TINY, diffusers, state

DIT = state(TINY)
MATRIX = "blocks.0.attn.qkv.weight"


def refused(path: Path, config: BackboneConfig = TINY) -> str:
    with pytest.raises(CheckpointError) as error:
        convert(path, config, path.parent / "out")
    assert "\n" not in str(error.value)
    return str(error.value)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse tensors": lambda value: value.to_sparse(),
    "not floating point: NAME (qint8)": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "not floating point: NAME (float4_e2m1fn_x2)": lambda value: torch.zeros(value.shape, dtype=torch.uint8).view(
        torch.float4_e2m1fn_x2
    ),
    "tensors without values": lambda value: value.to("meta"),
    "nested tensors": lambda value: torch.nested.nested_tensor([value, value]),
    "tensors whose elements share memory": lambda value: torch.zeros(1).expand(value.shape),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", [MATRIX, "pos_embed"])
def test_kinds_of_tensors_that_are_no_weights(kind: str, key: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on unusual kinds of tensors
        torch.save({**DIT, key: KINDS[kind](DIT[key])}, tmp_path / "c.pt")
    expected = kind.replace("NAME", key) if "NAME" in kind else f"{kind}: {key}"
    assert expected in refused(tmp_path / "c.pt")


def test_a_tensor_that_claims_terabytes_is_not_allocated(tmp_path: Path) -> None:
    torch.save({**DIT, MATRIX: torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "c.pt")
    assert "misshapen: blocks.0.attn.qkv.weight [1000000, 1000000] instead of [288, 96]" in refused(tmp_path / "c.pt")


def test_signs_that_torch_has_not_applied_yet(tmp_path: Path) -> None:
    torch.save({**DIT, MATRIX: torch._neg_view(DIT[MATRIX])}, tmp_path / "c.pt")
    convert(tmp_path / "c.pt", TINY, tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out")[MATRIX], -DIT[MATRIX])


def test_float8_in_the_layout_of_diffusers(tmp_path: Path) -> None:
    theirs = {key: value.to(torch.float8_e4m3fn) for key, value in diffusers(DIT, TINY).items()}
    theirs["transformer_blocks.0.attn1.to_k.weight"] = theirs["transformer_blocks.0.attn1.to_k.weight"].to(torch.float16)
    save_file(theirs, tmp_path / "c.safetensors")
    convert(tmp_path / "c.safetensors", TINY, tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out")[MATRIX], DIT[MATRIX].to(torch.float8_e4m3fn).float())


@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.ones(3), torch.ones(0, 0, 0)])
def test_scalars_and_vectors_where_matrices_belong(value: Tensor, tmp_path: Path) -> None:
    for weights in (DIT, diffusers(DIT, TINY)):
        torch.save(dict.fromkeys(weights, value), tmp_path / "c.pt")
        assert "cannot be used" in refused(tmp_path / "c.pt")


def test_keys_that_are_no_texts_are_left_out(tmp_path: Path) -> None:
    odd: dict[Any, Tensor] = {(1, 2): DIT[MATRIX], None: DIT[MATRIX], b"x": DIT[MATRIX], 10**9: DIT[MATRIX]}
    torch.save({**DIT, **odd}, tmp_path / "c.pt")
    convert(tmp_path / "c.pt", TINY, tmp_path / "out")
    torch.save(odd, tmp_path / "c.pt")
    assert "holds no tensors that have names" in refused(tmp_path / "c.pt")
    torch.save({10**5000: DIT[MATRIX]}, tmp_path / "c.pt")
    assert "more than weights (Unsupported operand 139)" in refused(tmp_path / "c.pt")


def test_dictionaries_without_end(tmp_path: Path) -> None:
    content: dict[str, Any] = dict(DIT)
    content["self"] = content
    torch.save(content, tmp_path / "c.pt")
    assert "dictionaries that contain themselves" in refused(tmp_path / "c.pt")
    content = dict(DIT)
    for _ in range(40):
        content = {"a": content, "b": content}
    torch.save(content, tmp_path / "c.pt")
    assert "more than 20,000 tensors and dictionaries" in refused(tmp_path / "c.pt")


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "a\0b", "a\nb", "x" * 300, "", "a\\b"])
def test_an_index_with_a_bad_name(name: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    assert str(index) in refused(index)


def test_two_indexes_that_name_each_other(tmp_path: Path) -> None:
    for one, other in (("a.json", "b.json"), ("b.json", "a.json")):
        (tmp_path / one).write_text(json.dumps({"weight_map": {"a": other}}))
    assert "b.json is an index of shards, but another index names it as a shard" in refused(tmp_path / "a.json")


def test_the_sizes_of_a_card_are_compared_with_the_file_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(DIT, tmp_path / "c.safetensors")
    for module, name in ((shapes, "build"), (fixed, "family_of")):
        monkeypatch.setattr(module, name, lambda config: pytest.fail("it was built"))
    wide = msgspec.structs.replace(TINY, hidden_size=60_000, num_heads=4)
    assert "it is another network: 561,920 parameters instead of 205," in refused(tmp_path / "c.safetensors", wide)
