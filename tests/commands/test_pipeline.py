"""The main job on a tiny data set: what it leaves behind, and what its model does."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import mrcfile
import numpy as np
import pytest

from robpicker_jax.annotations import read_annotations
from robpicker_jax.commands import main_job, pick, segment, train
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.job import evaluate
from robpicker_jax.config import load_config
from robpicker_jax.reporting import gathering as report_data
from robpicker_jax.reporting.data import UNCOUNTED
from robpicker_jax.reviewing import fingerprint
from robpicker_jax.training.experiment import Experiment
from robpicker_jax.training.export import load_trained_model
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.volumes import read_volume, write_mrc
from tests.steps import loaded_data


def test_a_run_leaves_what_the_contract_says(tiny_run: Path) -> None:
    for name in (
        "config.yaml",
        "calibration.json",
        "versions.json",
        "metrics.jsonl",
        "checkpoints",
        "evaluation.json",
        "report/index.html",
        "model.rpk",
    ):
        assert (tiny_run / name).exists(), name
    for suffix in ("xml", "star", "csv"):
        assert (tiny_run / "picks" / f"test_000.{suffix}").exists()
    rows = read_metrics(tiny_run / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [2, 4]
    wanted = {"inner_loss", "outer_loss", "hypergradient_norm", "alpha_mean", "changed_share", "weight_mean"}
    assert wanted <= rows[0].keys()
    assert json.loads((tiny_run / "versions.json").read_text())["jax"] == jax.__version__
    assert list((tiny_run / "tensorboard").iterdir())


def test_run_again_it_says_that_it_is_finished(
    tiny_run: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tiny_run / "metrics.jsonl").read_bytes()
    assert call(train.main, ["--config", str(tiny_config), "--workdir", str(tiny_run)]) == 0
    assert "finished" in capsys.readouterr().out
    assert (tiny_run / "metrics.jsonl").read_bytes() == before


def test_another_run_in_the_same_folder_is_refused(
    tiny_run: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(tiny_config), "--workdir", str(tiny_run), "--train.seed", "5"]
    assert call(train.main, arguments) == 2
    assert "train.seed" in capsys.readouterr().err


def test_supervised_beside_it_is_compared(
    tiny_run: Path, tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tiny_run.parent / "tiny-supervised"
    arguments = ["--config", str(tiny_config), "--workdir", str(tiny_run), "--train.beside", "[supervised]"]
    assert call(train.main, arguments) == 0
    said = capsys.readouterr().out
    assert f"{tiny_run}: this run is finished" in said  # only the run beside it is trained
    shown = said[said.index("F1 on the test set") :]
    for line, name in (("ribosome", "ribosome"), ("apoferritin", "apoferritin"), ("macro (mean)", None)):
        values = []
        for folder in (tiny_run, workdir):
            found = json.loads((folder / "evaluation.json").read_text())
            score = found["macro"] if name is None else next(c for c in found["classes"] if c["name"] == name)
            values.append("–" if score["f1"] is None else f"{score['f1']:.3f}")
        assert re.search(rf"{re.escape(line)}\s+{values[0]}\s+{values[1]}", shown)
    assert not (workdir / "data").exists()  # the same data are not made twice
    for folder in (tiny_run, workdir):
        page = (folder / "report" / "index.html").read_text(encoding="utf-8")
        assert "supervised" in page
        assert "robpicker" in page
    rows = [row for row in read_metrics(workdir / "metrics.jsonl") if row["kind"] == "train"]
    assert all(row["weight_mean"] == 1.0 and row["outer_loss"] is None for row in rows)


def test_picking_needs_no_annotations(tiny_run: Path, tmp_path: Path) -> None:
    source = tiny_run / "data" / "test" / "test_000.mrc"
    shutil.copy(source, tmp_path / "lonely.mrc")
    out = tmp_path / "picks"
    arguments = ["--workdir", str(tiny_run), "--out", str(out), str(tmp_path / "lonely.mrc")]
    assert call(pick.main, arguments) == 0
    picks = read_annotations(out / "lonely.xml", allow_empty=True)
    stored = read_annotations(tiny_run / "picks" / "test_000.xml", allow_empty=True)
    np.testing.assert_allclose(picks.positions_vox, stored.positions_vox)
    assert call(segment.main, arguments) == 0
    with mrcfile.open(out / "lonely_classes.mrc") as classes, mrcfile.open(source) as density:
        assert classes.data.shape == density.data.shape
        assert set(np.unique(classes.data)) <= {0, 1, 2}


def test_a_model_file_alone_is_enough_to_pick(tiny_run: Path, tmp_path: Path) -> None:
    """Neither the run's configuration nor its checkpoints are looked at."""
    shutil.copy(tiny_run / "model.rpk", tmp_path / "shared.rpk")
    source = tiny_run / "data" / "test" / "test_000.mrc"
    arguments = ["--workdir", str(tmp_path / "shared.rpk"), "--out", str(tmp_path / "picks"), str(source)]
    assert call(pick.main, arguments) == 0
    for suffix in ("xml", "star", "csv"):
        assert (tmp_path / "picks" / f"test_000.{suffix}").read_bytes() == (
            tiny_run / "picks" / f"test_000.{suffix}"
        ).read_bytes()


