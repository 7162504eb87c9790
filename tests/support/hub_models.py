"""Small networks in every published layout, a zoo file with a card of them, and `ditzoo` in a separate process."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
import weakref
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save, save_file
from torch import Tensor

from ditzoo.cli import run
from ditzoo.families import build
from ditzoo.families.dit import to_diffusers
from ditzoo.zoo import CARDS
from ditzoo.zoo.configs import BackboneConfig, DiTConfig, UViTConfig
from recipes.checkpoints import hub_server
from tests.support.golden import Golden

ROOT = Path(__file__).parents[2]

TINY = DiTConfig(input_size=8, patch_size=2, in_channels=4, hidden_size=96, depth=3, num_heads=4, num_classes=10)
TINY_UVIT = UViTConfig(img_size=8, patch_size=2, in_chans=4, embed_dim=32, depth=2, num_heads=4, num_classes=11, conv=False)

FILE = "transformer/diffusion_pytorch_model.safetensors"


def state(config: BackboneConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of a network with canonical keys. None of them are zero."""
    torch.manual_seed(seed)
    fixed = {"pos_embed"} if isinstance(config, DiTConfig) else set()
    return {key: value if key in fixed else torch.randn_like(value) * 0.05 for key, value in build(config).state_dict().items()}


def diffusers(weights: dict[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """Canonical weights in diffusers' layout."""
    return {key: value.clone() for key, value in to_diffusers(weights, config)}


def training_checkpoint(weights: dict[str, Tensor], path: Path) -> Path:
    """A checkpoint as DiT's training script saves it after a run on several GPUs."""
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    other = {key: value + 1 for key, value in wrapped.items()}
    torch.save({"model": other, "ema": wrapped, "opt": {"state": {}}, "args": Namespace(model="DiT-B/2", lr=1e-4)}, path)
    return path


def dcae(weights: dict[str, Tensor], path: Path) -> Path:
    """One file with a U-ViT and an autoencoder for latents of four channels, as the DC-AE authors publish it."""
    named = {key.replace("label_emb.", "label_emb.embedding_table."): value for key, value in weights.items()}
    autoencoder = Golden("dcae_uvit_f32").group("weights.autoencoder.")
    save_file(
        {f"diffusion_model.{key}": value for key, value in named.items()}
        | {f"autoencoder.{key}": value for key, value in autoencoder.items()},
        path,
    )
    return path


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["ditzoo.checkpoint", "ditzoo.cli.app", "rich.console", "rich.table"])


class Command:
    """The command line in a separate process. It is forked from a process that has loaded torch, which saves seconds."""

    def __init__(self, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ditzoo-command-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._process = _SERVER.Process(target=_command, args=(arguments, env, self._folder))
        self._process.start()

    def wait(self) -> int:
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    @property
    def process(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        return self._folder.joinpath("1").read_text()

    @property
    def stderr(self) -> str:
        path = self._folder / "2"
        return path.read_text() if path.exists() else ""


def _settle(env: dict[str, str], folder: Path) -> None:
    """Gives a separate process its environment, and files in `folder` as its output."""
    for stream in (1, 2):
        os.dup2(os.open(folder / str(stream), os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(env)
    warnings.resetwarnings()
    torch.set_num_threads(1)


def _command(arguments: tuple[str, ...], env: dict[str, str], folder: Path) -> None:
    """The main function of the separate process. The Hub's client is not loaded yet, so it reads this environment."""
    assert "huggingface_hub" not in sys.modules
    _settle(env, folder)
    sys.exit(run(arguments))


def _survives(
    env: dict[str, str],
    folder: Path,
    home: Path,
    prepare: Sequence[Sequence[str]],
    command: Sequence[str],
    points: int,
    traced: Sequence[str],
) -> None:
    """The main function of the separate process of `Desk.survives`."""
    _settle(env, folder)
    import huggingface_hub.file_download  # noqa: F401  # once, not in each child

    from tests.support.faults import survives

    if traced:
        from ditzoo.weights.load import load_network
        from ditzoo_export import make_settings
        from tests.support.traced import trace_once

        card = CARDS[traced[0]]
        trace_once(card, load_network(card), *(make_settings(card, precision=precision) for precision in traced[1:]))
    operations = survives(home, prepare, command, points)
    folder.joinpath("operations").write_text(str(operations))


@dataclass
class Desk:
    """A user's machine: caches, a zoo file, and a Hub to pull from."""

    home: Path
    hub: hub_server.Hub

    def env(self, **more: str) -> dict[str, str]:
        drop = {"HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"}
        return {
            **{key: value for key, value in os.environ.items() if key not in drop},
            "PYTHONPATH": f"{ROOT}:{ROOT / 'export'}",
            "OMP_NUM_THREADS": "1",
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "DITZOO_CACHE": str(self.home / "ditzoo"),
            "DITZOO_ZOO": str(self.home / "zoo.toml"),
            **more,
        }

    def start(self, *arguments: str, **env: str) -> Command:
        return Command(arguments, self.env(**env))

    def run(self, *arguments: str, **env: str) -> Command:
        process = self.start(*arguments, **env)
        process.wait()
        assert "Traceback" not in process.stderr, process.stderr
        return process

    def fails(self, *arguments: str, **env: str) -> str:
        """The last line of a command that must fail. Earlier lines may report attempts."""
        done = self.run(*arguments, **env)
        assert done.returncode in (1, 2), done.stderr
        assert not done.stdout
        lines = done.stderr.strip().splitlines()
        assert [line.startswith("error: ") for line in lines] == [False] * (len(lines) - 1) + [True], done.stderr
        return lines[-1]

    def survives(
        self, *command: str, prepare: Sequence[Sequence[str]] = (), points: int, folder: Path, traced: Sequence[str] = ()
    ) -> int:
        """See `tests.support.faults.survives`. `folder` is for its output.

        `traced` is a model that the commands export, and its precisions. It is traced once for all of them.
        """
        folder.mkdir()
        given = (self.env(), folder, self.home, prepare, command, points, traced)
        process = _SERVER.Process(target=_survives, args=given)
        process.start()
        process.join()
        assert process.exitcode == 0, folder.joinpath("2").read_text()
        return int(folder.joinpath("operations").read_text())

    def offers(self, weights: Mapping[str, Tensor], **pins: str | int) -> str:
        """Puts a model on the Hub and a card `tiny` of it into the zoo file; returns the commit."""
        commit = self.hub.commit("team/tiny", {FILE: save(dict(weights))})
        self.describes(**pins)
        return commit

    def describes(self, *, revision: str = "", **file: str | int) -> None:
        """Writes the card `tiny`. `revision` and `file` are the pins of its file."""
        pins = "".join(f", {key} = {value!r}" for key, value in file.items()).replace("'", '"')
        pinned = f'revision = "{revision}"\n' if revision else ""
        self.home.joinpath("zoo.toml").write_text(
            f"""[tiny]
base = "dit-s-2"
null_label = 10
[tiny.backbone]
input_size = 8
hidden_size = {TINY.hidden_size}
depth = {TINY.depth}
num_heads = {TINY.num_heads}
num_classes = 10
[tiny.weights]
kind = "hub"
repo = "team/tiny"
files = [{{path = "{FILE}"{pins}}}]
{pinned}
[tiny-uvit]
base = "uvit-s-dcae-f32-512"
null_label = 10
[tiny-uvit.backbone]
img_size = 8
patch_size = 2
in_chans = 4
embed_dim = 32
depth = 2
num_heads = 4
num_classes = 11
""",
            encoding="utf-8",
        )
