"""The table of cards, the user's own cards, and the commands that show and share them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from ditzoo.cli import run
from ditzoo.errors import CheckpointError, UsageError
from ditzoo.weights.catalogue import card
from ditzoo.weights.hub_reference import parse
from ditzoo.weights.local import weights_file
from ditzoo.zoo import CARDS
from ditzoo.zoo.card import ByHand, Card, File, LinearFlow, OnHub, Published, Unreleased
from ditzoo.zoo.class_names import class_names
from ditzoo.zoo.configs import DiTConfig
from ditzoo.zoo.toml import load_cards
from recipes.checkpoints import hub_server
from tests.support.hub_models import TINY, TINY_UVIT, Desk, dcae, diffusers, state

DOCS = Path(__file__).parents[2] / "docs" / "models.md"

PARAMETERS = {
    "dit-xl-2-256": 675_129_632,
    "dit-xl-2-512": 676_014_368,
    "dit-s-2": 32_963_360,
    "dit-b-2": 130_512_416,
    "dit-l-2": 458_102_816,
    "dit-xl-4": 675_074_432,
    "dit-xl-8": 675_683_072,
    "uvit-s-2-cifar10": 44_255_328,
    "uvit-s-4-celeba64": 44_292_228,
    "uvit-m-4-imagenet64": 130_940_292,
    "uvit-l-4-imagenet64": 286_827_652,
    "uvit-l-2-256": 286_763_172,
    "uvit-h-2-256": 500_832_016,
    "uvit-l-4-512": 286_861_524,
    "uvit-h-4-512": 500_942_656,
    "uvit-s-2-coco": 44_692_644,
    "uvit-s-2-coco-deep": 58_345_636,
    "uvit-s-dcae-f32-512": 44_788_768,
    "uvit-h-dcae-f32-512": 500_868_896,
    "uvit-2b-dcae-f32-512": 1_580_396_576,
    "uvit-h-dcae-f64-512": 500_868_992,
    "uvit-2b-dcae-f64-512": 1_580_396_672,
    "usit-h-dcae-f32-512": 500_868_896,
    "dit-xl-1-dcae-f32-512": 675_184_960,
}
"""Of the authors' own code."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with hub_server.serving() as server:
        yield Desk(tmp_path, server)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_networks_are_the_authors(name: str) -> None:
    assert card(name).backbone.parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", CARDS)
def test_a_card_agrees_with_itself(name: str) -> None:
    found = CARDS[name]
    assert msgspec.json.decode(msgspec.json.encode(found), type=Card) == found
    assert found.sampling.guided_channels <= found.backbone.latent_shape[0]
    assert found.null_label in (None, found.number_of_classes)
    assert len(class_names(found)) == found.number_of_classes
    if isinstance(found.backbone, DiTConfig):
        assert found.null_label == found.backbone.null_label
    if re.search(r"-(256|512)\b", name):
        assert str(found.resolution) in name
    if isinstance(found.weights, OnHub | ByHand):
        assert not found.weights.verified  # nobody has confirmed them from here
        assert found.published or found.family == "sit"


def test_imagenets_classes() -> None:
    names = class_names(CARDS["dit-xl-2-256"])
    assert len(set(names)) == 1000
    assert (names[0], names[207], names[360], names[999]) == ("tench", "golden retriever", "otter", "toilet tissue")


@pytest.mark.parametrize("name", ["dit-xl-2-256", "uvit-h-2-256", "dit-b-2"])
def test_what_to_do_for_weights_that_are_not_here(name: str) -> None:
    with pytest.raises(CheckpointError) as error:
        weights_file(CARDS[name])
    expected = {OnHub: f"`ditzoo pull {name}`", ByHand: f"`ditzoo import {name} imagenet256_uvit_huge.pth`"}
    assert expected.get(type(CARDS[name].weights), f"`ditzoo import {name} FILE`") in str(error.value)
    if name == "uvit-h-2-256":
        assert "about 2.00 GB" in str(error.value)
        assert "Google Drive" in str(error.value)
    assert isinstance(CARDS["dit-b-2"].weights, Unreleased)


