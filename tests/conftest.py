"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data files, from ROBPICKER_TEST_DATA or beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("ROBPICKER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder} (set ROBPICKER_TEST_DATA)")
    return folder
