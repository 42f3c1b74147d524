"""The cascade against the exact search, and its error bound against the errors."""

from __future__ import annotations

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
    settings = CascadeSettings(coarse_step_deg=50.0, fine_share=0.1, exact_share=0.02)
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
    everything = find_peaks(maps["scores"], Extraction(1.0, cutoff="none"))
    assert len(everything) > 50
    assert (maps["angles"][tuple(everything.voxels_zyx.T)] >= 0).all()


def test_its_cost_bounds_what_it_holds(cascade: CascadeSearch) -> None:
    held = cascade.vectors.nbytes + cascade.coefficients.nbytes + cascade.basis.nbytes
    assert cascade.cost.held == held
    bound = cascade_cost(cascade.template, len(ROTATIONS), cascade.settings)
    assert bound.held >= held
    assert bound.bytes((20, 20, 20)) >= cascade.cost.bytes((20, 20, 20)) >= 2 * 4 * len(cascade.basis) * 20**3


def test_settled_scores_are_exact_ones_of_their_angle(volume: np.ndarray, cascade: CascadeSearch) -> None:
    maps = search_volume(volume, cascade, Tiling.of(SHAPE, 20))
    rng = np.random.default_rng(0)
    settled = np.argwhere(maps["angles"] >= 0)
    for voxel in map(tuple, settled[rng.choice(len(settled), 3)].tolist()):
        rotation = ROTATIONS[[maps["angles"][voxel]]]
        one = search_volume(volume, ExactSearch(template(), rotation, WEDGE), Tiling.of(SHAPE, 64))
        assert maps["scores"][voxel] == pytest.approx(one["scores"][voxel], abs=1e-5)


def test_no_error_exceeds_the_bound(volume: np.ndarray, cascade: CascadeSearch) -> None:
    tile = np.zeros(correlation_module.tile_shape((8, 8, 8), 13), np.float32)
    tile[:20, :20, :20] = volume[:20, :20, :20]
    weights = cascade.template.mask / cascade.template.mask.sum()
    spectrum, _, inverse = correlation_module.prepared_tile(tile, weights, core=(8, 8, 8))
    maps = np.asarray(_projected(spectrum, inverse, cascade.basis, shape=tile.shape, core=(8, 8, 8)))
    roots = np.sqrt(weights[weights > 0])
    inside = np.argwhere(weights > 0)
    patches = []
    for corner in np.ndindex(8, 8, 8):
        patch = tile[tuple((inside + corner).T)] * roots
        patches.append(patch * np.asarray(inverse)[corner])
    truth = cascade.vectors @ np.array(patches).T
    errors = np.abs(truth - cascade.coefficients @ maps)
    left = [
        np.sqrt(np.maximum(0, 1 - (part**2).sum(axis=axis))) for part, axis in ((cascade.coefficients, 1), (maps, 0))
    ]
    bound = left[0][:, None] * left[1][None, :]  # Cauchy and Schwarz, of what the basis leaves out of either
    assert (errors <= bound + 1e-4).all()
    assert errors.max() > 0.01  # there is an error to bound
    assert 0.97 < cascade.energy <= 1


def test_the_templates_are_unit_vectors_of_mean_zero(cascade: CascadeSearch) -> None:
    np.testing.assert_allclose(np.linalg.norm(cascade.vectors, axis=1), 1, atol=1e-4)
    roots = np.sqrt(cascade.template.mask[cascade.template.mask > 0])
    np.testing.assert_allclose(cascade.vectors @ roots / np.linalg.norm(roots), 0, atol=1e-4)


def test_a_mask_that_turns_is_refused() -> None:
    with pytest.raises(InputError, match="does not turn"):
        build_cascade(template(turns=True), ROTATIONS)