def test_nothing_heavy_is_imported() -> None:
    code = "import ditzoo, sys; print({'torch', 'huggingface_hub', 'httpx2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_own_cards_extend_and_override(tmp_path: Path) -> None:
    file = tmp_path / "zoo.toml"
    file.write_text(
        """
["my-dit"]
base = "dit-b-2"
sampling.guidance = 2.0

["dit-xl-2-256"]
base = "dit-xl-2-256"
[dit-xl-2-256.weights]
repo = "me/mirror"

["on-it"]
base = "my-dit"
backbone = {kind = "uvit", num_classes = 1001}
"""
    )
    found = load_cards(file, CARDS)
    assert found["my-dit"].sampling == msgspec.structs.replace(CARDS["dit-b-2"].sampling, guidance=2.0)
    mirrored, original = found["dit-xl-2-256"].weights, CARDS["dit-xl-2-256"].weights
    assert isinstance(original, OnHub)
    assert mirrored == OnHub(repo="me/mirror", files=(File(path=original.files[0].path),))
    assert found["on-it"].family == "uvit"
    assert found["on-it"].sampling.guidance == 2.0


def moths(backbone: str, more: str = "") -> str:
    """A card upon DiT-S/2, with lines of its own and of its backbone."""
    return f'[x]\nbase = "dit-s-2"\n{more}[x.backbone]\n{backbone}'


BAD_CARDS = {
    "a = 1\n[b\n": "line 2",
    '[x]\nbase = "dit-b-2"\n\n[x.backbone]\ndepth = "six"\n': "line 5: x: Expected `int`, got `str`",
    '[x]\nbase = "dit-b-2"\nsampling.guidance = "no"\n': "line 3: x: Expected `float`",
    '[x]\nbase = "dit-b-2"\n"weird" = 1\n': "line 3: x: Object contains unknown field `weird`",
    '[y]\nbase = "dit-b-2"\n[x]\nbase = "none"\n': "line 4: x: there is no card 'none'",
    "[x]\nsummary = 'no more'\n": "line 1: x: Object missing required field",
    '[x]\nbase = "dit-b-2"\n[x.backbone]\nnum_heads = 7\n': "line 3: x: width 768 is not a multiple of the number of heads 7",
    '[x]\nbase = "dit-xl-2-256"\n[x.weights]\nfiles = [{path = "../../etc/passwd"}]\n': "line 4: x: the path",
    '[x]\nbase = "dit-xl-2-256"\n[x.weights]\nrevision = "main"\n': "line 3: x: the revision 'main'",
    '["../x"]\nbase = "dit-b-2"\n': "line 1: ../x: a name must consist of",
    "x = 3\n": "line 1: x: a card must be a table",
    moths("num_classes = 0\n"): "line 4: x: num_classes is 0, but a DiT has a label table",
    moths("depth = 0\n"): "line 3: x: depth 0",
    moths(
        "hidden_size = 390\nnum_heads = 6\n"
    ): "line 3: x: the width must be a multiple of 4 for the fixed positions, not 390",
    moths("num_classes = 12\n", "null_label = 1000\n"): "line 3: x: null_label is 1000, but it must be the last row",
    moths("num_classes = 2000\n", "null_label = 1000\n"): "the last row of the label table, 2000",
    moths("num_classes = 12\n", "null_label = -1\n"): "line 3: x: null_label is -1",
    moths("num_classes = 12\nclass_dropout_prob = 0.0\n", "null_label = 12\n"): "has rows for its 12 classes only",
    moths(
        "num_classes = 12\nclass_dropout_prob = 0.0\n", "sampling.guidance = 2.0\n"
    ): "guidance is 2, but guidance needs a null label",
    moths("num_classes = 12\n", "sampling.guided_channels = 5\n"): "guided_channels is 5, but the latents have 4",
    moths("num_classes = 12\n", "sampling.steps = 0\n"): "steps must be positive, not 0",
    '[x]\nbase = "uvit-h-2-256"\n[x.backbone]\nnum_classes = 0\n': "line 4: x: num_classes is 0, but it must be the number",
}


