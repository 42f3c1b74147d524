"""Placement without overlap, and drawing densities into the sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from robpicker_jax.annotations.geometry import matrix_from_euler, random_rotations
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import Species
from robpicker_jax.labels import shape_labels
from robpicker_jax.molecules import phantom_density, species_mask
from robpicker_jax.simulation import Outline, draw_sample, outline, place_particles
from robpicker_jax.system.errors import InputError


def balls_of(particles: Particles, outlines: list[Outline]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres (m, 3), radii (m,) and owners (m,) of all balls of all particles."""
    centres, radii, owners = [], [], []
    assert particles.rotations is not None
    for i, (position, label, rotation) in enumerate(
        zip(particles.positions_vox, particles.labels, particles.rotations, strict=True)
    ):
        shape = outlines[label - 1]
        centres.append(position + shape.centres @ rotation.T)
        radii += [shape.radius] * len(shape.centres)
        owners += [i] * len(shape.centres)
    return np.concatenate(centres), np.array(radii), np.array(owners)


def check_apart(particles: Particles, outlines: list[Outline], shape_zyx: tuple[int, int, int], gap: float) -> None:
    centres, radii, owners = balls_of(particles, outlines)
    between = cdist(centres, centres) - radii[:, None] - radii[None]
    between[owners[:, None] == owners[None]] = np.inf
    assert between.min() >= gap - 1e-9
    assert (centres >= radii[:, None] - 1e-9).all()
    assert (centres <= np.array(shape_zyx[::-1]) - 1 - radii[:, None] + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(24, 40), st.integers(24, 40), st.integers(24, 40)),
    radii=st.lists(st.floats(0.5, 4.0), min_size=1, max_size=3),
    copies=st.integers(0, 6),
    gap=st.floats(0, 2),
    seed=st.integers(0, 1000),
)
def test_particles_are_apart_and_inside(
    shape: tuple[int, int, int], radii: list[float], copies: int, gap: float, seed: int
) -> None:
    outlines = [Outline.ball(radii[0]), *(Outline(np.array([[-r, 0, 0], [r, 0, 0.0]]), r) for r in radii[1:])]
    rng = np.random.default_rng(seed)
    try:
        particles = place_particles(shape, outlines, [copies] * len(outlines), rng, min_gap_vox=gap)
    except InputError:
        reject()  # too full: tested below
    assert np.bincount(particles.labels, minlength=len(radii) + 1)[1:].tolist() == [copies] * len(radii)
    if len(particles):
        check_apart(particles, outlines, shape, gap)


def test_crowded_volumes_are_packed_when_rejection_gives_up() -> None:
    outlines = [Outline.ball(5.0)]
    shape = (32, 64, 64)
    particles = place_particles(shape, outlines, [68], np.random.default_rng(0), min_gap_vox=0.0)
    assert 68 * 4 / 3 * np.pi * 5**3 / np.prod(shape) > 0.27
    check_apart(particles, outlines, shape, 0.0)


def test_a_volume_too_full_or_too_thin_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"simulation\.shape_zyx: only \d+ of 60 particles of class 2"):
        place_particles((24, 32, 32), [Outline.ball(2.0), Outline.ball(6.0)], [1, 60], rng)
    with pytest.raises(InputError, match="only 0 of 1"):
        place_particles((10, 64, 64), [Outline.ball(6.0)], [1], rng)


