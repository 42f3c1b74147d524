"""`sweep`: its methods, going on, and what is refused; on a tiny data set."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from robpicker_jax.commands import main_job, sweep
from robpicker_jax.commands.cli import call
from robpicker_jax.config import load_config
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.training.run_folder import trained_to
from robpicker_jax.tuning import PROPOSALS, Done, parse_space

RATE, WIDTHS = "train.inner.learning_rate", "model.widths"
RANGE = f"{RATE}=1e-4..1e-2:log"


@pytest.fixture
def base(tiny_config: Path, tiny_data: Path, tmp_path: Path) -> list[str]:
    """A sweep of supervised tiny trainings."""
    data = ["--config", str(tiny_config), "--data.dir", str(tiny_data), "--train.variant", "supervised"]
    return [*data, "--workdir", str(tmp_path / "sweep")]


@pytest.fixture
def common(base: list[str]) -> list[str]:
    """A sweep over the learning rate."""
    return [*base, "--over", RANGE]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def best_score(trial: Path) -> float:
    """The best validation score of a trial's own record."""
    rows = [entry for entry in read_metrics(trial / "metrics.jsonl") if entry["kind"] == "validation"]
    assert rows
    return max(row["macro_f1"] or 0.0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "over", "count"),
    [
        ("random", [RANGE, f"{WIDTHS}=[4,6]|[3,5]"], 2),
        ("grid", [f"{RATE}=1e-3|3e-3", f"{WIDTHS}=[4,6]"], 2),  # there are no more, whatever --trials says
        ("optuna", [RANGE], 3),
    ],
)
def test_a_method_trains_its_trials_and_does_the_whole_job_with_the_best(
    method: str, over: list[str], count: int, base: list[str], tmp_path: Path
) -> None:
    if method == "optuna":
        pytest.importorskip("optuna", reason="Optuna is not installed (extra optuna)")
    folder = tmp_path / "sweep"
    arguments = [*base, "--method", method, "--trials", "4" if method == "grid" else str(count)]
    arguments += [word for values in over for word in ("--over", values)]
    assert call(sweep.main, arguments) == 0

    rows, fields = table(folder), [values.partition("=")[0] for values in over]
    assert [(row["trial"], row["steps"], row["failed"]) for row in rows] == [(str(n), "4", "") for n in range(count)]
    space, done = parse_space(over), []
    for row in rows:
        trial = folder / f"trial_00{row['trial']}"
        values = {key: json.loads(row[key]) for key in fields}
        assert values == PROPOSALS[method](space, len(done), done, 0)
        # What the table says was tried is what was trained, and its score is what that training found.
        trained = load_config(trial / "config.yaml")
        assert trained.train.inner.learning_rate == pytest.approx(float(values[RATE]), rel=1e-12)
        assert list(trained.model.widths) == values.get(WIDTHS, [4, 6])
        score = best_score(trial)
        assert float(row["macro_f1"]) == pytest.approx(score, abs=1e-6)
        done.append(Done(values, score))
    assert len({json.dumps(trial.values) for trial in done}) == count
    best = max(range(count), key=lambda number: (done[number].score, -number))
    assert [number for number in range(count) if (folder / f"trial_00{number}/evaluation.json").exists()] == [best]
    chosen = load_config(folder / "best.yaml").train.inner.learning_rate
    assert chosen == pytest.approx(float(done[best].values[RATE]), rel=1e-12)
    before = (folder / "sweep.csv").read_bytes()
    assert call(sweep.main, arguments) == 0  # nothing is left to do
    assert (folder / "sweep.csv").read_bytes() == before


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
        assert float(row["macro_f1"]) == pytest.approx(best_score(folder / f"trial_00{row['trial']}"), abs=1e-6)
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
