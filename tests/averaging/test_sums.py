"""Weighted Fourier averages against closed forms and plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from robpicker_jax.averaging.frequencies import half_space, values_of, volume
from robpicker_jax.averaging.sums import Sums
from robpicker_jax.averaging.weights import Transfer
from robpicker_jax.rotations import point_group
from tests.averaging.averaging_cases import VOXEL, gaussian_copies, lumps, poses, wedged

EDGE = 24
EVERYTHING = Transfer(-90.0, 90.0)

pytestmark = pytest.mark.fast


def difference(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


@pytest.mark.parametrize("edge", [24, 25])
def test_rotated_copies_without_noise_average_to_the_map(edge: int) -> None:
    rotations, offsets = poses(6)
    sums = Sums.empty(edge)
    sums.add(gaussian_copies(edge, rotations, offsets), offsets, rotations, EVERYTHING, VOXEL)
    assert difference(sums.average(0.0), lumps(edge)) < 2e-3
    assert sums.count == 6
    assert_allclose(sums.weight, 6, rtol=1e-6)


def test_wedges_of_other_orientations_fill_each_other() -> None:
    rotations, offsets = poses(16)
    transfer = Transfer(-60.0, 60.0)
    seen = wedged(gaussian_copies(EDGE, rotations, offsets), transfer)
    sums = Sums.empty(EDGE)
    sums.add(seen, offsets, rotations, transfer, VOXEL)
    assert (sums.weight > 0).all()
    # The face of a wedge in a box is one Fourier voxel wide, which no interpolation follows exactly.
    weighted = difference(sums.average(0.0), lumps(EDGE))
    assert weighted < 0.07
    unweighted = Sums.empty(EDGE)  # as if there were no wedge: what it took is missing
    unweighted.add(seen, offsets, rotations, EVERYTHING, VOXEL)
    assert difference(unweighted.average(0.0), lumps(EDGE)) > 3 * weighted


def test_ctf_is_divided_out() -> None:
    rotations, offsets = poses(8)
    transfer = Transfer(-90.0, 90.0, ctf=lambda k: 0.2 + 0.8 * np.cos(60 * k) ** 2)
    seen = wedged(gaussian_copies(EDGE, rotations, offsets), transfer)
    sums = Sums.empty(EDGE)
    sums.add(seen, offsets, rotations, transfer, VOXEL)
    assert difference(sums.average(0.0), lumps(EDGE)) < 0.01


def test_what_nobody_sees_is_zero_and_wiener_damps_the_rest() -> None:
    transfer = Transfer(-40.0, 40.0)
    sums = Sums.empty(EDGE)
    sums.add(lumps(EDGE)[None], np.zeros((1, 3)), np.eye(3)[None], transfer, VOXEL)
    k = half_space(EDGE, 0.0, EDGE / 2)
    average = sums.average(0.1)
    found = values_of(average, k)
    right = values_of(lumps(EDGE), k)
    # On the beam's axis nothing is measured; on the tilt axis everything: S / (1 + 0.1).
    beam = (k[:, 0] == 0) & (k[:, 1] == 0) & (np.abs(k[:, 2]) > 2)
    tilt = (k[:, 0] == 0) & (k[:, 2] == 0)
    assert np.abs(found[beam]).max() < 1e-4 * np.abs(right).max()
    assert_allclose(found[tilt], right[tilt] / 1.1, rtol=1e-3, atol=1e-4 * np.abs(right).max())


def test_symmetry_is_the_mean_over_the_group() -> None:
    group = point_group("C3")
    sums = Sums.empty(EDGE)
    box = gaussian_copies(EDGE, np.eye(3)[None], np.zeros((1, 3)))
    sums.add(box, np.zeros((1, 3)), np.eye(3)[None], EVERYTHING, VOXEL, symmetry=group)
    # r_reference = g r_reference: the copies of the map by the inverse elements, in closed form.
    expected = gaussian_copies(EDGE, np.swapaxes(group, 1, 2), np.zeros((3, 3))).mean(axis=0)
    assert difference(sums.average(0.0), expected) < 2e-3
    assert sums.count == 1


def test_rows_beyond_the_rotations_do_not_count() -> None:
    rotations, offsets = poses(3)
    copies = gaussian_copies(EDGE, rotations, offsets)
    exact, filled = Sums.empty(EDGE), Sums.empty(EDGE)
    exact.add(copies, offsets, rotations, EVERYTHING, VOXEL)
    more = np.concatenate([copies, 100 + copies])
    filled.add(more, np.concatenate([offsets, offsets]), rotations, EVERYTHING, VOXEL)
    assert_allclose(filled.signal, exact.signal, rtol=1e-5, atol=1e-4)
    assert_allclose(filled.weight, exact.weight)
    both = exact + filled
    assert both.count == 6
    assert_allclose(both.average(0.0), exact.average(0.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("edge", [8, 9])
def test_half_space_has_one_of_each_pair_and_volume_inverts(edge: int) -> None:
    k = half_space(edge, 0.0, edge / 2)
    keys = {tuple(row) for row in k.tolist()}
    assert len(keys) == len(k)
    assert not any(tuple(-np.array(key)) in keys for key in keys if any(key))
    reach = range(-edge, edge + 1)
    inside = sum(x * x + y * y + z * z < edge * edge / 4 for x in reach for y in reach for z in reach)
    assert 2 * len(k) - 1 == inside
    values = values_of(lumps(edge), k)
    assert_allclose(values_of(volume(values, k, edge), k), values, atol=1e-5)
