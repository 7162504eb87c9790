"""What every test has: a cache of its own, and no network."""

from __future__ import annotations

import os
import tempfile

os.environ["DITZOO_CACHE"] = tempfile.mkdtemp(prefix="ditzoo-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
