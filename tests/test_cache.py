"""The artifact cache: found again, never half there, whatever is killed, full, damaged or done twice at once."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

import ditzoo
from ditzoo.archives import pack
from ditzoo.bundle import Bundle, open_bundle
from ditzoo.cli import run
from ditzoo.errors import BundleError, UsageError
from ditzoo.files import sha256
from ditzoo_export import cached_bundle, export_onnx, make_engine_settings, make_settings
from ditzoo_export.artifacts import engine_key, onnx_key
from tests.support.damage import damage_silently
from tests.support.export_models import TINY_DIT, TINY_UVIT, random_model

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A copy of a small bundle, to do things to."""
    card, net = random_model(TINY_UVIT)
    made = cached_bundle(card, net=net)
    shutil.copytree(made.path, tmp_path / "copy")
    return open_bundle(tmp_path / "copy")


def _attempt(folder: Path, mode: str) -> subprocess.Popen[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "export", ROOT / "recipes")))
    environment = {**os.environ, "DITZOO_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "tests.support.export_attempt", mode, str(folder / "out")]
    return subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


@pytest.mark.slow
def test_a_kill_at_any_file_operation_leaves_the_right_result_and_no_litter(tmp_path: Path) -> None:
    child = _attempt(tmp_path, "kill")
    hit, errors = child.communicate()
    assert child.returncode == 0, errors
    assert min(json.loads(hit).get(phase, 0) for phase in ("graphs", "engines")) >= 4, hit
    assert [path.name for path in (tmp_path / "tmp").iterdir() if path.name.startswith(("ditzoo", "ort"))] == []


@pytest.mark.slow
def test_of_two_at_once_one_works_and_one_waits(tmp_path: Path) -> None:
    first = _attempt(tmp_path, "make")
    assert [_line(first), _line(first)] == ["locking", "making"]
    second = _attempt(tmp_path, "make")
    assert _line(second) == "locking"  # the first one holds that lock until it is told to go on
    assert first.communicate("go\n")[0].split() == ["made"]
    assert second.communicate()[0].split() == ["found"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    card, net = random_model(TINY_DIT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # what is written beyond that fails, as on a full disk
    try:
        with pytest.raises(UsageError, match=r"was not written: .* bytes are free on the disk of"):
            export_onnx(card, tmp_path / "b", net=net)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def _on_a_disk_of_one_megabyte(folder: Path, *command: str) -> tuple[int, str, str]:
    """Runs a command where `folder` is a disk of its own: its exit status, what it said, and what it left there."""
    script = 'mount -t tmpfs -o size=1m tmpfs "$0" && { "$@" > /dev/null; status=$?; ls -A "$0"; exit $status; }'
    if subprocess.run(["unshare", "-rm", "sh", "-c", script, str(folder), "true"], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "export")))}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(folder), sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr, done.stdout


@pytest.mark.parametrize("kind", [["onnx"], ["tensorrt", "--gpu", "sm89", "--precision", "fp32"]], ids=["onnx", "engines"])
def test_a_disk_that_is_really_full(tmp_path: Path, kind: list[str]) -> None:
    command = ["-m", "ditzoo", "export", kind[0], "uvit-digits", *kind[1:], "--out", str(tmp_path / "b")]
    status, said, left = _on_a_disk_of_one_megabyte(tmp_path, *command)
    errors = [line for line in said.splitlines() if not line.startswith("[")]  # those are the stages
    assert (status, len(errors), left) == (2, 1, "")
    assert f"{tmp_path / 'b'} was not written: the disk is full" in said
    assert f"bytes are free on the disk of {tmp_path}); free some space, or choose another --out" in said


def test_large_weights_on_a_full_disk(tmp_path: Path) -> None:
    """They are written by numpy, whose error has no number."""
    program = f"""
from pathlib import Path
import numpy, ditzoo.errors, ditzoo.files
try:
    with ditzoo.files.disk_errors(Path({str(tmp_path)!r}) / "b"), open({str(tmp_path / "a")!r}, "wb") as file:
        numpy.zeros(2**22, numpy.uint8).tofile(file)
except ditzoo.errors.UsageError as error:
    raise SystemExit(str(error))"""
    assert "b was not written: the disk is full" in _on_a_disk_of_one_megabyte(tmp_path, "-c", program)[1]


