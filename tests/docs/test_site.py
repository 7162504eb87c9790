"""The site of the docs: it builds without warnings, and its pages load nothing from a network."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(find_spec("material") is None, reason="needs mkdocs-material: pip install 'ditzoo[docs]'")


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", ".mkdocs.yml"]
    done = subprocess.run([*command, "--site-dir", str(tmp_path / "site")], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    loading = r'<(?:script|img|iframe|source|link rel="(?:stylesheet|preconnect|preload|icon)")[^>]*(?:https?:)?//[^>]*>'
    assert [found for page in pages for found in re.findall(loading, page.read_text())] == []
    styles = [path.read_text() for path in (tmp_path / "site").rglob("*.css")]
    assert not any(re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style) for style in styles)
