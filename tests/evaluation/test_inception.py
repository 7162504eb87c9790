"""Inception against torch-fidelity's own code, with random weights. torch-fidelity is an extra and may be missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ditzoo.errors import CheckpointError, MissingPackageError
from ditzoo.evaluation.inception import WEIGHTS, InceptionNetwork
from ditzoo.evaluation.scores import evaluate

extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, in the file that torch-fidelity reads."""
    path = tmp_path_factory.mktemp("weights") / WEIGHTS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractor, "load_state_dict_from_url", lambda url, progress: None)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        net = extractor.FeatureExtractorInceptionV3("random", ["2048"])
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.slow
def test_the_scores_are_those_of_torch_fidelity(weights: Path, tmp_path: Path) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    rng = np.random.default_rng(0)
    sets = [rng.integers(0, high, (12, 16, 16, 3), dtype=np.uint8) for high in (256, 200)]
    for name, pictures in zip(("drawn", "real"), sets, strict=True):
        np.savez(tmp_path / f"{name}.npz", pictures)
    scores = evaluate(str(tmp_path / "drawn.npz"), InceptionNetwork(weights), reference=str(tmp_path / "real.npz"), batch=5)
    net = extractor.FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights))
    (drawn, logits), (real, _) = (net(torch.from_numpy(pictures).permute(0, 3, 1, 2)) for pictures in sets)
    fid = fid_statistics_to_metric(*(fid_features_to_statistics(x) for x in (drawn, real)), verbose=False)
    assert scores.fid == pytest.approx(fid["frechet_inception_distance"], rel=1e-4, abs=1e-6)
    score = isc_features_to_metric(logits, splits=1, shuffle=False)["inception_score_mean"]
    assert scores.inception_score == pytest.approx(score, rel=1e-6)
    near = prc_features_to_metric(drawn, real, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False)
    assert (scores.precision, scores.recall) == (pytest.approx(near["precision"]), pytest.approx(near["recall"]))
    assert scores.sfid is not None
    assert scores.sfid > 0


def test_spatial_features_have_the_size_of_the_published_statistics(weights: Path) -> None:
    found = InceptionNetwork(weights)(np.zeros((1, 8, 8, 3), np.uint8))
    assert (found.spaces["fid"].shape, found.spaces["sfid"].shape) == ((1, 2048), (1, 2023))


def test_missing_and_damaged_weights_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MissingPackageError, match="ditzoo does not download them"):
        InceptionNetwork(tmp_path / "missing.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="Inception cannot read its weights"):
        InceptionNetwork(tmp_path / "other.pth")
