"""The cascade against the exact search, and its error bound against the errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robpicker_jax.matching import (
    CascadeSettings,
    ExactSearch,
    Extraction,
    Tiling,
    build_cascade,
    find_peaks,
    search_volume,
)
from robpicker_jax.matching import correlation as correlation_module
from robpicker_jax.matching.cascade import CascadeSearch, _projected, cascade_cost
from robpicker_jax.rotations import binary_wedge, covering
from robpicker_jax.system.errors import InputError
from tests.matching.cases import planted, template

pytestmark = pytest.mark.fast

SHAPE = (30, 31, 32)
VOXELS = [(9, 9, 9), (20, 9, 10), (9, 21, 22), (21, 20, 21), (14, 10, 23)]
ROTATIONS = covering(30.0)
WEDGE = binary_wedge(13, (-60, 60))


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return planted(SHAPE, VOXELS, ROTATIONS[[3, 99, 250, 400, 500]], noise=0.15)


@pytest.fixture(scope="module")
def exact(volume: np.ndarray) -> dict[str, np.ndarray]:
    return search_volume(volume, ExactSearch(template(), ROTATIONS, WEDGE), Tiling.of(SHAPE, 64))


@pytest.fixture(scope="module")
def cascade() -> CascadeSearch:
    settings = CascadeSettings(coarse_step_deg=50.0, exact_share=0.02)
    return build_cascade(template(), ROTATIONS, WEDGE, settings)


def test_it_finds_the_picks_of_the_exact_search(
    volume: np.ndarray, exact: dict[str, np.ndarray], cascade: CascadeSearch
) -> None:
    maps = search_volume(volume, cascade, Tiling.of(SHAPE, 64))
    settings = Extraction(5.0, cutoff="none", edge_vox=5, max_picks=len(VOXELS))
    lists = [find_peaks(found["scores"], settings) for found in (exact, maps)]
    chosen = [set(map(tuple, peaks.voxels_zyx.tolist())) for peaks in lists]
    assert chosen[0] == chosen[1] == set(VOXELS)
    for voxel in VOXELS:
        assert maps["angles"][voxel] == exact["angles"][voxel]
        assert maps["scores"][voxel] == pytest.approx(exact["scores"][voxel], abs=1e-5)
    best = np.argsort(-exact["scores"], axis=None)[:100]
    assert (maps["angles"].reshape(-1)[best] >= 0).all()
    everything = find_peaks(maps["scores"], Extraction(5.0, cutoff="none"))
    assert len(everything) > 10
    assert (maps["angles"][tuple(everything.voxels_zyx.T)] >= 0).all()


def test_voxels_are_settled_outside_tiles_too(
    volume: np.ndarray, exact: dict[str, np.ndarray], cascade: CascadeSearch
) -> None:
    """The best of a few angles of the basis: at particles the best of all, elsewhere never more than that."""
    voxels = np.array([*VOXELS, (0, 15, 31), (29, 0, 2)])
    scores, angles = cascade.settled(volume, voxels)
    best = exact["scores"][tuple(voxels.T)]
    np.testing.assert_allclose(scores[: len(VOXELS)], best[: len(VOXELS)], atol=1e-5)
    np.testing.assert_array_equal(angles[: len(VOXELS)], exact["angles"][tuple(voxels.T)][: len(VOXELS)])
    assert (scores <= best + 1e-5).all()
    assert (scores > best - 0.05).all()


def test_its_cost_bounds_what_it_holds(cascade: CascadeSearch) -> None:
    turned = cascade.turned
    held = turned.vectors.nbytes + turned.coefficients.nbytes + turned.basis.nbytes + cascade.grouped[1].nbytes
    assert cascade.cost.held == pytest.approx(held, rel=1e-3)
    bound = cascade_cost(cascade.template, ROTATIONS, cascade.settings)
    assert bound.held >= held
    assert bound.bytes((20, 20, 20)) >= cascade.cost.bytes((20, 20, 20)) >= 2 * 4 * cascade.coarse_rank * 20**3


def test_settled_scores_are_exact_ones_of_their_angle(volume: np.ndarray, cascade: CascadeSearch) -> None:
    maps = search_volume(volume, cascade, Tiling.of(SHAPE, 20))
    rng = np.random.default_rng(0)
    settled = np.argwhere(maps["angles"] >= 0)
    for voxel in map(tuple, settled[rng.choice(len(settled), 3)].tolist()):
        rotation = ROTATIONS[[maps["angles"][voxel]]]
        one = search_volume(volume, ExactSearch(template(), rotation, WEDGE), Tiling.of(SHAPE, 64))
        assert maps["scores"][voxel] == pytest.approx(one["scores"][voxel], abs=1e-5)


def test_no_error_exceeds_the_bound(volume: np.ndarray, cascade: CascadeSearch) -> None:
    first, last = cascade.template.window
    part, size = (slice(first, last),) * 3, last - first
    tile = np.zeros(correlation_module.tile_shape((8, 8, 8), size), np.float32)
    tile[:] = volume[: tile.shape[0], : tile.shape[1], : tile.shape[2]]
    weights = (cascade.template.mask / cascade.template.mask.sum())[part]
    spectrum, _, inverse = correlation_module.prepared_tile(tile, weights, core=(8, 8, 8))
    everything = replace(cascade, coarse_rank=len(cascade.turned.basis))
    maps = np.asarray(_projected(spectrum, inverse, everything.kernels(), shape=tile.shape, core=(8, 8, 8)))
    roots = np.sqrt(weights[weights > 0])
    inside = np.argwhere(weights > 0)  # of the window
    patches = []
    for corner in np.ndindex(8, 8, 8):
        patch = tile[tuple((inside + corner).T)] * roots
        patches.append(patch * np.asarray(inverse)[corner])
    truth = cascade.turned.vectors @ np.array(patches).T
    errors = np.abs(truth - cascade.turned.coefficients @ maps)
    left = [
        np.sqrt(np.maximum(0, 1 - (part**2).sum(axis=axis)))
        for part, axis in ((cascade.turned.coefficients, 1), (maps, 0))
    ]
    bound = left[0][:, None] * left[1][None, :]  # Cauchy and Schwarz, of what the basis leaves out of either
    assert (errors <= bound + 1e-4).all()
    assert errors.max() > 0.01  # there is an error to bound
    assert 0.97 < cascade.turned.energy <= 1


def test_the_templates_are_unit_vectors_of_mean_zero(cascade: CascadeSearch) -> None:
    np.testing.assert_allclose(np.linalg.norm(cascade.turned.vectors, axis=1), 1, atol=1e-4)
    roots = np.sqrt(cascade.template.mask[cascade.template.mask > 0])
    np.testing.assert_allclose(cascade.turned.vectors @ roots / np.linalg.norm(roots), 0, atol=1e-4)


def test_a_mask_that_turns_is_refused() -> None:
    with pytest.raises(InputError, match="does not turn"):
        build_cascade(template(turns=True), ROTATIONS)
