"""Projection, optics, noise and back-projection, against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from robpicker_jax.config import SimulationConfig
from robpicker_jax.molecules import bead_density, phantom_density
from robpicker_jax.simulation import (
    Optics,
    Outline,
    draw_sample,
    place_particles,
    project,
    reconstruct,
    simulate_at,
    simulate_tomogram,
    take_tilt_series,
    tilt_angles,
)
from robpicker_jax.system.errors import InputError

SHAPE = (32, 48, 64)
CLEAN = SimulationConfig(shape_zyx=SHAPE, noise="none", defocus_um=0.0)


def gaussian(centre_zyx: tuple[float, float, float], sigma: float, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    grid = np.indices(shape, float)
    squared = sum((axis - c) ** 2 for axis, c in zip(grid, centre_zyx, strict=True))
    return np.exp(-squared / (2 * sigma**2)).astype(np.float32)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    density = phantom_density("chaperonin", 10.0)
    particles = place_particles(SHAPE, [Outline.ball(9.6)], [4], np.random.default_rng(0))
    return draw_sample(SHAPE, particles, [density])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_tilt_angles() -> None:
    np.testing.assert_allclose(tilt_angles(60, 3), np.arange(-60, 61, 3))
    np.testing.assert_allclose(tilt_angles(50, 7), np.arange(-49, 50, 7))
    np.testing.assert_allclose(tilt_angles(60, 100), [-50, 50])


def test_projection_of_a_gaussian_is_a_gaussian() -> None:
    centre, sigma = (19.0, 20.0, 37.0), 3.0
    angles = np.array([-60.0, -37.0, 0.0, 12.0, 45.0, 90.0])
    images = project(gaussian(centre, sigma), angles)
    n_y, n_u = images.shape[1:]
    y = np.arange(n_y) - (n_y - SHAPE[1]) // 2 - centre[1]
    for image, angle in zip(images, np.deg2rad(angles), strict=True):
        u0 = (centre[2] - 31.5) * np.cos(angle) + (centre[0] - 15.5) * np.sin(angle)
        u = np.arange(n_u) - (n_u - 1) / 2 - u0
        wide = sigma**2 + 1 / 12 + 1 / 12  # a voxel's footprint and the pixel widen it by a twelfth each, in u alone
        expected = (
            np.sqrt(2 * np.pi)
            * sigma**2
            / np.sqrt(wide)
            * np.exp(-(y[:, None] ** 2) / (2 * sigma**2) - u[None] ** 2 / (2 * wide))
        )
        assert np.abs(image - expected).max() < 0.02 * expected.max()


def test_projection_keeps_the_sum_exactly() -> None:
    data = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    images = project(data, np.linspace(-90, 90, 13), margin=3)
    np.testing.assert_allclose(images.sum(axis=(1, 2), dtype=float), data.sum(dtype=float), rtol=1e-5)
    assert images.dtype == np.float32


def test_untilted_projection_is_the_sum_along_z() -> None:
    data = np.random.default_rng(0).random((8, 12, 15), dtype=np.float32)
    image = project(data, [0.0])[0]
    u = (image.shape[1] - 15) // 2
    if (image.shape[1] - 15) % 2 == 0:
        np.testing.assert_allclose(image[(image.shape[0] - 12) // 2 :][:12, u : u + 15], data.sum(0), rtol=1e-5)
    else:  # the axis falls between pixels: neighbours share
        flat = np.pad(data.sum(0), ((0, 0), (1, 1)))
        shared = (flat[:, 1:] + flat[:, :-1]) / 2
        np.testing.assert_allclose(image[(image.shape[0] - 12) // 2 :][:12, u : u + 16], shared, rtol=1e-5)


def test_optics_constants() -> None:
    assert Optics(voltage_kv=300).wavelength_angstrom == pytest.approx(0.019687, abs=1e-6)
    assert Optics(voltage_kv=200).wavelength_angstrom == pytest.approx(0.025079, abs=1e-6)
    assert Optics(voltage_kv=300).interaction_parameter == pytest.approx(6.526e-4, rel=1e-3)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"voltage_kv": 0.0}, "acceleration voltage"),
        ({"voltage_kv": float("nan")}, "acceleration voltage"),
        ({"spherical_aberration_mm": -1.0}, "spherical aberration"),
        ({"amplitude_contrast": 2.0}, "amplitude contrast"),
        ({"defocus_um": float("inf")}, "defocus"),
    ],
)
def test_optics_that_no_microscope_has_are_refused(value: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Optics(**value)


def test_ctf_values_and_zeros() -> None:
    optics = Optics(defocus_um=3.0, amplitude_contrast=0.1, spherical_aberration_mm=0.0)
    assert optics.ctf(np.zeros(1))[0] == pytest.approx(0.1)  # amplitude contrast alone at the origin
    # Without Cs, sin(χ + asin A) = 0 at πλΔz k² = nπ − asin A.
    zeros = np.sqrt((np.arange(1, 4) * np.pi - np.arcsin(0.1)) / (np.pi * optics.wavelength_angstrom * 3e4))
    np.testing.assert_allclose(optics.ctf(zeros), 0, atol=1e-12)
    assert (optics.ctf(np.linspace(0, zeros[0] * 0.999, 50)) > 0).all()
    assert (optics.ctf(np.linspace(zeros[0] * 1.001, zeros[1] * 0.999, 50)) < 0).all()
    aberrated = replace(optics, spherical_aberration_mm=2.7)
    assert aberrated.ctf(zeros[:1])[0] > 0  # Cs counteracts underfocus: the zero moves outwards
    np.testing.assert_array_equal(replace(optics, defocus_um=0.0).ctf(zeros), 1)


@pytest.mark.parametrize("snr", [0.1, 1.0])
def test_gaussian_noise_has_the_given_snr(sample: np.ndarray, snr: float) -> None:
    clean = take_tilt_series(sample, replace(CLEAN, defocus_um=3.0), rng())
    noisy = take_tilt_series(sample, replace(CLEAN, defocus_um=3.0, noise="gaussian", snr=snr), rng())
    noise = noisy.images - clean.images
    middle = len(clean.angles_deg) // 2
    rows = slice(clean.first_row, clean.first_row + SHAPE[1])
    columns = slice((clean.images.shape[2] - SHAPE[2]) // 2, (clean.images.shape[2] + SHAPE[2]) // 2)
    ratio = clean.images[middle, rows, columns].var() / noise[middle].var()
    assert ratio == pytest.approx(snr, rel=0.1)
    assert abs(noise.mean()) < 0.01 * noise.std()


def test_poisson_noise_follows_the_dose(sample: np.ndarray) -> None:
    config = replace(CLEAN, noise="poisson", dose_per_tilt=2.0)
    noise = (take_tilt_series(sample, config, rng()).images - take_tilt_series(sample, CLEAN, rng()).images).var((1, 2))
    electrons = 2.0 * 10**2
    middle = len(noise) // 2
    assert noise[middle] == pytest.approx(1 / electrons, rel=0.15)  # thin ice takes a tenth of the electrons
    assert noise[0] > 1.05 * noise[middle]  # ice is thicker at high tilt
    more = take_tilt_series(sample, replace(config, dose_per_tilt=20.0), rng()).images
    assert (more - take_tilt_series(sample, CLEAN, rng()).images).var() < 0.15 * noise.mean()


def test_all_angles_invert_the_projection(sample: np.ndarray) -> None:
    config = replace(CLEAN, tilt_max_deg=90.0, tilt_step_deg=1.0)
    series = take_tilt_series(sample, config, rng())
    truth = -2 * series.optics.phase_per_mass * 10.0 * sample
    volume = reconstruct(series, SHAPE)
    assert np.corrcoef(volume.ravel(), truth.ravel())[0, 1] > 0.99
    assert (volume * truth).sum() / (truth**2).sum() == pytest.approx(1, abs=0.05)  # to scale
    assert abs(volume[sample == 0].mean()) < 0.03 * abs(truth.min())


def test_reconstruction_puts_things_in_their_place() -> None:
    for centre in ((10.0, 12.0, 50.0), (22.3, 40.6, 9.7)):
        config = replace(CLEAN, tilt_max_deg=60.0, dark_particles=False)
        volume = reconstruct(take_tilt_series(gaussian(centre, 2.0), config, rng()), SHAPE)
        top = np.where(volume > 0.6 * volume.max(), volume, 0)
        np.testing.assert_allclose(ndimage.center_of_mass(top), centre, atol=0.3)


@pytest.mark.parametrize("tilt_max", [40.0, 60.0])
def test_missing_wedge_is_empty(sample: np.ndarray, tilt_max: float) -> None:
    """Fourier power in the x–z plane: high between the extreme tilts, next to nothing beyond."""
    config = replace(CLEAN, tilt_max_deg=tilt_max, tilt_step_deg=2.0, noise="gaussian", snr=0.5)
    volume = reconstruct(take_tilt_series(sample, config, rng()), SHAPE)
    window = np.einsum("i,j,k->ijk", *(np.hanning(n) for n in SHAPE))
    power = np.abs(np.fft.fftn(volume * window)) ** 2
    kz, _, kx = np.meshgrid(*(np.fft.fftfreq(n) for n in SHAPE), indexing="ij")
    tilt = np.rad2deg(np.arctan2(np.abs(kz), np.abs(kx)))
    band = (np.hypot(kz, kx) > 0.12) & (np.hypot(kz, kx) < 0.35)
    inside, outside = power[band & (tilt > tilt_max + 12)].mean(), power[band & (tilt < tilt_max - 5)].mean()
    assert inside < 3e-3 * outside


def test_polarity(sample: np.ndarray) -> None:
    for dark, sign in ((True, -1), (False, 1)):
        for defocus in (0.0, 3.0):
            config = replace(CLEAN, dark_particles=dark, defocus_um=defocus)
            volume = reconstruct(take_tilt_series(sample, config, rng()), SHAPE, phase_flip=True)
            assert sign * (volume[sample > 0.5].mean() - volume[sample == 0].mean()) > 0


def test_phase_flip_turns_the_band_beyond_the_first_zero(sample: np.ndarray) -> None:
    config = replace(CLEAN, defocus_um=8.0)
    series = take_tilt_series(sample, config, rng())
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n, 10.0) for n in SHAPE), indexing="ij")))
    truth = np.fft.fftn(-sample)
    ctf = series.optics.ctf(k)
    for flip, sign in ((False, -1), (True, 1)):
        spectrum = np.fft.fftn(reconstruct(series, SHAPE, phase_flip=flip))
        for band, expected in (((ctf > 0.3) & (k < 0.02), 1), ((ctf < -0.5) & (k < 0.03), sign)):
            agreement = (spectrum * truth.conj()).real[band].sum()
            agreement /= np.linalg.norm(spectrum[band]) * np.linalg.norm(truth[band])
            assert expected * agreement > 0.6


def test_noise_is_even_throughout_the_volume() -> None:
    config = SimulationConfig(shape_zyx=SHAPE, noise="gaussian")
    volume = reconstruct(take_tilt_series(np.zeros(SHAPE, np.float32), config, rng()), SHAPE)
    for axis, size in enumerate(SHAPE):
        parts = [np.take(volume, range(i, i + size // 8), axis).std() for i in range(0, size, size // 8)]
        assert max(parts) < 1.15 * min(parts)


def test_same_seed_same_tomogram() -> None:
    config = SimulationConfig(shape_zyx=SHAPE, tilt_step_deg=10.0, seed=4)
    densities = [phantom_density("albumin", 10.0)]
    first, second = (simulate_tomogram(densities, [8], config, key=(0, 1)) for _ in range(2))
    np.testing.assert_array_equal(first.density, second.density)
    other = simulate_tomogram(densities, [8], config, key=(0, 2))
    assert not np.array_equal(first.particles.positions_vox, other.particles.positions_vox)
    again = simulate_at(first.particles, densities, config, key=(0, 1))
    np.testing.assert_array_equal(first.density, again.density)


def test_unknown_orientations_are_drawn() -> None:
    config = SimulationConfig(shape_zyx=SHAPE, tilt_step_deg=20.0)
    densities = [phantom_density("albumin", 10.0)]
    made = simulate_tomogram(densities, [4], config)
    assert made.particles.rotations is not None
    rotations = made.particles.rotations.copy()
    rotations[2] = np.nan
    given = simulate_at(made.particles.with_(rotations=rotations), densities, config).particles.rotations
    assert given is not None
    assert np.isfinite(given).all()
    np.testing.assert_array_equal(given[[0, 1, 3]], rotations[[0, 1, 3]])


def test_particles_of_all_sizes_stand_out_for_a_matched_template() -> None:
    """Signal of one particle over the spread of its template's correlation with noise (shifted at random)."""
    config = SimulationConfig(shape_zyx=(48, 96, 96), noise="poisson", dose_per_tilt=3.0)
    generator = rng()
    for name, copies, least in (("ribosome", 4, 60.0), ("apoferritin", 12, 25.0), ("albumin", 40, 10.0)):
        made = simulate_tomogram([phantom_density(name, 10.0)], [copies], config)
        clean = take_tilt_series(made.sample, replace(config, noise="none"), rng())
        template = reconstruct(clean, config.shape_zyx, phase_flip=True)
        noise = made.density - template
        shifts = generator.integers(0, 96, (40, 3))
        chance = [float((template * np.roll(noise, shift, (0, 1, 2))).sum()) for shift in shifts]
        separation = (template**2).sum() / np.std(chance) / np.sqrt(copies)
        assert separation > least, name