@pytest.mark.parametrize("text", BAD_CARDS)
def test_a_bad_card_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "zoo.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        load_cards(file, CARDS)
    assert BAD_CARDS[text] in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("text", "null", "guidance", "classes"),
    [
        (moths("num_classes = 12\n"), 12, 1.5, 12),
        (moths("num_classes = 2000\n"), 2000, 1.5, 2000),
        (moths("num_classes = 12\nclass_dropout_prob = 0.0\n"), None, 1.0, 12),
        (moths("num_classes = 12\n", 'null_label = "none"\n'), None, 1.0, 12),
        (moths("depth = 3\n"), 1000, 1.5, 1000),
        ('[x]\nbase = "uvit-h-2-256"\nbackbone.num_classes = 13\n', 12, 1.4, 12),
        ('[x]\nbase = "uvit-h-2-256"\nnull_label = "none"\nbackbone.num_classes = 13\n', None, 1.0, 13),
        ('[x]\nbase = "uvit-h-2-256"\nbackbone.num_classes = -1\n', None, 1.0, 0),
    ],
)
def test_the_null_label_is_the_last_row_of_the_table(
    text: str, null: int | None, guidance: float, classes: int, tmp_path: Path
) -> None:
    file = tmp_path / "zoo.toml"
    file.write_text(text)
    found = load_cards(file, CARDS)["x"]
    assert (found.null_label, found.sampling.guidance, found.number_of_classes) == (null, guidance, classes)


@pytest.mark.parametrize(
    ("base", "channels", "guided"),
    [("dit-s-2", 4, 3), ("dit-s-2", 1, 1), ("uvit-s-dcae-f32-512", 4, 4), ("uvit-s-dcae-f32-512", 64, 64)],
)
def test_as_many_channels_are_guided_as_in_the_base(base: str, channels: int, guided: int, tmp_path: Path) -> None:
    file = tmp_path / "zoo.toml"
    name = "in_chans" if "uvit" in base else "in_channels"
    file.write_text(f'[x]\nbase = "{base}"\nbackbone.{name} = {channels}\n')
    assert load_cards(file, CARDS)["x"].sampling.guided_channels == guided


def test_a_card_of_another_repository_has_nothing_of_the_bases_weights(tmp_path: Path) -> None:
    file = tmp_path / "zoo.toml"
    file.write_text(
        """
[own]
base = "dit-xl-2-256"
[own.weights]
kind = "hub"
repo = "my-team/moths"
files = [{path = "last.pt"}]

[by-hand]
base = "dit-xl-2-256"
[by-hand.weights]
kind = "by_hand"
where = "our disk"
file = {path = "last.pt"}

[figured]
base = "own"
published = {fid = 9.5, settings = "ours"}

[same]
base = "dit-xl-2-256"
summary = "the same weights"
"""
    )
    found = load_cards(file, CARDS)
    assert found["own"].weights == OnHub(repo="my-team/moths", files=(File(path="last.pt"),))
    assert (found["own"].published, found["by-hand"].published) == (None, None)
    assert found["figured"].published == Published(fid=9.5, settings="ours")
    original = CARDS["dit-xl-2-256"]
    assert (found["same"].weights, found["same"].published) == (original.weights, original.published)


def test_wrong_numbers_are_refused_in_a_card_of_any_origin() -> None:
    base = CARDS["dit-s-2"]
    few = msgspec.structs.replace(base.backbone, num_classes=12)
    with pytest.raises(ValueError, match="label table, 12"):
        msgspec.structs.replace(base, backbone=few)
    text = msgspec.json.encode(base).replace(b'"null_label":1000', b'"null_label":999')
    with pytest.raises(msgspec.ValidationError, match="label table, 1000"):
        msgspec.json.decode(text, type=Card)


