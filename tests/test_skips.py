"""Skips for want of a package are failures where all extras are said to be there, and other skips are not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.skips import VARIABLE, WITHOUT

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
NOT_TESTED = {"cuda", "cuda12", "cuda13", "tpu", "docs", "dev"}
"""Extras that no test of a package is skipped without, or that take an accelerator."""
SLOW_ALONE = {"bench"}
"""Extras that slow tests alone are skipped without."""
QUICK_ALONE = {"mlflow", "wandb", "napari"}
"""Extras that no slow test is skipped without."""
SAID = {"peers": {"acryo"}, "bench": {"pytorch"}, "onnx": {"onnx", "onnxruntime"}}
"""How reasons of skips call what an extra brings, where that is not the extra's own name."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"])


def outcomes(folder: Path, setting: str, without: str = "") -> dict[str, int]:
    for name, text in CASES.items():
        (folder / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT), VARIABLE: setting, WITHOUT: without}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
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
    assert outcomes(tmp_path, "1", "pytorch, no_such_package") == {"failed": 1, "error": 2, "skipped": 3, "xfailed": 1}
    assert outcomes(tmp_path, "1", "torch") == outcomes(tmp_path, "1")  # a part of a name is no name


def installed(text: str) -> set[str]:
    """The extras in the only `.[…]` of a job, and those that they bring along."""
    found, (given,) = set[str](), re.findall(r"'\.\[([\w,]+)\]'", text)
    more = set(given.split(","))
    while more:
        found |= more
        assert more <= EXTRAS
        lines = [line for name in more for line in PROJECT["optional-dependencies"][name]]
        more = {name for line in lines for name in re.findall(r"robpicker-jax\[(.+)\]", line)}
        more = {name for names in more for name in names.split(",")} - found
    return found


@pytest.mark.parametrize(("script", "left_out"), [("extras", SLOW_ALONE), ("slow", QUICK_ALONE)])
def test_the_jobs_of_all_extras_install_what_their_tests_are_skipped_without(script: str, left_out: set[str]) -> None:
    text = (ROOT / ".ci" / script).read_text(encoding="utf-8")
    assert installed(text) == EXTRAS - NOT_TESTED - left_out
    assert f"{VARIABLE}=1" in text
    assert WITHOUT not in text


def job(name: str) -> str:
    """A job of the workflow, as text."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    return next(text for text in re.split(r"\n(?=  \w+:\n)", workflow) if text.startswith(f"  {name}:\n"))


def test_what_every_push_installs_may_not_be_skipped() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for text in (script, job("tests")):
        missing = EXTRAS - NOT_TESTED - SLOW_ALONE - installed(text) - {"tutorials"}
        names = {name for extra in missing for name in SAID.get(extra, {extra})}
        assert re.search(rf"{VARIABLE}(=|: )\W?1", text)
        assert set(re.search(rf"{WITHOUT}(?:=|: )([\w,]+)", text).group(1).split(",")) == names


def test_every_slow_test_is_in_a_job() -> None:
    """By its mark: a list of folders would leave out the next one."""
    script = (ROOT / ".ci" / "slow").read_text(encoding="utf-8")
    (line,) = [line for line in script.splitlines() if "-m slow" in line]
    assert not re.search(r"\btests/|--ignore|--deselect|-k\b", line)
    assert ".ci/slow" in job("slow")
