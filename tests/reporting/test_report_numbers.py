"""What the report computes for itself: matches, curves, bins, and a run's folder read back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.commands.report import main
from robpicker_jax.config import dump_config, load_config
from robpicker_jax.reporting import (
    ReportData,
    SpeciesInfo,
    TomogramView,
    load_workdir,
    save_inputs,
)
from robpicker_jax.reporting.curves import inner_loss
from robpicker_jax.reporting.image import scale_bar, window
from robpicker_jax.reporting.outcomes import matches_of
from robpicker_jax.reporting.slices import fullest_slice
from robpicker_jax.reporting.stored import binned
from robpicker_jax.reporting.tables import read_evaluation, series, smooth
from robpicker_jax.reporting.weights import rank_correlation
from robpicker_jax.system.errors import InputError
from tests.reporting.report_data import (
    SPECIES,
    Page,
    make_data,
    page_text,
)

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def data() -> ReportData:
    return make_data(tomograms=1)


def test_matches_are_used_as_given_and_made_otherwise() -> None:
    truth = Particles([[10, 10, 10], [20, 10, 10], [30, 10, 10]], [1, 1, 2])
    picks = Particles([[11, 10, 10], [10, 10, 11], [30, 10, 10], [21, 10, 10]], [1, 1, 1, 1])
    view = TomogramView("t", np.zeros((20, 20, 40), np.float32), truth, picks)
    species = [SpeciesInfo("a", 3.0), SpeciesInfo("b", 3.0)]
    made = matches_of(view, species)
    assert made is not None
    assert sorted(made[:2]) == [-1, 0]  # one particle, two picks near it
    assert list(made[2:]) == [-1, 1]  # another class is no match
    given = np.array([-1, -1, -1, 0])
    assert matches_of(dataclasses.replace(view, matches=given), species) is not None
    np.testing.assert_array_equal(matches_of(dataclasses.replace(view, matches=given), species), given)
    with pytest.raises(ValueError, match="matches"):
        dataclasses.replace(view, matches=np.array([0, 1, 2, 3]))
    assert matches_of(dataclasses.replace(view, truth=None), species) is None


def test_fullest_slice_and_its_bins() -> None:
    truth = Particles([[5, 5, 3], [15, 5, 12], [25, 5, 12.4]], [1, 1, 1])
    view = TomogramView("t", np.zeros((8, 10, 15), np.float32), truth, Particles.empty(), bin_zyx=(2, 2, 2))
    assert view.shape_zyx == (16, 20, 30)
    assert 11 <= fullest_slice(view, np.array([0.0, 2.0])) <= 13


def test_binning_averages_blocks_and_keeps_places() -> None:
    rng = np.random.default_rng(0)
    density = rng.normal(size=(7, 9, 12)).astype(np.float32)
    view = TomogramView("t", density, None, Particles.empty())
    small = binned(view, max_edge=6, max_depth=4)
    assert small.bin_zyx == (2, 2, 2)
    assert small.density.shape == (3, 4, 6)
    for z, y, x in np.ndindex(*small.density.shape):
        block = density[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        np.testing.assert_allclose(small.density[z, y, x], block.mean(), atol=1e-6)
    assert binned(view) is view


def test_history_rows_of_a_resumed_run_count_once() -> None:
    history = [
        {"kind": "train", "step": 20, "inner_loss": 5.0},
        {"kind": "train", "step": 10, "inner_loss": 1.0},
        {"kind": "train", "step": 20, "inner_loss": 2.0},
        {"kind": "train", "step": 30, "inner_loss": float("nan")},
        {"kind": "train", "step": 40, "inner_loss": None},
        {"kind": "validation", "step": 10, "inner_loss": 9.0},
        {"kind": "train", "inner_loss": 9.0},
    ]
    steps, values = series(history, "train", "inner_loss")
    assert list(steps) == [10, 20]
    assert list(values) == [1.0, 2.0]


def test_inner_loss_is_shown_free_of_the_weights() -> None:
    rng = np.random.default_rng(0)
    losses, weights = rng.uniform(size=(2, 5, 8))
    history = [
        {"kind": "train", "step": i, "inner_loss": float(np.mean(w * x)), "weight_mean": float(np.mean(w))}
        for i, (x, w) in enumerate(zip(losses, weights, strict=True))
    ]
    expected = [np.average(x, weights=w) for x, w in zip(losses, weights, strict=True)]
    np.testing.assert_allclose(inner_loss(history)[1], expected)
    without = [{key: row[key] for key in ("kind", "step", "inner_loss")} for row in history]
    np.testing.assert_allclose(inner_loss(without)[1], [row["inner_loss"] for row in history])


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=40), st.integers(2, 11))
def test_smoothing_is_the_mean_of_each_window(values: list[float], window_length: int) -> None:
    half = window_length // 2
    expected = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    np.testing.assert_allclose(smooth(np.array(values), window_length), expected, atol=1e-8)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, float).T
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert rank_correlation(a, b) == 0
    else:
        np.testing.assert_allclose(rank_correlation(a, b), spearmanr(a, b).statistic, atol=1e-12)


def test_evaluation_is_read_whole_or_in_part(data: ReportData) -> None:
    read = read_evaluation(data.evaluation)
    assert [score.name for score in read.classes] == [s[0] for s in SPECIES]
    assert read.macro.f1 == pytest.approx(np.mean([score.f1 for score in read.classes]))
    assert {name for group in read.groups for name in group.members} == {s[0] for s in SPECIES}
    assert all(score.curve is not None and score.true == 12 for score in read.classes)
    sparse = read_evaluation({"classes": {"a": {"f1": 0.5}, "b": {"f1": None}}})
    assert sparse.macro.f1 == 0.5
    assert sparse.classes[1].f1 is None
    assert read_evaluation({}).classes == ()


@given(st.floats(20, 5000), st.floats(1, 50))
def test_scale_bars_are_round_and_fit(width: float, voxel: float) -> None:
    length, text = scale_bar(width, voxel)
    assert float(text.removesuffix(" nm")) * 10 == pytest.approx(length * voxel)
    if 250 <= width * voxel <= 100_000:
        assert 0.08 * width < length < 0.4 * width


def test_window_is_never_empty() -> None:
    assert window(np.full((3, 3), 2.0)) == (1.5, 2.5)
    assert window(np.full((3, 3), np.nan)) == (0.0, 1.0)


def make_workdir(path: Path, data: ReportData, variant: str = "robpicker") -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(f"train:\n  variant: {variant}\n", encoding="utf-8")
    (path / "versions.json").write_text(json.dumps({"jax": "0.10.2", "machine": "a machine"}), encoding="utf-8")
    rows = "".join(json.dumps(row) + "\n" for row in data.history)
    (path / "metrics.jsonl").write_text(rows + '{"step": 7, "ki', encoding="utf-8")
    (path / "evaluation.json").write_text(json.dumps(data.evaluation), encoding="utf-8")
    return path


def test_report_again_from_the_workdir(data: ReportData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = make_workdir(tmp_path / "run", data)
    save_inputs(dataclasses.replace(data, absent={"labels": "kept reason"}), workdir)
    loaded = load_workdir(workdir)
    assert loaded.title == data.title
    assert loaded.species == data.species
    assert loaded.evaluation == data.evaluation
    assert len(loaded.history) == len(data.history)
    assert loaded.absent == {"labels": "kept reason"}
    assert loaded.comparison is not None
    for view, kept in zip(data.tomograms, loaded.tomograms, strict=True):
        assert (view.name, view.voxel_size_angstrom) == (kept.name, kept.voxel_size_angstrom)
        np.testing.assert_array_equal(view.picks.positions_vox, kept.picks.positions_vox)
        np.testing.assert_array_equal(view.picks.scores, kept.picks.scores)
        np.testing.assert_array_equal(view.truth.labels, kept.truth.labels)
        assert np.corrcoef(view.density.ravel(), kept.density.ravel())[0, 1] > 0.999
    for example, kept_example in zip(data.label_examples, loaded.label_examples, strict=True):
        np.testing.assert_array_equal(example.noisy, kept_example.noisy)
        assert (example.probabilities is None) == (kept_example.probabilities is None)
    np.testing.assert_allclose(loaded.weights[2].weights, data.weights[2].weights, rtol=1e-6)
    assert main(["--workdir", str(workdir)]) == 0
    assert (workdir / "report" / "index.html").is_file()
    assert str(workdir / "report" / "index.html") in capsys.readouterr().out.replace("\n", "")


def test_an_unfinished_run_has_a_report(data: ReportData, tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run", data)
    (workdir / "evaluation.json").unlink()
    parsed = Page(page_text(load_workdir(workdir), tmp_path / "out"))
    assert "has not come to its report yet" in parsed.text
    assert (tmp_path / "out" / "training.png").is_file()


def test_another_run_is_shown_beside(data: ReportData, tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run", data)
    assert load_workdir(workdir).comparison is None
    other = make_workdir(tmp_path / "elsewhere" / "run-supervised", data, "supervised")
    compared = load_workdir(workdir, compare=other).comparison
    assert compared is not None
    assert compared.name == "supervised"
    assert compared.evaluation == data.evaluation


def test_runs_that_differ_in_the_variant_alone_find_each_other(data: ReportData, tmp_path: Path) -> None:
    for variant in ("robpicker", "supervised"):
        workdir = make_workdir(tmp_path / variant, data, variant)
        config = load_config(None, [f"train.variant={variant}"])
        (workdir / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    for mine, other in (("robpicker", "supervised"), ("supervised", "robpicker")):
        comparison = load_workdir(tmp_path / mine).comparison
        assert comparison is not None
        assert comparison.name == other


@pytest.mark.parametrize("fault", ["no folder", "no run", "broken inputs", "broken json", "nothing to compare"])
def test_bad_workdirs_are_named(fault: str, data: ReportData, tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run", data)
    compare = None
    if fault == "no folder":
        workdir = tmp_path / "missing"
    elif fault == "no run":
        workdir = tmp_path
    elif fault == "broken inputs":
        (workdir / "report").mkdir()
        (workdir / "report" / "inputs.npz").write_bytes(b"PK\x03\x04 cut short")
    elif fault == "broken json":
        (workdir / "versions.json").write_text("{", encoding="utf-8")
    else:
        compare = tmp_path
    with pytest.raises(InputError, match=str(tmp_path)):
        load_workdir(workdir, compare=compare)
