"""The location of recordings of real providers, if they exist. None of them is part of the
repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("AIPROXY_SHARED", Path(__file__).parents[3] / "shared"))
RECORDINGS = SHARED / "recordings"

needs_recordings = pytest.mark.skipif(
    not RECORDINGS.is_dir(),
    reason="needs recordings of real providers, which are not part of this repository "
    "(AIPROXY_SHARED: a folder that has them in recordings/)",
)
