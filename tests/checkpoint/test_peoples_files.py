"""What training scripts save, and what becomes of it: entries, wrappers, positions, and files that are no weights."""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from ditzoo.checkpoint import Pick, convert
from ditzoo.errors import CheckpointError
from ditzoo.zoo.configs import BackboneConfig
from tests.support.hub_models import TINY, TINY_UVIT, diffusers, state

RAW, AVERAGE, OTHER = state(TINY, seed=0), state(TINY, seed=1), state(TINY, seed=2)
MATRIX = "blocks.0.attn.qkv.weight"


def converted(content: Any, folder: Path, config: BackboneConfig = TINY, **pick: str) -> dict[str, Tensor]:
    path, out = folder / "c.pt", folder / "canonical.safetensors"
    torch.save(content, path)
    convert(path, config, out, pick=Pick(**pick))
    return load_file(out)


def refused(content: Any, folder: Path, config: BackboneConfig = TINY, **pick: str) -> str:
    with pytest.raises(CheckpointError) as error:
        converted(content, folder, config, **pick)
    assert "\n" not in str(error.value)
    return str(error.value)


def is_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights.items()}


PAIRS = {
    "ema": {"model": RAW, "ema": AVERAGE, "opt": {"state": {0: {"exp_avg": torch.ones(3, 3)}}}},
    "model_ema": {"model": RAW, "model_ema": AVERAGE, "epoch": 9},
    "model_ema1": {"model": RAW, "model_ema1": AVERAGE},
    "ema_model": {"ema_model": AVERAGE, "model": RAW},
    "state_dict_ema": {"state_dict": RAW, "state_dict_ema": AVERAGE, "arch": "dit"},
    "modelEMA": {"model": RAW, "modelEMA": AVERAGE},
    "ema.shadow": {"net": RAW, "ema": {"shadow": AVERAGE, "decay": 0.999}},
    "callbacks.EMA.weights": {"state_dict": prefixed("model.", RAW), "callbacks": {"EMA": {"weights": AVERAGE}}},
    "state_dict.model_ema": {"state_dict": {**prefixed("model.", RAW), **prefixed("model_ema.module.", AVERAGE)}},
}


