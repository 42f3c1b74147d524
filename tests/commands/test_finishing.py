"""When a run is finished, and what becomes of its results when something has changed.

Kinds of faults met in the field: A15, A16, A18, B5, B15, B17, B19.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from robpicker_jax.commands import main_job, train
from robpicker_jax.commands.cli import call
from robpicker_jax.training.checkpoint import Checkpoints
from robpicker_jax.training.export import load_trained_model
from robpicker_jax.training.metrics_log import read_metrics


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run of its own."""
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="session")
def tiny_own_run(tiny_config: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set `own` and a finished run `run` on it."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(tiny_data, folder / "own")
    assert start(tiny_config, folder / "run", "--data.dir", str(folder / "own")) == 0
    return folder


@pytest.fixture
def own(tiny_own_run: Path) -> Path:
    """The same folder (a data set's place belongs to a run's settings), as it was after the test."""
    kept = tiny_own_run.with_name(tiny_own_run.name + "-kept")
    if not kept.exists():
        shutil.copytree(tiny_own_run, kept)
    else:
        shutil.rmtree(tiny_own_run)
        shutil.copytree(kept, tiny_own_run)
    return tiny_own_run


def start(config: Path, workdir: Path, *flags: str) -> int:
    """Start or resume a training."""
    return call(train.main, ["--config", str(config), "--workdir", str(workdir), *flags])


def stored(run: Path, name: str) -> Any:
    """A JSON file of a run."""
    return json.loads((run / name).read_text())


def test_a15_changed_picking_is_applied_to_a_finished_run_and_only_then_written_down(
    run: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "picks" / "test_000.xml").read_text()

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(main_job, "fit", killed)
        assert start(tiny_config, run, "--picking.min_score", "0.9871") == 130
    # The results are still the old ones, and so is what is said of them.
    assert "0.9871" not in (run / "config.yaml").read_text()
    assert (run / "picks" / "test_000.xml").read_text() == before
    assert start(tiny_config, run, "--picking.min_score", "0.9871") == 0
    assert "picking.min_score" in capsys.readouterr().out
    assert "0.9871" in (run / "config.yaml").read_text()
    assert "<object " not in (run / "picks" / "test_000.xml").read_text()
    assert load_trained_model(run).card.picking.min_score == 0.9871
    assert stored(run, "results.json")["settings"]["picking"]["min_score"] == 0.9871
    assert start(tiny_config, run, "--picking.min_score", "0.9871") == 0
    assert "finished" in capsys.readouterr().out


def test_a15_a_prolonged_run_that_was_killed_does_not_report_the_shorter_ones_results(
    run: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(main_job, "finish", killed)
        assert start(tiny_config, run, "--train.steps", "6") == 130
    assert "going on from step 4 of 6" in capsys.readouterr().out
    assert stored(run, "results.json")["steps"] == 4
    assert start(tiny_config, run, "--train.steps", "6") == 0
    assert "nothing to do" not in capsys.readouterr().out
    assert stored(run, "results.json")["steps"] == 6
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("flag", "named"), [(["--train.steps", "2"], "step 4"), (["--evaluation.choose_by", "min_f1"], "choose_by")]
)
def test_a15_what_a_finished_run_cannot_become_is_refused(
    flag: list[str], named: str, tiny_run: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tiny_run / "config.yaml").read_bytes()
    assert start(tiny_config, tiny_run, *flag) == 2
    assert named in capsys.readouterr().err
    assert (tiny_run / "config.yaml").read_bytes() == before


def test_a15_results_without_a_record_are_made_again(
    run: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "results.json").unlink()
    assert start(tiny_config, run) == 0
    assert "nothing to do" not in capsys.readouterr().out
    assert (run / "results.json").exists()


def test_b19_a_finished_run_on_a_disk_that_cannot_be_written_is_finished(
    run: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system", str(run))

    for name in ("tempfile.mkstemp", "os.mkdir", "os.open", "os.replace"):
        monkeypatch.setattr(name, refuse)
    assert start(tiny_config, run) == 0
    assert "finished" in capsys.readouterr().out


def test_b15_a_disk_that_cannot_be_written_is_one_line(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("tempfile.mkstemp", full)
    assert start(tiny_config, tmp_path / "run") == 2
    error = capsys.readouterr().err.strip()
    assert "no space left on device" in error.lower()
    assert len(error.splitlines()) == 1


def test_b5_a_start_that_failed_does_not_block_its_folder(
    tiny_config: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    assert start(tiny_config, workdir, "--data.dir", str(tmp_path / "absent"), "--train.seed", "9") == 2
    assert start(tiny_config, workdir, "--data.dir", str(tiny_data), "--train.steps", "1") == 0
    capsys.readouterr()
    assert start(tiny_config, workdir, "--data.dir", str(tiny_data), "--train.steps", "1", "--train.seed", "9") == 2
    assert "train.seed" in capsys.readouterr().err  # now there is a run


def test_b5_simulated_data_of_a_start_that_failed_do_not_block_it_either(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_job, "load_training_data", failing)
    assert start(tiny_config, tmp_path / "run") == 130
    assert start(tiny_config, tmp_path / "run", "--simulation.snr", "3.0") == 130
    assert stored(tmp_path / "run" / "data", "simulation.json")["settings"]["simulation"]["snr"] == 3.0


def test_a18_training_data_that_changed_are_named_and_test_data_are_picked_again(
    own: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data.dir", str(own / "own")]
    assert start(tiny_config, own / "run", *flags) == 0
    assert "nothing to do" in capsys.readouterr().out
    with mrcfile.open(own / "own" / "test" / "test_000.mrc", mode="r+") as file:
        file.data[:] = file.data[::-1].copy()
    assert start(tiny_config, own / "run", *flags) == 0
    said = capsys.readouterr().out
    assert "test/test_000.mrc changed" in said
    assert "nothing to do" not in said
    objects = own / "own" / "train" / "train_000_objl.xml"
    objects.write_text(objects.read_text().replace('x="', 'x="0', 1))
    assert start(tiny_config, own / "run", *flags, "--train.steps", "6") == 2
    assert "train/train_000_objl.xml changed" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["NaN", "constant"])
def test_b17_a_bad_test_tomogram_is_found_before_training(
    fault: str, tiny_config: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    with mrcfile.open(tmp_path / "data" / "test" / "test_000.mrc", mode="r+") as file:
        if fault == "NaN":
            file.data[3, 4, 5] = np.nan
        else:
            file.data[:] = 2.5
    assert start(tiny_config, tmp_path / "run", "--data.dir", str(tmp_path / "data")) == 2
    assert "test_000.mrc" in capsys.readouterr().err
    assert not read_metrics(tmp_path / "run" / "metrics.jsonl")


def test_a16_a_best_score_whose_model_was_lost_does_not_stand_in_the_way(run: Path, tiny_config: Path) -> None:
    """The log says that the last validation was the best by far, but no such checkpoint was kept."""
    log = run / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
        if row["kind"] == "validation":
            row["macro_f1"] = 0.99 if row["step"] == 4 else row["macro_f1"]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.rmtree(run / "checkpoints" / "best")
    (run / "results.json").unlink()
    assert start(tiny_config, run) == 0
    checkpoints = Checkpoints(run / "checkpoints", read_only=True)
    best, score = checkpoints.best_step(), checkpoints.best_score()
    checkpoints.close()
    again = [row for row in read_metrics(log) if row["kind"] == "validation" and row["step"] == 4]
    assert (best, score) == (4, again[0]["macro_f1"])
    assert len(again) == 1
    assert score is not None
    assert score < 0.99


def test_a16_a_kill_between_a_validation_and_its_row_loses_nothing(run: Path, tiny_config: Path) -> None:
    log = run / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    kept = [row for row in rows if (row["kind"], row["step"]) != ("validation", 4)]
    log.write_text("".join(json.dumps(row) + "\n" for row in kept))
    (run / "results.json").unlink()
    assert start(tiny_config, run) == 0
    assert [row["step"] for row in read_metrics(log) if row["kind"] == "validation"] == [2, 4]
    assert load_trained_model(run).card.step == stored(run, "results.json")["best_step"]
