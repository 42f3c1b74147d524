"""The fast tests touch every room, and no test is both fast and slow."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

TESTS = Path(__file__).parent


def marks(path: Path) -> set[str]:
    """Names of all pytest marks that a file uses: `fast` for pytest.mark.fast."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pytest.mark"
    }


def test_every_room_has_fast_tests() -> None:
    settings = tomllib.loads((TESTS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    fast = {path.parent.name for path in TESTS.glob("*/test_*.py") if "fast" in marks(path)}
    assert set(contract["layers"]) - fast == set()


def test_no_file_has_both_marks() -> None:
    assert [path.name for path in TESTS.rglob("test_*.py") if {"fast", "slow"} <= marks(path)] == []
