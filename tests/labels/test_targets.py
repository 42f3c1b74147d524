"""The command that writes label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.commands import cli, targets
from robpicker_jax.config import load_config
from robpicker_jax.datasets import discover, load_target
from robpicker_jax.labels import shape_labels, sphere_labels
from robpicker_jax.molecules.densities import species_mask
from robpicker_jax.volumes import write_mrc

pytestmark = pytest.mark.fast

SHAPE = (24, 30, 36)
CONFIG = """
data:
  species:
    - {name: ribosome, radius_vox: 5, phantom: ribosome}
    - {name: rod, radius_vox: 2.5, mask: rod.mrc}
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three tomograms: train and meta annotated, with angles; test without annotations."""
    rod = np.zeros((9, 9, 9), np.float32)
    rod[4, 4, 2:8] = rod[4, 5, 2:8] = 1
    write_mrc(tmp_path / "rod.mrc", rod, 10.0)
    (tmp_path / "config.yaml").write_text(CONFIG)
    for seed, split in enumerate(("train", "meta", "test")):
        (tmp_path / "data" / split).mkdir(parents=True)
        volume = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
        write_mrc(tmp_path / "data" / split / f"{split}0.mrc", volume, 10.0)
        if split != "test":
            write_annotations(tmp_path / "data" / split / f"{split}0_objl.xml", particles(seed))
    return tmp_path


def particles(seed: int) -> Particles:
    rng = np.random.default_rng(seed)
    positions = np.rint(rng.uniform(2, 21, (6, 3)))
    return Particles(positions, np.tile([1, 2], 3), rotations=random_rotations(6, rng))


def call(dataset: Path, *arguments: str) -> int:
    return cli.call(
        targets.main, ["--config", str(dataset / "config.yaml"), "--data", str(dataset / "data"), *arguments]
    )


def test_training_gets_spheres_and_meta_gets_shapes(dataset: Path) -> None:
    assert call(dataset) == 0
    found = discover(dataset / "data")
    train, meta = load_target(found["train"][0], 2, SHAPE), load_target(found["meta"][0], 2, SHAPE)
    np.testing.assert_array_equal(train, sphere_labels(SHAPE, particles(0), [5, 2.5]))
    config = load_config(dataset / "config.yaml", [f"data.dir={dataset / 'data'}"])
    masks = [species_mask(species, 10.0) for species in config.data.species]
    expected = shape_labels(SHAPE, particles(1), masks)
    assert (meta != expected).mean() < 2e-3  # angles in the file are rounded
    assert found["test"][0].target_path is None


def test_maps_that_exist_are_kept_unless_told_otherwise(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(dataset) == 0
    path = dataset / "data" / "train" / "train0_target.mrc"
    before = path.read_bytes()
    capsys.readouterr()
    assert call(dataset, "--labels", "shape") == 0
    assert path.read_bytes() == before
    assert "--overwrite" in capsys.readouterr().out
    assert call(dataset, "--labels", "shape", "--overwrite") == 0
    assert path.read_bytes() != before


def test_bad_input_is_one_line_and_exit_code_2(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert call(dataset, *arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "--labels sphere" in refused("--data.train_labels", "map")
    assert "no such folder" in refused("--data", str(dataset / "nowhere"))
    bare = particles(1).with_(rotations=None)
    write_annotations(dataset / "data" / "meta" / "meta0_objl.xml", bare)
    line = refused()
    assert "meta0_objl.xml" in line
    assert "6 of 6" in line


def test_a_data_set_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(targets.main, []) == 2
    assert "give --data DIR" in capsys.readouterr().err
