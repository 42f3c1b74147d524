"""Numbers of the studies: paired differences, records, the end of a training, thresholds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from benchmarks.paper.collect import as_text, collect
from benchmarks.paper.figures import curves_figure, gains_figure
from benchmarks.paper.measure import at_the_end, only_one, thinned
from benchmarks.paper.record import Record
from benchmarks.paper.runner import folder_of
from benchmarks.paper.statistics import difference, estimate
from benchmarks.paper.study import RESULT, Run
from benchmarks.paper.thresholds import best_thresholds
from robpicker_jax.annotations import Particles
from robpicker_jax.evaluation import EvaluationOptions, evaluate
from robpicker_jax.system.errors import InputError
from tests.benchmarks.paper_cases import TOY, toy, write_result


def test_the_t_interval_is_that_of_a_paired_t_test() -> None:
    a, b = [0.5, 0.7, 0.65, 0.8], [0.45, 0.6, 0.66, 0.7]
    found = difference(dict(enumerate(a)), dict(enumerate(b)))
    expected = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.t == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(np.subtract(a, b)))
    assert found.bootstrap is not None
    assert min(np.subtract(a, b)) <= found.bootstrap[0] < found.mean < found.bootstrap[1] <= max(np.subtract(a, b))


def test_only_seeds_that_both_have_are_paired() -> None:
    found = difference({0: 0.9, 1: 0.5, 2: None, 3: 0.7}, {1: 0.4, 2: 0.1, 3: 0.5})
    assert found.n == 2
    assert found.mean == pytest.approx(0.15)
    assert difference({0: 0.9}, {1: 0.4}).n == 0
    assert math.isnan(difference({0: 0.9}, {1: 0.4}).mean)
    one = estimate({0: 0.3})
    assert (one.mean, one.t, one.bootstrap, one.is_clear) == (0.3, None, None, False)


def test_equal_differences_have_intervals_of_no_width() -> None:
    found = estimate({0: 0.25, 1: 0.25, 2: 0.25})
    assert found.t == found.bootstrap == (0.25, 0.25)
    assert found.is_clear


def test_a_record_holds_what_is_finished(tmp_path: Path) -> None:
    study = toy(tmp_path / "studies")
    for run, score in {
        Run("few", "supervised", 0): 0.3,
        Run("few", "supervised", 1): 0.4,
        Run("few", "robpicker", 1): 0.6,
    }.items():
        write_result(study, tmp_path, run, score)
    other = toy(tmp_path / "other", settings=TOY["settings"] | {"train.batch_size": 3})
    write_result(other, tmp_path, Run("many", "supervised", 0), 0.9)  # of other settings
    path = tmp_path / "record.json"
    path.write_text(as_text(collect(study, tmp_path, command="python")))
    record = Record.read(path)
    assert json.loads(path.read_text()) == collect(study, tmp_path, command="python")
    assert list(record.data_sets) == ["few"]
    assert record.cases("few") == ["supervised", "robpicker"]
    assert record.seeds("few", "robpicker") == [1]
    assert record.mean("few", "supervised", "plain/f1/macro").mean == pytest.approx(0.35)
    assert record.difference("few", "robpicker", "plain/f1/ribosome", "supervised").mean == pytest.approx(0.2)
    # Weights of a case without meta networks say nothing, and are not kept.
    assert record.mean("few", "supervised", "weight/ribosome").n == 0
    assert record.curves("few")["robpicker"]["weight_mean/ribosome"] == [[2.0, 0.6], [4.0, 0.6]]
    assert record.cases_with_meta_networks("few") == ["robpicker"]
    assert record.content["finished"].startswith("2020-01-02")


def test_the_end_of_a_training() -> None:
    rows = [
        {"step": step, "weight_mean/a": weight, "label_mass/a": 10.0, "label_gained/a": 5.0, "label_lost/a": 1.0}
        for step, weight in ((50, 9.0), (95, 1.0), (100, 3.0))
    ]
    rows.append({"step": 110, "loss": 0.1})  # of fine-tuning
    found = at_the_end(rows, ["a", "b"], 100)
    assert found["weight/a"] == 2.0
    assert found["gained/a"] == 0.5
    assert found["lost/a"] == pytest.approx(0.1)
    assert found["weight/b"] is None


def test_curves_of_a_former_record_come_in_the_order_of_the_cases_and_the_methods_own_are_drawn(tmp_path: Path) -> None:
    cases = TOY["cases"] | {
        name: {"label": name, "settings": {"train.variant": name}} for name in ("lc_only", "dr_only")
    }
    study = toy(tmp_path / "studies", cases=cases)
    for case, score in {"supervised": 0.2, "robpicker": 0.6, "lc_only": 0.4, "dr_only": 0.02}.items():
        write_result(study, tmp_path, Run("few", case, 0), score)
    former = collect(study, tmp_path, command="python")
    for case in ("robpicker", "dr_only"):  # restored from a record: without curves
        path = folder_of(tmp_path, study, Run("few", case, 0)) / RESULT
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"curves": {"training": [], "validation": []}}))
    record = Record(collect(study, tmp_path, command="python", former=former))
    assert list(record.curves("few")) == ["robpicker", "lc_only", "dr_only"]
    assert record.curves("few")["robpicker"] == former["curves"]["few"]["robpicker"]
    drawn = curves_figure(Record(record.content | {"cases": dict(reversed(record.content["cases"].items()))}))
    assert drawn is not None
    assert drawn.get_suptitle().startswith("RobPicker")
    gains = gains_figure(record)
    assert gains is not None
    over_correction, over_weights = gains.axes[0].containers
    labels = [tick.get_text() for tick in gains.axes[0].get_xticklabels()]
    assert labels == [*reversed(record.species), "medium (group)", "large (group)"]
    assert [bar.get_height() for bar in over_correction] == [pytest.approx(50.0)] * len(labels)
    assert all(np.isnan(bar.get_height()) for bar in over_weights)  # nothing to compare with


def test_a_long_training_has_a_short_curve() -> None:
    rows = [{"step": step, "kind": "train", "loss": float(step)} for step in range(1, 301)]
    found = thinned(rows, 300)
    assert len(found) == 30
    assert found[0] == {"step": 10.0, "loss": 5.5}
    assert found[-1]["step"] == 300


@pytest.mark.parametrize(("false_score", "threshold"), [(0.4, 0.55), (0.95, 0.0), (0.8, 0.0)])
def test_thresholds_keep_what_is_right(false_score: float, threshold: float) -> None:
    """A false pick below the true ones is cut off halfway; one above them costs more to drop than to keep."""
    truth = Particles(np.array([[5.0, 5, 5], [15, 5, 5]]), np.array([1, 1]))
    picks = Particles(
        np.array([[5.0, 5, 5], [15, 5, 5], [25, 5, 5]]), np.array([1, 1, 1]), scores=np.array([0.9, 0.7, false_score])
    )
    options = EvaluationOptions(["a", "nowhere"], rule="tolerance", tolerance_vox=2.0)
    assert best_thresholds(evaluate({"t": truth}, {"t": picks}, options)) == [pytest.approx(threshold), 0.0]


def test_two_processes_cannot_be_at_one_run(tmp_path: Path) -> None:
    with (
        only_one(tmp_path / "lock"),
        pytest.raises(InputError, match="another process"),
        only_one(tmp_path / "lock", wait=False),
    ):
        pass
    with only_one(tmp_path / "lock", wait=False):
        pass
