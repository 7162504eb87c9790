"""Folders of shards: what they hold, how they are continued, and what damage does to them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from filelock import FileLock

import ditzoo
from ditzoo.backends.options import BackendSpec
from ditzoo.cli import run
from ditzoo.errors import UsageError
from ditzoo.model.opening import open_model
from ditzoo.pictures.decoding import Decoding
from ditzoo.scale import storage
from ditzoo.scale.drawing import Work
from ditzoo.scale.job import Job, LabelRule, Pictures, checksum, identity, labels_of
from ditzoo.scale.journal import JOURNAL, ShardRecord, read_journal
from ditzoo.scale.pack import pack
from ditzoo.scale.run import Advance, Summary, here, run_job
from ditzoo.scale.shards import read_shard, sha256_of, shard_writer
from ditzoo.scale.storage import storage_at

DIT = ditzoo.card("dit-digits")
PLAN = ditzoo.make_plan(DIT, solver="ddpm", steps=2)
JOB = Job(
    model=DIT.name,
    weights=identity(DIT),
    backend=BackendSpec(name="torch"),
    device="cpu",
    threads=1,
    plan=PLAN,
    size=(8, 8),
    seed=5,
    num=11,
    labels=LabelRule(rule="balanced", classes=10),
    batch=2,
    shard_size=4,
)
NAMES = ["00000.tar", "00001.tar", "00002.tar"]


def draw(place: Path | str, job: Job = JOB, listed: tuple[str, ...] = ()) -> Summary:
    return run_job(Work(job=job, model=DIT, place=str(place), listed=listed), execute=here)


def files(folder: Path) -> dict[str, bytes]:
    """The content of every shard."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("0*"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder, which no test changes."""
    folder = tmp_path_factory.mktemp("shards") / "whole"
    draw(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A complete folder to damage."""
    return Path(shutil.copytree(whole, tmp_path / "folder"))


@pytest.mark.parametrize("kind", ["png", "webp", "npz"])
def test_shards_hold_the_images_that_sample_draws(kind: Pictures, tmp_path: Path) -> None:
    job = msgspec.structs.replace(JOB, pictures=kind)
    summary = draw(tmp_path, job)
    with ditzoo.open_backend("torch", DIT, threads=1) as backend:
        latents = ditzoo.sample(backend, PLAN, classes=[i % 10 for i in range(4)], seed=5, batch=2)
    pictures = ditzoo.decode(DIT, latents)
    read = list(read_shard(tmp_path / job.file(0)))
    assert [(record.index, record.label, record.seed) for record, _ in read] == [(i, i, 5) for i in range(4)]
    assert [record.latents for record, _ in read] == [sha256_of(x) for x in latents]
    assert all(np.array_equal(pixels[..., :1], picture) for (_, pixels), picture in zip(read, pictures, strict=True))
    assert (summary.images, summary.shards) == (11, 3)


def test_a_worker_makes_the_export_that_its_plan_needs(tmp_path: Path) -> None:
    """Reuse needs a graph more than the export of a model by itself has."""
    card = ditzoo.card("uvit-digits")
    plan = ditzoo.make_plan(card, solver="dpmpp", steps=4, reuse="every=2,blocks=1")
    job = msgspec.structs.replace(
        JOB, model=card.name, weights=identity(card), backend=BackendSpec(name="onnxruntime"), plan=plan, num=2
    )
    run_job(Work(job=job, model=card, place=str(tmp_path)), execute=here)
    with open_model(card, BackendSpec(name="onnxruntime"), threads=1, plan=plan) as backend:
        latents = ditzoo.sample(backend, plan, classes=[0, 1], seed=5, batch=2)
    assert [record.latents for record, _ in read_shard(tmp_path / job.file(0))] == [sha256_of(x) for x in latents]


def cut_journal(folder: Path) -> None:
    path = folder / JOURNAL
    path.write_bytes(path.read_bytes()[:-40])


def damage_journal(folder: Path) -> None:
    path = folder / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'"shard":1', b'"sha\xffd":1'))


def forget(folder: Path) -> None:
    (folder / JOURNAL).unlink()


def change_byte(folder: Path) -> None:
    content = bytearray((folder / NAMES[1]).read_bytes())
    content[570] ^= 1
    (folder / NAMES[1]).write_bytes(content)


def truncate(folder: Path) -> None:
    os.truncate(folder / NAMES[1], 600)


def remove(folder: Path) -> None:
    (folder / NAMES[1]).unlink()


def leave_partial(folder: Path) -> None:
    remove(folder)
    (folder / ".00001.abcd_123.tar").write_bytes(b"half")


def change_unknown(folder: Path) -> None:
    change_byte(folder)
    forget(folder)


@pytest.mark.parametrize(
    ("damage", "drawn"),
    [
        (cut_journal, []),
        (damage_journal, []),
        (forget, []),
        (change_byte, [1]),
        (truncate, [1]),
        (remove, [1]),
        (leave_partial, [1]),
        (change_unknown, [1]),
    ],
)
def test_the_same_command_repairs_damage_and_draws_only_what_is_missing(
    damage: Callable[[Path], None], drawn: list[int], folder: Path, whole: Path
) -> None:
    damage(folder)
    asked: list[int] = []

    def execute(work: Work, shards: Sequence[int], *, advance: Advance) -> Iterator[ShardRecord]:
        asked.extend(shards)
        return here(work, shards, advance=advance)

    summary = run_job(Work(job=JOB, model=DIT, place=str(folder)), execute=execute)
    assert asked == drawn
    assert files(folder) == files(whole)
    assert sorted(read_journal(storage_at(folder))[0]) == [0, 1, 2]
    assert summary.latents == json.loads((whole / "summary.json").read_text())["latents"]


def test_a_full_disk_is_one_line_and_keeps_the_finished_shards(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses the file of the second shard."""
    real = storage._sync

    def full(path: Path) -> None:
        if path.name.startswith(".00001."):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_sync", full)
        with pytest.raises(UsageError, match=r"00001\.tar was not written: the disk is full"):
            draw(tmp_path)
    assert sorted(files(tmp_path)) == NAMES[:1]
    assert not list(tmp_path.glob(".0*"))
    draw(tmp_path)
    assert files(tmp_path) == files(whole)


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_an_error_while_a_shard_is_written_is_not_hidden(kind: Pictures, tmp_path: Path) -> None:
    """After the first of two images, the disk refuses the second."""
    job = msgspec.structs.replace(JOB, pictures=kind)
    latents = np.zeros((1, 8, 8), np.float32)

    def write() -> None:
        with shard_writer(tmp_path / job.file(0), job, range(2), [0, 1]) as add:
            add(np.zeros((8, 8, 1), np.uint8), latents)
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write()


def test_a_line_of_the_journal_that_does_not_fit_on_the_disk_leaves_it_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / JOURNAL).read_bytes()

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(UsageError, match="the disk is full"):
            storage_at(folder).append(JOURNAL, b"half a line")
    assert (folder / JOURNAL).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "uvit-digits"}, "model (dit-digits, not uvit-digits)"),
        ({"weights": "0"}, "weights"),
        ({"plan": ditzoo.make_plan(DIT, solver="ddim", steps=3)}, "plan (ddpm in 2 steps, not ddim in 3 steps)"),
        ({"seed": 6, "batch": 3}, "seed (5, not 6), batch (2, not 3)"),
        ({"labels": LabelRule(rule="random", classes=10)}, "labels (balanced, not random)"),
        ({"backend": BackendSpec(name="torch", precision="bf16")}, "backend (torch, not torch precision=bf16)"),
        ({"num": 5}, "num (11, not 5)"),
        ({"decoding": Decoding(precision="bf16")}, "decoding (fp32, not bf16)"),
    ],
)
def test_a_folder_of_another_job_is_refused(change: dict[str, object], message: str, whole: Path) -> None:
    before = files(whole)
    with pytest.raises(UsageError) as caught:
        draw(whole, msgspec.structs.replace(JOB, **change))
    assert message in str(caught.value)
    assert "choose another --out" in str(caught.value)
    assert files(whole) == before


