"""Masks from averages."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from robpicker_jax.averaging.extraction import taper
from robpicker_jax.averaging.masks import ANGSTROM3_PER_DALTON, make_mask, otsu
from robpicker_jax.molecules.phantoms import PROTEIN_DENSITY
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast


def ball(edge: int, radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    axis = np.arange(edge) - edge // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2


def noisy(shape: np.ndarray, noise: float = 0.1) -> np.ndarray:
    return (shape + noise * np.random.default_rng(0).standard_normal(shape.shape)).astype(np.float32)


def test_ball_is_found_whole_and_dilated() -> None:
    right = ball(32, 7)
    plain = make_mask(noisy(right), 10.0, 8, dilation_vox=0)
    assert (plain.sharp == right).mean() > 0.999
    grown = make_mask(noisy(right), 10.0, 8, dilation_vox=2)
    assert (grown.sharp == (ndimage.distance_transform_edt(~plain.sharp) <= 2)).all()


def test_shell_is_filled_and_neighbours_are_left_out() -> None:
    shell = ball(40, 8) & ~ball(40, 5)
    neighbour = ball(40, 4, (0, 0, 17))
    mask = make_mask(noisy(shell | neighbour), 10.0, 9, dilation_vox=0)
    assert (mask.sharp & ball(40, 5)).sum() == ball(40, 5).sum()
    assert not (mask.sharp & neighbour).any()


def test_soft_edge_falls_from_one_to_zero() -> None:
    mask = make_mask(noisy(ball(32, 6)), 10.0, 7, dilation_vox=0, soft_edge_vox=4)
    away = ndimage.distance_transform_edt(~mask.sharp)
    assert (mask.soft[mask.sharp] == 1).all()
    assert (mask.soft[away >= 4] < 1e-6).all()
    assert mask.soft[away == 2] == pytest.approx(0.5, abs=1e-6)


def test_volume_is_held_against_the_molecular_weight() -> None:
    box = noisy(ball(32, 7))
    volume = make_mask(box, 10.0, 8, dilation_vox=0).volume_angstrom3
    assert volume == ball(32, 7).sum() * 1000
    fitting = make_mask(box, 10.0, 8, dilation_vox=0, molecular_weight_kda=volume / ANGSTROM3_PER_DALTON / 1000)
    assert fitting.ratio == pytest.approx(1)
    assert fitting.warning() is None
    small = make_mask(box, 10.0, 8, dilation_vox=0, molecular_weight_kda=volume / ANGSTROM3_PER_DALTON / 5000)
    assert small.ratio == pytest.approx(5)
    assert "5.00 times" in (small.warning() or "")
    assert pytest.approx(1 / PROTEIN_DENSITY, rel=0.03) == ANGSTROM3_PER_DALTON


def test_threshold_in_standard_deviations_of_the_surroundings() -> None:
    box = noisy(ball(32, 6), 0.1)
    mask = make_mask(box, 10.0, 7, threshold=4, dilation_vox=0)
    assert mask.threshold == pytest.approx(0.4, abs=0.02)
    with pytest.raises(InputError, match="--mask-threshold"):
        make_mask(box, 10.0, 7, threshold=1000)


def test_threshold_looks_only_where_boxes_show_something() -> None:
    """An average of tapered boxes is 0 in the corners, which say nothing of its noise."""
    box = noisy(ball(32, 6), 0.1)
    axis = np.arange(32) - 16
    away = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    tapered = (box * taper(32)).astype(np.float32)
    around = tapered[(away > 10.5) & (away < 15.5)]  # beyond 1.5 radii, and before the taper's end at half the edge
    mask = make_mask(tapered, 10.0, 7, threshold=4, dilation_vox=0)
    assert mask.threshold == pytest.approx(around.mean() + 4 * around.std(), rel=1e-5)


def test_otsu_parts_two_groups() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0, 1, 5000), rng.normal(10, 1, 5000)])
    assert 3 < otsu(values) < 7
    # The definition, by brute force over all cuts of the histogram.
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2

    def between(cut: int) -> float:
        low, high = counts[:cut], counts[cut:]
        if not low.sum() or not high.sum():
            return 0.0
        means = (low @ centres[:cut]) / low.sum(), (high @ centres[cut:]) / high.sum()
        return float(low.sum() * high.sum() * (means[0] - means[1]) ** 2)

    best = max(range(1, 256), key=between)
    assert between(int(np.searchsorted(edges, otsu(values)))) == pytest.approx(between(best), rel=1e-9)
