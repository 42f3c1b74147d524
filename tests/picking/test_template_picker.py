"""Template matching behind the seam of pickers: a YAML file, the command `pick`, and picks as training labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import ndimage

from robpicker_jax.annotations import read_annotations
from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.commands import pick
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig, Species
from robpicker_jax.datasets import discover, open_tomogram
from robpicker_jax.picking.picker import PICKERS, Picker
from robpicker_jax.picking.template_picker import TemplatePicker, template_picker
from robpicker_jax.rotations import covering
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc
from tests.matching.cases import density, planted

VOXELS = [(10, 10, 9), (9, 11, 33)]
TURNS = covering(40.0)[[5, 77]]
MATCHING = {
    "voxel_size_angstrom": 10.0,
    "contrast": "bright",
    "tilts_deg": None,
    "angle_step_deg": 40.0,
    "search": "exact",
    "cutoff": "none",
    "max_picks": 2,
    "templates": [{"name": "blob", "density": "blob.mrc", "diameter_angstrom": 100.0}],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a description and its map, and a data set of one training tomogram with two particles."""
    write_mrc(tmp_path / "blob.mrc", density(25), 10.0)
    (tmp_path / "templates.yaml").write_text(yaml.safe_dump(MATCHING))
    (tmp_path / "data" / "train").mkdir(parents=True)
    write_mrc(tmp_path / "data" / "train" / "a.mrc", planted((20, 20, 44), VOXELS, TURNS, noise=0.1), 10.0)
    return tmp_path


def test_planted_particles_become_training_labels(source: Path) -> None:
    train = source / "data" / "train"
    where = ["--workdir", str(source), "--out", str(train), "--format", "xml"]
    assert call(pick.main, [str(train / "a.mrc"), "--picker", "template_matching", *where]) == 0
    picks = read_annotations(train / "a.xml").select(np.array([0, 1]))
    order = np.argsort(picks.positions_vox[:, 0])
    # A template's centre is the centre of mass of its squared density.
    centre = np.array(ndimage.center_of_mass(np.maximum(density(25), 0) ** 2))[::-1] - 12
    np.testing.assert_allclose(picks.positions_vox[order], np.array(VOXELS)[:, ::-1] + TURNS @ centre, atol=0.4)
    assert picks.rotations is not None
    assert rotation_angle_deg(picks.rotations[order], TURNS).max() < 8
    # What `train` reads: the list beside the tomogram, by the name of its class.
    (files,) = discover(source / "data")["train"]
    species = (Species("blob", 3.0), Species("other", 3.0))
    with open_tomogram(files, DataConfig(species=species)) as tomogram:
        assert tomogram.particles is not None
        assert tomogram.particles.labels.tolist() == [1, 1]


def test_scores_and_settings_can_be_given_on_the_command_line(source: Path) -> None:
    picker = template_picker(source, ["matching.max_picks=5"])
    assert isinstance(picker, Picker)
    assert picker.class_names == ["blob"]
    (files,) = discover(source / "data")["train"]
    with open_tomogram(files, picker.data, mode="streamed") as tomogram:
        done: list[int] = []
        everything = picker.pick(tomogram, done.append)
        assert sum(done) == picker.tiles(tomogram.shape_zyx)
        assert len(everything) == 5
        assert everything.scores is not None
        limit = float(everything.scores[1])
        strict = picker.with_min_scores([limit])
        assert len(strict.pick(tomogram)) == 2
        assert (picker.smallest_scores, strict.smallest_scores) == ([None], [limit])
        assert len(strict.candidates(4).pick(tomogram)) == 4
        half = np.ones(tomogram.shape_zyx, bool)
        half[:, :, 22:] = False
        assert (strict.pick(tomogram, mask=half).positions_vox[:, 0] < 22).all()
    prints = {each.fingerprint for each in (picker, strict, template_picker(source), picker.candidates(4))}
    assert len(prints) == 4
    assert template_picker(source).fingerprint == TemplatePicker(template_picker(source).config).fingerprint


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"angle_stepp": 3}, [], "angle_stepp: unknown key"),
        ({"templates": []}, [], "templates"),
        ({"defocus_um": 3.0}, [], "tilt by tilt"),
        ({}, ["picking.min_score=1"], "no setting of template matching"),
        ({}, ["matching.max_picks=none"], "max_picks"),
        ({"templates": [{"name": "blob", "density": "nothing.mrc"}]}, [], "nothing.mrc"),
    ],
)
def test_a_faulty_description_is_refused(
    source: Path, changes: dict[str, object], overrides: list[str], message: str
) -> None:
    (source / "templates.yaml").write_text(yaml.safe_dump(MATCHING | changes))
    with pytest.raises(InputError, match=message):
        PICKERS["template_matching"](source, overrides)


def test_no_description_and_no_room(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="describes no templates"):
        template_picker(tmp_path / "data")
    write_mrc(source / "data" / "train" / "thin.mrc", np.random.default_rng(0).random((9, 40, 40), np.float32), 10.0)
    picker = template_picker(source / "templates.yaml")
    (_, thin) = discover(source / "data")["train"]
    with open_tomogram(thin, picker.data, mode="streamed") as tomogram, pytest.raises(InputError, match="no room"):
        picker.pick(tomogram)