def test_the_same_inputs_are_found_and_no_file_of_them_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = ditzoo.card("uvit-digits")
    export_onnx(card, tmp_path / "b")
    made, read = (tmp_path / "b").stat().st_ino, []
    monkeypatch.setattr("ditzoo.digests.sha256", lambda path: read.append(path) or sha256(path))
    export_onnx(card, tmp_path / "b")
    assert (tmp_path / "b").stat().st_ino == made
    assert [path for path in read if path.is_relative_to(tmp_path)] == []
    (tmp_path / "b" / "backbone.onnx").touch()
    export_onnx(card, tmp_path / "b")
    assert [path for path in read if path.is_relative_to(tmp_path)] == [tmp_path / "b" / "backbone.onnx"]


def test_finding_imports_no_torch(tmp_path: Path) -> None:
    export_onnx(ditzoo.card("uvit-digits"), tmp_path / "b")
    program = (
        "import sys; from ditzoo.cli import run\n"
        f"assert run(['export', 'onnx', 'uvit-digits', '--out', {str(tmp_path / 'b')!r}]) == 0\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "export")))
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_key_depends_on_all_that_matters() -> None:
    card, net = random_model(TINY_DIT)
    settings = make_settings(card)
    other = random_model(TINY_DIT)[1]
    other.get_parameter("x_embedder.proj.bias").data[0] += 1e-3
    keys = [
        onnx_key(card, settings, net),
        onnx_key(card, settings, other),
        onnx_key(msgspec.structs.replace(card, summary="another"), settings, net),
        *(onnx_key(card, make_settings(card, **change), net) for change in _CHANGES),
        *(
            engine_key(card, make_engine_settings(card, gpu=gpu, batch=batch), net)
            for gpu in ("sm89", "sm120")
            for batch in "24"
        ),
    ]
    assert len(set(keys)) == len(keys)
    assert onnx_key(card, settings, random_model(TINY_DIT)[1]) == keys[0]


_CHANGES = [{"precision": "fp16"}, {"target": "tensorrt"}, {"resolution": "dynamic"}, {"split": False}, {"guided": True}]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_damage_is_named_with_the_command_that_makes_it_again(bundle: Bundle, damage: str) -> None:
    file = bundle.path / "backbone.onnx"
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        os.truncate(file, 1000)
    elif damage == "remove":
        file.unlink()
    else:
        (bundle.path / "manifest.json").write_text("{")
    with pytest.raises(
        BundleError, match=r"cannot read" if damage == "manifest" else r"`ditzoo export onnx random-uvit .* --overwrite`"
    ):
        open_bundle(bundle.path)


def test_a_disk_that_changes_bytes_by_itself_is_found_when_all_is_read_again(bundle: Bundle) -> None:
    open_bundle(bundle.path)
    damage_silently(bundle.path / "backbone.onnx", Path(os.environ["DITZOO_CACHE"]))
    open_bundle(bundle.path)
    with pytest.raises(BundleError, match="was changed or damaged"):
        open_bundle(bundle.path, again=True)


def test_cache_verify(capsys: pytest.CaptureFixture[str]) -> None:
    card, net = random_model(TINY_UVIT)
    made = cached_bundle(card, settings=make_settings(card, precision="fp16"), net=net)
    assert run(["cache", "verify"]) == 0
    assert f"{made.path.name.rpartition('-')[0]}" in capsys.readouterr().out
    os.truncate(made.path / "backbone.onnx", 10)
    assert run(["cache", "verify"]) == 1
    assert f"{made.path / 'backbone.onnx'} has 10 bytes" in capsys.readouterr().out
    again = cached_bundle(card, settings=make_settings(card, precision="fp16"), net=net)
    assert again.path == made.path
    assert run(["cache", "verify"]) == 0


def test_nothing_else_is_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    card = ditzoo.card("uvit-digits")
    with pytest.raises(UsageError, match="add --overwrite"):
        export_onnx(card, bundle.path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match=r"is not a bundle; choose another --out"):
        export_onnx(card, tmp_path / "mine", overwrite=True)
    with pytest.raises(UsageError, match="there is no folder"):
        export_onnx(card, tmp_path / "nowhere" / "b")


def test_a_packed_bundle_opens_and_is_the_same_bytes_each_time(bundle: Bundle, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "a.tar")
    first = sha256(tmp_path / "a.tar")
    pack(bundle, tmp_path / "a.tar")
    assert sha256(tmp_path / "a.tar") == first
    with tarfile.open(tmp_path / "a.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    with ditzoo.open_backend("onnxruntime", open_bundle(tmp_path / "a")) as backend:
        inputs = {"x": np.zeros((1, 4, 8, 8), np.float32), "t": np.zeros(1, np.float32), "y": np.zeros(1, np.int64)}
        assert np.isfinite(backend(inputs)).all()
    with pytest.raises(UsageError, match=r"writes a .tar file"):
        pack(bundle, tmp_path / "a.zip")
