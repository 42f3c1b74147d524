"""Tiled, streamed inference against averages over tiles taken one by one in NumPy."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from robpicker_jax.config import InferenceConfig
from robpicker_jax.picking.inference import (
    ROTATIONS,
    ArrayReader,
    memory_bound,
    number_of_tiles,
    over_rotations,
    segment,
    tile_starts,
)
from robpicker_jax.picking.inference.accumulation import Segmentation
from robpicker_jax.picking.inference.rotations import turned, turned_back
from robpicker_jax.picking.inference.tiles import plan_tiles, window
from robpicker_jax.system.errors import InputError

WORKER = Path(__file__).with_name("inference_worker.py")


def voxelwise(batch: np.ndarray) -> np.ndarray:
    """A "network" without context, so that tiling must not change anything."""
    value = 1 / (1 + np.exp(-batch))
    return np.concatenate([1 - value, 0.6 * value, 0.4 * value], axis=-1)


def tilewise(batch: np.ndarray) -> np.ndarray:
    """A "network" whose answer depends on the whole tile and on the place in it, so that tiles disagree."""
    batch = np.asarray(batch, np.float64)
    edge = batch.shape[1]
    ramp = np.arange(edge)[:, None, None, None] * 0.3 + np.arange(edge)[:, None, None] * 0.2 + np.arange(edge)[:, None]
    value = 1 / (1 + np.exp(-batch - batch.mean(axis=(1, 2, 3, 4), keepdims=True) + np.sin(ramp)))
    return np.concatenate([1 - value, value * (0.5 + 0.4 * np.cos(ramp)), value * (0.5 - 0.4 * np.cos(ramp))], axis=-1)


def one_by_one(volume: np.ndarray, tile: int, overlap: int, weights: np.ndarray) -> np.ndarray:
    """Weighted average of `tilewise` over all tiles, in float64, with everything held whole."""
    missing = [max(0, tile - size) for size in volume.shape]
    padded = np.pad(volume, [(0, count) for count in missing], mode="symmetric")
    cube = np.einsum("i,j,k->ijk", weights, weights, weights)[..., None]
    total, weight = np.zeros((*padded.shape, 3)), np.zeros((*padded.shape, 1))
    for corner in itertools.product(*(tile_starts(size, tile, overlap) for size in volume.shape)):
        box = tuple(slice(start, start + tile) for start in corner)
        total[box] += cube * tilewise(padded[box][None, ..., None])[0]
        weight[box] += cube
    return (total / weight)[tuple(slice(0, size) for size in volume.shape)]


@given(size=st.integers(1, 200), tile=st.integers(1, 64), data=st.data())
def test_tiles_cover_the_axis_with_at_least_the_overlap(size: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    starts = tile_starts(size, tile, overlap)
    assert starts[0] == 0
    if size > tile:
        assert starts[-1] + tile == size
        assert all(0 < b - a <= tile - overlap for a, b in itertools.pairwise(starts))


@settings(deadline=None)
@given(shape=st.tuples(*[st.integers(1, 40)] * 3), tile=st.integers(3, 24), data=st.data())
def test_a_plan_has_every_tile_once_and_carries_no_more_than_the_overlap(
    shape: tuple[int, int, int], tile: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, tile - 2))
    plan = plan_tiles(shape, tile, overlap)
    grid = list(itertools.product(*(tile_starts(size, tile, overlap) for size in shape)))
    tiles = plan.tiles()
    assert sorted((t.z, t.y, t.x) for t in tiles) == grid
    assert len(grid) == number_of_tiles(shape, tile, overlap)
    assert [t.row for t in tiles] == sorted(t.row for t in tiles)
    assert plan.carried <= overlap
    rows = plan.rows()
    # The final lines of all rows cover every voxel of the padded volume's z-y plane once.
    covered = np.zeros(plan.padded[:2], int)
    for row in rows:
        covered[row.z : row.z + row.planes, row.y : row.y + row.lines] += 1
    assert (covered == 1).all()


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(3, 21)] * 3),
    tile=st.sampled_from([4, 7, 8]),
    batch=st.integers(1, 5),
    blend=st.sampled_from(["average", "gaussian"]),
    data=st.data(),
)
def test_streamed_averages_are_those_over_all_tiles(
    shape: tuple[int, int, int], tile: int, batch: int, blend: str, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    finished: list[int] = []
    result = segment(
        volume,
        tilewise,
        3,
        tile=tile,
        overlap_vox=overlap,
        batch_size=batch,
        blend=blend,
        keep_scores=True,
        on_tiles=finished.append,
    )
    expected = one_by_one(volume, tile, overlap, window(tile, blend).astype(np.float64))
    assert result.scores is not None
    np.testing.assert_allclose(result.scores, expected, atol=2e-6)
    np.testing.assert_array_equal(result.classes, result.scores.argmax(-1))
    np.testing.assert_allclose(result.probability, expected.max(-1), atol=2e-3)
    assert sum(finished) == number_of_tiles(shape, tile, overlap)


def test_scores_handed_on_block_by_block_are_those_that_are_kept() -> None:
    volume = np.random.default_rng(3).normal(size=(21, 34, 27)).astype(np.float32)
    streamed = np.full((*volume.shape, 3), np.nan, np.float32)

    def take(z: int, y: int, block: np.ndarray) -> None:
        into = streamed[z : z + block.shape[0], y : y + block.shape[1]]
        assert np.isnan(into).all()
        into[...] = block

    kept = segment(volume, tilewise, 3, tile=16, overlap_vox=5, batch_size=3, keep_scores=True)
    alone = segment(volume, tilewise, 3, tile=16, overlap_vox=5, batch_size=3, on_scores=take)
    assert kept.scores is not None
    assert alone.scores is None
    np.testing.assert_array_equal(streamed, kept.scores)
    np.testing.assert_array_equal(alone.classes, kept.classes)


@pytest.mark.parametrize("blend", ["average", "gaussian"])
def test_the_result_does_not_depend_on_the_batch(blend: str) -> None:
    volume = np.random.default_rng(1).normal(size=(19, 22, 31)).astype(np.float32)
    results = [
        segment(volume, tilewise, 3, tile=8, overlap_vox=3, batch_size=batch, blend=blend, keep_scores=batch % 2 == 0)
        for batch in (1, 2, 5, 64)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other.classes, results[0].classes)
        np.testing.assert_array_equal(other.probability, results[0].probability)
    assert results[0].scores is None
    np.testing.assert_array_equal(results[1].scores, results[3].scores)


@pytest.mark.parametrize("blend", ["average", "gaussian"])
def test_b12_with_64_bit_numbers_switched_on_the_result_is_the_same(blend: str) -> None:
    """JAX_ENABLE_X64=1 makes Python's integers 64-bit indices beside the plan's 32-bit ones."""
    volume = np.random.default_rng(1).normal(size=(19, 22, 31)).astype(np.float32)

    def segmented() -> Segmentation:
        return segment(volume, tilewise, 3, tile=8, overlap_vox=3, batch_size=3, blend=blend, keep_scores=True)

    expected = segmented()
    with jax.enable_x64(True):
        found = segmented()
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_array_equal(found.probability, expected.probability)
    assert found.scores is not None
    assert found.scores.dtype == np.float32


@pytest.mark.parametrize("blend", ["average", "gaussian"])
def test_tiling_equals_the_whole_volume(blend: str) -> None:
    volume = np.random.default_rng(2).normal(size=(13, 3, 17)).astype(np.float32)
    result = segment(volume, voxelwise, 3, tile=8, overlap_vox=3, batch_size=2, blend=blend, keep_scores=True)
    np.testing.assert_allclose(result.scores, voxelwise(volume[..., None]), atol=1e-6)


def test_a26_default_blending_is_gaussian_and_close_to_the_whole_volume() -> None:
    """A network sees nothing beyond its tile, so that its answer is worst at the tile's faces; the middle counts most."""

    def with_context(batch: np.ndarray) -> np.ndarray:
        smooth = np.stack([gaussian_filter(tile, 3.0, mode="constant") for tile in np.asarray(batch)[..., 0]])
        value = 1 / (1 + np.exp(-60 * (smooth - 0.02)))
        return np.stack([1 - value, value], axis=-1)

    volume = np.random.default_rng(4).normal(size=(64, 64, 64)).astype(np.float32)
    whole = with_context(volume[None, ..., None])[0].argmax(-1)

    def changed(blend: str) -> float:
        found = segment(volume, with_context, 2, tile=32, overlap_vox=16, batch_size=4, blend=blend)
        return float(np.count_nonzero(found.classes != whole) / np.count_nonzero(whole))

    default = InferenceConfig().blend
    assert default == "gaussian"
    assert changed(default) < 0.01
    assert changed("average") > 4 * changed(default)


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


