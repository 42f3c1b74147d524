"""Tiled inference against the untiled computation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.errors import InputError
from robpicker_jax.inference import number_of_tiles, segment, tile_starts


def voxelwise(batch: np.ndarray) -> np.ndarray:
    """A "network" without context, so that tiling must not change anything."""
    value = 1 / (1 + np.exp(-batch))
    return np.concatenate([1 - value, 0.6 * value, 0.4 * value], axis=-1)


@given(size=st.integers(1, 200), tile=st.integers(1, 64), data=st.data())
def test_tiles_cover_the_axis_with_at_least_the_overlap(size: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    starts = tile_starts(size, tile, overlap)
    assert starts[0] == 0
    if size > tile:
        assert starts[-1] + tile == size
        assert all(0 < b - a <= tile - overlap for a, b in itertools.pairwise(starts))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(3, 21)] * 3), tile=st.sampled_from([4, 8]), batch=st.integers(1, 5), data=st.data()
)
def test_tiling_equals_the_whole_volume(
    shape: tuple[int, int, int], tile: int, batch: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    finished: list[int] = []
    result = segment(
        volume,
        voxelwise,
        3,
        tile=tile,
        overlap_vox=overlap,
        batch_size=batch,
        keep_scores=True,
        on_tiles=finished.append,
    )
    expected = voxelwise(volume[..., None])
    assert result.scores is not None
    np.testing.assert_allclose(result.scores, expected, atol=1e-5)
    np.testing.assert_array_equal(result.classes, result.scores.argmax(-1))
    np.testing.assert_allclose(result.probability, expected.max(-1), atol=2e-3)
    assert sum(finished) == number_of_tiles(shape, tile, overlap)


def test_overlaps_are_averaged() -> None:
    """Each tile predicts its own constant; a voxel gets the mean over the tiles that cover it."""
    calls: list[int] = []

    def constant(batch: np.ndarray) -> np.ndarray:
        value = 0.1 * (len(calls) + 1)
        calls.append(1)
        return np.broadcast_to(np.array([value, 1 - value], np.float32), (*batch.shape[:-1], 2))

    result = segment(
        np.zeros((4, 4, 6), np.float32), constant, 2, tile=4, overlap_vox=2, batch_size=1, keep_scores=True
    )
    assert result.scores is not None
    np.testing.assert_allclose(result.scores[0, 0, :, 0], [0.1, 0.1, 0.15, 0.15, 0.2, 0.2], atol=1e-6)


def test_an_overlap_as_large_as_the_tile_is_refused() -> None:
    with pytest.raises(InputError, match="overlap"):
        segment(np.zeros((8, 8, 8), np.float32), voxelwise, 3, tile=4, overlap_vox=4, batch_size=1)
