"""Where extras are installed, a test that is skipped because something is missing fails: conftest.py takes these hooks.

`.ci/extras` and `.ci/slow` set ROBPICKER_TEST_ALL_EXTRAS. `.ci/run` and the tests of every push, which install some of the
extras, also name what they do without in ROBPICKER_TEST_WITHOUT, as the reasons of skips have it: `napari,onnx`. Without
these variables, as for a user, every such test is skipped; with them, a renamed package or a broken installation cannot
turn tests off without a word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Any

import pytest

VARIABLE = "ROBPICKER_TEST_ALL_EXTRAS"
WITHOUT = "ROBPICKER_TEST_WITHOUT"
_MISSING = re.compile(r"\bnot installed\b|could not import|no Chromium here")


def failure(reason: str) -> str | None:
    """What is said of a test that is skipped for this reason, None where it may be skipped."""
    if os.environ.get(VARIABLE, "") in ("", "0") or not _MISSING.search(reason):
        return None
    names = [name.strip() for name in os.environ.get(WITHOUT, "").split(",")]
    if any(name and re.search(rf"\b{re.escape(name)}\b", reason, flags=re.IGNORECASE) for name in names):
        return None
    return f"skipped ({reason}), although {VARIABLE} says that it is installed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A test, or a fixture of it, that was skipped."""
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """A file that was skipped as a whole."""
    return _judged((yield))


def _judged(report: Any) -> Any:
    skipped = report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple)
    if skipped and (said := failure(str(report.longrepr[2]))):
        report.outcome, report.longrepr = "failed", said
    return report
