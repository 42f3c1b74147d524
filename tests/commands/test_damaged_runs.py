"""Kind: files of a run's folder that are damaged (field row E8): one line or passed over, never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.commands import report, run_state, train
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig, load_config
from robpicker_jax.datasets import Scalings, TomogramFiles
from robpicker_jax.picking import calibration
from robpicker_jax.picking.finished import Finished
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.volumes import write_mrc

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


@pytest.mark.parametrize("damage", ["not UTF-8", "empty", "gone"])
@pytest.mark.parametrize(
    "name", ["calibration.json", "evaluation.json", "model.rpk", "report/inputs.npz", "picks/test_000.xml"]
)
def test_e8_damaged_results_of_a_finished_run_are_named_and_made_again(
    name: str, damage: str, finished: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are is seen before anything is loaded; that they are made again, `test_finishing` shows."""
    if name.startswith("picks") and damage != "gone":
        return  # lists are the user's to change
    said: list[str] = []
    monkeypatch.setattr(run_state, "say", said.append)
    config = load_config(tiny_config)
    assert run_state.is_finished(config, finished)
    whole = (finished / name).read_bytes()
    if damage == "gone":
        (finished / name).unlink()
    else:
        (finished / name).write_bytes(DAMAGES[damage])
    try:
        assert not run_state.is_finished(config, finished)
    finally:
        (finished / name).write_bytes(whole)
    assert run_state.is_finished(config, finished)
    # What is gone, or can be read no more, may leave nothing to compare with.
    assert any(name in line for line in said) or name in ("evaluation.json", "model.rpk")


@pytest.mark.parametrize("damage", DAMAGES)
def test_e8_damaged_scalings_and_reports_of_finished_tomograms_count_for_nothing(damage: str, tmp_path: Path) -> None:
    (tmp_path / "scalings.json").write_bytes(DAMAGES[damage])
    volume = tmp_path / "a.mrc"
    write_mrc(volume, np.zeros((4, 4, 4), np.float32), 10.0)
    tomogram = TomogramFiles("a", "", volume)
    assert Scalings(tmp_path / "scalings.json").known(tomogram, DataConfig()) is None
    records = Finished(tmp_path, "pick", {})
    records.add("a", tomogram, [volume])
    record = tmp_path / ".finished" / "pick" / "a.json"
    assert records.has("a", tomogram)
    for content in (DAMAGES[damage], b'{"begun": 3}', b'{"begun": [1]}', b'{"files": 3}', b'{"files": {"a": 1}}'):
        record.write_bytes(content)
        (tmp_path / ".finished" / "pick-together.json").write_bytes(content)
        assert not records.has("a", tomogram)
        assert records.own("a", tomogram) == []
        assert records.own_together(["a"]) == []
        assert not records.left_out("a")


@pytest.mark.parametrize("damage", DAMAGES)
def test_e8_damaged_inputs_of_a_report_are_named(
    damage: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with damaged(finished / "report" / "inputs.npz", DAMAGES[damage]):
        assert call(report.main, ["--workdir", str(finished), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert "inputs.npz" in error
    assert len(error.splitlines()) == 1


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