def test_gold_beads_are_dark_dense_and_leave_the_noise_as_it_is() -> None:
    config = SimulationConfig(shape_zyx=(32, 48, 48), voxel_size_angstrom=13.0, noise="none", beads=3)
    density = phantom_density("ribosome", 13.0)
    made = simulate_tomogram([density], [2], config)
    bare = simulate_at(made.particles, [density], config)
    assert made.beads_vox.shape == (3, 3)
    assert len(made.particles) == 2
    np.testing.assert_array_equal(made.sample, bare.sample)
    difference = made.density - bare.density
    centres = np.rint(made.beads_vox[:, ::-1]).astype(int)
    at_beads = difference[tuple(centres.T)]
    assert (at_beads < -3 * difference.std()).all()
    noisy = replace(config, noise="gaussian", snr=0.5)
    with_beads, without = (
        simulate_at(made.particles, [density], noisy, beads_vox=beads).series.images for beads in (made.beads_vox, None)
    )
    clean = bare.series.images
    foreign = made.series.images - clean
    np.testing.assert_allclose(with_beads - foreign, without, atol=1e-4 * np.abs(without).max())


def test_a_bead_has_the_volume_of_its_diameter() -> None:
    for voxel_size in (5.0, 10.0, 13.0):
        bead = bead_density(100.0, voxel_size)
        volume = bead.sum() / bead.max() * voxel_size**3
        assert bead.shape[0] % 2 == 1
        np.testing.assert_allclose(volume, np.pi / 6 * 100.0**3, rtol=0.02)
