"""Euler-angle conventions against scipy's rotations, built independently of the closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from robpicker_jax.annotations.geometry import (
    CONVENTIONS,
    euler_from_matrix,
    matrix_from_euler,
    random_rotations,
    rotation_angle_deg,
)
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast

any_angle = st.floats(-360, 360, allow_nan=False)
lock_angle = st.sampled_from([0.0, 180.0, -180.0, 1e-9, 180 - 1e-9])


def scipy_matrix(angles: np.ndarray, convention: str) -> np.ndarray:
    """The same rotations by scipy's sequences: upper case intrinsic, lower case extrinsic."""
    if convention == "deepfinder":
        phi, psi, the = angles.T
        return Rotation.from_euler("zxz", np.stack([phi, the, psi], -1), degrees=True).as_matrix()
    if convention == "relion":
        return Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
    return Rotation.from_euler("zxz", angles, degrees=True).inv().as_matrix()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_matrices_agree_with_scipy(convention: str) -> None:
    angles = np.random.default_rng(0).uniform(-360, 360, (500, 3))
    np.testing.assert_allclose(matrix_from_euler(angles, convention), scipy_matrix(angles, convention), atol=1e-14)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_single_elemental_rotations(convention: str) -> None:
    """A quarter turn by one angle alone: where the reference's x axis goes, worked out by hand."""
    quarter = {"deepfinder": [90, 0, 0], "relion": [90, 0, 0], "dynamo": [90, 0, 0]}[convention]
    goes_to = {"deepfinder": (0, 1, 0), "relion": (0, -1, 0), "dynamo": (0, -1, 0)}[convention]
    np.testing.assert_allclose(matrix_from_euler(quarter, convention) @ (1, 0, 0), goes_to, atol=1e-15)


def test_object_list_angles_are_those_of_the_published_mask_rotation() -> None:
    """DeepFinder samples a (z, y, x) mask by a YZY rotation of its (y, z, x) indices; R must be its inverse."""
    phi, psi, the = 35.0, -70.0, 110.0
    sampling = Rotation.from_euler("YZY", [-phi, -the, -psi], degrees=True).as_matrix()
    to_yzx = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])  # (x, y, z) -> (y, z, x)
    inverse = to_yzx.T @ sampling @ to_yzx
    np.testing.assert_allclose(matrix_from_euler([phi, psi, the], "deepfinder"), inverse.T, atol=1e-15)


@pytest.mark.parametrize("convention", CONVENTIONS)
@settings(max_examples=100, deadline=None)
@given(first=any_angle, middle=st.one_of(any_angle, lock_angle), last=any_angle)
@example(first=0.0, middle=-1.0, last=-360.0)  # rounding gave exactly -180 degrees
def test_round_trip_even_in_gimbal_lock(convention: str, first: float, middle: float, last: float) -> None:
    middle_index = {"deepfinder": 2, "relion": 1, "dynamo": 1}[convention]
    angles = np.insert(np.array([first, last]), middle_index, middle)
    matrix = matrix_from_euler(angles, convention)
    again = euler_from_matrix(matrix, convention)
    assert 0 <= again[middle_index] <= 180
    assert (again > -180).all()
    assert (again <= 180).all()
    assert rotation_angle_deg(matrix, matrix_from_euler(again, convention)) < 1e-5
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-14)


@pytest.mark.parametrize(("convention", "zeroed"), [("deepfinder", 0), ("relion", 2), ("dynamo", 0)])
@pytest.mark.parametrize("middle", [0.0, 180.0])
def test_gimbal_lock_gives_all_to_one_angle(convention: str, zeroed: int, middle: float) -> None:
    middle_index = {"deepfinder": 2, "relion": 1, "dynamo": 1}[convention]
    angles = np.insert(np.array([30.0, 50.0]), middle_index, middle)
    again = euler_from_matrix(matrix_from_euler(angles, convention), convention)
    assert again[zeroed] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(matrix_from_euler(again, convention), matrix_from_euler(angles, convention), atol=1e-14)


def test_conventions_convert_into_one_another() -> None:
    """dynamo (tdrot, tilt, narot) is deepfinder with psi = −tdrot, the = −tilt, phi = −narot."""
    tdrot, tilt, narot = 20.0, -40.0, 75.0
    np.testing.assert_allclose(
        matrix_from_euler([tdrot, tilt, narot], "dynamo"),
        matrix_from_euler([-narot, -tdrot, -tilt], "deepfinder"),
        atol=1e-15,
    )


def test_unknown_orientations_stay_unknown() -> None:
    angles = np.array([[1.0, 2.0, 3.0], [np.nan, 2.0, 3.0]])
    matrices = matrix_from_euler(angles, "relion")
    assert np.isfinite(matrices[0]).all()
    assert np.isnan(matrices[1]).all()
    again = euler_from_matrix(matrices, "relion")
    np.testing.assert_allclose(again[0], angles[0])
    assert np.isnan(again[1]).all()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match=r"'eman'.*deepfinder, relion, dynamo"):
        matrix_from_euler([0, 0, 0], "eman")
    with pytest.raises(InputError, match=r"\(2,\)"):
        matrix_from_euler([0, 0], "relion")
    with pytest.raises(InputError, match=r"\(3,\)"):
        euler_from_matrix([0, 0, 0], "relion")


def test_empty_arrays_pass() -> None:
    assert matrix_from_euler(np.zeros((0, 3)), "dynamo").shape == (0, 3, 3)
    assert euler_from_matrix(np.zeros((0, 3, 3)), "dynamo").shape == (0, 3)


def test_random_rotations_are_uniform_and_reproducible() -> None:
    n = 20_000
    rotations = random_rotations(n, np.random.default_rng(3))
    np.testing.assert_array_equal(rotations, random_rotations(n, np.random.default_rng(3)))
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1) - np.eye(3), 0, atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    for i in range(3):  # each entry of a uniform rotation is uniform on [-1, 1] (Archimedes)
        for j in range(3):
            assert kstest(rotations[:, i, j], "uniform", args=(-1, 2)).pvalue > 1e-4


def test_rotation_angle() -> None:
    for angle in (0.0, 1e-6, 30.0, 179.999999, 180.0):
        turned = Rotation.from_rotvec(np.deg2rad(angle) * np.array([0.6, 0, 0.8])).as_matrix()
        assert rotation_angle_deg(np.eye(3), turned) == pytest.approx(angle, abs=1e-6)


def test_a_measured_pair_of_dynamo_and_relion_angles() -> None:
    """Angles of one particle in both programs, which gave identical reconstructions (published with eulerangles)."""
    np.testing.assert_allclose(
        euler_from_matrix(matrix_from_euler([-47.2730, 1.1777, -132.3000], "dynamo"), "relion"),
        [137.7000, 1.1777, 42.7270],
        atol=1e-9,
    )