def test_impossible_tilings_are_refused() -> None:
    volume = np.zeros((8, 8, 8), np.float32)
    with pytest.raises(InputError, match="overlap"):
        segment(volume, voxelwise, 3, tile=4, overlap_vox=4, batch_size=1)
    with pytest.raises(InputError, match="blend"):
        segment(volume, voxelwise, 3, tile=4, overlap_vox=0, batch_size=1, blend="hann")
    with pytest.raises(InputError, match="256"):
        segment(volume, voxelwise, 300, tile=4, overlap_vox=0, batch_size=1)


def test_an_error_of_the_reading_threads_ends_the_work() -> None:
    class Damaged(ArrayReader):
        def read(self, region: tuple[slice, slice, slice]) -> np.ndarray:
            if region[0].start > 0:
                raise OSError("bad sector")
            return super().read(region)

    with pytest.raises(OSError, match="bad sector"):
        segment(Damaged(np.zeros((32, 8, 8), np.float32)), voxelwise, 3, tile=8, overlap_vox=2, batch_size=1)


@pytest.mark.parametrize("count", ROTATIONS)
def test_rotations_are_groups_that_are_undone(count: int) -> None:
    tile = np.random.default_rng(3).normal(size=(1, 4, 4, 4, 1)).astype(np.float32)
    images = {np.asarray(turned(tile, *rotation)).tobytes() for rotation in ROTATIONS[count]}
    assert len(images) == count
    for rotation in ROTATIONS[count]:
        once = turned(tile, *rotation)
        np.testing.assert_array_equal(turned_back(once, *rotation), tile)
        assert {np.asarray(turned(once, *other)).tobytes() for other in ROTATIONS[count]} == images
        # A rotation, not a mirror image: the permuted axes' determinant is 1.
        grid = np.stack(np.meshgrid(*[np.arange(4) - 1.5] * 3, indexing="ij"), axis=-1)[None]
        moved = np.asarray(turned(grid, *rotation)).reshape(-1, 3)
        matrix, *_ = np.linalg.lstsq(grid.reshape(-1, 3), moved, rcond=None)
        assert np.linalg.det(matrix) == pytest.approx(1)
        if count <= 4:  # the missing wedge, symmetric in x and z, stays: no axis takes another's place
            np.testing.assert_allclose(np.abs(matrix), np.eye(3), atol=1e-6)


