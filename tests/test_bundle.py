from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import ditzoo
from ditzoo.archives import pack
from ditzoo.bundle import MANIFEST, Bundle, consistently, open_bundle, provide_folder
from ditzoo.errors import BundleError, UsageError
from ditzoo.files import replacing
from ditzoo.manifests import damage, record_file
from ditzoo_export import cached_bundle
from tests.support.mounts import mounted

CARD = ditzoo.card("uvit-digits")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(cached_bundle(CARD).path, tmp_path / "bundle"))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "{name} is missing"),
    "truncated": (truncate, "truncated or changed"),
    "longer": (append, "truncated or changed"),
    "one bit": (flip, "changed or damaged"),
}


def test_a_whole_bundle_opens(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.card == CARD
    assert opened.plan == ditzoo.make_plan(CARD)
    assert sorted(opened.manifest.files) == ["backbone.onnx", "backbone.onnx.data", "card.json", "plan.json"]


@pytest.mark.parametrize("name", ["backbone.onnx", "backbone.onnx.data", "card.json", "plan.json"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_bundle_is_refused_with_the_file_and_the_remedy(bundle: Path, name: str, fault: str) -> None:
    cause, message = FAULTS[fault]
    cause(bundle / name)
    with pytest.raises(BundleError, match=message.format(name=name)) as error:
        open_bundle(bundle)
    assert name in str(error.value)
    assert "ditzoo export onnx uvit-digits" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"format": "ditzoo-bundle/9"}', b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"cannot read .*; export the bundle again \(--overwrite\), or copy it again"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "sub/file", "..", "a\nb", 'a"b', "\x1b[31m"])
def test_a_manifest_cannot_name_files_outside_of_the_bundle(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = {"size": 1, "sha256": "0" * 64}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="outside the bundle"):
        open_bundle(bundle)


def test_a_graph_must_be_one_of_the_files_that_were_checked(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["graphs"]["backbone"]["file"] = "../other.onnx"
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"other\.onnx"):
        open_bundle(bundle)


ENGINE = {
    "file": "backbone.onnx",
    "graph": "backbone",
    "flavour": "tensorrt",
    "version": "11",
    "gpus": ["sm89"],
    "precision": "fp32",
    "profiles": [],
    "options": [],
    "seconds": 1.0,
}


@pytest.mark.parametrize(
    ("place", "name", "engine"),
    [
        ("engines", "backbone", {"file": "../other.engine"}),
        ("engines", "backbone", {"file": "/etc/passwd"}),
        ("engines", "backbone", {"graph": "../other"}),
        ("engines", "../victim", {}),
        ("graphs", "../victim", {}),
    ],
)
def test_an_engine_and_the_names_of_all_stay_in_the_bundle(bundle: Path, place: str, name: str, engine: dict[str, str]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    tensors = {side: manifest["graphs"]["backbone"][side] for side in ("inputs", "outputs")}
    manifest["engines"] = {"sound": {**ENGINE, **tensors}}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    open_bundle(bundle)
    manifest[place][name] = manifest["graphs"]["backbone"] if place == "graphs" else {**ENGINE, **tensors, **engine}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="do not use this bundle"):
        open_bundle(bundle)


def replaced(bundle: Path, key: str) -> None:
    """Puts another bundle there, as an overwriting export does: each of its graphs has other bytes."""
    with provide_folder(bundle, overwrite=True) as fresh:
        shutil.copytree(bundle, fresh, dirs_exist_ok=True)
        manifest = json.loads((fresh / MANIFEST).read_text())
        append(fresh / "backbone.onnx.data")
        manifest["files"]["backbone.onnx.data"] = msgspec.to_builtins(record_file(fresh / "backbone.onnx.data"))
        (fresh / MANIFEST).write_text(json.dumps({**manifest, "key": key}))


def test_a_bundle_that_is_replaced_while_it_is_opened(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest has been read, and the next file is that of another bundle."""
    left = ["b", "c"]

    def replace_first(path: Path, *given: Any, again: bool = False) -> str:
        if left and path.name == "backbone.onnx.data":
            replaced(bundle, left.pop(0))
        return damage(path, *given, again=again)

    monkeypatch.setattr("ditzoo.bundle.damage", replace_first)
    assert open_bundle(bundle).manifest.key == "c"
    truncate(bundle / "backbone.onnx.data")
    with pytest.raises(BundleError, match="truncated"):
        open_bundle(bundle)


def test_a_bundle_that_is_replaced_while_its_files_are_used(bundle: Path) -> None:
    opened, seen = open_bundle(bundle), list[int]()

    def use(now: Bundle) -> int:
        seen.append((now.path / "backbone.onnx.data").stat().st_size)
        if len(seen) == 1:
            replaced(bundle, opened.manifest.key)
        return (now.path / "backbone.onnx.data").stat().st_size

    assert consistently(opened, use) == seen[0] + 1 == seen[1]
    replaced(bundle, "another")
    with pytest.raises(BundleError, match="was replaced by another bundle"):
        consistently(opened, use)


def test_opening_finishes_what_a_killed_process_began(bundle: Path) -> None:
    partial = bundle.with_name(f".{bundle.name}.abcdefgh.partial")
    partial.mkdir()
    bundle.rename(partial / "old")
    assert open_bundle(bundle).card == CARD
    assert not partial.exists()


def test_an_archive_holds_files_and_no_links(bundle: Path, tmp_path: Path) -> None:
    (bundle / "backbone.onnx.data").rename(tmp_path / "elsewhere")
    (bundle / "backbone.onnx.data").symlink_to(tmp_path / "elsewhere")
    (bundle / "plan.json").rename(bundle / "other")
    os.link(bundle / "other", bundle / "plan.json")
    pack(open_bundle(bundle), tmp_path / "bundle.tar")
    with tarfile.open(tmp_path / "bundle.tar") as tar:
        assert all(member.isreg() for member in tar)
        tar.extractall(tmp_path / "there", filter="data")
    assert open_bundle(tmp_path / "there" / "bundle").card == CARD


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="root can write everywhere, except where it mounts")
def test_a_read_only_cache_that_holds_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cached_bundle(CARD).path
    cache = tmp_path / "cache"
    (cache / "bundles").mkdir(parents=True)
    shutil.copytree(made, cache / "bundles" / made.name)
    monkeypatch.setenv("DITZOO_CACHE", str(cache))
    with mounted(cache, "--bind", "-o", "ro", str(cache)):
        assert cached_bundle(CARD).path == cache / "bundles" / made.name
        with ditzoo.load("uvit-digits", backend="onnxruntime") as model:
            assert model.sample(classes=[1], steps=1)
        with pytest.raises(UsageError, match="read-only"):
            ditzoo.export_onnx(CARD, tmp_path / "out", precision="fp16")


def test_folders_that_are_no_bundles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="has no manifest"):
        open_bundle(tmp_path)


def test_a_failure_leaves_the_old_folder_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").write_text("")
    with pytest.raises(RuntimeError), provide_folder(target, overwrite=True) as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), replacing(path) as scratch:
        scratch.write_text("half")
        raise OSError("disk")
    assert path.read_text() == "old"
    with replacing(path) as scratch:
        scratch.write_text("new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]


def change(bundle: Path, place: str, value: object) -> None:
    """Writes `value` to a place of the manifest, such as "graphs.backbone.inputs.0.shape"."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    *outer, last = [int(part) if part.isdecimal() else part for part in place.split(".")]
    inner = manifest
    for key in outer:
        inner = inner[key]
    inner[last] = value
    (bundle / MANIFEST).write_text(json.dumps(manifest))


CONTRADICTIONS: list[tuple[str, object, str]] = [
    ("settings", {}, "no command of an export"),
    ("settings.command", "rm -rf /", "no command of an export, but 'rm -rf /'"),
    ("graphs", {}, "neither a graph nor an engine called backbone"),
    ("model", "dit-digits", "its manifest is for 'dit-digits', and its card for uvit-digits"),
    ("graphs.backbone.inputs", [], "must be at least one tensor"),
    ("graphs.backbone.inputs.0.name", 'x"', "is not a valid name of a tensor"),
    ("graphs.backbone.inputs.0.name", "t", "each with a name of its own"),
    ("graphs.backbone.inputs.0.name", "z", "the first input of backbone.onnx is z"),
    ("graphs.backbone.inputs.0.shape", ["batch", -1, 8, 8], "has the axis -1"),
    ("graphs.backbone.inputs.0.shape", ["batch", 1, "a b", 8], "has the axis 'a b'"),
    ("graphs.backbone.inputs.0.shape", ["batch"], "not latents of the channels of uvit-digits"),
    ("graphs.backbone.inputs.0.shape", ["batch", 4, 8, 8], "not latents of the channels of uvit-digits"),
    ("graphs.backbone.inputs.1.name", "time", "takes time, y beside x, but there are t, y"),
    ("graphs.backbone.inputs.1.dtype", "float16", "Invalid enum value"),
]


@pytest.mark.parametrize(("place", "value", "message"), CONTRADICTIONS)
def test_a_manifest_that_contradicts_the_bundle_is_refused(bundle: Path, place: str, value: object, message: str) -> None:
    change(bundle, place, value)
    with pytest.raises(BundleError, match=message) as error:
        open_bundle(bundle)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("place", "value"), [("inputs.1.dtype", "float64"), ("inputs.0.shape", ["batch", 1, 4, 8]), ("outputs.0.name", "other")]
)
def test_a_manifest_that_contradicts_a_graph_is_refused(backend: str, place: str, value: object, bundle: Path) -> None:
    change(bundle, f"graphs.backbone.{place}", value)
    with pytest.raises(BundleError, match=r"backbone\.onnx has .*manifest states"):
        ditzoo.open_backend(backend, bundle)
