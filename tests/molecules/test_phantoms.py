"""Phantoms and density maps: mass, centre, sampling, asymmetry, normalisation, masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from robpicker_jax.config import Species
from robpicker_jax.molecules import (
    PHANTOMS,
    density_from_map,
    estimate_weight_kda,
    phantom_density,
    species_density,
    species_mask,
)
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import read_volume, write_mrc

pytestmark = pytest.mark.fast


def blob(shape: tuple[int, ...], centre_zyx: tuple[float, ...], sigma: float) -> np.ndarray:
    grid = np.indices(shape, float)
    squared = sum((axis - c) ** 2 for axis, c in zip(grid, centre_zyx, strict=True))
    return np.exp(-squared / (2 * sigma**2)).astype(np.float32)


def centre_of_mass_offset(density: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(density)) - (np.array(density.shape) - 1) / 2


def test_there_are_enough_and_they_differ_in_size() -> None:
    weights = [phantom.molecular_weight_kda for phantom in PHANTOMS.values()]
    assert len(weights) >= 8
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 40 * weights[-1]
    assert len(set(weights)) == len(weights)


@pytest.mark.parametrize("name", PHANTOMS)
def test_mass_density_and_centre(name: str) -> None:
    phantom = PHANTOMS[name]
    for voxel_size in (6.0, 10.0, 13.48):
        density = phantom_density(name, voxel_size)
        assert density.dtype == np.float32
        assert density.shape[0] % 2 == 1
        assert density.min() >= 0
        np.testing.assert_allclose(density.sum(dtype=float) * voxel_size**3 / 1000, phantom.molecular_weight_kda, 1e-5)
        assert np.abs(centre_of_mass_offset(density)).max() < 0.1
        if voxel_size < 10:  # the same density inside every species, that of protein
            assert 0.79 < density.max() < 0.83
        reach = np.linalg.norm(np.argwhere(density > 0.1) - density.shape[0] // 2, axis=1).max() * voxel_size
        assert reach <= phantom.bounding_radius_angstrom + voxel_size
    assert 0.8 < (3 * (density > 0.4).sum() / (4 * np.pi)) ** (1 / 3) * 13.48 / phantom.radius_angstrom < 1.2


@pytest.mark.parametrize("name", PHANTOMS)
def test_no_symmetry(name: str) -> None:
    density = phantom_density(name, 8.0)
    norm = np.linalg.norm(density)

    def difference(other: np.ndarray) -> float:
        return float(np.linalg.norm(density - other) / norm)

    for axis in range(3):
        assert difference(np.flip(density, axis)) > 0.1, f"mirror symmetric along {axis}"
        half_turn = np.flip(density, tuple({0, 1, 2} - {axis}))
        assert difference(half_turn) > 0.1, f"two-fold about {axis}"
    for fold in range(3, 9):
        turned = ndimage.rotate(density, 360 / fold, axes=(1, 2), reshape=False, order=1)
        assert difference(turned) > 0.1, f"{fold}-fold about z"


def test_sampling_is_a_mean_over_voxels() -> None:
    fine, coarse = phantom_density("chaperonin", 4.0), phantom_density("chaperonin", 12.0)
    half = coarse.shape[0] // 2
    pad = 3 * half + 1 - fine.shape[0] // 2
    assert pad >= 0
    grid = np.pad(fine, pad).reshape(coarse.shape[0], 3, coarse.shape[0], 3, coarse.shape[0], 3)
    assert np.abs(grid.mean(axis=(1, 3, 5)) - coarse).max() < 0.05


def test_unknown_phantom_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"ribosom.*known: .*apoferritin"):
        phantom_density("ribosom", 10.0)


@pytest.mark.parametrize("voxel_size", [0.25, 1e-6])
def test_a_grid_of_gigabytes_is_refused(voxel_size: float) -> None:
    with pytest.raises(
        InputError, match=r"phantom ribosome: at voxels of .* wide, more than 320.*take voxels of 0.99 Å"
    ):
        phantom_density("ribosome", voxel_size)


def test_map_is_scaled_to_its_weight_whatever_its_units() -> None:
    data = blob((24, 24, 24), (12, 12, 12), 3.0)
    plain = density_from_map(data, 10.0, 10.0, molecular_weight_kda=300)
    shifted = density_from_map(55 * data - 7, 10.0, 10.0, molecular_weight_kda=300)
    np.testing.assert_allclose(plain.sum() * 10**3, 300_000, rtol=1e-5)
    np.testing.assert_allclose(shifted, plain, atol=2e-4)
    assert np.abs(centre_of_mass_offset(plain)).max() < 1e-3  # voxel size // 2 is the centre of an even map


@pytest.mark.parametrize("target", [5.0, 8.0, 16.0])
def test_map_is_resampled_about_its_centre(target: float) -> None:
    data = blob((30, 32, 34), (17, 16, 17), 3.0)  # two voxels above the centre in z
    density = density_from_map(data, 8.0, target, molecular_weight_kda=500)
    np.testing.assert_allclose(density.sum() * target**3, 500_000, rtol=1e-5)
    np.testing.assert_allclose(centre_of_mass_offset(density) * target, [16, 0, 0], atol=0.15 * 8)


def test_noise_around_a_map_is_cut_away() -> None:
    rng = np.random.default_rng(0)
    data = 20 * blob((32, 32, 32), (16, 16, 16), 4.0) + rng.normal(0, 0.3, (32, 32, 32)).astype(np.float32)
    density = density_from_map(data, 10.0, 10.0)
    shell = np.linalg.norm(np.indices(density.shape) - density.shape[0] // 2, axis=0) > 14
    assert (density[shell] > 0).mean() < 0.01


def test_weight_estimate_of_a_ball() -> None:
    radius = 60.0
    grid = np.linalg.norm(np.indices((41, 41, 41)) - 20, axis=0) * 5.0
    truth = 4 / 3 * np.pi * radius**3 * 0.81 / 1000
    assert estimate_weight_kda((grid <= radius).astype(np.float32), 5.0) == pytest.approx(truth, rel=0.05)


def test_species_density_from_a_file(tmp_path: Path) -> None:
    data = blob((24, 24, 24), (12, 12, 12), 3.0)
    write_mrc(tmp_path / "map.mrc", data, 8.0)
    species = Species("x", 5, density=str(tmp_path / "map.mrc"), molecular_weight_kda=250)
    assert species_density(species, 10.0).sum() * 1000 == pytest.approx(250_000, rel=1e-5)
    write_mrc(tmp_path / "map.mrc", data, None)
    with pytest.raises(InputError, match=r"map\.mrc.*voxel size"):
        species_density(species, 10.0)
    assert species_density(species, 10.0, map_voxel_size_angstrom=8.0).sum() == pytest.approx(250, rel=1e-5)
    write_mrc(tmp_path / "map.mrc", np.zeros((8, 8, 8), np.float32), 8.0)
    with pytest.raises(InputError, match=r"map\.mrc.*no density"):
        species_density(species, 10.0)
    with pytest.raises(InputError, match=r"absent\.mrc"):
        species_density(Species("x", 5, density=str(tmp_path / "absent.mrc")), 10.0)
    with pytest.raises(InputError, match="no density"):
        species_density(Species("x", 5), 10.0)


def test_mask_file_counts_as_on_the_tomograms_grid(tmp_path: Path) -> None:
    ball = np.linalg.norm(np.indices((20, 20, 20)) - 10, axis=0) <= 5  # even size: the centre is voxel 10
    write_mrc(tmp_path / "mask.mrc", ball, 1.0)  # a header that does not know
    mask = species_mask(Species("x", 5, mask=str(tmp_path / "mask.mrc")), 10.0)
    assert mask.sum() == ball.sum()
    half = mask.shape[0] // 2
    np.testing.assert_array_equal(mask, np.flip(mask))
    assert np.linalg.norm(np.argwhere(mask) - half, axis=1).max() <= 5
    ball = np.linalg.norm(np.indices((20, 20, 20)) - 10, axis=0) <= 8
    write_mrc(tmp_path / "mask.mrc", ball, 5.0)  # one that does
    mask = species_mask(Species("x", 5, mask=str(tmp_path / "mask.mrc")), 10.0)
    assert mask.sum() == pytest.approx(ball.sum() / 8, rel=0.1)
    write_mrc(tmp_path / "mask.mrc", np.zeros((8, 8, 8), np.int8), 5.0)
    with pytest.raises(InputError, match=r"mask\.mrc.*empty"):
        species_mask(Species("x", 5, mask=str(tmp_path / "mask.mrc")), 10.0)
    with pytest.raises(InputError, match="no shape"):
        species_mask(Species("x", 5), 10.0)


def test_hollow_phantom_has_a_solid_mask() -> None:
    mask = species_mask(Species("x", 5, phantom="apoferritin"), 10.0)
    half = mask.shape[0] // 2
    assert mask[half, half, half]
    assert ndimage.label(~np.pad(mask, 1))[1] == 1


def test_real_maps_give_masks_like_shrec(shared_data: Path) -> None:
    ratios = []
    for path in sorted((shared_data / "shrec2019" / "masks").glob("*.mrc")):
        density = shared_data / "densities" / path.name
        if density.exists():
            mask = species_mask(Species(path.stem, 5, density=str(density), mask_level=0.1), 10.0)
            ratios.append(mask.sum() / (read_volume(path).data > 0.5).sum())
    assert len(ratios) == 10
    assert all(0.9 < ratio < 1.2 for ratio in ratios)


@pytest.mark.parametrize(("name", "kda"), [("4v4r", 2500), ("7n4y", 660), ("1f4a", 465), ("1s3x", 43)])
def test_real_maps_weigh_what_they_should(shared_data: Path, name: str, kda: float) -> None:
    density = species_density(Species(name, 5, density=str(shared_data / "densities" / f"{name}.mrc")), 10.0)
    assert density.sum() == pytest.approx(kda, rel=0.15)
