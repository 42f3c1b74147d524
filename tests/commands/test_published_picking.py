"""A whole run that picks from class probabilities with thresholds from its meta tomograms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robpicker_jax.annotations import read_annotations
from robpicker_jax.commands import pick, train
from robpicker_jax.commands.cli import call
from robpicker_jax.picking import calibration
from robpicker_jax.picking.thresholds import grid
from robpicker_jax.training.export import load_trained_model


def test_thresholds_of_the_meta_tomograms_pick_the_test_tomograms(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    options = {
        "train.variant": "supervised",
        "train.steps": "2",
        "picking.clustering": "oks_nms",
        "picking.clustering_options.min_probability": "0.01",
        "picking.clustering_options.oks": "0.8",
        "picking.clustering_options.binning": "2",
        "picking.min_distance_vox": "0",
        "picking.thresholds": "grid",
        "picking.threshold_options.low": "0.2",
        "evaluation.rule": "robpicker",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    assert call(train.main, ["--config", str(tiny_config), "--workdir", str(workdir), *flags]) == 0
    assert "the best on the calibration tomograms" in capsys.readouterr().out

    kept = calibration.load(workdir)
    assert kept.tomograms == ("meta_000",)
    expected = {name: grid(entry, low=0.2) for name, entry in kept.classes.items()}
    card = load_trained_model(workdir).card
    assert card.picking.min_scores == pytest.approx(expected)
    picks = read_annotations(workdir / "picks" / "test_000.xml", allow_empty=True)
    assert len(picks)
    for label, name in enumerate(card.class_names, start=1):
        assert (picks.scores[picks.labels == label] >= expected[name] - 1e-6).all()
    assert json.loads((workdir / "evaluation.json").read_text())["rule"] == "robpicker"

    out, volume = tmp_path / "again", workdir / "data" / "test" / "test_000.mrc"
    arguments = ["--workdir", str(workdir), "--out", str(out), str(volume)]
    assert call(pick.main, arguments) == 0
    assert len(read_annotations(out / "test_000.xml", allow_empty=True)) == len(picks)
    assert call(pick.main, [*arguments, "--overwrite", "--thresholds", "best", "--precision", "0.5"]) == 2
    assert call(pick.main, [*arguments, "--overwrite", "--thresholds", "best"]) == 0
    assert "scores of at least" in capsys.readouterr().out
