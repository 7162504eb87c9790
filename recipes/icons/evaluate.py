"""Measures the embedded model of icons: whether its pictures can be read, and how far they are from drawn ones.

    python -m recipes.icons.evaluate

The model draws 2,400 guided samples with the defaults of its card, 200 of each class. A classifier that was fitted on 6,000
training pictures reads them. The Fréchet distance to 2,400 held-out pictures is measured on pixels and on the classifier's
features. 2,400 training pictures that the classifier has not seen are measured in the same way, for comparison.

With `--nearest`, the nearest training picture of some samples is searched. If the model had memorised pictures, its samples
would be nearer to them than held-out pictures are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import ditzoo
from ditzoo.evaluation.digits import fit_classifier
from ditzoo.evaluation.frechet import Floats
from recipes.icons.autoencoder import AUTOENCODER_FILE, encode, load_autoencoder, scaled
from recipes.icons.data import HELD_OUT, TRAINING, Icons, draw_icons
from recipes.icons.train import PICTURES
from recipes.judging import judge

MODEL, FITTED, JUDGED = "dit-icons", 6_000, 2_400


def generate(count: int, *, solver: str | None = None, steps: int | None = None, guidance: float | None = None) -> Icons:
    """Pictures drawn by the model, with the classes in turns."""
    card = ditzoo.card(MODEL)
    labels = np.arange(count) % card.number_of_classes
    plan = ditzoo.make_plan(card, solver=solver, steps=steps, guidance=guidance)
    with ditzoo.open_backend("torch", card) as backend:
        latents = ditzoo.sample(backend, plan, classes=labels.tolist(), batch=240)
    return Icons(pictures=ditzoo.decode(card, latents), labels=labels)


def reconstruction(folder: Path, icons: Icons) -> float:
    """The mean PSNR in dB of pictures that are encoded, and decoded by the decoder in the package. 255 is the largest value."""
    card = ditzoo.card(MODEL)
    with torch.inference_mode():
        latents = encode(load_autoencoder(folder / AUTOENCODER_FILE), torch.from_numpy(icons.images))
        decoded = ditzoo.decode(card, scaled(latents, card).numpy())
    errors = ((decoded.astype(np.float64) - icons.pictures) ** 2).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(errors, 1e-2))))


def nearest(pixels: Floats, known: Floats) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of `known` [M, D] for each of `pixels` [N, D]: its number, and the root mean square of the difference."""
    squares = (known**2).sum(axis=1)
    distances = (pixels**2).sum(axis=1)[:, None] + squares - 2 * pixels @ known.T  # N M
    number = distances.argmin(axis=1)
    best = np.take_along_axis(distances, number[:, None], axis=1)[:, 0]
    return number, np.sqrt(np.maximum(best, 0) / pixels.shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the embedded model of icons.")
    parser.add_argument("--solver")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--nearest", action="store_true", help="also search the nearest training pictures of 240 samples")
    parser.add_argument("--folder", type=Path, help="also measure the autoencoder, whose encoder is in this folder")
    options = parser.parse_args()
    held_out = draw_icons(HELD_OUT, range(JUDGED))
    classifier = fit_classifier(draw_icons(TRAINING, range(FITTED)))
    drawn = generate(JUDGED, solver=options.solver, steps=options.steps, guidance=options.guidance)
    results = {
        "classifier on held-out pictures": float(classifier.score(held_out.pixels, held_out.labels)),
        "training pictures": judge(draw_icons(TRAINING, range(FITTED, FITTED + JUDGED)), classifier, held_out),
        MODEL: judge(drawn, classifier, held_out),
    }
    if options.folder:
        results["reconstruction, PSNR in dB"] = reconstruction(options.folder, held_out)
    if options.nearest:
        known = draw_icons(TRAINING, range(PICTURES)).pixels
        for name, icons in (("samples", drawn), ("held-out pictures", held_out)):
            distances = nearest(icons.pixels[:240], known)[1]
            low, middle = np.quantile(distances, [0, 0.5]).tolist()
            results[f"nearest training picture of {name}"] = {"smallest": low, "median": middle}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
