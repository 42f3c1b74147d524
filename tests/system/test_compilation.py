"""The cache of compiled programs: those that were not used for longest go when it grows too large."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robpicker_jax.system.compilation import _trim

pytestmark = pytest.mark.fast


def test_programs_that_were_not_used_for_longest_are_deleted(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"jit_step-{number}-cache").write_bytes(bytes(100))
        used = tmp_path / f"jit_step-{number}-atime"
        used.write_bytes(bytes(8))
        os.utime(used, (1000 + (number * 7) % 6, 1000 + (number * 7) % 6))  # used in the order 0 1 2 3 4 5
    (tmp_path / "own.txt").write_text("not ours")
    _trim(tmp_path, 600)
    assert len(list(tmp_path.iterdir())) == 13
    _trim(tmp_path, 250)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["jit_step-4-atime", "jit_step-4-cache", "jit_step-5-atime", "jit_step-5-cache", "own.txt"]
