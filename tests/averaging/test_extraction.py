"""Boxes around particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from robpicker_jax.averaging.extraction import box_centres, boxes, cut, share_outside, soft_ball, taper
from robpicker_jax.volumes.volume import ArrayReader

pytestmark = pytest.mark.fast


def reader(shape: tuple[int, int, int] = (12, 14, 16)) -> ArrayReader:
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return ArrayReader(Path("memory.mrc"), data, (10.0,) * 3)


def test_centre_and_fraction_add_up() -> None:
    positions = np.array([[3.5, 2.49, 7.0], [0.2, 5.75, 9.51]])
    centres, fractions = box_centres(positions)
    assert_array_equal(centres, [[4, 2, 7], [0, 6, 10]])
    assert_allclose(centres + fractions, positions, atol=1e-6)
    assert np.abs(fractions).max() <= 0.5


@pytest.mark.parametrize("edge", [4, 5])
def test_box_is_the_slice_around_its_centre(edge: int) -> None:
    volume = reader()
    data = volume.read()
    box = cut(volume, np.array([8, 7, 6]), edge)
    half = edge // 2
    expected = data[6 - half : 6 - half + edge, 7 - half : 7 - half + edge, 8 - half : 8 - half + edge]
    assert_array_equal(box, expected)
    assert box[half, half, half] == data[6, 7, 8]


def test_box_over_the_edge_is_filled_with_its_mean() -> None:
    volume = reader()
    box = cut(volume, np.array([0, 7, 6]), 6)
    inside = volume.read()[3:9, 4:10, 0:3]
    assert_array_equal(box[:, :, 3:], inside)
    assert_allclose(box[:, :, :3], inside.mean(), rtol=1e-5)
    outside = cut(volume, np.array([100, 7, 6]), 4)
    assert_array_equal(outside, 0)


def test_share_outside_counts_voxels() -> None:
    volume = reader()
    positions = np.array([[8.0, 7.0, 6.0], [0.0, 7.0, 6.0], [0.0, 0.0, 0.0], [-30.0, 7.0, 6.0]])
    assert_allclose(share_outside(positions, 6, volume.shape_zyx), [0, 0.5, 1 - 0.125, 1])


def test_boxes_are_normalised_by_their_surroundings_and_tapered() -> None:
    volume = reader((24, 24, 24))
    [(which, volumes, offsets)] = boxes(volume, np.array([[12.25, 11.0, 12.0]]), 16, 4, sign=-1.0, batch=2)
    assert_array_equal(which, [0])
    assert_allclose(offsets, [[0.25, 0, 0], [0, 0, 0]])
    soft = taper(16)
    around = (soft_ball(16, 4, 0.0) == 0) & (soft > 0.999)
    plain = volumes[0][around]
    assert abs(plain.mean()) < 0.1
    assert plain.std() == pytest.approx(1, abs=0.1)
    assert_allclose(volumes[0][soft == 0], 0)
    data = volume.read()[4:20, 3:19, 4:20]
    assert np.corrcoef(plain, data[around])[0, 1] == pytest.approx(-1, abs=1e-5)
    assert_array_equal(volumes[1], 0)


@pytest.mark.parametrize(("edge", "radius"), [(32, 15.4), (32, 15.6), (32, 16.0), (33, 16.5), (8, 4.0)])
def test_particles_that_fill_their_box_are_normalised_by_its_outermost_shell(edge: int, radius: float) -> None:
    volume = reader((40, 40, 40))
    [(_, volumes, _)] = boxes(volume, np.full((1, 3), 20.0), edge, radius)
    axis = np.arange(edge) - edge // 2
    away = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    shell = (away > edge / 2 - 1.5) & (away < edge / 2 - 0.5)
    raw = cut(volume, np.full(3, 20), edge)
    expected = (raw - raw[shell].mean()) / raw[shell].std() * taper(edge)
    assert_allclose(volumes[0], expected, atol=1e-4)


def test_soft_ball_has_its_radius_and_edge() -> None:
    ball = soft_ball(21, 5, 4)
    line = ball[10, 10, 10:]
    assert_allclose(line[:6], 1)
    assert line[7] == pytest.approx(0.5)
    assert_allclose(line[9:], 0, atol=1e-6)
