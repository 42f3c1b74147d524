"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Tests neither read nor fill the user's cache of compiled programs.
os.environ["ROBPICKER_CACHE"] = tempfile.mkdtemp(prefix="robpicker-test-cache-")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data files, from ROBPICKER_TEST_DATA or beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("ROBPICKER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder} (set ROBPICKER_TEST_DATA)")
    return folder
