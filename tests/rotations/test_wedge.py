"""The missing wedge against its definition by angles, and against what the simulator's reconstructions hold."""

from __future__ import annotations

import numpy as np
import pytest

from robpicker_jax.rotations import TiltScheme, binary_wedge, half_layout, tilt_weights
from robpicker_jax.simulation import Optics, project, reconstruct
from robpicker_jax.simulation.tilt_series import TiltSeries
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("tilts", [(-60.0, 60.0), (-40.0, 60.0), (-60.0, 20.0), (10.0, 50.0)])
@pytest.mark.parametrize("edge", [16, 17])
def test_the_sharp_wedge_is_what_the_angles_say(tilts: tuple[float, float], edge: int) -> None:
    k = np.arange(edge) - edge // 2
    kz, kx = np.meshgrid(k, k, indexing="ij")
    angle = np.rad2deg(np.arctan2(kz, kx))
    turns = np.stack([angle - 360, angle - 180, angle, angle + 180])
    expected = ((turns >= tilts[0] - 1e-9) & (turns <= tilts[1] + 1e-9)).any(axis=0) | ((kz == 0) & (kx == 0))
    found = binary_wedge(edge, tilts, soft_vox=0)
    for y in (0, edge // 2, edge - 1):
        differs = (found[:, y, :] > 0) != expected
        on_plane = np.isclose(np.abs(np.sin(np.deg2rad(angle - tilts[0])) * np.sin(np.deg2rad(angle - tilts[1]))), 0)
        assert not (differs & ~on_plane).any()


def test_the_soft_wedge_passes_one_half_on_its_planes() -> None:
    sharp, soft = (binary_wedge(32, (-60, 60), soft_vox=width) for width in (0.0, 1.0))
    np.testing.assert_array_equal(soft >= 0.5, sharp > 0)
    assert ((soft > 0) & (soft < 1)).any()
    np.testing.assert_array_equal(binary_wedge(8, (-90, 90)), 1)


@pytest.mark.parametrize("tilts", [(30.0, 10.0), (-91.0, 60.0), (20.0, 20.0)])
def test_ranges_that_are_none_are_refused(tilts: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="tilt range"):
        binary_wedge(8, tilts)


def test_reconstructions_of_the_simulator_lie_in_the_wedge() -> None:
    """Of an asymmetric tilt range, so that a mirrored wedge fails."""
    edge = 32
    sample = np.zeros((edge,) * 3, np.float32)
    sample[16, 16, 16] = 1
    angles = np.arange(-60.0, 21.0, 2.0)
    images = project(sample, angles)
    first = (images.shape[1] - edge) // 2
    volume = reconstruct(TiltSeries(images, angles, 10.0, first, Optics(defocus_um=0)), (edge,) * 3)
    power = np.fft.fftshift(np.abs(np.fft.fftn(volume)) ** 2)
    wedge = binary_wedge(edge, (-60, 20))
    share = (power * wedge).sum() / power.sum()
    mirrored = (power * wedge[:, :, ::-1]).sum() / power.sum()
    assert share > 0.93
    assert mirrored < 0.8
    by_tilt = tilt_weights(edge, 10.0, TiltScheme(tuple(angles)))
    inside = (np.indices((edge,) * 3) - edge // 2) ** 2
    power = power * (inside.sum(axis=0) <= (edge // 2) ** 2)
    assert (power * (by_tilt > 0.05)).sum() / power.sum() > 0.93


def test_weights_by_tilt_carry_dose_and_ctf() -> None:
    optics = Optics(defocus_um=3.0)
    plain = tilt_weights(24, 10.0, TiltScheme((0.0,)))
    with_ctf = tilt_weights(24, 10.0, TiltScheme((0.0,), transfers=(optics.ctf,)))
    with_dose = tilt_weights(24, 10.0, TiltScheme((0.0,), doses=(50.0,)))
    k = np.arange(24) - 12
    line, ctf, dose = (weights[12, :, 16] for weights in (plain, with_ctf, with_dose))
    radius = np.sqrt(k**2 + 16) / 240
    inside = np.sqrt(k**2 + 16) <= 12
    assert (line[inside] > 0).all()
    np.testing.assert_allclose(ctf[inside] / ctf[12], optics.ctf(radius[inside]) / optics.ctf(radius[12:13]), rtol=1e-5)
    np.testing.assert_allclose(dose[inside] / dose[12], np.exp(-50 * (radius**2 - radius[12] ** 2))[inside], rtol=1e-5)
    np.testing.assert_array_equal(line[~inside], 0)


def test_schemes_whose_lists_disagree_are_refused() -> None:
    with pytest.raises(InputError, match="doses"):
        TiltScheme((0.0, 3.0), doses=(1.0,))
    with pytest.raises(InputError, match="without tilts"):
        TiltScheme(())


def test_the_half_layout_filters_as_the_full_one() -> None:
    rng = np.random.default_rng(0)
    for edge in (8, 9):
        volume = rng.normal(size=(edge,) * 3)
        weights = binary_wedge(edge, (-50, 30))
        full = np.fft.ifftn(np.fft.fftn(volume) * np.fft.ifftshift(weights)).real
        half = np.fft.irfftn(np.fft.rfftn(volume) * half_layout(weights), s=volume.shape, axes=(0, 1, 2))
        np.testing.assert_allclose(half, full, atol=1e-6)
