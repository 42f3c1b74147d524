"""Radial amplitude spectra and matching against a loop over Fourier coefficients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from robpicker_jax.commands import spectrum
from robpicker_jax.commands.cli import call
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import read_volume, write_mrc
from robpicker_jax.volumes.spectrum import match_spectrum, radial_spectrum

pytestmark = pytest.mark.fast


def by_loops(volume: np.ndarray, shells: int) -> np.ndarray:
    transform = np.fft.fftn(volume - volume.mean())
    axes = np.meshgrid(*[np.fft.fftfreq(size) for size in volume.shape], indexing="ij")
    f = np.sqrt(sum(axis**2 for axis in axes))
    found = []
    for shell in range(shells):
        low, high = shell * 0.5 / shells, (shell + 1) * 0.5 / shells
        inside = (f > 0) & (f >= low) & ((f < high) | ((shell == shells - 1) & (f <= 0.5)))
        found.append(np.abs(transform[inside]).mean() if inside.any() else 0.0)
    return np.array(found) / np.sqrt(volume.size)


@pytest.mark.parametrize("shape", [(18, 12, 16), (9, 15, 11)])
def test_the_spectrum_is_the_mean_over_whole_shells(shape: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).normal(3, 1, shape).astype(np.float32)
    found = radial_spectrum(volume, 7)
    np.testing.assert_allclose(found.amplitudes, by_loops(volume, 7), rtol=1e-4)
    np.testing.assert_allclose(found.frequencies, (np.arange(7) + 0.5) / 14)


def test_a_matched_volume_has_the_targets_spectrum_whatever_their_sizes() -> None:
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.normal(size=(40, 48, 44)), 1.0).astype(np.float32)
    rough = rng.normal(5, 4, (48, 40, 52)).astype(np.float32)
    target = radial_spectrum(smooth, 12)
    matched = match_spectrum(rough, target)
    # Factors are interpolated between shells, so that a shell agrees on average and not to the last digit.
    middle = slice(1, -1)
    np.testing.assert_allclose(radial_spectrum(matched, 12).amplitudes[middle], target.amplitudes[middle], rtol=0.15)
    assert matched.mean() == pytest.approx(rough.mean(), abs=1e-4)
    same = match_spectrum(rough, radial_spectrum(rough, 12))
    np.testing.assert_allclose(same, rough, atol=1e-3)


def test_each_coefficient_is_multiplied_by_a_factor_of_its_frequency() -> None:
    rng = np.random.default_rng(2)
    volume, other = (rng.normal(size=(12, 14, 10)).astype(np.float32) for _ in range(2))
    own, target = radial_spectrum(volume, 5), radial_spectrum(ndimage.uniform_filter(other, 2), 5)
    axes = np.meshgrid(*[np.fft.fftfreq(size) for size in volume.shape], indexing="ij")
    f = np.sqrt(sum(axis**2 for axis in axes))
    for cutoff, smooth in ((None, 0.0), (0.3, 0.0), (0.3, 0.1)):
        kernel = np.interp(f, own.frequencies, target.amplitudes / own.amplitudes)
        if cutoff:
            kernel *= f < cutoff if not smooth else 1 / (1 + np.exp(4 * (f - cutoff) / smooth))
        expected = np.fft.ifftn(np.fft.fftn(volume - volume.mean()) * kernel).real + volume.mean()
        np.testing.assert_allclose(match_spectrum(volume, target, cutoff=cutoff, smooth=smooth), expected, atol=1e-4)


def test_the_command(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for name in ("a", "b"):
        write_mrc(tmp_path / f"{name}.mrc", rng.normal(size=(16, 16, 16)).astype(np.float32), 10.0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(20, 20, 20)), 1.0).astype(np.float32)
    write_mrc(tmp_path / "target.mrc", smooth, 10.0)
    arguments = [str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), "--target", str(tmp_path / "target.mrc")]
    out = ["--out", str(tmp_path / "out")]
    assert call(spectrum.main, [*arguments, *out]) == 0
    made = read_volume(tmp_path / "out" / "b.mrc")
    assert made.voxel_size_zyx_angstrom == (10, 10, 10)
    source = read_volume(tmp_path / "b.mrc").data
    np.testing.assert_allclose(made.data, match_spectrum(source, radial_spectrum(smooth)), atol=1e-5)
    assert call(spectrum.main, [*arguments, *out]) == 2  # nothing is replaced unasked
    assert call(spectrum.main, [*arguments, *out, "--overwrite"]) == 0
    assert call(spectrum.main, [*arguments, "--out", str(tmp_path), "--overwrite"]) == 2  # an input never


def test_options_that_make_no_sense_are_refused() -> None:
    volume = np.zeros((4, 4, 4), np.float32)
    with pytest.raises(InputError, match="shells"):
        radial_spectrum(volume, 0)
    with pytest.raises(InputError, match="cutoff"):
        match_spectrum(volume, radial_spectrum(volume, 2), cutoff=-1.0)