TOML_LIKE = st.lists(
    st.sampled_from(
        ["[x]", "[x.backbone]", "[[x]]", "base = ", '"dit-b-2"', "depth", " = ", "1", "{", "}", "\n", '"', "'", ".", "kind"]
    )
).map("".join)


@given(st.binary(max_size=300) | TOML_LIKE.map(str.encode))
def test_random_bytes_are_cards_or_refused(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file, suppress(UsageError):
        file.write(content)
        file.flush()
        assert all(isinstance(found, Card) for found in load_cards(Path(file.name), CARDS).values())


@pytest.mark.parametrize("text", ["hf:", "hf:a", "hf:a/b/c", "hf:../b", "hf:a/b@..", "hf:a/b:../../x", "a/b", "hf:a/b@"])
def test_bad_references(text: str) -> None:
    with pytest.raises(UsageError, match="hf:OWNER/REPO"):
        parse(text)


@pytest.mark.parametrize(
    "name",
    ["", "../victim/v", "a/b", ".hidden", "a\nb", 'a"b', "a b", "\x1b[31m", "é", "a" * 201, "hf:a", "hf:../b", "hf:a/b:x\n"],
)
def test_a_name_that_is_a_path_or_markup_is_no_name_of_a_card(name: str) -> None:
    base = CARDS["dit-s-2"]
    with pytest.raises(ValueError, match="is not a valid name for a model"):
        msgspec.structs.replace(base, name=name)
    text = msgspec.json.encode({**msgspec.to_builtins(base), "name": name})
    with pytest.raises(msgspec.ValidationError, match="is not a valid name for a model"):
        msgspec.json.decode(text, type=Card)


@pytest.mark.parametrize("name", ["a", "My-model_2.1", "hf:a/b", "hf:a.b/c_d@main", "hf:a/b@refs/pr/1:sub dir/x+y (1).pt"])
def test_names_and_references_are_names_of_cards(name: str) -> None:
    assert msgspec.structs.replace(CARDS["dit-s-2"], name=name).name == name


def test_import_takes_in_what_is_on_no_hub(desk: Desk) -> None:
    desk.describes()
    weights = state(TINY_UVIT)
    file = dcae(weights, desk.home / "My model!.safetensors")
    path = desk.run("import", "--like", "tiny-uvit", str(file)).stdout.strip()
    assert all(torch.equal(value, weights[key]) for key, value in load_file(path).items())
    assert desk.run("where", "My-model").stdout.strip() == path
    assert "--overwrite" in desk.fails("import", "My-model", str(file))
    torch.save(diffusers(state(TINY), TINY), desk.home / "tiny.bin")
    assert desk.run("import", "tiny", str(desk.home / "tiny.bin")).returncode == 0
    listed = json.loads(desk.run("list", "--state", "cached", "--json").stdout)
    assert {entry["name"] for entry in listed} == {"My-model", "tiny"}
    assert "kind DiT instead of U-ViT" in desk.fails("import", "uvit-h-2-256", str(desk.home / "tiny.bin"))
    assert "not a valid name for a model" in desk.fails("import", "../x", "--like", "tiny", str(desk.home / "tiny.bin"))
    assert "no file" in desk.fails("import", "dit-b-2", str(desk.home / "nothing.pt"))
    assert "NAME FILE" in desk.fails("import", "a", "b", str(file))


def test_push_serves_a_team(desk: Desk) -> None:
    desk.describes()
    weights = state(TINY_UVIT)
    desk.run("import", "tiny-uvit", str(dcae(weights, desk.home / "file.safetensors")))
    reference = desk.run("push", "tiny-uvit", "me/team", HF_TOKEN="hf_secret").stdout.strip()
    commit, files = next(iter(desk.hub.repos["me/team"].items()))
    assert reference == f"hf:me/team@{commit}"
    assert sorted(files) == ["README.md", "card.json", "decoder.safetensors", "model.safetensors"]
    assert b"license: apache-2.0" in files["README.md"]
    colleague = Desk(desk.home / "colleague", desk.hub)
    colleague.home.mkdir()
    colleague.home.joinpath("zoo.toml").touch()
    path = Path(colleague.run("pull", "hf:me/team").stdout.strip())
    assert path.read_bytes() == files["model.safetensors"]
    assert (path.parent / "decoder.safetensors").read_bytes() == files["decoder.safetensors"]
    asked = len(desk.hub.log)
    assert colleague.run("pull", "hf:me/team").stdout.strip() == str(path)
    assert colleague.run("where", "hf:me/team").stdout.strip() == str(path)
    assert "hf:me/team" in colleague.run("list", "--state", "cached").stdout
    assert len(desk.hub.log) == asked


def test_what_was_pulled_by_reference_samples_compares_and_exports(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of files are made of the name of the model; those of a reference have ':' and '/' in them."""
    desk.describes()
    desk.run("import", "tiny-uvit", str(dcae(state(TINY_UVIT), desk.home / "file.safetensors")))
    name = desk.run("push", "tiny-uvit", "me/team", HF_TOKEN="hf_secret").stdout.strip()
    assert desk.run("pull", name).returncode == 0
    plain = f"hf--me--team--{name.rpartition('@')[2]}"
    monkeypatch.setenv("DITZOO_CACHE", str(desk.home / "ditzoo"))
    (tmp_path / "work" / "served").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert run(["sample", name, "--num", "1", "--steps", "2"]) == 0
    assert run(["parity", name, "--backends", "torch,onnxruntime", "--steps", "2", "--times", "1"]) == 0
    assert run(["export", "triton", name, "--repo", "served"]) == 0
    made = {path.name for path in Path().iterdir()} | {path.name for path in Path("served").iterdir()}
    assert {f"{plain}.png", f"{plain}-backbone", f"{plain}.plan.json"} <= made
    assert any(path.name.startswith(plain) for path in (desk.home / "ditzoo" / "bundles").iterdir())
    listed = json.loads(desk.run("cache", "ls", "--json").stdout)
    assert {item["what"] for item in listed if item["model"] == name} == {"weights", "checkpoint", "ONNX bundle"}
    (bundle,) = (item for item in listed if item["model"] == name and item["what"] == "ONNX bundle")
    assert bundle["options"].startswith("--precision fp32 --target onnxruntime")


@pytest.mark.slow
def test_a_reference_decides_its_conventions_or_asks(desk: Desk) -> None:
    desk.home.joinpath("zoo.toml").touch()
    small = state(CARDS["sit-s-2-256"].backbone)
    commit = desk.hub.commit("me/several", {"a.pt": b"", "b.pt": save(small)})
    assert "hf:me/several:a.pt, hf:me/several:b.pt" in desk.fails("pull", "hf:me/several")
    line = desk.fails("pull", "hf:me/several:b.pt")
    assert "dit-s-2, sit-s-2-256" in line
    assert "--like" in line
    done = desk.run("pull", f"hf:me/several@{commit}:b.pt", "--like", "sit-s-2-256", "--json")
    (pulled,) = json.loads(done.stdout)
    assert torch.equal(load_file(pulled["path"])["pos_embed"], small["pos_embed"])
    shown = json.loads(desk.run("info", f"hf:me/several@{commit}:b.pt", "--json").stdout)
    assert shown["prediction"] == "velocity"
    assert shown["weights"]["revision"] == commit
    assert "c.pt" in desk.fails("pull", "hf:me/several:c.pt")
    desk.hub.commit("me/evil", {"../../evil.safetensors": b""})
    assert "must not lead out of its repository" in desk.fails("pull", "hf:me/evil")
    desk.hub.commit("me/none", {"README.md": b""})
    assert "no checkpoint" in desk.fails("pull", "hf:me/none")
    assert "`ditzoo pull hf:me/none`" in desk.fails("sample", "hf:me/none")


def test_the_cache_says_what_it_removes(desk: Desk) -> None:
    desk.offers(diffusers(state(TINY), TINY))
    desk.run("pull", "tiny")
    items = json.loads(desk.run("cache", "ls", "--json").stdout)
    assert [(item["model"], item["cache"], item["what"]) for item in items] == [
        ("tiny", "ditzoo", "weights"),
        ("tiny", "hub", "checkpoint"),
    ]
    assert all(item["size"] > 2_000_000 for item in items)
    assert desk.run("cache", "verify").returncode == 0
    done = desk.run("cache", "rm", "tiny")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert all(Path(item["path"]).exists() for item in items)
    pruned = desk.run("cache", "prune", "--downloads", "--yes").stdout
    assert [Path(item["path"]).exists() for item in items] == [True, False]
    assert items[1]["path"] in pruned
    assert not list((desk.home / "hf/hub").glob("models--*/blobs/*"))
    desk.describes(size=1)  # another source, so that the weights here belong to no card
    assert items[0]["path"] in desk.run("cache", "prune", "--yes").stdout
    assert "the caches hold nothing" in desk.fails("cache", "rm", "tiny", "--yes")


def test_own_models_sample_and_survive_a_plain_list(desk: Desk) -> None:
    desk.home.joinpath("zoo.toml").touch()
    save_file(load_file(weights_file(CARDS["dit-digits"])), desk.home / "digits2.safetensors")
    desk.run("import", "--like", "dit-digits", str(desk.home / "digits2.safetensors"))
    ours, theirs = (desk.home / f"{name}.npy" for name in ("ours", "theirs"))
    for name, latents in (("digits2", ours), ("dit-digits", theirs)):
        out = str(desk.home / "picture.png")
        done = desk.run("sample", name, "--steps", "2", "--classes", "3", "--out", out, "--save-latents", str(latents))
        assert done.returncode == 0, done.stderr
    assert ours.read_bytes() == theirs.read_bytes()
    assert "ships with ditzoo" in desk.fails("import", "dit-digits", str(desk.home / "digits2.safetensors"))
    assert "`ditzoo pull dit-xl-2-256`" in desk.fails("sample", "dit-xl-2-256", "--out", str(desk.home))


@pytest.mark.parametrize("name", CARDS)
def test_the_table_in_the_docs_is_the_cards(name: str) -> None:
    found = CARDS[name]
    figure = f"{found.published.fid:.2f}: {found.published.settings}" if found.published else "–"
    (line,) = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}` |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:3] == [str(found.resolution), f"{found.backbone.parameters:,}"]
    assert cells[4:] == [found.licence, figure]


def test_the_cards_in_the_docs_are_cards(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "zoo.toml"
    file.write_text("".join(examples))
    found = load_cards(file, CARDS)
    assert found["moths"].number_of_classes == 12
    assert found["repa"].schedule == LinearFlow(noise_at=1, velocity="to_noise")
    assert found["repa"].sampling.guidance_times == (0.0, 0.7)
    assert found["repa"].sampling.solver == CARDS["sit-xl-2-256"].sampling.solver


@pytest.mark.parametrize("name", CARDS)
def test_the_docs_say_of_every_card_what_it_was_held_against(name: str) -> None:
    text = DOCS.with_name("checkpoints.md").read_text(encoding="utf-8").partition("## What each card was compared with")[2]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    rows_of_it = [row for row in rows if any(fnmatchcase(name, pattern) for pattern in re.findall(r"`(.+?)`", row))]
    assert len(rows_of_it) == 1
