"""`ditzoo export`: from a name to what is deployed."""

from __future__ import annotations

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Name, OutFolder, Overwrite

app = typer.Typer(help="Export a model for deployment.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `onnx` a command of its own while there is no other."""


@app.command("onnx")
def onnx(name: Name, out: OutFolder, overwrite: Overwrite = False) -> None:
    """Export a model to a bundle: ONNX graph, plan, card and manifest, verified against torch."""
    from ditzoo.cli.models import exporter
    from ditzoo.zoo import card

    chosen = card(name)
    export = exporter()
    with output.status(f"exporting {name}"):
        bundle = export.export_onnx(chosen, out, overwrite=overwrite)
    checked = bundle.manifest.verified
    output.talk(
        f"verified against torch: error {checked.random:.1e} on random inputs, {checked.trajectory:.1e} along a trajectory"
        f" (tolerance {checked.tolerance:.0e})"
    )
    output.data(str(bundle.path))