def test_a_set_can_grow(folder: Path, whole: Path) -> None:
    """The last shard had 3 images and now has 4; the others stay."""
    draw(folder, msgspec.structs.replace(JOB, num=14))
    grown = files(folder)
    assert len(grown) == 4
    assert [grown[name] for name in NAMES[:2]] == [files(whole)[name] for name in NAMES[:2]]
    assert [record.index for record, _ in read_shard(folder / NAMES[2])] == [8, 9, 10, 11]


def test_two_runs_in_one_folder_are_refused(whole: Path) -> None:
    with FileLock(whole / ".lock"), pytest.raises(UsageError, match="another run writes into"):
        draw(whole)


def test_images_depend_neither_on_the_shards_nor_on_what_was_drawn_before(folder: Path, whole: Path, tmp_path: Path) -> None:
    """Shards of two images have the same batches."""
    draw(tmp_path / "small", msgspec.structs.replace(JOB, shard_size=2))
    small = [record for i in range(6) for record, _ in read_shard(tmp_path / "small" / f"{i:05d}.tar")]
    large = [record for name in NAMES for record, _ in read_shard(whole / name)]
    assert small == large


def test_other_storage_gets_the_same_files(whole: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    place = f"memory://{whole.parent.name}"
    first = draw(place)
    memory = fsspec.filesystem("memory")
    content = {path.rpartition("/")[2]: memory.cat_file(path) for path in memory.ls(f"/{whole.parent.name}", detail=False)}
    assert {name: content[name] for name in NAMES} == files(whole)
    assert content[JOURNAL].count(b"\n") == 3
    memory.rm_file(f"/{whole.parent.name}/00001.tar")
    assert draw(place).sha256 == first.sha256


def test_labels_are_fixed_by_seed_and_image() -> None:
    random = msgspec.structs.replace(JOB, num=20_000, labels=LabelRule(rule="random", classes=10))
    labels = labels_of(random, range(20_000), ())
    assert labels is not None
    assert labels[7_000:7_010] == labels_of(random, range(7_000, 7_010), ())
    assert labels[:8] == [8, 7, 8, 4, 2, 7, 4, 0]
    counts = np.bincount(np.array(labels), minlength=10)
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)
    assert labels_of(msgspec.structs.replace(random, seed=6), range(8), ()) != labels[:8]
    assert labels_of(JOB, range(8, 12), ()) == [8, 9, 0, 1]


