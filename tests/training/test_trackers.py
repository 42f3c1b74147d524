"""Trackers: what they are given, that a resumed run goes on in the same place, and the real libraries where they are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from robpicker_jax.system.errors import InputError
from robpicker_jax.training import trackers
from robpicker_jax.training.metrics_log import MetricsLog


class Notebook:
    """Remembers what it is given."""

    def __init__(self, workdir: Path) -> None:
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.closed = False

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self.rows.append((step, scalars))

    def close(self) -> None:
        self.closed = True


def test_a_tracker_gets_the_numbers_of_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Notebook] = []
    monkeypatch.setitem(trackers.TRACKERS, "notebook", lambda workdir: built.append(Notebook(workdir)) or built[-1])
    log = MetricsLog(tmp_path, ("notebook", "notebook"))
    log.write({"kind": "train", "step": 3, "inner_loss": 0.5, "rate": float("nan"), "class": "a"})
    log.write({"kind": "validation", "step": 4, "macro_f1": 0.25})
    log.close()
    (notebook,) = built
    assert notebook.rows == [(3, {"train/inner_loss": 0.5}), (4, {"validation/macro_f1": 0.25})]
    assert notebook.closed
    assert not (tmp_path / "tensorboard").exists()


def test_unknown_and_absent_trackers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with pytest.raises(InputError, match="unknown name 'mflow'"):
        trackers.build_trackers(["mflow"], tmp_path)
    for name in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=rf"pip install 'robpicker-jax\[{name}\]'"):
            trackers.build_trackers([name], tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_metrics_and_settings_of_a_run_that_was_stopped_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed (extra mlflow)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv(
        "MLFLOW_ALLOW_FILE_STORE", "true"
    )  # newer versions want a data base, for which this one is too small
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("train: {steps: 7, inner: {name: adam}}\ndata: {lists: []}\n")
    for step in (1, 2):
        log = MetricsLog(tmp_path / "run", ("mlflow",))
        log.write({"kind": "train", "step": step, "inner_loss": 1.0 / step})
        log.close()
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("robpicker")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params == {"train.steps": "7", "train.inner.name": "adam", "data.lists": "[]"}
    history = client.get_metric_history(run.info.run_id, "train/inner_loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5)]
    assert run.info.status == "FINISHED"


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_keeps_a_run_in_its_folder_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed (extra wandb)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for step in (1, 2):
        log = MetricsLog(tmp_path, ("wandb",))
        log.write({"kind": "train", "step": step, "inner_loss": 1.0 / step})
        log.close()
    identity = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    kept = list(tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb"))
    assert kept
