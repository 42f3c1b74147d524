"""The studies: what a file describes, what the runner does and leaves alone, and a whole toy study."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import jax
import pytest

from benchmarks.paper import __main__ as command
from benchmarks.paper.collect import as_text, collect
from benchmarks.paper.restore import restore
from benchmarks.paper.runner import Runner, folder_of, read_result
from benchmarks.paper.study import (
    JOB,
    METRICS_VERSION,
    RESULT,
    SCALES,
    Run,
    Scale,
    fingerprint,
    load_study,
    study_names,
)
from robpicker_jax.config import load_config
from robpicker_jax.models import build_backbone
from robpicker_jax.system.errors import InputError
from tests.benchmarks.paper_cases import TOY, result_of, toy, write_result, write_studies

SUPERVISED, ROBPICKER = Run("few", "supervised", 0), Run("few", "robpicker", 0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", study_names())
def test_every_study_can_be_configured(name: str, scale: Scale) -> None:
    study = load_study(name, scale)
    prints = [study.fingerprint(run) for run in study.runs([0])]
    assert len(set(prints)) == len(prints)


def test_settings_come_from_base_study_data_set_and_case(tmp_path: Path) -> None:
    study = toy(tmp_path)
    assert len(list(study.runs(range(2)))) == 2 * 2 * 3
    config = study.config(Run("many", "supervised", 3))
    assert config.train.variant == "supervised"
    assert config.train.meta_warmup_steps == 2
    assert config.label_noise.missing == 0.5
    assert config.data.species[0].copies == 4
    assert (config.simulation.seed, config.label_noise.seed, config.train.seed) == (3, 3, 3)
    full = load_study("toy", "full", tmp_path)
    assert full.config(Run("few", "five", 0)).train.inner_steps == 1


def test_a_case_may_be_of_some_data_sets_only(tmp_path: Path) -> None:
    cases = {"supervised": {"label": "a"}, "robpicker": {"label": "b", "only": ["many"]}}
    runs = toy(tmp_path, cases=cases, references=["supervised"]).runs([0])
    assert [(run.data_set, run.case) for run in runs] == [
        ("few", "supervised"),
        ("many", "supervised"),
        ("many", "robpicker"),
    ]


def test_steps_count_updates(tmp_path: Path) -> None:
    study = toy(tmp_path)
    one, five = (study.config(Run("few", case, 0)).train for case in ("robpicker", "five"))
    assert five.inner_steps == 2
    assert five.steps * five.inner_steps == one.steps
    assert five.meta_warmup_steps * five.inner_steps == one.meta_warmup_steps
    with pytest.raises(InputError, match="multiple"):
        toy(tmp_path / "odd", cpu={"train.steps": 5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": ["nobody"]}, "nobody"),
        ({"cases": {}}, "cases"),
        ({"cases": {"supervised": {"label": "a", "settings": {"train.stepz": 3}}}}, "stepz"),
        ({"cases": {"supervised": {"label": "a", "setting": {}}}}, "setting"),
        ({"figures": ["cartoon"]}, "figures"),
        ({"cases": {"supervised": {"label": "a", "only": ["nowhere"]}}}, "'nowhere' is no data set"),
    ],
)
def test_a_faulty_study_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        toy(tmp_path, **changes)


def test_an_unknown_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="toy"):
        load_study("nothing", "cpu", write_studies(tmp_path))


class Pretence(Runner):
    """A runner whose runs only write down what they were asked to do."""

    fails: tuple[Run, ...] = ()

    def _execute(self, folder: Path, cores: str) -> int:
        done.append((folder, cores))
        run = next(run for run in self.study.runs(self.seeds) if folder_of(self.out, self.study, run) == folder)
        if run in self.fails:
            return 1
        (folder / RESULT).write_text(json.dumps(result_of(self.study, run, 0.5)), encoding="utf-8")
        return 0


done: list[tuple[Path, str]] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


def test_finished_runs_are_not_repeated_and_failed_ones_are(tmp_path: Path) -> None:
    study = toy(tmp_path / "studies")
    write_result(study, tmp_path, SUPERVISED, 0.3)
    first = Pretence(study, tmp_path, [0])
    first.fails = (ROBPICKER,)
    assert first.run() == [ROBPICKER]
    assert len(done) == 5
    done.clear()
    assert Pretence(study, tmp_path, [0]).run() == []
    assert [folder for folder, _ in done] == [folder_of(tmp_path, study, ROBPICKER)]


def test_what_another_runner_finishes_meanwhile_is_left_alone(tmp_path: Path) -> None:
    study = toy(tmp_path / "studies")

    class Beside(Pretence):
        def _execute(self, folder: Path, cores: str) -> int:
            write_result(study, tmp_path, Run("many", "five", 0), 0.9)
            return super()._execute(folder, cores)

    assert Beside(study, tmp_path, [0]).run() == []
    assert len(done) == 5
    left = read_result(folder_of(tmp_path, study, Run("many", "five", 0)))
    assert left is not None
    assert left["metrics"]["plain/f1/macro"] == 0.9


def test_a_run_is_told_its_configuration_and_shared_data(tmp_path: Path) -> None:
    study = toy(tmp_path / "studies")
    Pretence(study, tmp_path, [0]).run()
    configs = {run: load_config(folder_of(tmp_path, study, run) / JOB) for run in study.runs([0])}
    for run, config in configs.items():
        assert fingerprint(config) == fingerprint(study.config(run))
    assert configs[SUPERVISED].data.dir == configs[ROBPICKER].data.dir
    assert configs[SUPERVISED].data.dir != configs[Run("many", "supervised", 0)].data.dir


def test_runs_of_other_settings_are_refused_or_replaced(tmp_path: Path) -> None:
    before = toy(tmp_path / "before")
    folder = write_result(before, tmp_path, SUPERVISED, 0.3)
    settings = TOY["settings"] | {"train.batch_size": 3}
    after = toy(tmp_path / "after", settings=settings)
    with pytest.raises(InputError, match="other settings"):
        Pretence(after, tmp_path, [0]).run()
    assert Pretence(after, tmp_path, [0], replace_changed=True).run() == []
    result = read_result(folder)
    assert result is not None
    assert result["config"]["train"]["batch_size"] == 3


@pytest.mark.parametrize("version", [None, METRICS_VERSION - 1, METRICS_VERSION + 1])
def test_runs_whose_figures_mean_something_else_are_refused_or_replaced(tmp_path: Path, version: int | None) -> None:
    study = toy(tmp_path / "studies")
    folder = write_result(study, tmp_path, SUPERVISED, 0.3)
    content = json.loads((folder / RESULT).read_text())
    content.pop("metrics_version")
    content |= {} if version is None else {"metrics_version": version}
    (folder / RESULT).write_text(json.dumps(content))
    with pytest.raises(InputError, match="metrics"):
        Pretence(study, tmp_path, [0]).run()
    with pytest.raises(InputError, match="no finished run"):
        collect(study, tmp_path, command="again")
    assert Pretence(study, tmp_path, [0], replace_changed=True).run() == []
    result = read_result(folder)
    assert result is not None
    assert result["metrics"]["plain/f1/macro"] == 0.5


def test_a_record_gives_its_runs_back_where_its_figures_mean_the_same(tmp_path: Path) -> None:
    study = toy(tmp_path / "studies")
    write_result(study, tmp_path / "before", SUPERVISED, 0.3)
    content = collect(study, tmp_path / "before", command="again")
    assert content["metrics_version"] == METRICS_VERSION
    path = tmp_path / "record.json"
    for version in (None, METRICS_VERSION + 1):
        other = {key: value for key, value in content.items() if key != "metrics_version"}
        path.write_text(as_text(other if version is None else other | {"metrics_version": version}))
        assert restore(study, path, tmp_path / "runs") == 0
    path.write_text(as_text(content))
    assert restore(study, path, tmp_path / "runs") == 1
    result = read_result(folder_of(tmp_path / "runs", study, SUPERVISED))
    assert result is not None
    assert result["fingerprint"] == fingerprint(study.config(SUPERVISED))
    assert result["metrics"]["plain/f1/macro"] == 0.3


def test_runs_from_a_record_keep_all_that_it_says_of_where_they_were_made(tmp_path: Path) -> None:
    study = toy(tmp_path / "studies")
    write_result(study, tmp_path / "before", SUPERVISED, 0.3)
    content = collect(study, tmp_path / "before", command="again")
    content |= {"commits": ["0123456789ab", "ba9876543210-dirty"], "machines": [*content["machines"], "slate (cpu)"]}
    path = tmp_path / "record.json"
    path.write_text(as_text(content))
    assert restore(study, path, tmp_path / "runs") == 1
    write_result(study, tmp_path / "runs", ROBPICKER, 0.4)
    again = collect(study, tmp_path / "runs", command="again")
    assert again["commits"] == content["commits"]
    assert again["machines"] == content["machines"]
    assert again["versions"] == content["versions"]


def test_a_run_that_another_study_has_done_is_taken_from_there(tmp_path: Path) -> None:
    study = toy(tmp_path / "studies")
    other = load_study("other", "cpu", _renamed(tmp_path / "studies"))
    write_result(other, tmp_path, SUPERVISED, 0.7)
    Pretence(study, tmp_path, [0]).run()
    assert len(done) == 5
    taken = read_result(folder_of(tmp_path, study, SUPERVISED))
    assert taken is not None
    assert taken["metrics"]["plain/f1/macro"] == 0.7


def _renamed(folder: Path) -> Path:
    (folder / "other.yaml").write_bytes((folder / "toy.yaml").read_bytes())
    return folder


def test_a_setting_that_is_new_since_does_not_make_a_run_stale(tmp_path: Path) -> None:
    study = toy(tmp_path / "studies")
    folder = write_result(study, tmp_path, SUPERVISED, 0.3)
    content = json.loads((folder / RESULT).read_text())
    del content["config"]["train"]["meta_alpha"]
    (folder / RESULT).write_text(json.dumps(content))
    Pretence(study, tmp_path, [0]).run()
    assert len(done) == 5


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are shared out on Linux alone")
def test_jobs_have_cores_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5, 6})
    study = toy(tmp_path / "studies")
    Pretence(study, tmp_path, [0], jobs=2).run()
    assert {cores for _, cores in done} <= {"0,1", "5,6"}
    with pytest.raises(InputError, match="cores"):
        Runner(study, tmp_path, [0], jobs=5)


def test_what_is_finished_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = toy(tmp_path / "studies")
    for run, score in ((SUPERVISED, 0.3), (ROBPICKER, 0.5), (Run("few", "robpicker", 1), 0.6)):
        write_result(study, tmp_path, run, score)
    options = ["--study", "toy", "--draw-only", "--out", str(tmp_path), "--docs", str(tmp_path / "docs")]
    assert command.main(options, folder=tmp_path / "studies") == 0
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "not yet measured" in page  # at the other scale
    assert "| RobPicker | 2 |" in page
    drawn = sorted(path.name for path in (tmp_path / "docs" / "images").iterdir())
    assert len(drawn) == 4
    for name in drawn:
        assert f"(images/{name})" in page
    (tmp_path / "docs" / "results.md").unlink()
    assert command.main(["--draw-only", *options[3:]], folder=tmp_path / "studies") == 0
    assert (tmp_path / "docs" / "results.md").read_text() == page


def test_some_cases_alone_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Runner", Pretence)
    folder = write_studies(tmp_path / "studies")
    options = ["--study", "toy", "--seeds", "2", "--out", str(tmp_path), "--docs", str(tmp_path / "docs")]
    assert command.main([*options, "--cases", "supervised"], folder=folder) == 0
    assert {path.parent.name for path, _ in done} == {"supervised"}
    assert len(done) == 4
    with pytest.raises(InputError, match="nobody"):
        command.main([*options, "--cases", "nobody"], folder=folder)
    with pytest.raises(InputError, match="--data-sets"):
        command.main([*options, "--data-sets", "none"], folder=folder)
    # What others have finished is gathered too.
    assert command.main([*options, "--cases", "robpicker"], folder=folder) == 0
    record = json.loads((tmp_path / "docs" / "results" / "toy_cpu.json").read_text())
    assert list(record["metrics"]["few"]) == ["supervised", "robpicker"]
    done.clear()
    assert command.main([*options, "--data-sets", "many"], folder=folder) == 0
    assert {path.parents[1].name for path, _ in done} == {"many"}


def test_a_quick_study_is_one_of_each_kind(tmp_path: Path) -> None:
    small = toy(tmp_path, references=["robpicker"]).smaller({"train.batch_size": 1})
    assert [str(run) for run in small.runs([0])] == ["few, robpicker, seed 0", "few, supervised, seed 0"]
    config = small.config(next(iter(small.runs([0]))))
    assert config.train.batch_size == 1
    assert [species.copies for species in config.data.species] == [1, 1]


def test_a_study_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="toy"):
        command.main(["--docs", str(tmp_path)], folder=write_studies(tmp_path / "studies"))


@pytest.mark.slow
def test_a_whole_study_in_processes(tmp_path: Path) -> None:
    """One data set, two cases; what a killed run left is gone on with."""
    changes = {"data_sets": {"few": TOY["data_sets"]["few"]}}
    changes["cases"] = {name: TOY["cases"][name] for name in ("supervised", "robpicker")}
    study = toy(tmp_path / "studies", **changes)
    options = ["--study", "toy", "--seeds", "1", "--out", str(tmp_path), "--docs", str(tmp_path / "docs")]
    assert command.main(options, folder=tmp_path / "studies") == 0
    folder = folder_of(tmp_path, study, ROBPICKER)
    first = read_result(folder)
    assert first is not None
    assert {"plain/f1/macro", "calibrated/f1/macro", "correction/error_after", "gained/ribosome"} <= set(
        first["metrics"]
    )
    backbone = build_backbone(study.config(ROBPICKER).model, 1 + len(study.config(ROBPICKER).data.species))
    leaves = jax.tree.leaves(jax.eval_shape(backbone.init, jax.random.key(0))[0])
    assert first["metrics"]["parameters"] == sum(math.prod(leaf.shape) for leaf in leaves)
    assert 0 < first["metrics"]["training_seconds"] < first["seconds"]
    record = json.loads((tmp_path / "docs" / "results" / "toy_cpu.json").read_text())
    assert record["metrics"]["few"]["robpicker"]["values"]["plain/f1/macro"] == [
        pytest.approx(first["metrics"]["plain/f1/macro"], abs=1e-3)
    ]
    before = (folder / "metrics.jsonl").read_bytes()
    assert command.main(options, folder=tmp_path / "studies") == 0
    assert (folder / "metrics.jsonl").read_bytes() == before
