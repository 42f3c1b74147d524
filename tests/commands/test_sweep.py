"""`sweep`: trials, halving, going on, and what is refused; on a tiny data set."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from robpicker_jax.commands import main_job, sweep
from robpicker_jax.commands.cli import call
from robpicker_jax.config import load_config
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.training.run_folder import trained_to


@pytest.fixture
def common(tiny_config: Path, tiny_data: Path, tmp_path: Path) -> list[str]:
    """A sweep over the learning rate of a supervised tiny training."""
    base = ["--config", str(tiny_config), "--data.dir", str(tiny_data), "--train.variant", "supervised"]
    return [*base, "--workdir", str(tmp_path / "sweep"), "--over", "train.inner.learning_rate=1e-4..1e-2:log"]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_halving_trains_all_for_a_while_and_the_best_to_the_end_and_goes_on(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, trained = tmp_path / "sweep", []
    before = main_job.run

    def counted(config: object, workdir: Path, *, results: bool = True) -> None:
        trained.append((workdir.name, config.train.steps, results))  # type: ignore[attr-defined]
        if len(trained) == 3:
            raise KeyboardInterrupt
        before(config, workdir, results=results)  # type: ignore[arg-type]

    monkeypatch.setattr(main_job, "run", counted)
    arguments = [*common, "--method", "halving", "--trials", "2", "--min-steps", "2", "--eta", "2"]
    assert call(sweep.main, arguments) == 130
    assert call(sweep.main, arguments) == 0
    rows = table(folder)
    best = max(rows, key=lambda row: (row["steps"] == "4", float(row["macro_f1"])))["trial"]
    assert sorted(row["steps"] for row in rows) == ["2", "4"]
    # The two first rungs once, the interrupted prolonging again, and the whole job of the best; nothing else twice.
    name = f"trial_00{best}"
    assert trained == [
        ("trial_000", 2, False),
        ("trial_001", 2, False),
        (name, 4, False),
        (name, 4, False),
        (name, 4, True),
    ]
    assert {number: trained_to(folder / f"trial_00{number}") for number in (0, 1)} == {
        int(best): 4,
        1 - int(best): 2,
    }
    assert (folder / name / "report" / "index.html").is_file()
    assert not (folder / f"trial_00{1 - int(best)}" / "evaluation.json").exists()
    chosen = load_config(folder / "best.yaml")
    assert chosen.train.inner.learning_rate == pytest.approx(
        float(rows[int(best)]["train.inner.learning_rate"]), rel=1e-12
    )
    for row in rows:
        scores = [
            entry["macro_f1"]
            for entry in read_metrics(folder / f"trial_00{row['trial']}" / "metrics.jsonl")
            if entry["kind"] == "validation"
        ]
        assert float(row["macro_f1"]) == pytest.approx(max(score or 0.0 for score in scores), abs=1e-6)
    assert call(sweep.main, [*arguments[:-5], "3", *arguments[-4:]]) == 2
    assert "holds a sweep with other settings (trials)" in capsys.readouterr().err


def test_what_is_refused_before_anything_is_trained(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for further, words in (
        (["--over", "train.inner.learning_rat=1|2"], "did you mean train.inner.learning_rate?"),
        (["--over", "train.batch_size=two|3"], "train.batch_size"),
        (["--method", "grid"], "a grid needs values"),
        (["--trials", "0"], "must be 1 or more"),
        (["--method", "annealing"], "invalid choice"),
    ):
        capsys.readouterr()
        assert call(sweep.main, [*common, *further]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "sweep").exists()


def test_a_trial_that_fails_is_passed_over_and_said(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robpicker_jax.system.errors import InputError

    def failing(config: object, workdir: Path, *, results: bool = True) -> None:
        raise InputError("the loss is not finite", where=workdir)

    monkeypatch.setattr(main_job, "run", failing)
    assert call(sweep.main, [*common, "--trials", "2"]) == 2
    assert "every trial failed" in capsys.readouterr().err
    assert [("the loss is not finite" in row["failed"]) for row in table(tmp_path / "sweep")] == [True, True]
