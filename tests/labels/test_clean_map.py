"""What corrected labels are judged against: clean labels of the form that the correction learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import read_annotations
from robpicker_jax.config import load_config
from robpicker_jax.datasets import OpenedTomogram, load_target
from robpicker_jax.labels import clean_labels
from tests.steps import loaded_data


@pytest.fixture
def simulated(tiny_config: Path, tiny_data: Path) -> OpenedTomogram:
    """The training tomogram of a simulated data set."""
    (tomogram,) = loaded_data(load_config(tiny_config, [f"data.dir={tiny_data}"])).train
    return tomogram


def test_balls_lie_about_the_clean_positions(simulated: OpenedTomogram, tiny_config: Path) -> None:
    data = load_config(tiny_config, ["data.meta_labels=sphere"]).data
    found = clean_labels(simulated, data)
    assert found is not None
    truth = read_annotations(simulated.files.volume_path.with_name(f"{simulated.name}_truth_objl.xml"))
    grid = np.stack(np.meshgrid(*map(np.arange, simulated.shape_zyx), indexing="ij"), axis=-1)
    covered = np.zeros(simulated.shape_zyx, bool)
    for position, label in zip(truth.positions_vox[:, ::-1], truth.labels, strict=True):
        inside = ((grid - position) ** 2).sum(axis=-1) <= data.species[label - 1].radius_vox ** 2
        covered |= inside
        assert (found[inside] == label).mean() > 0.8  # where balls touch, a voxel goes to the nearest
    np.testing.assert_array_equal(found > 0, covered)


def test_shapes_are_the_stored_map(simulated: OpenedTomogram, tiny_config: Path) -> None:
    data = load_config(tiny_config, ["data.meta_labels=shape"]).data
    stored = load_target(simulated.files, len(data.species), simulated.shape_zyx)
    np.testing.assert_array_equal(clean_labels(simulated, data), stored)


def test_real_data_have_none(simulated: OpenedTomogram, tiny_config: Path) -> None:
    data = load_config(tiny_config).data
    files = replace(simulated.files, volume_path=simulated.files.volume_path.with_name("other") / "elsewhere.mrc")
    assert clean_labels(replace(simulated, files=files), data) is None
    assert clean_labels(simulated, replace(data, train_labels="map")) is None
