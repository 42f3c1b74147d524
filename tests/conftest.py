"""Set-up and fixtures shared by all tests.

Every test runs with the package's annotations checked at each call: an import hook wraps each function of
`robpicker_jax` with jaxtyping (shapes) and beartype (types). The hook has to be in place before the first import of the
package, and pytest imports this file before any test module, in each worker of pytest-xdist too.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

import tests.type_checks  # noqa: F401  (the import hook looks it up by name)

# Tests neither read nor fill the user's cache of compiled programs.
os.environ["ROBPICKER_CACHE"] = tempfile.mkdtemp(prefix="robpicker-test-cache-")
# An example may take as long as it does on a busy machine.
hypothesis.settings.register_profile("tests", deadline=None, max_examples=40)
hypothesis.settings.load_profile("tests")
# Arrays of different rank are broadcast only where the code says so.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

jaxtyping.install_import_hook("robpicker_jax", "tests.type_checks.checked")

from robpicker_jax.commands import simulate, train  # noqa: E402
from robpicker_jax.commands.cli import call  # noqa: E402
from tests.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: E402, F401
from tests.tiny import write_tiny  # noqa: E402


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Take off the handlers that a test's libraries left on the root logger, as copick does when it is imported.

    With them, whatever another library remarks in a later test of the same process would be printed.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers).difference(handlers):
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data files, from ROBPICKER_TEST_DATA or beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("ROBPICKER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder} (set ROBPICKER_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration as a file."""
    return write_tiny(tmp_path_factory.mktemp("config") / "tiny.yaml")


@pytest.fixture(scope="session")
def tiny_data(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny simulated data set."""
    folder = tmp_path_factory.mktemp("tiny") / "data"
    assert call(simulate.main, ["--config", str(tiny_config), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    assert call(train.main, ["--config", str(tiny_config), "--workdir", str(workdir)]) == 0
    return workdir
