"""Scores of pictures against their formulas, scipy, brute force, and the functions of the digits' recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image
from scipy.linalg import sqrtm

from ditzoo.cli import run
from ditzoo.errors import UsageError
from ditzoo.evaluation.digits import DigitsNetwork, features, fit_classifier, load
from ditzoo.evaluation.features import Features
from ditzoo.evaluation.frechet import Gaussian, Moments, frechet_distance, gaussian_of
from ditzoo.evaluation.manifold import precision_and_recall
from ditzoo.evaluation.networks import open_network
from ditzoo.evaluation.onnx_network import OnnxNetwork
from ditzoo.evaluation.scores import HELD_OUT, collect, evaluate


def pictures_of(scans: np.ndarray) -> np.ndarray:
    """Scans [N, 1, 8, 8] from −1 to 1 as pictures of 8 bits [N, 8, 8, 3], as decoding makes them."""
    return np.repeat(np.clip(127.5 * scans.transpose(0, 2, 3, 1) + 128, 0, 255).astype(np.uint8), 3, axis=-1)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scans as packed files: train.npz and held_out.npz."""
    folder = tmp_path_factory.mktemp("digits")
    for name, half in zip(("train", "held_out"), load(), strict=True):
        np.savez(folder / f"{name}.npz", pictures_of(half.images), half.labels)
    return folder


@given(cuts=st.lists(st.integers(1, 99), max_size=6), mean=st.sampled_from([0.0, 1e6]))
@settings(max_examples=25)
def test_statistics_of_batches_are_those_of_the_whole(cuts: list[int], mean: float) -> None:
    x = np.random.default_rng(0).standard_normal((100, 4)) + mean
    moments = Moments()
    for part in np.split(x, sorted(set(cuts))):
        moments.add(part)
    found = moments.gaussian()
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x - mean, rowvar=False), atol=1e-8)


@pytest.mark.parametrize("rank", [6, 3])
def test_the_frechet_distance_is_that_of_scipy(rank: int) -> None:
    rng = np.random.default_rng(1)
    a, b = (gaussian_of(rng.standard_normal((50, rank)) @ rng.standard_normal((rank, 6)) + i) for i in range(2))
    root = sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)


def test_distances_of_other_dimensions_are_refused() -> None:
    a, b = (Gaussian(mean=np.zeros(n), covariance=np.eye(n)) for n in (2, 3))
    with pytest.raises(ValueError, match="features of 2 dimensions"):
        frechet_distance(a, b)


def test_precision_and_recall_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditzoo.evaluation.manifold.ROWS", 7)
    rng = np.random.default_rng(2)
    drawn, real = 0.5 * rng.standard_normal((30, 3)), rng.standard_normal((40, 3))

    def share(points: np.ndarray, balls: np.ndarray) -> float:
        own = np.sort(np.linalg.norm(balls[:, None] - balls[None], axis=-1), axis=1)[:, 3]
        return float((np.linalg.norm(points[:, None] - balls[None], axis=-1) <= own).any(axis=1).mean())

    assert precision_and_recall(drawn, real) == (share(drawn, real), share(real, drawn))
    assert share(drawn, real) > share(real, drawn) > 0


def test_the_inception_score_is_the_mean_over_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ditzoo.evaluation.scores.SPLIT", 20)
    p = np.random.default_rng(3).dirichlet(np.full(5, 0.3), 50)
    parts = [(Features(spaces={"fid": part}, log_probabilities=np.log(part)), None) for part in np.split(p, [15, 33])]
    splits = [p[:20], p[20:40], p[40:]]
    expected = [np.exp((q * (np.log(q) - np.log(q.mean(axis=0)))).sum(axis=1).mean()) for q in splits]
    assert collect(parts, keep=False).inception_score == pytest.approx(np.mean(expected), rel=1e-12)


def test_digits_are_scored_as_the_recipe_scores_them(halves: Path) -> None:
    """The figures of recipes/digits/evaluate.py for the training half, up to the rounding to 8 bits."""
    train, held_out = load()
    classifier = fit_classifier(train)
    scores = evaluate(str(halves / "train.npz"), DigitsNetwork(), reference=HELD_OUT)
    of_features = [gaussian_of(features(classifier, half.pixels)) for half in (train, held_out)]
    of_pixels = [gaussian_of(half.pixels) for half in (train, held_out)]
    assert scores.fid == pytest.approx(frechet_distance(*of_features), rel=1e-2)
    assert scores.frechet_pixels == pytest.approx(frechet_distance(*of_pixels), rel=1e-2)
    assert scores.read == pytest.approx(classifier.score(train.pixels, train.labels), abs=2e-3)
    assert (scores.images, scores.reference_images) == (898, 899)
    assert scores.precision is not None
    assert 0.8 < scores.precision <= 1


def test_digits_against_themselves_have_no_distance(halves: Path) -> None:
    place = str(halves / "held_out.npz")
    scores = evaluate(place, DigitsNetwork(), reference=place)
    assert scores.fid < 1e-6
    assert scores.frechet_pixels is not None
    assert scores.frechet_pixels < 1e-6
    assert (scores.precision, scores.recall) == (1, 1)


