"""The ablation benchmark on a tiny data set: what it leaves, that it goes on where it stopped, and its rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import ablation
from benchmarks._ablation_figures import Curves, comparison_figure
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.training.trainer import Interrupted
from tests.tiny import TINY


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration, validated and saved after every step."""
    path = tmp_path_factory.mktemp("ablation") / "tiny.yaml"
    train = {**TINY["train"], "validate_every": 1, "checkpoint_every": 1}
    path.write_text(yaml.safe_dump({**TINY, "train": train}), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_study_resumes_and_reports(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = config.parent / "study"
    command = ["--config", str(config), "--out", str(out), "--steps", "2", "--seeds", "1"]
    command += ["--variants", "", "--methods", "tangent,none", "--json", str(out / "rows.json")]

    # The second run is stopped after its first step.
    real_fit, calls = ablation.fit, []

    def stopped_fit(experiment, batches, workdir, **options):  # type: ignore[no-untyped-def]
        calls.append(workdir.name)
        if len(calls) < 2:
            return real_fit(experiment, batches, workdir, **options)
        step = experiment.step

        def interrupted(state, train, meta):  # type: ignore[no-untyped-def]
            if int(state.step) == 1:
                raise Interrupted
            return step(state, train, meta)

        object.__setattr__(experiment, "step", interrupted)
        return real_fit(experiment, batches, workdir, **options)

    monkeypatch.setattr(ablation, "fit", stopped_fit)
    with pytest.raises(Interrupted):
        ablation.main(command)
    assert calls == ["robpicker-tangent-seed0", "robpicker-none-seed0"]
    runs = out / "2-updates"
    assert (runs / calls[0] / "evaluation.json").is_file()
    assert not (runs / calls[1] / "evaluation.json").exists()
    first = (runs / calls[0] / "metrics.jsonl").read_bytes()

    # What is finished can be drawn already; what is not has no figures.
    ablation.main([*command, "--draw-only"])
    rows = {(row["case"], row["metric"]): row for row in json.loads((out / "rows.json").read_text())}
    assert rows["methods: none", "test F1, mean"]["value"] is None
    assert "finished" in rows["methods: none", "test F1, mean"]["why"]

    # The same command finishes the second run from its first step, and leaves the first alone.
    started = []

    def watched_fit(experiment, batches, workdir, **options):  # type: ignore[no-untyped-def]
        def source(start):  # type: ignore[no-untyped-def]
            started.append((workdir.name, start))
            return batches(start)

        return real_fit(experiment, source, workdir, **options)

    monkeypatch.setattr(ablation, "fit", watched_fit)
    ablation.main(command)
    assert started == [(calls[1], 1)]
    assert (runs / calls[0] / "metrics.jsonl").read_bytes() == first
    assert sorted(json.loads((out / "step_times.json").read_text())) == ["robpicker-none", "robpicker-tangent"]
    assert (out / "ablation_methods.png").read_bytes().startswith(b"\x89PNG")

    head, *figures = json.loads((out / "rows.json").read_text())
    assert head["case"] == "machine"
    assert head["date"]
    assert all({"benchmark", "case", "metric", "value", "unit"} <= set(row) for row in figures)
    rows = {(row["case"], row["metric"]): row["value"] for row in figures}
    last = read_metrics(runs / calls[0] / "metrics.jsonl")[-1]
    assert last["step"] == 2
    assert last["kind"] == "validation"
    assert rows["methods: tangent", "validation loss, last, mean"] == pytest.approx(last["outer_loss"])
    assert rows["methods: tangent", "validation loss, last, standard deviation over seeds"] is None
    assert rows["methods: tangent", "time an update"] > 0

    # A finished study is only read.
    started.clear()
    ablation.main(command)
    assert started == []
    assert "tangent" in capsys.readouterr().out


def test_differences_are_paired_by_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = ablation.load_config(Path(ablation.__file__).with_name("ablation.yaml"))
    study = ablation.Study(base, tmp_path, ablation.comparisons(["robpicker", "supervised"], []), 3)
    scores = {"supervised": {0: 0.1, 1: 0.5, 2: 0.3}, "robpicker": {0: 0.2, 1: 0.6}}
    monkeypatch.setattr(study, "_scores", lambda case: {"test F1": scores[case.variant]})
    rows = {(row["case"], row["metric"]): row for row in study.rows()}
    difference = rows["variants: robpicker", "test F1, minus supervised, mean"]
    assert difference["value"] == pytest.approx(0.1)
    assert difference["seeds"] == 2
    spread = rows["variants: robpicker", "test F1, minus supervised, standard deviation over seeds"]
    assert spread["value"] == pytest.approx(0.0, abs=1e-12)
    assert rows["variants: supervised", "test F1, standard deviation over seeds"]["value"] == pytest.approx(0.2)


def test_cases_count_updates_and_share_runs() -> None:
    base = ablation.load_config(Path(ablation.__file__).with_name("ablation.yaml"))
    groups = ablation.comparisons(["robpicker"], ["unrolled", "truncated"])
    study = ablation.Study(base, Path("nowhere"), groups, 2)
    assert [case.name for case in study.cases()] == ["robpicker-unrolled", "robpicker-truncated"]
    truncated = study.config(study.cases()[1], 1).train
    assert truncated.steps * truncated.inner_steps == base.train.steps
    assert truncated.validate_every * truncated.inner_steps == base.train.validate_every
    assert truncated.seed == 1
    with pytest.raises(InputError, match="gradient_descent"):
        ablation.comparisons([], ["gradient_descent"])
    with pytest.raises(InputError, match="variant"):
        ablation.comparisons(["nothing"], [])
    with pytest.raises(InputError, match="multiple"):
        ablation.configured(ablation.replace(base, train=ablation.replace(base.train, steps=7)),
                            study.cases()[1], 0, Path("nowhere"))  # fmt: skip


def test_figure_shows_mean_and_range() -> None:
    updates = np.array([10.0, 20.0])
    curves = {
        "supervised": Curves(updates, 0.5, np.array([[0.8, 0.6], [0.6, 0.2]]), np.zeros((2, 2))),
        "robpicker": Curves(updates, None, np.array([[0.5, 0.3]]), np.ones((1, 2))),
        "lc_only": Curves(np.zeros(0), None, np.zeros((0, 0)), np.zeros((0, 0))),
    }
    figure = comparison_figure(curves, reference="supervised")
    loss, loss_in_time = figure.axes[0], figure.axes[1]
    lines = {line.get_label(): line for line in loss.lines}
    assert set(lines) == {"supervised", "robpicker"}
    np.testing.assert_allclose(lines["supervised"].get_ydata(), [0.7, 0.4])
    assert [line.get_label() for line in loss_in_time.lines] == ["supervised"]
    np.testing.assert_allclose(np.diff(loss_in_time.lines[0].get_xdata()), [5.0])
