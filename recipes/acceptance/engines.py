"""The stage of the GPU acceptance about engines of TensorRT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from acceptance.checks import FLAVOURS, MODELS, Check, Measured, check, demand, needs_flavour, needs_gpu


def engines(device: str) -> Iterator[Check]:
    """Engines with several profiles, batch sizes in turn, without weights, with other weights, and opened again."""
    kinds: dict[str, dict[str, object]] = {
        "one profile": {"batch": "2-20"},
        "merged profiles": {"batch": "2,8,20", "merged": True},
        "a padded batch": {"batch": "32"},
        "stripped": {"batch": "2-20", "options": ("stripped",)},
        "refittable": {"batch": "2-20", "options": ("refittable",)},
        "tf32": {"batch": "2-20", "options": ("tf32",)},
    }
    for flavour in FLAVOURS:
        for model in MODELS:
            for kind, given in kinds.items():
                name = f"{model} on {flavour}: {kind}"
                yield check(name, lambda flavour=flavour, model=model, given=given: _engines(model, flavour, given, device))
            name = f"{model} on {flavour}: refitted"
            yield check(name, lambda flavour=flavour, model=model: _refitted(model, flavour, device))


def _engines(model: str, flavour: str, given: Mapping[str, object], device: str) -> Measured:
    """Draws two batch sizes in turn, twice, the second time with what the first left in the caches."""
    needs_gpu(device)
    needs_flavour(flavour)
    import ditzoo
    from ditzoo.measure.metrics import relative_l2
    from ditzoo_export import cached_engines, make_engine_settings

    card, plan = ditzoo.card(model), ditzoo.make_plan(model, steps=10)
    limit = 2e-2 if given.get("options") == ("tf32",) else 1e-4
    settings = make_engine_settings(card, flavour=flavour, precision="fp32", **given)  # type: ignore[arg-type]
    bundle, errors = cached_engines(card, settings=settings), []
    for _ in range(2):
        with ditzoo.open_backend(flavour, bundle) as ours, ditzoo.open_backend("torch", card) as theirs:
            for count in (10, 3, 10):
                drawn = [ditzoo.sample(backend, plan, classes=range(count)) for backend in (ours, theirs)]
                errors.append(float(relative_l2(*drawn)))
    demand(max(errors) <= limit, f"errors {errors}, limit {limit:.0e}")
    return {"sample": f"{max(errors):.2e} (limit {limit:.0e})"}


def _refitted(model: str, flavour: str, device: str) -> Measured:
    """Puts the weights of a fine-tune into engines, and draws with them and with torch. Each matrix of the fine-tune is five
    per cent larger than the model's, so the old engines draw something else."""
    needs_gpu(device)
    needs_flavour(flavour)
    from safetensors.torch import load_file, save_file

    import ditzoo
    from ditzoo.backends.torch import TorchBackend
    from ditzoo.measure.metrics import relative_l2
    from ditzoo.model.exporting import refit_tensorrt
    from ditzoo.weights.local import weights_file
    from ditzoo_export import cached_engines, make_engine_settings
    from ditzoo_export.refitting import fine_tune_of

    card, plan = ditzoo.card(model), ditzoo.make_plan(model, steps=10)
    settings = make_engine_settings(card, flavour=flavour, precision="fp32", batch="2-20", options=("refittable",))  # type: ignore[arg-type]
    old, weights = cached_engines(card, settings=settings), load_file(weights_file(card))
    with TemporaryDirectory() as folder:
        tuned = Path(folder) / "tuned.safetensors"
        save_file({name: 1.05 * value if value.ndim == 2 else value for name, value in weights.items()}, tuned)
        new = refit_tensorrt(old.path, tuned, Path(folder) / "refitted")
        net = fine_tune_of(tuned, old).net
        with (
            TorchBackend(new.card, net=net) as theirs,
            ditzoo.open_backend(flavour, new) as ours,
            ditzoo.open_backend(flavour, old) as before,
        ):
            expected, drawn, stale = (ditzoo.sample(each, plan, classes=range(10)) for each in (theirs, ours, before))
    error, change = float(relative_l2(drawn, expected)), float(relative_l2(stale, expected))
    demand(error <= 1e-4, f"the error is {error:.2e}, the limit 1e-04")
    demand(change > 1e-2, f"the engines draw the same before they are refitted: {change:.2e}")
    return {"sample": f"{error:.2e} (limit 1e-04)", "before": f"{change:.2e}"}
