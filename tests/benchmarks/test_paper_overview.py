"""The table by size groups with what cases cost, and the command of the study `systems`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import systems
from benchmarks.paper import __main__ as command
from benchmarks.paper.collect import as_text, collect
from benchmarks.paper.restore import restore
from benchmarks.paper.runner import folder_of, read_result
from benchmarks.paper.study import FOLDER, RESULT, Run, Study, load_study
from tests.benchmarks.paper_cases import toy, write_result

COSTS = {"training_seconds": 61.4, "memory_mib": 412.6, "parameters": 903_357}


def _write(study: Study, out: Path, run: Run, score: float, **metrics: float) -> None:
    path = write_result(study, out, run, score) / RESULT
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"metrics": content["metrics"] | metrics}))


def test_the_overview_has_groups_from_large_to_small_and_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = toy(tmp_path / "studies", overview=True, figures=[])
    _write(study, tmp_path, Run("few", "supervised", 0), 0.3, **COSTS)
    _write(study, tmp_path, Run("few", "supervised", 1), 0.5, **COSTS | {"plain/f1/group medium": 0.2})
    write_result(study, tmp_path, Run("few", "robpicker", 0), 0.7)  # as a run of before costs were taken
    options = ["--study", "toy", "--draw-only", "--out", str(tmp_path), "--docs", str(tmp_path / "docs")]
    assert command.main(options, folder=tmp_path / "studies") == 0
    lines = [
        "| case | seeds | macro F1 | calibrated | large | medium | training, s | ms an update | memory, MiB | parameters |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| supervised | 2 | 0.400 | 0.400 | 0.400 | 0.250 | 61 | 500 | 413 | 903 k |",
        "| RobPicker | 1 | 0.700 | 0.700 | 0.700 | 0.700 | – | 500 | – | – |",
    ]
    assert "\n".join(lines) in capsys.readouterr().out
    assert "\n".join(lines) in (tmp_path / "docs" / "results.md").read_text()


def test_a_record_names_every_score_that_chose_models(tmp_path: Path) -> None:
    cases: dict[str, Any] = {
        "supervised": {"label": "supervised", "settings": {"train.variant": "supervised"}},
        "ranked": {"label": "ranked", "settings": {"evaluation.choose_by": "mean_average_precision"}},
    }
    study = toy(tmp_path / "studies", cases=cases)
    _write(study, tmp_path, Run("few", "supervised", 0), 0.3)
    path = write_result(study, tmp_path, Run("few", "ranked", 0), 0.3) / RESULT
    path.write_text(path.read_text().replace('"chosen_by": "macro_f1"', '"chosen_by": "mean_average_precision"'))
    record = tmp_path / "record.json"
    record.write_text(as_text(collect(study, tmp_path, command="again")))
    assert json.loads(record.read_text())["state"].endswith(", by macro_f1 or mean_average_precision")
    assert restore(study, record, tmp_path / "again") == 2
    for case, score in (("supervised", "macro_f1"), ("ranked", "mean_average_precision")):
        result = read_result(folder_of(tmp_path / "again", study, Run("few", case, 0)))
        assert result is not None
        assert result["state"]["chosen_by"] == score


def test_the_systems_are_their_study_with_three_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(systems, "studies", lambda arguments: asked.append(arguments) or 0)
    assert systems.main(["--jobs", "2"]) == 0
    options = command._parser(FOLDER).parse_args(asked[0])
    assert (options.study, options.scale, options.seeds, options.jobs) == ("systems", "cpu", 3, 2)


def test_systems_share_data_and_updates_and_are_scored_alike() -> None:
    study = load_study("systems", "cpu")
    configs = {run.case: study.config(run) for run in study.runs([0])}
    assert {config.train.steps * config.train.inner_steps for config in configs.values()} == {900}
    assert len({(config.simulation, config.evaluation.rule) for config in configs.values()}) == 1
    assert len({json.dumps([s.__dict__ for s in config.data.species]) for config in configs.values()}) == 1
