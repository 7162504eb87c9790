"""The reference of the command line, as Typer writes it, with plain quotes and the short form of --help."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def command_line() -> str:
    """The text of docs/cli.md."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "cli.md"
        words = ("-m", "typer", "ditzoo.cli.app", "utils", "docs", "--name", "ditzoo", "--output", str(page))
        subprocess.run([sys.executable, *words], check=True, capture_output=True)  # noqa: S603
        written = page.read_text()
    return written.replace("&#x27;", "'").replace("&quot;", '"').replace("* `--help`:", "* `-h, --help`:")
