"""Figures of label correction and weights over training: what they show, that it fits, and runs that recorded less."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robpicker_jax.reporting import ReportData, write_report
from robpicker_jax.reporting.corrections import corrections_figure
from robpicker_jax.reporting.curves import meta_figure, training_figure
from robpicker_jax.reporting.data import Absent
from robpicker_jax.reporting.progress import clean_patches_figure, correction_figure, weights_over_steps_figure
from robpicker_jax.reporting.style import theme
from tests.reporting.report_data import SPECIES, Page, make_data, make_example, make_history, page_text

MANY = tuple((f"a_species_with_a_long_name_{index}", 3.0 + 0.4 * index, 100.0 * (index + 1)) for index in range(13))
FIGURES = (
    clean_patches_figure,
    correction_figure,
    corrections_figure,
    meta_figure,
    training_figure,
    weights_over_steps_figure,
)


@pytest.fixture(scope="module")
def data() -> ReportData:
    return make_data(tomograms=1)


def drawn(build: Callable[[ReportData], Figure], data: ReportData) -> Figure:
    """A figure in the report's own look."""
    with theme():
        return build(data)


def curve(figure: Figure, title: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The data of a labelled line in the panel of a title."""
    panel = next(axes for axes in figure.axes if axes.get_title(loc="left") == title)
    line = next(line for line in panel.get_lines() if line.get_label() == label)
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


@pytest.mark.parametrize("build", FIGURES)
@pytest.mark.parametrize("species", [SPECIES, MANY], ids=["four", "many"])
def test_texts_lie_inside_and_legends_hide_no_curve(build: Callable[[ReportData], Figure], species: Any) -> None:
    examples = [make_example(f"{'tomogram' * 9}\nz 131, y 1052, x 1117", 1, n_species=len(species))]
    data = dataclasses.replace(make_data(species, tomograms=1), label_examples=examples)
    with theme():
        figure = build(data)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
    renderer, whole = canvas.get_renderer(), figure.bbox.padded(1.0)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    texts = [text for legend in legends for text in legend.get_texts()]
    for axes in figure.axes:
        if axes.get_visible():
            texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]  # type: ignore[attr-defined]
    for text in texts:
        if text.get_text():
            box = text.get_window_extent(renderer)
            assert box.x0 >= whole.x0, text
            assert box.y0 >= whole.y0, text
            assert box.x1 <= whole.x1, text
            assert box.y1 <= whole.y1, text
    for legend in legends:
        box = legend.get_window_extent(renderer)
        assert not any(axes.bbox.overlaps(box) for axes in figure.axes if axes.get_visible())


def test_label_mass_error_and_quality_are_those_recorded(data: ReportData) -> None:
    figure = drawn(correction_figure, data)
    rows = [row for row in data.history if row["kind"] == "validation"]
    steps, values = curve(figure, "Wrong voxels of the labels", "corrected")
    assert steps.tolist() == [row["step"] for row in rows]
    np.testing.assert_allclose(values, [100 * row["correction/error_after"] for row in rows])
    steps, values = curve(figure, "Corrected voxels against the truth", "precision")
    assert steps[0] == 200  # nothing was changed before, so that there was no precision
    np.testing.assert_allclose(values, 0.9)
    gained = [row["label_gained/ribosome"] for row in data.history if row["kind"] == "train"]
    _, values = curve(figure, "Label mass gained", "ribosome")
    assert np.mean(values) == pytest.approx(np.mean(gained), rel=0.02)  # a moving average keeps the mean
    assert not any(line.get_label() == "background" for axes in figure.axes for line in axes.get_lines())


def test_weights_have_a_panel_a_species_by_size_with_its_spread(data: ReportData) -> None:
    figure = drawn(weights_over_steps_figure, data)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["apoferritin", "HSP60", "proteasome", "ribosome"]
    for axes in shown:
        (band,) = axes.collections
        low, high = np.asarray(band.get_paths()[0].vertices)[:, 1].min(), axes.get_lines()[-1].get_ydata()[0]
        assert low < high
        heights = np.asarray(band.get_paths()[0].vertices)
        at_end = heights[heights[:, 0] == heights[:, 0].max(), 1]
        assert np.ptp(at_end) == pytest.approx(2 * 0.04)


def test_held_out_loss_is_shown_without_meta_networks(data: ReportData) -> None:
    history = [{k: v for k, v in row.items() if not k.startswith("own_")} for row in data.history]
    supervised = dataclasses.replace(data, variant="supervised", history=history)
    figure = drawn(clean_patches_figure, supervised)
    steps, _ = curve(figure, "Loss on clean patches", "held-out patches")
    assert len(steps) == 10
    assert len(figure.axes) == 2
    for build in (correction_figure, weights_over_steps_figure):
        with pytest.raises(Absent, match="no meta networks"):
            build(supervised)


def test_without_the_truth_the_label_mass_is_shown_alone(data: ReportData) -> None:
    history = [{k: v for k, v in row.items() if not k.startswith("correction/")} for row in data.history]
    assert len(correction_figure(dataclasses.replace(data, history=history)).axes) == 2


def test_change_is_filled_where_gained_and_hatched_where_lost() -> None:
    example = make_example("t\nz 1, y 2, x 3", 1, soft=False)
    figure = drawn(corrections_figure, make_data(tomograms=1, label_examples=[example]))
    panel = next(axes for axes in figure.axes if axes.get_title(loc="left") == "change")
    assert any(getattr(collection, "hatches", None) for collection in panel.collections)
    assert example.corrected is not None
    grey, shown = (np.asarray(axes.get_images()[0].get_array()) for axes in (figure.axes[0], panel))
    coloured = np.abs(grey - shown).max(axis=-1) > 1e-9
    np.testing.assert_array_equal(coloured, (example.corrected != example.noisy) & (example.corrected > 0))


def test_runs_that_recorded_less_still_have_a_report(data: ReportData, tmp_path: Path) -> None:
    new = ("label_", "own_", "correction/", "held_out_loss", "weight_std/")
    history = [{k: v for k, v in row.items() if not k.startswith(new)} for row in make_history()]
    old = dataclasses.replace(data, history=history)
    write_report(data, tmp_path)
    assert (tmp_path / "correction_over_steps.png").exists()
    parsed = Page(page_text(old, tmp_path))
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert "label_correction" in names
    assert "weights_over_steps" in names
    assert not names & {"correction_over_steps", "clean_patches"}
    assert "has no numbers" not in parsed.text
