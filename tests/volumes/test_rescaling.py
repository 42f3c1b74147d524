"""A volume read at another voxel size."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.volumes.rescaling import RescaledReader
from robpicker_jax.volumes.volume import ArrayReader


def reader(array: np.ndarray, here: float, there: float) -> RescaledReader:
    return RescaledReader(ArrayReader(Path("a.mrc"), array, (here, here, here)), there, here)


@pytest.mark.parametrize(("here", "there"), [(20.0, 10.0), (10.0, 20.0), (10.0, 13.7), (13.7, 10.0), (10.0, 10.0)])
def test_as_jax_resamples_an_image(here: float, there: float) -> None:
    """jax.image counts from the corner of the first voxel: half a voxel of each grid lies between the two."""
    density = np.random.default_rng(0).normal(size=(13, 17, 19)).astype(np.float32)
    found = reader(density, here, there)
    factor = here / there
    shift = np.full(3, 0.5 - 0.5 * factor, np.float32)
    expected = jax.image.scale_and_translate(
        density, found.shape_zyx, (0, 1, 2), np.full(3, factor, np.float32), shift, "cubic", antialias=True
    )
    np.testing.assert_allclose(found.read(), expected, atol=2e-5)
    assert found.voxel_size_angstrom == there


@given(st.floats(0.3, 3.0), st.data())
@settings(max_examples=30, deadline=None)
def test_a_box_is_what_the_whole_has_there(factor: float, data: st.DataObject) -> None:
    density = np.random.default_rng(1).normal(size=(9, 8, 11)).astype(np.float32)
    found = reader(density, factor, 1.0)
    whole = found.read()
    assert whole.shape == found.shape_zyx
    box = []
    for size in found.shape_zyx:
        first = data.draw(st.integers(0, size - 1))
        box.append(slice(first, data.draw(st.integers(first + 1, size))))
    np.testing.assert_allclose(found.read((box[0], box[1], box[2])), whole[tuple(box)], atol=1e-5)


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.3])
def test_positions_in_angstrom_stay(factor: float) -> None:
    """A blob keeps its centre of gravity in Å, whatever the voxels are."""
    z, y, x = np.indices((40, 44, 48))
    centre = np.array([18.0, 22.3, 25.6])
    density = np.exp(-((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) / 50).astype(np.float32)
    found = reader(density, factor, 1.0).read()
    weights = found / found.sum()
    grid = np.indices(found.shape)
    measured = [(weights * axis).sum() / factor for axis in grid]
    np.testing.assert_allclose(measured, centre, atol=0.02)


@given(st.floats(0.4, 2.5))
@settings(deadline=None)
def test_maps_go_there_and_back_by_the_nearest_voxel(factor: float) -> None:
    stored = np.zeros((12, 13, 14), np.uint8)
    stored[3:9, 2:10, 5:12] = 1
    found = reader(stored.astype(np.float32), factor, 1.0)
    there = found.onto_grid(stored)
    assert there.shape == found.shape_zyx
    back = found.onto_source(there)
    assert back.shape == stored.shape
    if factor >= 1:  # a finer grid loses nothing, but at its end, where it stops short of the last voxel
        np.testing.assert_array_equal(back[:-1, :-1, :-1], stored[:-1, :-1, :-1])
    voxels = found.onto_source(np.repeat(there[..., None], 2, axis=-1))
    np.testing.assert_array_equal(voxels[..., 1], back)
