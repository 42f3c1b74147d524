"""What a reader of the report has to see (field faults A24 and B22)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from matplotlib.patches import Circle

from robpicker_jax.commands import evaluate
from robpicker_jax.reporting.curves import training_figure
from robpicker_jax.reporting.html_tables import calibration_table, definition_list, score_table
from robpicker_jax.reporting.page import Picture, training_caption, write_report
from robpicker_jax.reporting.slices import slice_figure
from robpicker_jax.reporting.stored import load_workdir, save_inputs
from robpicker_jax.reporting.style import score_colours
from robpicker_jax.reporting.viewer import viewer_payload
from tests.reporting.report_data import make_data


def test_a24_the_report_says_that_f1_on_meta_is_optimistic(tmp_path: Path) -> None:
    data = dataclasses.replace(make_data(), validated_on="meta")
    assert "meta" in training_figure(data).axes[1].get_title()
    assert "optimistic" in training_caption(data)
    assert "optimistic" not in training_caption(make_data())
    (tmp_path / "config.yaml").write_text("train: {variant: robpicker}\n")
    save_inputs(data, tmp_path)
    assert load_workdir(tmp_path).validated_on == "meta"
    assert "optimistic" in write_report(data, tmp_path / "report").read_text(encoding="utf-8")


def test_a24_a_run_without_val_says_so(tiny_run: Path) -> None:
    assert "There is no val/" in (tiny_run / "report" / "index.html").read_text(encoding="utf-8")


def test_b22_picks_without_truth_show_their_radius_and_their_score() -> None:
    data = make_data(tomograms=1)
    view = dataclasses.replace(data.tomograms[0], truth=None, matches=None)
    figure = slice_figure(data, view)
    rings = [patch for patch in figure.axes[-1].patches if isinstance(patch, Circle)]
    dots = [line for line in figure.axes[-1].lines if line.get_marker() == "o"]
    assert len(rings) == len(dots) > 0
    assert all(ring.radius <= max(s.radius_vox for s in data.species) for ring in rings)
    assert len({line.get_color() for line in dots}) > 1
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("lowest score" in text for text in texts)
    assert viewer_payload(data)["scoreColours"] == score_colours(32)


def test_b22_what_a_score_threshold_gives_is_shown(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {variant: robpicker}\n")
    right = {"thresholds": [0.9, 0.6], "picked": [50, 100], "hits": [50, 60], "true": 80}
    (tmp_path / "calibration.json").write_text(json.dumps({"tomograms": ["a"], "classes": {"<b>": right}}))
    data = load_workdir(tmp_path)
    assert data.calibration["<b>"] == [(0.5, 0.6, 0.75), (0.7, 0.9, 0.625), (0.8, 0.9, 0.625), (0.9, 0.9, 0.625)]
    table = calibration_table(data)
    assert "&lt;b&gt;" in table
    assert "≥ 0.60, recall 0.75" in table
    assert calibration_table(make_data()) == ""


def test_b22_a_plan_reads_as_words_and_one_class_is_one() -> None:
    text = definition_list({"plan": {"micro_batches": 2, "fits": True, "shape": [1, 2]}})
    assert "{" not in text
    assert "micro batches: 2; fits: yes; shape: 1, 2" in text
    assert "1 classes" not in score_table(make_data())


def test_b22_charts_turn_dark_and_densities_do_not() -> None:
    assert 'class="chart"' in Picture("f1", b"", "", is_chart=True).html()
    assert "chart" not in Picture("slice_1", b"", "").html()


def test_b22_label_corrections_say_where_they_are(tiny_run: Path) -> None:
    examples = load_workdir(tiny_run).label_examples
    assert examples
    assert all(example.name.startswith("train_000") for example in examples)


def test_b22_the_help_of_evaluate_lists_what_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    text = capsys.readouterr().out
    assert "--evaluation.rule" in text
    assert "--train.steps" not in text
    assert len(text.splitlines()) < 120  # those of `train`, which lists every field, are more than 200