def test_a_run_without_a_model_file_makes_it_from_its_best_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "densities.json", "metrics.jsonl"):
        shutil.copy(tiny_run / name, tmp_path / name)
    shutil.copytree(tiny_run / "checkpoints", tmp_path / "checkpoints")
    made = load_trained_model(tmp_path)
    assert (tmp_path / "model.rpk").read_bytes() == (tiny_run / "model.rpk").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints")
    again = load_trained_model(tmp_path)
    assert again.card == made.card
    jax.tree.map(np.testing.assert_array_equal, again.params, jax.device_get(made.params))


def test_before_the_first_validation_the_latest_checkpoint_is_the_model_and_is_not_kept(
    tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny_run / "config.yaml", tmp_path / "config.yaml")
    shutil.copytree(tiny_run / "checkpoints" / "latest", tmp_path / "checkpoints" / "latest")
    model = load_trained_model(tmp_path)
    assert (model.card.step, model.card.score) == (4, None)
    assert not (tmp_path / "model.rpk").exists()


def test_a_run_that_is_killed_leaves_its_best_model(
    tiny_config: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(experiment: Experiment, *arguments: Any, on_best: Any, **options: Any) -> None:
        on_best(experiment.state._replace(step=experiment.state.step + 3), 0.25)
        raise KeyboardInterrupt

    monkeypatch.setattr(main_job, "fit", killed)
    arguments = ["--config", str(tiny_config), "--data.dir", str(tiny_data), "--workdir", str(tmp_path / "run")]
    assert call(train.main, arguments) == 130
    card = load_trained_model(tmp_path / "run").card
    assert (card.step, card.score, card.voxel_size_angstrom) == (3, 0.25, 22.0)
    source = tiny_data / "test" / "test_000.mrc"
    arguments = ["--workdir", str(tmp_path / "run"), "--out", str(tmp_path / "picks"), str(source)]
    assert call(pick.main, arguments) == 0


def test_other_settings_of_picking_become_a_finished_runs_own(
    tiny_run: Path, tiny_config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    before = load_trained_model(run)
    arguments = ["--config", str(tiny_config), "--workdir", str(run), "--picking.min_score", "0.4"]
    assert call(train.main, arguments) == 0
    after = load_trained_model(run)
    assert after.card.picking.min_score == 0.4
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--model.widths", "[4,8]"], "model.widths: a trained model cannot change this"),
        (["--picking.min_scor", "0.5"], "did you mean picking.min_score"),
        (["--inference.tile", "33"], "inference.tile: 33 is not divisible"),
        (["--picking.clustering", "dbscn"], "picking.clustering: unknown name 'dbscn'.*known: dbscan, components"),
        (["--picker", "modle"], "--picker: unknown name 'modle'.*known: model"),
    ],
)
def test_settings_that_a_model_cannot_be_applied_with(
    flag: list[str], message: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny_run / "data" / "test" / "test_000.mrc"
    arguments = ["--workdir", str(tiny_run), "--out", str(tmp_path), str(source), *flag]
    assert call(pick.main, arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_segmenting_says_what_it_takes_and_can_keep_all_scores(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        shutil.copy(tiny_run / "data" / "test" / "test_000.mrc", tmp_path / f"{name}.mrc")
    out = tmp_path / "maps"
    arguments = ["--workdir", str(tiny_run), "--out", str(out), "--scores", str(tmp_path)]
    further = ["--inference.blend", "gaussian", "--inference.rotations", "2", "--inference.overlap_vox", "24"]
    assert call(segment.main, [*arguments, *further]) == 0
    shown = capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in out.glob("*.mrc")}
    assert call(segment.main, [*arguments, *further]) == 0  # B6: finished tomograms are not segmented twice
    assert "2 of 2 tomograms are finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.mrc")} == written
    assert re.search(r"2 tomograms, 12 tiles; memory: at most \d+ MiB beside the network; all class prob", shown), shown
    assert "segmenting: 12/12" in shown
    scores = np.stack([read_volume(out / f"two_score_{label}.mrc").data for label in range(3)])
    np.testing.assert_allclose(scores.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(read_volume(out / "two_classes.mrc").data, scores.argmax(axis=0))
    np.testing.assert_allclose(read_volume(out / "one_probability.mrc").data, scores.max(axis=0), atol=1e-3)


def test_picks_of_all_tomograms_in_one_file(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("rec_TS_01", "rec_TS_02"):
        shutil.copy(tiny_run / "data" / "test" / "test_000.mrc", tmp_path / f"{name}.mrc")
    out = tmp_path / "picks"
    arguments = [
        "--workdir",
        str(tiny_run),
        "--out",
        str(out),
        str(tmp_path),
        "--together",
        "--name-pattern",
        "rec_(.*)",
    ]
    formats = [part for fmt in ("star", "relion5", "dynamo", "imod") for part in ("--format", fmt)]
    assert call(pick.main, [*arguments, *formats]) == 2
    assert "IMOD model cannot tell tomograms apart" in capsys.readouterr().err
    assert not out.exists() or not any(out.iterdir())
    assert call(pick.main, [*arguments, *formats[:-2], "--format-option", "binning=4"]) == 0
    one = len(read_annotations(tiny_run / "picks" / "test_000.xml", allow_empty=True))
    assert sorted(path.name for path in out.glob("[!.]*")) == sorted(
        ["picks.star", "picks_relion5.star", "picks.tbl"] + (["picks_tomograms.doc"] if one else [])
    )
    back = read_annotations(out / "picks.star", binning=4, allow_empty=True)
    assert len(back) == 2 * one
    if one:
        assert back.tomograms is not None
        assert set(back.tomograms.tolist()) == {"TS_01", "TS_02"}


def test_masks_reach_sampling_evaluation_and_the_report(tiny_config: Path, tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    config = load_config(tiny_config, [f"data.dir={tmp_path / 'data'}"])
    for split in ("train", "meta"):
        for path in (tmp_path / "data" / split).glob("*_000.mrc"):
            mask = np.zeros(read_volume(path).data.shape, np.uint8)
            mask[:, :20] = 1
            write_mrc(path.with_name(f"{path.stem}_mask.mrc"), mask, 22.0)
    data = loaded_data(config, tmp_path / "data")
    plans = [data.source().plan(kind, step, 0) for step in range(200) for kind in ("train", "meta")]  # type: ignore[arg-type]
    assert any(plan.particle < 0 for plan in plans)
    for plan, kind in zip(plans, itertools.cycle((data.train, data.meta))):
        if plan.particle < 0:
            assert plan.corner_zyx[1] + 8 < 20
        else:
            assert kind[plan.tomogram].particles.positions_vox[plan.particle, 1] < 19.5  # type: ignore[union-attr]
    (tomogram,) = data.meta
    assert tomogram.particles is not None
    outside = int((tomogram.particles.positions_vox[:, 1] >= 19.5).sum())
    assert 0 < outside < len(tomogram.particles)
    picks = tomogram.particles.select(slice(None, None, -1))
    evaluation = evaluate(config, data, [tomogram], {tomogram.name: picks})
    assert evaluation.macro_f1 == 1
    assert evaluation.left_out() == (outside, outside)
    view = report_data._view(tomogram, picks, evaluation)
    assert view.truth is not None
    assert view.matches is not None
    hits = view.matches >= 0
    np.testing.assert_array_equal(view.truth.positions_vox[view.matches[hits]], view.picks.positions_vox[hits])
    assert len(view.truth) == hits.sum() == len(tomogram.particles) - outside
    assert set(view.matches[~hits]) == {UNCOUNTED}
    assert fingerprint(view.picks) == fingerprint(picks)  # decisions on the page meet the list that the run saved


def test_a_real_microtubule_is_converted_and_segmented(
    tiny_run: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = read_volume(shared_data / "tomograms" / "cylindra_13pf_MT.tif")
    assert volume.data.shape == (36, 206, 94)
    path = tmp_path / "microtubule.mrc"
    write_mrc(path, volume.data, 10.52)
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data, volume.data)
        assert float(file.voxel_size.x) == pytest.approx(10.52)
    out = tmp_path / "classes"
    assert call(segment.main, ["--workdir", str(tiny_run), "--out", str(out), str(path), "--rescale"]) == 0
    assert "from voxels of 10.52 Å to 22 Å" in capsys.readouterr().out
    with mrcfile.open(out / "microtubule_classes.mrc") as file:
        assert file.data.shape == volume.data.shape


def test_a22_picks_keep_to_the_calibrated_score_and_its_recall_is_said(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(tiny_run / "model.rpk", tmp_path)
    right = {"thresholds": [0.9, 0.6], "picked": [50, 100], "hits": [50, 60], "true": 80}
    content = {"tomograms": ["meta_000"], "classes": dict.fromkeys(("ribosome", "apoferritin"), right)}
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    source = tiny_run / "data" / "test" / "test_000.mrc"
    arguments = ["--workdir", str(tmp_path), "--out", str(tmp_path / "picks"), str(source), "--precision"]
    assert call(pick.main, [*arguments, "0.9"]) == 0
    said = capsys.readouterr().out
    assert said.count("at least 0.900") == 2
    assert "recall 0.62" in said
    picks = read_annotations(tmp_path / "picks" / "test_000.xml", allow_empty=True)
    assert not len(picks) or (picks.scores is not None and picks.scores.min() >= 0.9)
    assert call(pick.main, [*arguments, "0.99"]) == 2
