"""Templates against the densities they are made of; filters against their definitions; refined picks against truth."""

from __future__ import annotations

import numpy as np
import pytest

from robpicker_jax.annotations.geometry import random_rotations, rotation_angle_deg
from robpicker_jax.matching import Peaks, TemplateRecipe, ball_mask, refined, shape_mask
from robpicker_jax.matching.noise import (
    filtered,
    noise_corrected,
    phase_randomised,
    radially_filtered,
    whitening_profile,
)
from robpicker_jax.matching.templates import low_pass
from robpicker_jax.rotations import local_covering
from robpicker_jax.system.errors import InputError
from tests.matching.cases import density, planted, template

pytestmark = pytest.mark.fast


def gaussian(edge: int, centre: tuple[float, float, float], deviation: float) -> np.ndarray:
    grid = np.indices((edge,) * 3).transpose(1, 2, 3, 0)
    return np.exp(-((grid - centre) ** 2).sum(axis=-1) / (2 * deviation**2)).astype(np.float32)


def test_a_gaussian_is_resampled_filtered_centred_and_inverted() -> None:
    """Its width after the low-pass filter is known in closed form."""
    source = gaussian(31, (16.3, 14.6, 15.2), 3.0)  # 5 Å voxels: 15 Å
    made = TemplateRecipe(diameter_angstrom=80.0, low_pass_angstrom=40.0).make("g", source, 5.0, 10.0)
    blur = 40 * np.sqrt(2 * np.log(2)) / (2 * np.pi)
    width = np.sqrt(15**2 + blur**2) / 10
    height = (15 / (width * 10)) ** 3
    centre = made.edge // 2
    expected = -height * gaussian(made.edge, (centre,) * 3, width)
    np.testing.assert_allclose(made.density, expected, atol=0.02 * height)
    assert made.diameter_vox == pytest.approx(8)
    np.testing.assert_array_equal(made.mask, ball_mask(made.edge, 4 * 1.15))


def test_templates_of_other_recipes() -> None:
    box = np.pad(density(13), 2)
    bright = TemplateRecipe(dark=False, centre=False).make("b", box, 10.0, 10.0)
    assert bright.density.max() > -bright.density.min()
    shape = TemplateRecipe(dark=False, mask="shape", symmetry="C2").make("s", box, 10.0, 10.0)
    assert shape.turns
    turned = shape.density[:, ::-1, ::-1]  # half a turn about z
    np.testing.assert_allclose(shape.density, turned, atol=1e-5)
    with pytest.raises(InputError, match="unknown mask"):
        TemplateRecipe(mask="cube").make("m", box, 10.0, 10.0)
    with pytest.raises(InputError, match="stands out"):
        TemplateRecipe().make("m", np.zeros((9, 9, 9)), 10.0, 10.0)


@pytest.mark.parametrize(
    ("recipe", "voxel", "message"),
    [
        (TemplateRecipe(low_pass_angstrom=200.0), 10.0, "resolution of 200 Å is coarser than the whole map"),
        (TemplateRecipe(), 100.0, "resolution of 200 Å is coarser"),
        (TemplateRecipe(diameter_angstrom=400.0), 10.0, "particle of 400 Å does not fit a map that is 155 Å wide"),
        (TemplateRecipe(diameter_angstrom=float("inf")), 10.0, "does not fit"),
        (TemplateRecipe(diameter_angstrom=80.0), 0.1, "too large to be searched for"),
        (TemplateRecipe(diameter_angstrom=80.0, soft_vox=float("nan")), 10.0, "too large to be searched for"),
    ],
)
def test_lengths_that_cannot_be_meant_are_refused(recipe: TemplateRecipe, voxel: float, message: str) -> None:
    """A unit that was mistaken would otherwise end in a box of terabytes."""
    source = gaussian(31, (15.0, 15.0, 15.0), 3.0)
    with pytest.raises(InputError, match=message):
        recipe.make("g", source, 5.0, voxel)