def onnx_graph(
    path: Path, shape: list[str | int], *, kind: int = TensorProto.FLOAT, names: tuple[str, ...] = ("features",)
) -> Path:
    """A graph whose features are the means of the channels; its other outputs are the means of the columns."""
    nodes = [helper.make_node("Cast", ["pictures"], ["x"], to=TensorProto.FLOAT)]
    for name in names:
        axes = [2, 3] if name == "features" else [2]
        value = helper.make_tensor(name, TensorProto.INT64, [len(axes)], axes)
        nodes.append(helper.make_node("Constant", [], [f"{name}_axes"], value=value))
        nodes.append(helper.make_node("ReduceMean", ["x", f"{name}_axes"], [name], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "features",
        [helper.make_tensor_value_info("pictures", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_any_onnx_network_gives_features(tmp_path: Path) -> None:
    path = onnx_graph(
        tmp_path / "net.onnx", ["N", 3, "H", "W"], kind=TensorProto.UINT8, names=("features", "spatial", "logits")
    )
    pictures = np.random.default_rng(4).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    found = open_network(str(path))(pictures)
    np.testing.assert_allclose(found.spaces["fid"], pictures.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.spaces["sfid"], pictures.mean(axis=1).transpose(0, 2, 1).reshape(5, -1), rtol=1e-6)
    assert found.log_probabilities is not None
    np.testing.assert_allclose(np.exp(found.log_probabilities).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        (["N", 1, 8, 8], ("features",), r"must take pictures \[N, 3, H, W\]"),
        (["N", 3, 8, 8], ("a", "b"), "one output must be called features"),
    ],
)
def test_onnx_graphs_of_another_form_are_refused(
    shape: list[str | int], names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        OnnxNetwork(onnx_graph(tmp_path / "net.onnx", shape, names=names))


def test_reference_files_are_read_as_adm_publishes_them(tmp_path: Path) -> None:
    """Statistics under mu, sigma, mu_s and sigma_s come before those of the pictures, which give precision and recall."""
    path = onnx_graph(tmp_path / "net.onnx", ["N", 3, 4, 4], names=("features", "spatial"))
    rng = np.random.default_rng(5)
    pictures = [rng.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8) for _ in range(2)]
    np.savez(tmp_path / "drawn.npz", pictures[0])
    stored = [gaussian_of(rng.standard_normal((50, n)) + 120) for n in (3, 12)]
    arrays = {"mu": stored[0].mean, "sigma": stored[0].covariance, "mu_s": stored[1].mean, "sigma_s": stored[1].covariance}
    np.savez(tmp_path / "adm.npz", arr_0=pictures[1], **arrays)
    np.savez(tmp_path / "statistics.npz", mu=arrays["mu"], sigma=arrays["sigma"])
    network = OnnxNetwork(path)
    full = evaluate(str(tmp_path / "drawn.npz"), network, reference=str(tmp_path / "adm.npz"), batch=7)
    drawn = network(pictures[0])
    assert full.fid == pytest.approx(frechet_distance(gaussian_of(drawn.spaces["fid"]), stored[0]))
    assert full.sfid == pytest.approx(frechet_distance(gaussian_of(drawn.spaces["sfid"]), stored[1]))
    near = precision_and_recall(drawn.spaces["fid"], network(pictures[1]).spaces["fid"])
    assert (full.precision, full.recall, full.reference_images) == (*near, 20)
    some = evaluate(str(tmp_path / "drawn.npz"), network, reference=str(tmp_path / "statistics.npz"))
    assert (some.fid, some.sfid, some.precision, some.reference_images) == (pytest.approx(full.fid), None, None, None)


def test_folders_of_pictures_are_scored_too(tmp_path: Path) -> None:
    path = onnx_graph(tmp_path / "net.onnx", ["N", 3, "H", "W"])
    pictures = np.random.default_rng(6).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    (tmp_path / "set" / "deep").mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "set" / ("deep" if i % 2 else "") / f"{i}.png")
    np.savez(tmp_path / "set.npz", pictures)
    scores = evaluate(str(tmp_path / "set"), OnnxNetwork(path), reference=str(tmp_path / "set.npz"))
    assert scores.fid == pytest.approx(0, abs=1e-6)
    assert (scores.images, scores.precision) == (6, 1)


def test_the_command_scores_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        run(["sample", "uvit-digits", "--steps", "4", "--num", "100", "--shard-size", "50", "--threads", "1", "--out", "set"])
        == 0
    )
    assert run(["evaluate", "set", "--out", "scores.json", "--json"]) == 0
    told = capfd.readouterr().out.partition("\n")[2]
    scores = json.loads(told)
    assert scores == json.loads(Path("scores.json").read_text())
    assert (scores["network"], scores["reference"], scores["images"]) == ("digits classifier", "held-out", 100)
    assert scores["read"] > 0.8
    assert run(["evaluate", "set"]) == 0
    assert "read as their class" in capfd.readouterr().out


BAD = {
    "evaluate .": "--reference is missing",
    "evaluate missing": "there is no folder missing; name a folder of shards or of pictures, or a .npz file",
    "evaluate missing.npz": "there is no file missing.npz",
    "evaluate missing --reference a.npz": "there is no folder missing",
    "evaluate a.npz --reference missing": "there is no folder missing",
    "evaluate a.npz --reference missing.npz": "there is no file missing.npz",
    "evaluate . --features digits": ". has neither shards nor pictures",
    "evaluate a.npz --features digits --reference b.npz": "there is no file b.npz",
    "evaluate a.npz --features digits": "takes pictures of 8x8 pixels, not 4x4",
    "evaluate a.npz --features cats --reference a.npz": "unknown feature network 'cats'",
    "evaluate a.npz --features none.onnx --reference a.npz": "there is no file none.onnx",
    "evaluate text.npz --features digits": "text.npz is not a .npz file",
    "evaluate other.npz --features digits": "other.npz has no pictures: there is no array arr_0, only x",
    "evaluate a.npz --features digits --batch 0": "--batch must be 1 or more",
}


@pytest.mark.parametrize("typed", BAD)
def test_bad_input_is_one_clear_line(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    np.savez("a.npz", np.zeros((3, 4, 4, 3), np.uint8))
    np.savez("other.npz", x=np.zeros(3))
    Path("text.npz").write_text("no archive")
    assert run(typed.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert BAD[typed] in err
