"""The Inception network of FID, sFID and Inception Score, through torch-fidelity. Its weights must be on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ditzoo.backends.gpus import cuda_device
from ditzoo.errors import CheckpointError, MissingPackageError
from ditzoo.evaluation.features import Features, Pixels, log_softmax
from ditzoo.files import check_path

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
CHANNELS = 7
"""The number of channels of the layer "mixed_6/conv" that sFID takes, as in ADM's evaluation: 17 x 17 x 7 features."""


class InceptionNetwork:
    """The Inception network of 2015 with the weights and the resizing of TensorFlow (torch-fidelity's "inception-v3-compat").

    Its spaces are "fid", the pooled features [N, 2048], and "sfid", the first seven channels of the first branch of the block
    Mixed_6d, [N, 2023] (arXiv 2103.03841; TensorFlow calls it mixed_6/conv). The probabilities leave out the bias of the last
    layer, as in ADM's evaluation.
    """

    name = "inception-v3-compat"

    def __init__(self, weights: Path | None, *, device: str = "cpu") -> None:
        """Raises MissingPackageError if torch-fidelity or the weights are missing, and CheckpointError if they do not fit."""
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"Inception needs the package {error.name}: pip install 'ditzoo[fidelity]'") from error
        path = _weights(weights)
        try:
            net = FeatureExtractorInceptionV3(self.name, ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path))
        except (OSError, RuntimeError, EOFError) as error:
            raise CheckpointError(f"Inception cannot read its weights {path}: {error}") from error
        self._place = torch.device("cpu" if device == "cpu" else cuda_device(device))
        self._net = net.to(self._place)
        self._spatial: Any = None
        net.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    def __call__(self, pictures: Pixels) -> Features:
        """See `FeatureNetwork`. Pictures of any size are resized to 299x299."""
        x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).to(self._place)  # N 3 H W
        with torch.inference_mode():
            pooled, logits = self._net(x)
        spatial = self._spatial[:, :CHANNELS].permute(0, 2, 3, 1).reshape(len(x), -1)  # N 2023
        return Features(
            spaces={"fid": pooled.cpu().numpy(), "sfid": spatial.float().cpu().numpy()},
            log_probabilities=log_softmax(logits.cpu().numpy()),
        )

    def _keep(self, module: Any, inputs: Any, output: Any) -> None:
        self._spatial = output


def _weights(path: Path | None) -> Path:
    found = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS if path is None else path
    check_path(found, "--weights")
    if not found.is_file():
        raise MissingPackageError(
            f"Inception needs its weights in {found}; ditzoo does not download them; fetch {WEIGHTS} from the releases of"
            " torch-fidelity, and give its path with --weights"
        )
    return found
