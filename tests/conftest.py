"""Set-up and fixtures shared by all tests.

Every test runs with the package's annotations checked at each call: an import hook wraps each function of
`robpicker_jax` with jaxtyping (shapes) and beartype (types). The hook has to be in place before the first import of the
package, and pytest imports this file before any test module, in each worker of pytest-xdist too.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jaxtyping
import pytest

import tests.type_checks  # noqa: F401  (the import hook looks it up by name)

# Tests neither read nor fill the user's cache of compiled programs.
os.environ["ROBPICKER_CACHE"] = tempfile.mkdtemp(prefix="robpicker-test-cache-")
# Arrays of different rank are broadcast only where the code says so.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

jaxtyping.install_import_hook("robpicker_jax", "tests.type_checks.checked")

import robpicker_jax  # noqa: E402, F401  (fails here, not in some test, where an annotation cannot be checked)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data files, from ROBPICKER_TEST_DATA or beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("ROBPICKER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder} (set ROBPICKER_TEST_DATA)")
    return folder