def test_masks() -> None:
    ball = ball_mask(21, 6.0, 1.0)
    assert ball[10, 10, 16] == 1
    np.testing.assert_allclose([ball[10, 10, 17], ball[10, 10, 18]], np.exp([-1, -4]), rtol=1e-5)
    assert ball[10, 10, 19] == 0
    hollow = ball_mask(21, 5.0) - ball_mask(21, 2.0)
    np.testing.assert_array_equal(shape_mask(-hollow, grow_vox=0.0, soft_vox=0.0), ball_mask(21, 5.0))
    assert shape_mask(hollow, grow_vox=2.0, soft_vox=0.0)[10, 10, 17] == 1


def test_the_low_pass_halves_its_resolution() -> None:
    """An impulse's transform is the filter itself."""
    impulse = np.zeros((20, 20, 20), np.float32)
    impulse[0, 0, 0] = 1
    gain = np.fft.rfftn(low_pass(impulse, 10.0, 50.0))
    assert abs(gain[0, 0, 4]) == pytest.approx(0.5, abs=1e-5)  # 4 / 200 Å
    assert abs(gain[0, 0, 0]) == pytest.approx(1, abs=1e-5)


def test_picks_are_refined_to_their_orientations_and_positions() -> None:
    rng = np.random.default_rng(0)
    truth = random_rotations(2, rng)
    voxels = [(9, 9, 9), (9, 9, 22)]
    volume = planted((19, 19, 32), voxels, truth, noise=0.02)
    volume = 0.6 * volume + 0.4 * np.roll(volume, 1, axis=2)  # moves everything by 0.4 voxels along x
    start = np.stack([local_covering(10.0, 10.0)[k] @ r for k, r in zip((1, 4), truth, strict=True)])
    peaks = Peaks(np.array(voxels), np.ones(2, np.float32), 0.0)
    coarse = refined(volume, template(), peaks, start)
    found = refined(volume, template(), peaks, start, step_deg=20.0)
    order = np.argsort(found.positions_vox[:, 0])
    assert rotation_angle_deg(start, truth).min() > 9
    assert rotation_angle_deg(found.rotations[order], truth).max() < 6
    np.testing.assert_allclose(found.positions_vox[order], [[9.4, 9, 9], [22.4, 9, 9]], atol=0.15)
    assert found.scores.min() > coarse.scores.max()
    assert found.class_names.tolist() == ["blob"] * 2
    assert len(refined(volume, template(), Peaks(np.zeros((0, 3), int), np.zeros(0), 0.0), np.zeros((0, 3, 3)))) == 0


def test_random_phases_keep_the_spectrum() -> None:
    made = template()
    random = phase_randomised(made)
    np.testing.assert_allclose(
        np.abs(np.fft.rfftn(random.density))[1:, 1:, 1:-1],
        np.abs(np.fft.rfftn(made.density * made.mask))[1:, 1:, 1:-1],
        rtol=1e-3,
        atol=1e-4,
    )
    overlap = np.corrcoef(random.density.ravel(), (made.density * made.mask).ravel())[0, 1]
    assert abs(overlap) < 0.5
    np.testing.assert_array_equal(phase_randomised(made).density, random.density)


def test_noise_correction_keeps_the_mean() -> None:
    rng = np.random.default_rng(0)
    scores, random = rng.random((2, 8, 8, 8)).astype(np.float32)
    corrected = noise_corrected(scores, random)
    assert corrected.mean() == pytest.approx(scores.mean(), abs=1e-6)
    np.testing.assert_allclose(corrected - scores, random.mean() - random, atol=1e-6)


def test_whitening_flattens_the_spectrum() -> None:
    rng = np.random.default_rng(0)
    profile = np.exp(-np.linspace(0, 2, 17))
    coloured = radially_filtered(rng.normal(size=(48, 48, 48)), profile)
    gain = whitening_profile(coloured, edge=32)
    middle = slice(3, 14)  # away from the zero frequency and the taper
    flat = gain * profile / (gain * profile)[middle].mean()
    np.testing.assert_allclose(flat[middle], 1, atol=0.1)
    assert gain[0] == 0
    assert gain[-1] == pytest.approx(0, abs=1e-9)
    white = filtered(coloured, gain)
    assert white.mean() == pytest.approx(0, abs=1e-5)
    assert white.std() == pytest.approx(1, abs=1e-5)