def test_labels_of_a_file(tmp_path: Path) -> None:
    listed = tuple(str(i) for i in (3, 3, 1, 9, 0))
    job = msgspec.structs.replace(JOB, num=5, labels=LabelRule(rule="file", classes=10, sha256=checksum(listed)))
    draw(tmp_path, job, listed)
    assert [record.label for record, _ in read_shard(tmp_path / NAMES[0])] == [3, 3, 1, 9]
    with pytest.raises(UsageError, match="--labels has 5 labels for 6 images"):
        draw(tmp_path / "more", msgspec.structs.replace(job, num=6), listed)


def test_packing_gives_what_evaluation_programs_read(whole: Path, tmp_path: Path) -> None:
    pack(str(whole), tmp_path / "a.npz")
    arrays = np.load(tmp_path / "a.npz")
    assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((11, 8, 8, 3), np.uint8)
    assert arrays["arr_1"].tolist() == [*range(10), 0]
    pictures = [pixels for name in NAMES for _, pixels in read_shard(whole / name)]
    assert np.array_equal(arrays["arr_0"], np.repeat(np.stack(pictures), 3, axis=-1))


@pytest.mark.parametrize(("damage", "message"), [(cut_journal, "has 2 of 3 shards"), (change_byte, "00001.tar is damaged")])
def test_packing_needs_a_whole_folder(damage: Callable[[Path], None], message: str, folder: Path, tmp_path: Path) -> None:
    damage(folder)
    with pytest.raises(UsageError, match=message):
        pack(str(folder), tmp_path / "a.npz")
    assert not list(tmp_path.glob("*.npz"))


def test_the_command_draws_packs_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("classes.txt").write_text("3\nseven\n1\n")
    typed = "sample dit-digits --steps 2 --num 3 --shard-size 2 --labels classes.txt --threads 1 --out set"
    assert run(typed.split()) == 0
    out, err = capfd.readouterr()
    assert out == "set/summary.json\n"
    assert "3 images of dit-digits in 2 shards" in err
    assert run(["pack", "set", "--npz"]) == 0
    assert capfd.readouterr().out == "set.npz\n"
    assert np.load("set.npz")["arr_1"].tolist() == [3, 7, 1]
    assert run([*typed.split(), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["images"] == 3


BAD = {
    "sample dit-digits --labels random": "--labels needs --shard-size",
    "sample dit-digits --ray local": "--ray needs --shard-size",
    "sample dit-digits --shard-size 5 --out x": "--shard-size needs --num",
    "sample dit-digits --shard-size 5 --num 9": "and --out, the folder",
    "sample dit-digits --shard-size 0 --num 9 --out x": "--shard-size must be 1 or more, not 0",
    "sample dit-digits --shard-size 5 --num 9 --out x --classes 3": "--shard-size takes no --classes",
    "sample dit-digits --shard-size 5 --num 9 --out x --labels none.txt": "cannot read none.txt",
    "sample dit-digits --shard-size 5 --num 9 --out x --shard-format gif": "unknown kind of shard 'gif'",
    "sample dit-digits --shard-size 5 --num 9 --out x --workers 2": "--workers needs --ray",
    "sample dit-digits --shard-size 5 --num 9 --out nowhere://x": "cannot reach nowhere://x",
    "pack missing": "missing has no job.json",
    "pack missing --out a.zip": "--out is the name of a .npz file",
}


@pytest.mark.parametrize("typed", BAD)
def test_bad_input_is_one_clear_line(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(typed.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert BAD[typed] in err
    assert not list(tmp_path.glob("*.tar"))