@pytest.mark.parametrize("entry", PAIRS)
def test_the_average_is_taken_and_said(entry: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert is_same(converted(PAIRS[entry], tmp_path), AVERAGE)
    assert f"took the averaged weights, entry {entry!r}, not " in caplog.text


def test_the_result_names_the_entry(tmp_path: Path) -> None:
    torch.save({"state_dict": RAW}, tmp_path / "c.pt")
    assert convert(tmp_path / "c.pt", TINY, tmp_path / "out").entry == "state_dict"
    torch.save(RAW, tmp_path / "c.pt")
    assert not convert(tmp_path / "c.pt", TINY, tmp_path / "out").entry


def test_averages_in_safetensors(tmp_path: Path) -> None:
    save_file({**prefixed("online_model.", RAW), **prefixed("ema_model.", AVERAGE), "step": torch.ones(1)}, tmp_path / "c")
    convert(tmp_path / "c", TINY, tmp_path / "out")
    assert is_same(load_file(tmp_path / "out"), AVERAGE)


def test_two_averages_or_two_networks_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    content = {"model": RAW, "model_ema1": AVERAGE, "model_ema2": OTHER}
    line = refused(content, tmp_path)
    assert "several averages: 'model_ema1', 'model_ema2'" in line
    assert "--entry" in line
    assert is_same(converted(content, tmp_path, entry="model_ema2"), OTHER)
    assert is_same(converted(content, tmp_path, entry="model"), RAW)
    assert "no entry 'ema' with weights; it has 'model', 'model_ema1', 'model_ema2'" in refused(content, tmp_path, entry="ema")
    assert "several networks: 'a', 'b'" in refused({"a": RAW, "b": OTHER}, tmp_path)
    discriminator = {"conv.weight": torch.ones(2, 2)}
    assert is_same(converted({"generator": RAW, "discriminator_ema": discriminator}, tmp_path), RAW)


def test_an_average_without_names_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    content = {"model": RAW, "ema": {"decay": 0.999, "shadow_params": list(AVERAGE.values())}}
    assert "the tensors of its average 'ema' have no names" in refused(content, tmp_path)
    assert is_same(converted(content, tmp_path, entry="model"), RAW)


NESTED = {
    key.replace("blocks.0.", "blocks.0._orig_mod.").replace(
        "blocks.1.attn.", "blocks.1._checkpoint_wrapped_module.attn."
    ): value
    for key, value in RAW.items()
}
WRAPPED = {
    "DistributedDataParallel": prefixed("module.", RAW),
    "compiled": prefixed("_orig_mod.", RAW),
    "both": prefixed("module._orig_mod.", RAW),
    "some blocks": NESTED,
    "FSDP": prefixed("_fsdp_wrapped_module.", NESTED),
    "AveragedModel": {"ema": {"n_averaged": torch.tensor(5), **prefixed("module.", RAW)}},
    "Lightning": {"state_dict": prefixed("model.", RAW), "hyper_parameters": {"lr": 1e-4}},
    "Lightning, compiled": {"state_dict": prefixed("model._orig_mod.", RAW)},
    "DeepSpeed": {"module": RAW, "ds_config": {}},
    "FSDP in diffusers' layout": prefixed("_fsdp_wrapped_module.", diffusers(RAW, TINY)),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_what_wrappers_put_into_keys_goes(kind: str, tmp_path: Path) -> None:
    assert is_same(converted(WRAPPED[kind], tmp_path), RAW)


def test_any_other_prefix_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = {**prefixed("denoiser.module.", RAW), "vae.conv.weight": torch.ones(1)}
    assert "--prefix denoiser." in refused(content, tmp_path)
    for prefix in ("denoiser.", "denoiser", "denoiser.module."):
        assert is_same(converted(content, tmp_path, prefix=prefix), RAW)
    assert "left out the keys that do not begin with denoiser.: vae.conv.weight" in caplog.text
    assert "begin with denoiser., vae." in refused(content, tmp_path, prefix="net.")
    assert is_same(converted({"sd": content, "ema": prefixed("net.", AVERAGE)}, tmp_path, prefix="denoiser"), RAW)
    assert "the tensor pos_embed twice" in refused({**RAW, "module.pos_embed": RAW["pos_embed"]}, tmp_path)


def beside() -> dict[str, Any]:
    """Harmless things that scripts keep beside the weights."""
    return {
        "best_fid": np.float64(3.2),
        "epoch": np.int64(4),
        "losses": np.arange(5.0),
        "name": np.str_("run"),
        "args": argparse.Namespace(data=PosixPath("x"), sizes=[1, 2]),
        "rng": {"python": random.Random(0).getstate(), "numpy": np.random.RandomState(0).get_state()},  # noqa: S311
        "generators": [np.random.RandomState(0), np.random.default_rng(0)],
        "torch_rng": torch.get_rng_state(),
        "betas": (0.9, 0.99),
        "nothing": None,
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_paths_and_random_states_beside_the_weights(zipped: bool, tmp_path: Path) -> None:
    for content in ({"ema": AVERAGE, **beside()}, {**AVERAGE, **beside()}):
        torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
        convert(tmp_path / "c.pt", TINY, tmp_path / "out")
        assert is_same(load_file(tmp_path / "out"), AVERAGE)


class Opener:
    """Pickled, it asks for a harmless class and then for one that is not."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (PosixPath("ditzoo-was-here"), "w")


def test_what_stands_for_harmless_objects_opens_no_way_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "open" in refused({"ema": AVERAGE, "log": Opener()}, tmp_path)
    assert not Path("ditzoo-was-here").exists()


def test_a_header_whose_length_begins_like_a_pickle(tmp_path: Path) -> None:
    """The first byte of a safetensors file is its header's length modulo 256: 0x80 is the mark of a pickle."""
    bare = save(RAW)
    length = int.from_bytes(bare[:8], "little")
    padding = (0x80 - length) % 256
    data = (length + padding).to_bytes(8, "little") + bare[8 : 8 + length] + b" " * padding + bare[8 + length :]
    assert data[:1] == b"\x80"
    (tmp_path / "c").write_bytes(data)
    convert(tmp_path / "c", TINY, tmp_path / "out")
    assert is_same(load_file(tmp_path / "out"), RAW)
    (tmp_path / "c").write_bytes(data[:100])
    with pytest.raises(CheckpointError, match="a safetensors file whose end is missing"):
        convert(tmp_path / "c", TINY, tmp_path / "out")


def test_float8_is_every_number_of_its_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """S.EEEE.MMM with a bias of 7 (arXiv 2209.05433): 0 00101 11 is 2^(5-7) · 1.375 in the coding 0x2b, 0x01 is 2^-9."""
    codes = torch.tensor([0x2B, 0x01, 0x7E, 0xB8], dtype=torch.uint8)
    bias = torch.zeros(TINY.hidden_size, dtype=torch.float8_e4m3fn)
    bias.view(torch.uint8)[:4] = codes
    found = converted({**RAW, "blocks.0.mlp.fc2.bias": bias}, tmp_path)
    assert found["blocks.0.mlp.fc2.bias"][:4].tolist() == [0.34375, 2.0**-9, 448.0, -1.0]
    assert "is not float32 in 1 tensors: blocks.0.mlp.fc2.bias (float8_e4m3fn)" in caplog.text


def test_numbers_beyond_float32(tmp_path: Path) -> None:
    wide = {key: value.double() for key, value in RAW.items()}
    wide["final_layer.linear.bias"][0] = 1e39  # finite, and above the largest float32, 3.4e38
    assert "beyond the range of float32: final_layer.linear.bias" in refused(wide, tmp_path)
    wide["final_layer.linear.bias"][0] = math.inf
    assert "NaN or Inf: final_layer.linear.bias" in refused(wide, tmp_path)
    assert "not floating point: pos_embed (int64)" in refused({**RAW, "pos_embed": RAW["pos_embed"].long()}, tmp_path)


def authors_positions() -> Tensor:
    """The table of DiT's authors (models.py, get_2d_sincos_pos_embed): the column's half first, sines before cosines."""
    side, quarter = TINY.input_size // TINY.patch_size, TINY.hidden_size // 4
    table = [
        [
            function(place / 10000 ** (i / quarter))
            for place in (column, row)
            for function in (math.sin, math.cos)
            for i in range(quarter)
        ]
        for row in range(side)
        for column in range(side)
    ]
    return torch.tensor([table], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, None])
def test_rounded_or_missing_positions_are_the_table(
    dtype: torch.dtype | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exact = authors_positions()
    rest = {key: value for key, value in RAW.items() if key != "pos_embed"}
    found = converted(rest if dtype is None else {**rest, "pos_embed": exact.to(dtype)}, tmp_path)
    assert (found["pos_embed"].double() - exact).abs().max() <= 2**-24
    assert ("pos_embed was rounded" in caplog.text) == (dtype not in (None, torch.float32, torch.float16))
    once = exact.to(dtype or torch.bfloat16).float()  # an average in float32 of weights that were rounded
    if dtype != torch.float8_e4m3fn and dtype != torch.float8_e5m2:
        assert torch.equal(converted({**rest, "pos_embed": once}, tmp_path)["pos_embed"], found["pos_embed"])


def test_learned_positions_are_refused_not_replaced(tmp_path: Path) -> None:
    torch.manual_seed(0)
    table = RAW["pos_embed"]
    swapped = table.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)  # rows for columns
    for other in (torch.randn_like(table), table + 0.01 * torch.randn_like(table), swapped, table.clone().fill_(math.nan)):
        assert "pos_embed is not the fixed table" in refused({**RAW, "pos_embed": other}, tmp_path)
    nudged = table.clone()
    nudged[0, 3, 5] += 2.0**-8  # twice what rounding to bfloat16 can do below 1
    assert "pos_embed is not the fixed table" in refused({**RAW, "pos_embed": nudged}, tmp_path)
    theirs = {**diffusers(RAW, TINY), "pos_embed.pos_embed": torch.randn_like(table)}
    assert "pos_embed is not the fixed table" in refused(theirs, tmp_path)
    assert "input_size 6 instead of 8" in refused({**RAW, "pos_embed": table[:, :9]}, tmp_path)


def test_the_learned_positions_of_a_u_vit_are_kept_and_needed(tmp_path: Path) -> None:
    weights = state(TINY_UVIT)
    assert torch.equal(converted(weights, tmp_path, TINY_UVIT)["pos_embed"], weights["pos_embed"])
    del weights["pos_embed"]
    assert "missing: pos_embed" in refused(weights, tmp_path, TINY_UVIT)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2700000000\n"
    contents = {
        pointer: "Git LFS pointer, not the checkpoint of 2,700,000,000 bytes; run `git lfs pull`",
        b"<!DOCTYPE html><html><body>quota exceeded</body></html>": "web page",
        json.dumps({"loss": 1}).encode(): "neither a checkpoint nor an index of shards",
    }
    for content, expected in contents.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=expected):
            convert(path, TINY, tmp_path / "out")
    assert "holds a list" in refused([1, 2], tmp_path)
    assert "holds no tensors that have names" in refused({"epoch": 3}, tmp_path)
