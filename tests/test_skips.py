"""Skips for want of a package are failures where all extras are said to be there, and other skips are not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.skips import VARIABLE

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[1]
CASES = {
    "test_cases.py": """
import pytest

@pytest.mark.skipif(True, reason="PyTorch is not installed")
def test_by_mark(): pass

def test_inside(): pytest.importorskip("no_such_package", reason="the extra none is not installed")

def test_without_a_reason(): pytest.importorskip("no_such_package")

@pytest.fixture
def absent(): pytest.skip("the extra none is not installed")

def test_by_fixture(absent): pass

def test_for_another_reason(): pytest.skip("there is no program to mount a small disk with")

@pytest.mark.xfail(reason="something is not installed")
def test_expected_to_fail(): assert False
""",
    "test_module.py": "import pytest\npytest.importorskip('no_such_package', reason='the extra none is not installed')\n",
}
NOT_TESTED = {"cuda", "cuda12", "cuda13", "tpu", "bench", "docs", "dev"}
"""Extras that no test of a package is skipped without, or that take an accelerator."""


def outcomes(folder: Path, setting: str) -> dict[str, int]:
    for name, text in CASES.items():
        (folder / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT), VARIABLE: setting, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    arguments = [
        "-q",
        "-p",
        "tests.skips",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        "-c",
        os.devnull,
        str(folder),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--continue-on-collection-errors", *arguments],
        env=environment, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    found = re.findall(r"(\d+) (failed|error|skipped|xfailed)", done.stdout.splitlines()[-1])
    return {outcome: int(number) for number, outcome in found}


def test_missing_packages_fail_where_nothing_may_be_missing(tmp_path: Path) -> None:
    # pytest counts what fails before the test itself, or in place of a whole file, as an error.
    assert outcomes(tmp_path, "1") == {"failed": 2, "error": 3, "skipped": 1, "xfailed": 1}
    assert outcomes(tmp_path, "") == {"skipped": 6, "xfailed": 1}


def test_the_job_of_the_extras_installs_all_that_tests_are_skipped_without() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    script = (ROOT / ".ci" / "extras").read_text(encoding="utf-8")
    extras = set(re.search(r"\.\[([\w,]+)\]", script).group(1).split(","))
    assert extras <= set(project["optional-dependencies"])
    # The extra `test` brings zarr and hdf.
    assert set(project["optional-dependencies"]) - NOT_TESTED - {"zarr", "hdf"} == extras
    assert f"{VARIABLE}=1" in script
