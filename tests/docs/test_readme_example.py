"""The Python example of the README, run as it is printed on a tiny run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_three_lines_make_a_table_of_picks(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = README.read_text(encoding="utf-8")
    (code,) = [
        block for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "rp." in block
    ]
    assert len(code.splitlines()) == 3
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, "runs/quickstart")
    (tomogram,) = tmp_path.rglob("test/test_000.mrc")
    shutil.copy(tomogram, "tomogram.mrc")
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec", dont_inherit=True), names)
    picks = names["picks"]
    assert {"x", "y", "z"} <= set(picks.columns)
    written = Path("runs/quickstart/picks/test_000.csv").read_text(encoding="utf-8").splitlines()
    assert len(picks) == len(written) - 1
