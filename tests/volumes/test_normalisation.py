"""Normalisation: statistics taken plane by plane against float64, and what must not set the scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import normalisation
from robpicker_jax.volumes.normalisation import normalise, scaling

pytestmark = pytest.mark.fast

SHAPE = (21, 18, 25)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 20)] * 3),
    offset=st.sampled_from([0.0, -30.0, 1e4]),
    masked=st.booleans(),
    block=st.integers(1, 400),
    seed=st.integers(0, 100),
)
def test_statistics_by_blocks_are_those_of_the_whole(
    shape: tuple[int, int, int], offset: float, masked: bool, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    density = (rng.standard_t(2, size=shape) + offset).astype(np.float32)
    mask = rng.random(shape) < 0.5 if masked else None
    if mask is not None and mask.sum() < 3:
        return
    values = density if mask is None else density[mask]
    low, high = np.quantile(density if mask is None else density[mask], [0.001, 0.999])
    reads: list[tuple[int, int]] = []

    def read(first: int, last: int) -> np.ndarray:
        reads.append((first, last))
        return density[first:last]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalisation, "_BLOCK_VOXELS", block)
        found = scaling(read, shape, mask=mask)
    assert found.low == pytest.approx(low, rel=1e-6)
    assert found.high == pytest.approx(high, rel=1e-6)
    # Densities are single precision, and so are the bounds that they are clipped to.
    expected = np.clip(values, np.float32(found.low), np.float32(found.high)).astype(np.float64)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-6, abs=1e-6)
    assert found.std == pytest.approx(expected.std(), rel=1e-5)


def test_a_large_volume_is_read_by_slabs_and_sampled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    density = rng.normal(7, 3, (40, 50, 60)).astype(np.float32)
    mask = rng.random(density.shape) < 0.4
    monkeypatch.setattr(normalisation, "_QUANTILE_SAMPLE", 1000)
    for chosen in (None, mask):
        values = density.reshape(-1) if chosen is None else density[chosen]
        sample = values[np.random.default_rng(0).integers(values.size, size=1000)]
        low, high = np.quantile(sample, [0.001, 0.999])
        whole = scaling(lambda first, last: density[first:last], density.shape, mask=chosen)
        assert (whole.low, whole.high) == pytest.approx((low, high), rel=1e-6)
        with monkeypatch.context() as patch:
            patch.setattr(normalisation, "slabs", lambda shape: ((z, min(z + 3, 40)) for z in range(0, 40, 3)))
            assert scaling(lambda first, last: density[first:last], density.shape, mask=chosen) == whole


def test_normalising_leaves_the_given_array_alone() -> None:
    density = np.random.default_rng(8).normal(3, 2, SHAPE)
    before = density.copy()
    scaled = normalise(density)
    np.testing.assert_array_equal(density, before)
    assert scaled.dtype == np.float32
    assert scaled.std() == pytest.approx(1, abs=1e-4)


def test_gold_beads_do_not_set_the_scale() -> None:
    rng = np.random.default_rng(1)
    clean = rng.normal(size=(40, 50, 60)).astype(np.float32)
    beads = clean.copy()
    beads[10:13, 10:13, 10:13] = -500
    scaled = normalise(beads)
    reference = normalise(clean)
    far = scaled[20:], reference[20:]
    np.testing.assert_allclose(*far, atol=0.1)
    assert scaled.min() > -5
    assert beads.std() > 5


def test_normalisation_by_mask_and_of_sparse_volumes() -> None:
    rng = np.random.default_rng(2)
    density = rng.normal(3, 2, (20, 20, 20)).astype(np.float32)
    mask = np.zeros(density.shape, bool)
    mask[:, 5:15, 5:15] = True
    density[~mask] = -100
    inside_mask = normalise(density, mask=mask)[mask]
    assert inside_mask.mean() == pytest.approx(0, abs=1e-4)
    assert inside_mask.std() == pytest.approx(1, abs=1e-4)
    sparse = np.zeros((30, 30, 30), np.float32)
    sparse[3, 4, 5] = 1
    assert normalise(sparse).std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(normalise(density, "none"), density)
    with pytest.raises(InputError, match="unknown normalisation"):
        normalise(density, "minmax")
