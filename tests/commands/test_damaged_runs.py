"""Kind: files of a run's folder that are damaged (field row E8): one line or passed over, never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.commands import report, train
from robpicker_jax.commands.cli import call
from robpicker_jax.picking import calibration
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.metrics_log import read_metrics

DAMAGES = {
    "not UTF-8": b"\xff\xfe{}\x00",
    "cut short": b'{"a": [1, 2',
    "empty": b"",
    "a list": b"[1, 2]",
    "nested without end": b"[" * 100_000,
    "other types": b'{"macro": 3, "classes": 7, "plan": 1, "step": "x", "kind": 2, "settings": 1, "train": 5}',
}
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "thresholds", "precision", "recall", "classes"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def finished(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished run without its checkpoints' arrays being needed."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(tiny_run, folder)
    return folder


@contextmanager
def damaged(path: Path, content: bytes) -> Iterator[None]:
    """The file with another content, and as it was afterwards."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["evaluation.json", "metrics.jsonl", "config.yaml", "versions.json"])
def test_e8_a_report_of_a_damaged_run_is_refused_in_one_line_or_made_of_the_rest(
    name: str, damage: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with damaged(finished / name, DAMAGES[damage]):
        code = call(report.main, ["--workdir", str(finished), "--out", str(tmp_path)])
    error = capsys.readouterr().err.strip()
    assert code in (0, 2)
    if code == 2:
        assert name in error
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.yaml", "inputs.json"])
def test_e8_a_finished_run_with_damaged_files_is_refused_in_one_line_or_still_finished(
    name: str, damage: str, finished: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with damaged(finished / name, DAMAGES[damage]):
        code = call(train.main, ["--config", str(tiny_config), "--workdir", str(finished)])
    shown = capsys.readouterr()
    assert code == (0 if name == "inputs.json" else 2) or "finished" in shown.out
    if code == 2:
        assert name in shown.err
        assert len(shown.err.strip().splitlines()) == 1


@given(classes=JSON)
def test_e8_a_damaged_calibration_is_refused_in_one_line(
    classes: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("calibration")
    (folder / calibration.FILE).write_text(json.dumps({"classes": {"ribosome": classes}}))
    try:
        scores = calibration.min_scores(folder, ["ribosome"], 0.5)
    except InputError as error:
        assert str(error).count("\n") == 0  # noqa: PT017
    else:
        assert len(scores) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_e8_a_calibration_that_is_none_at_all(damage: str, tmp_path: Path) -> None:
    (tmp_path / calibration.FILE).write_bytes(DAMAGES[damage])
    with pytest.raises(InputError, match="damaged"):
        calibration.min_scores(tmp_path, ["ribosome"], 0.5)


def test_e8_damaged_rows_of_a_log_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = {"step": 3, "kind": "train", "inner_loss": 0.5}
    lines = [*DAMAGES.values(), b"null", b'{"step": "3", "kind": "train"}', json.dumps(good).encode(), b'{"step": 4']
    path.write_bytes(b"\n".join(lines))
    assert read_metrics(path) == [good]
