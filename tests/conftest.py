"""What every test has: a cache that all processes of this run share, no network, and one thread where several processes run."""

from __future__ import annotations

import os
import tempfile

if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["DITZOO_CACHE"] = tempfile.mkdtemp(prefix="ditzoo-tests-")
else:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