def test_a_prediction_over_rotations_turns_with_the_tile() -> None:
    tile = np.random.default_rng(4).normal(size=(2, 4, 4, 4, 1)).astype(np.float32)
    for count, group in ROTATIONS.items():
        predict = over_rotations(tilewise, count)
        reference = np.asarray(predict(tile))
        expected = np.mean([turned_back(tilewise(turned(tile, *r)), *r) for r in group], axis=0)
        np.testing.assert_allclose(reference, expected, atol=1e-6)
        for rotation in group:
            np.testing.assert_allclose(predict(turned(tile, *rotation)), turned(reference, *rotation), atol=1e-6)
    with pytest.raises(InputError, match="3 rotations"):
        over_rotations(tilewise, 3)


def test_memory_grows_by_three_bytes_a_voxel_and_no_more() -> None:
    options = {"tile": 64, "overlap_vox": 20, "batch_size": 4}
    shallow, deep = (memory_bound((depth, 1024, 1024), 5, **options) for depth in (64 + 4 * 44, 64 + 10 * 44))
    assert deep.host - shallow.host == 3 * 6 * 44 * 1024**2
    assert deep.device == shallow.device
    deep = memory_bound((512, 1024, 1024), 5, **options)
    assert deep.host + deep.device < 3 * 2**30 * 0.95
    turned_tiles = memory_bound((512, 1024, 1024), 5, rotations=4, **options)
    assert turned_tiles.device - deep.device >= 2 * 4 * 64**3 * 5 * 4  # two more predictions of a batch
    assert f"{(deep.host + deep.device) / 2**30:.1f} GiB" in str(deep)
    scores = memory_bound((512, 1024, 1024), 5, keep_scores=True, shared=False, **options)
    assert scores.host - deep.host > math.prod((512, 1024, 1024)) * 20
    assert "on the device" in str(scores)


def test_arrays_of_the_host_stay_within_the_bound() -> None:
    volume = np.zeros((96, 64, 200), np.float32)
    bound = memory_bound(volume.shape, 3, tile=16, overlap_vox=4, batch_size=4)
    options = {"tile": 16, "overlap_vox": 4, "batch_size": 4}
    segment(volume, voxelwise, 3, **options)  # compiled
    tracemalloc.start()
    try:
        segment(volume, voxelwise, 3, **options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert volume.size * 3 < peak < bound.host


@pytest.mark.slow
def test_four_devices_give_the_classes_of_one(tmp_path: Path) -> None:
    found = []
    for devices in (1, 4):
        out = tmp_path / f"{devices}.npz"
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join([str(WORKER.parents[2]), os.environ.get("PYTHONPATH", "")]),
        }
        done = subprocess.run(
            [sys.executable, str(WORKER), str(out)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(out) as stored:
            assert stored["devices"] == devices
            found.append({key: stored[key] for key in stored.files if key != "devices"})
    one, four = found
    assert len(np.unique(one["classes"])) > 1
    np.testing.assert_array_equal(four["classes"], one["classes"])
    for key in ("scores", "other"):  # the compiler splits a device's loops by the threads that it has
        np.testing.assert_allclose(four[key], one[key], atol=1e-6)