def test_positions_and_orientations_are_uniform() -> None:
    shape = (40, 100, 200)
    particles = place_particles(shape, [Outline.ball(1.0)], [3000], np.random.default_rng(1), min_gap_vox=0.0)
    spread = (particles.positions_vox - 1) / (np.array(shape[::-1]) - 3)
    np.testing.assert_allclose(spread.mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(spread.var(axis=0), 1 / 12, rtol=0.08)
    assert particles.rotations is not None
    directions = particles.rotations[:, :, 2]  # of a uniform rotation, any axis is uniform on the sphere
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(directions.T @ directions / 3000, np.eye(3) / 3, atol=0.03)


def test_orientations_stay_uniform_in_a_thin_volume() -> None:
    rod = Outline(np.array([[-6.0, 0, 0], [0, 0, 0], [6.0, 0, 0]]), 3.0)  # lies down as gladly as it stands
    particles = place_particles((21, 400, 400), [rod], [400], np.random.default_rng(0))
    assert particles.rotations is not None
    along_z = np.abs(particles.rotations[:, 2, 0])
    assert along_z.mean() == pytest.approx(0.5, abs=0.05)


def test_same_generator_same_places() -> None:
    outlines = [outline(phantom_density("hsp90", 10.0))]
    first, second = (place_particles((40, 80, 80), outlines, [20], np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.positions_vox, second.positions_vox)
    np.testing.assert_array_equal(first.rotations, second.rotations)


@pytest.mark.parametrize("name", ["ribosome", "proteasome", "hsp90", "apoferritin"])
def test_outline_covers_its_density(name: str) -> None:
    density = phantom_density(name, 10.0)
    shape = outline(density)
    points = (np.argwhere(density > 0.1 * density.max()) - density.shape[0] // 2)[:, ::-1]
    assert cdist(points, shape.centres).min(axis=1).max() <= shape.radius + 1e-9


def test_long_particles_get_slimmer_outlines_than_a_ball() -> None:
    density = phantom_density("proteasome", 10.0)
    shape = outline(density)
    assert len(shape.centres) > 1
    assert shape.radius < 0.7 * np.linalg.norm(np.argwhere(density > 0.1) - density.shape[0] // 2, axis=1).max()


def test_drawing_keeps_the_mass_and_the_place() -> None:
    density = phantom_density("albumin", 10.0)
    position = np.array([17.3, 21.8, 14.45])
    particle = Particles(position[None], [1], rotations=random_rotations(1, np.random.default_rng(0)))
    sample = draw_sample((30, 40, 36), particle, [density])
    assert sample.sum() == pytest.approx(density.sum(), rel=0.02)
    np.testing.assert_allclose(ndimage.center_of_mass(sample), position[::-1], atol=0.1)


def test_drawing_turns_as_the_rotation_says() -> None:
    density = np.zeros((21, 21, 21), np.float32)
    arm = np.array([6.0, 2.0, 4.0])  # x y z from the centre
    density[14, 12, 16] = 1.0
    rotation = matrix_from_euler(np.array([[30.0, -70.0, 50.0]]), "deepfinder")
    sample = draw_sample((50, 50, 50), Particles(np.array([[25.0, 24.0, 23.0]]), [1], rotations=rotation), [density])
    expected = rotation[0] @ arm + [25, 24, 23]
    np.testing.assert_allclose(ndimage.center_of_mass(sample)[::-1], expected, atol=0.4)


def test_drawing_agrees_with_the_label_maps() -> None:
    rng = np.random.default_rng(0)
    names = ("proteasome", "hsp90")
    densities = [phantom_density(name, 10.0) for name in names]
    shape = (60, 70, 80)
    particles = place_particles(shape, [outline(d) for d in densities], [3, 6], rng)
    sample = draw_sample(shape, particles, densities)
    masks = [species_mask(Species(name, 5, phantom=name, mask_level=0.3), 10.0) for name in names]
    labels = shape_labels(shape, particles, masks)
    drawn, labelled = sample > 0.3, labels > 0
    assert (drawn & labelled).sum() / (drawn | labelled).sum() > 0.8


def test_particles_at_the_edge_are_cut() -> None:
    density = phantom_density("albumin", 10.0)
    identity = np.eye(3)[None]
    whole = draw_sample((40, 40, 40), Particles(np.array([[20.0, 20.0, 20.0]]), [1], rotations=identity), [density])
    cut = draw_sample((40, 40, 40), Particles(np.array([[0.0, 20.0, 20.0]]), [1], rotations=identity), [density])
    np.testing.assert_allclose(cut[:, :, :20], whole[:, :, 20:], atol=1e-6)
    far = draw_sample((40, 40, 40), Particles(np.array([[-90.0, 20.0, 20.0]]), [1], rotations=identity), [density])
    assert not far.any()


def test_drawing_refuses_labels_without_a_density() -> None:
    density = phantom_density("albumin", 10.0)
    particle = Particles(np.array([[20.0, 20.0, 20.0]]), [2], rotations=np.eye(3)[None])
    with pytest.raises(InputError, match=r"class label 2.*1 species"):
        draw_sample((40, 40, 40), particle, [density])
