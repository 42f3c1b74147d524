"""The page of promises names tests that there are, and the bounds of dependencies are those that are tested."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.fast


def test_every_promise_names_a_test_that_there_is() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| ---", "| promise", "| value", "| command", "| `"))]
    assert len(promises) > 20
    for row in promises:
        held_by = row.strip("| ").rpartition(" | ")[2]
        named = re.findall(r"`([^`]+)`", held_by)
        assert named, row
        for name in named:
            if name.startswith("python -m "):
                assert importlib.util.find_spec(name.split()[2]) is not None, name
                continue
            file, _, function = name.partition("::")
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


def test_the_lowest_versions_are_those_of_the_project() -> None:
    subprocess.run([sys.executable, str(ROOT / ".ci" / "lowest_versions.py"), "--check"], check=True)
