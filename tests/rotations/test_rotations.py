"""Rotated volumes, point groups and coverings against SciPy, closed forms and draws of random rotations."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.geometry import random_rotations, rotation_angle_deg
from robpicker_jax.rotations import (
    asymmetric_unit,
    covering,
    local_covering,
    matrices_from_quaternions,
    oversample,
    point_group,
    quaternions_from_matrices,
    rotate_volume,
    rotation_count,
    symmetrise,
)
from robpicker_jax.rotations.symmetry import nearest_equivalent
from robpicker_jax.simulation.drawing import draw_sample
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast

GROUPS = {"C1": 1, "C7": 7, "D1": 2, "D4": 8, "T": 12, "O": 24, "I": 60, "c2": 2}


def blob(edge: int = 17) -> np.ndarray:
    """An asymmetric smooth density that is 0 near the faces."""
    grid = np.indices((edge,) * 3).transpose(1, 2, 3, 0) - edge // 2
    result = np.zeros((edge,) * 3)
    for weight, centre in ((1.0, (0, 0, 0)), (0.8, (3, 0, 1)), (-0.5, (0, 3, -1)), (0.6, (-1, 1, 3))):
        result += weight * np.exp(-((grid - centre) ** 2).sum(axis=-1) / 4)
    return result.astype(np.float32)


@given(seed=st.integers(0, 2**32 - 1))
def test_quaternions_turn_vectors_and_come_back(seed: int) -> None:
    """Turned vectors are q v q* / |q|², by the product of quaternions: v + 2 u × (u × v + w v) with q = (w, u)."""
    rng = np.random.default_rng(seed)
    quaternions, vectors = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 3))
    matrices = matrices_from_quaternions(quaternions)
    unit = quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)
    w, u = unit[..., :1], unit[..., 1:]
    turned = vectors + 2 * np.cross(u, np.cross(u, vectors) + w * vectors)
    np.testing.assert_allclose((matrices @ vectors[..., None])[..., 0], turned, atol=1e-12)
    back = quaternions_from_matrices(matrices)
    np.testing.assert_allclose(back, unit * np.sign(w), atol=1e-12)
    assert matrices_from_quaternions(np.zeros((0, 4))).shape == (0, 3, 3)
    assert quaternions_from_matrices(np.zeros((2, 0, 3, 3))).shape == (2, 0, 4)


def test_half_turns_have_quaternions() -> None:
    halves = np.array([np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1])])
    np.testing.assert_allclose(matrices_from_quaternions(quaternions_from_matrices(halves)), halves, atol=1e-12)


@pytest.mark.parametrize(("name", "order"), GROUPS.items())
def test_point_groups_are_scipys_or_their_size(name: str, order: int) -> None:
    group = point_group(name)
    assert group.shape == (order, 3, 3)
    np.testing.assert_allclose(group[0], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(group), 1)
    for element in group:  # closed: each product is found again
        away = np.abs(group[:, None] - (element @ group)[None]).max(axis=(2, 3)).min(axis=0)
        assert away.max() < 1e-9
    reference = scipy.spatial.transform.Rotation.create_group(name.upper()).as_matrix()
    angles = [sorted(np.round(np.trace(g, axis1=1, axis2=2), 6)) for g in (group, reference)]
    assert angles[0] == angles[1]


@pytest.mark.parametrize("name", ["C0", "X", "D", "", "C1000", "CI"])
def test_unknown_point_groups_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="symmetry"):
        point_group(name)


def test_axes_of_the_groups() -> None:
    def turns(name: str, axis: tuple[float, float, float]) -> int:
        along = np.array(axis) / np.linalg.norm(axis)
        return int((np.abs(point_group(name) @ along - along).max(axis=1) < 1e-9).sum())

    golden = (1 + np.sqrt(5)) / 2
    assert (turns("C5", (0, 0, 1)), turns("D5", (0, 0, 1)), turns("D5", (1, 0, 0))) == (5, 5, 2)
    assert (turns("T", (0, 0, 1)), turns("T", (1, 1, 1)), turns("O", (1, 0, 0)), turns("O", (1, 1, 1))) == (2, 3, 4, 3)
    assert (turns("I", (0, 0, 1)), turns("I", (1, 1, 1)), turns("I", (1, 0, golden))) == (2, 3, 5)


@pytest.mark.parametrize(("step", "symmetry"), [(40.0, "C1"), (25.0, "C1"), (15.0, "C1"), (20.0, "D2"), (15.0, "O")])
def test_every_rotation_is_near_one_of_the_covering(step: float, symmetry: str) -> None:
    """Of random rotations 99 % lie within the step, and none further than 1.25 times it."""
    rotations = covering(step, symmetry)
    drawn = random_rotations(400, np.random.default_rng(0))
    group = point_group(symmetry)
    quaternions = quaternions_from_matrices(rotations)
    near = np.stack([np.abs(quaternions_from_matrices(drawn @ g) @ quaternions.T).max(axis=1) for g in group])
    distance = 2 * np.rad2deg(np.arccos(np.clip(near.max(axis=0), 0, 1)))
    assert np.quantile(distance, 0.99) <= step
    assert distance.max() <= 1.25 * step
    assert abs(len(rotations) * len(group) / rotation_count(step) - 1) < 0.2


def test_the_count_of_a_step_is_about_healpixs() -> None:
    assert [rotation_count(step) for step in (15, 10, 7)] == [4401, 14852, 43298]
    for bad in (0.0, -1.0, 181.0, 0.1):
        with pytest.raises(InputError, match="angular step"):
            rotation_count(bad)


def test_the_asymmetric_unit_holds_one_of_each_set_of_equivalents() -> None:
    drawn = random_rotations(50, np.random.default_rng(1))
    for name in ("C3", "D3", "I"):
        group = point_group(name)
        inside = asymmetric_unit((drawn[:, None] @ group).reshape(-1, 3, 3), name).reshape(50, len(group))
        np.testing.assert_array_equal(inside.sum(axis=1), 1)


def test_the_nearest_equivalent_of_a_rotated_copy_is_the_rotation() -> None:
    rng = np.random.default_rng(2)
    drawn, group = random_rotations(20, rng), point_group("D3")
    others = drawn @ group[rng.integers(len(group), size=20)]
    np.testing.assert_allclose(nearest_equivalent(others, drawn, "D3"), drawn, atol=1e-12)


def test_local_coverings_lie_within_their_reach() -> None:
    small = local_covering(6.0, 3.0)
    angles = rotation_angle_deg(small, np.eye(3))
    np.testing.assert_allclose(small[0], np.eye(3))
    assert angles.max() <= 6 + 1e-9
    assert len(small) == 33  # grid points within two steps of the origin


@pytest.mark.parametrize("edge", [16, 17])
def test_oversampled_volumes_keep_their_voxels_and_what_lies_between(edge: int) -> None:
    grid = np.arange(edge) * 2 * np.pi / edge
    wave = np.cos(2 * grid)[:, None, None] + np.sin(grid)[None, :, None] * np.cos(3 * grid)[None, None, :]
    between = np.arange(2 * edge) * np.pi / edge
    expected = np.cos(2 * between)[:, None, None] + np.sin(between)[None, :, None] * np.cos(3 * between)[None, None, :]
    np.testing.assert_allclose(oversample(wave, 2), expected, atol=1e-5)


@pytest.mark.parametrize("edge", [17, 18])
def test_rotated_volumes_are_the_simulators(edge: int) -> None:
    """The simulator draws odd cubes; an even one has the same centre with a plane of zeros before it."""
    odd = blob(17)
    volume = np.pad(odd, [(edge - 17, 0)] * 3)
    for rotation in random_rotations(3, np.random.default_rng(3)):
        particle = Particles([[12, 12, 12]], [1], rotations=rotation[None])
        expected = draw_sample((25, 25, 25), particle, [odd])[3:22, 3:22, 3:22]
        turned = rotate_volume(jnp.asarray(volume), jnp.asarray(rotation, jnp.float32), shape=(19, 19, 19))
        np.testing.assert_allclose(turned, expected, atol=2e-5)


def test_shifts_move_the_turned_volume() -> None:
    volume = jnp.asarray(blob(17))
    moved = rotate_volume(volume, jnp.eye(3), jnp.array([1.0, -2.0, 3.0]))
    np.testing.assert_allclose(moved[1:, :-2, 3:], blob(17)[:-1, 2:, :-3], atol=1e-6)


def test_a_finer_grid_turns_more_exactly() -> None:
    """Against the closed form of the turned density."""
    rotation = random_rotations(1, np.random.default_rng(4))[0]
    grid = np.indices((17,) * 3).transpose(1, 2, 3, 0) - 8
    expected = np.zeros((17,) * 3)
    for weight, centre in ((1.0, (0, 0, 0)), (0.8, (3, 0, 1)), (-0.5, (0, 3, -1)), (0.6, (-1, 1, 3))):
        turned = (rotation @ np.array(centre, float)[::-1])[::-1]
        expected += weight * np.exp(-((grid - turned) ** 2).sum(axis=-1) / 4)
    matrix = jnp.asarray(rotation, jnp.float32)
    errors = [
        np.abs(np.asarray(rotate_volume(oversample(blob(17), factor), matrix, oversampling=factor)) - expected).max()
        for factor in (1, 2, 4)
    ]
    assert errors[1] < 0.4 * errors[0]
    assert errors[2] < 0.012


def test_symmetrised_volumes_do_not_change_when_turned() -> None:
    volume = symmetrise(blob(17), "D2")
    for element in point_group("D2"):
        turned = rotate_volume(jnp.asarray(volume), jnp.asarray(element, jnp.float32))
        np.testing.assert_allclose(turned, volume, atol=1e-5)
    np.testing.assert_array_equal(symmetrise(blob(17), "C1"), blob(17))
