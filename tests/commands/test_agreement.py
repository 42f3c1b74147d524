"""A model on tomograms unlike those it was trained on (field faults A9): refused, resampled, or warned about."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

import robpicker_jax as rp
from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.commands import audit, pick, segment
from robpicker_jax.commands.applying import Queued
from robpicker_jax.commands.cli import call
from robpicker_jax.datasets import TomogramFiles, open_tomogram, tomograms_from
from robpicker_jax.models.trained_model import ModelCard
from robpicker_jax.picking.agreement import unlike_card
from robpicker_jax.training.export import load_trained_model
from robpicker_jax.volumes import open_volume, write_mrc
from robpicker_jax.volumes.rescaling import RescaledReader


@pytest.fixture(scope="module")
def finer(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's test tomogram with voxels of half the edge, and with a mask of its first half along x."""
    path = tmp_path_factory.mktemp("finer") / "t.mrc"
    with open_volume(tiny_run / "data" / "test" / "test_000.mrc") as source:
        density = RescaledReader(source, 11.0, 22.0).read()
    write_mrc(path, density, 11.0)
    return path


def arguments(run: Path, out: Path, *further: Any) -> list[str]:
    return ["--workdir", str(run), "--out", str(out), *map(str, further)]


@pytest.mark.parametrize("command", [pick, segment])
def test_a9_other_voxels_are_refused_with_both_numbers_before_work(
    command: Any, tiny_run: Path, finer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command.main, arguments(tiny_run, tmp_path / "out", finer)) == 2
    said = capsys.readouterr().err
    assert "11 Å" in said
    assert "22 Å" in said
    assert "--rescale" in said
    assert not (tmp_path / "out").exists()


def test_a9_an_audit_of_other_voxels_is_refused_or_resampled(
    tiny_run: Path, finer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    shutil.copy(finer, folder / "t.mrc")
    given = read_annotations(tiny_run / "data" / "test" / "test_000_objl.xml")
    write_annotations(folder / "t_objl.xml", given.with_(positions_vox=2 * given.positions_vox))
    further = ["--data", tmp_path / "data"]
    assert call(audit.main, arguments(tiny_run, tmp_path / "out", *further)) == 2
    assert "--rescale" in capsys.readouterr().err
    assert call(audit.main, arguments(tiny_run, tmp_path / "out", *further, "--rescale")) == 0
    table = read_annotations(tmp_path / "out" / "audit.csv")
    rows = table.extra["row"]
    listed = table.select(np.flatnonzero(rows > 0)[np.argsort(rows[rows > 0])])
    np.testing.assert_allclose(listed.positions_vox, 2 * given.positions_vox, atol=0.01)


def test_a9_rescaled_maps_lie_on_the_grid_of_the_file(
    tiny_run: Path, finer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny_run / "data" / "test" / "test_000.mrc"
    assert call(segment.main, arguments(tiny_run, tmp_path, source)) == 0
    assert call(segment.main, arguments(tiny_run, tmp_path, finer, "--rescale", "--scores")) == 0
    assert "from voxels of 11 Å to 22 Å" in capsys.readouterr().out
    with (
        mrcfile.open(tmp_path / "t_classes.mrc") as found,
        mrcfile.open(tmp_path / "test_000_classes.mrc") as expected,
        mrcfile.open(finer) as density,
    ):
        assert found.data.shape == density.data.shape
        assert float(found.voxel_size.x) == pytest.approx(11.0)
        assert np.mean(found.data[::2, ::2, ::2] == expected.data) > 0.9
    assert call(pick.main, arguments(tiny_run, tmp_path / "picks", finer, "--rescale")) == 0
    assert (tmp_path / "picks" / "t.xml").exists()


def test_positions_and_sizes_come_back_in_the_files_voxels(finer: Path) -> None:
    with open_volume(finer) as source:
        item = Queued(TomogramFiles("t", "", finer), RescaledReader(source, 22.0, 11.0), 11.0, 0)
        picks = item.on_file_grid(Particles([[3.0, 4, 5]], [1], cluster_sizes=[10]))
        assert picks.positions_vox.tolist() == [[6.0, 8.0, 10.0]]
        assert picks.cluster_sizes is not None
        assert picks.cluster_sizes.tolist() == [80]
        assert item.file_shape_zyx == source.shape_zyx


def test_a9_inverted_contrast_draws_a_warning(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny_run / "data" / "train" / "train_000.mrc"
    with open_volume(source) as reader:
        write_mrc(tmp_path / "inverted.mrc", -reader.read(), 22.0)
    assert call(pick.main, arguments(tiny_run, tmp_path / "out", source)) == 0
    assert "contrast seems" not in capsys.readouterr().out
    for further, warned in ([], True), (["--data.invert_contrast=true"], False):
        given = arguments(tiny_run, tmp_path / f"out{len(further)}", tmp_path / "inverted.mrc", *further)
        assert call(pick.main, given) == 0
        assert ("contrast seems to be inverted" in capsys.readouterr().out) == warned
    with pytest.warns(UserWarning, match="inverted"):
        rp.load_model(tiny_run).pick(tmp_path / "inverted.mrc")


def test_the_model_and_its_run_tell_what_it_was_trained_on(tiny_run: Path) -> None:
    card = load_trained_model(tiny_run).card
    assert card.voxel_size_angstrom == 22.0
    assert card.densities is not None
    assert card.densities.std == pytest.approx(1.0, abs=0.1)
    assert json.loads((tiny_run / "densities.json").read_text())["skewness"] == card.densities.skewness < 0


def test_training_data_are_held_against_the_model_that_training_begins_with(tiny_run: Path) -> None:
    card = load_trained_model(tiny_run).card
    (files,) = tomograms_from([tiny_run / "data" / "train" / "train_000.mrc"], annotations=False)

    def said(here: float | None = 22.0, card: ModelCard = card, **changes: Any) -> str | None:
        data = replace(card.data, **changes)
        with open_tomogram(files, data) as opened:
            return unlike_card(card, data, here, [opened])

    assert said() is said(None) is said(22.4) is None
    assert said(11.0) == "voxels of 11 Å here, of 22 Å there"
    assert "the contrast seems to be inverted" in (said(invert_contrast=True) or "")
    unknown = replace(card, densities=None)
    assert said(card=unknown) is None
    assert said(11.0, unknown, invert_contrast=True) == (
        "voxels of 11 Å here, of 22 Å there; data.invert_contrast is true here, false there"
    )
    assert "data.normalise is none here, zscore there" in (said(normalise="none") or "")
    # Raw tomograms of the other contrast, which the configuration turns: what the network sees is alike.
    turned = replace(card, data=replace(card.data, invert_contrast=True))
    with open_tomogram(files, card.data) as opened:
        assert unlike_card(turned, card.data, 22.0, [opened]) is None


def test_an_unknown_voxel_size_is_said(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_volume(tiny_run / "data" / "test" / "test_000.mrc") as reader:
        write_mrc(tmp_path / "t.mrc", reader.read(), None)
    assert call(segment.main, arguments(tiny_run, tmp_path / "out", tmp_path / "t.mrc")) == 0
    assert "voxel size is not known" in capsys.readouterr().out
    given = arguments(tiny_run, tmp_path / "out", tmp_path / "t.mrc", "--data.voxel_size_angstrom=44")
    assert call(segment.main, given) == 2
    assert "44 Å" in capsys.readouterr().err
