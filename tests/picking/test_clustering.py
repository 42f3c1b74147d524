"""Grid DBSCAN against scikit-learn's."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from robpicker_jax.picking.clustering import ball_offsets, dbscan_classes, dbscan_grid
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast

RADII = (1.0, 1.5, 1.8, 2.0, 3.0)


def reference(mask: np.ndarray, radius: float, min_neighbours: int) -> np.ndarray:
    """Labels in the grid's convention, by scikit-learn on the voxel coordinates."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    points = np.argwhere(mask)
    if len(points):
        found = DBSCAN(eps=radius, min_samples=min_neighbours).fit_predict(points)
        labels[mask] = np.where(found < 0, -1, found + 1)
    return labels


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(*[st.integers(1, 12)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.random(shape) < draw(st.sampled_from((0.02, 0.1, 0.25, 0.4, 0.6, 0.9, 1.0)))
    if draw(st.booleans()):  # solid blobs, as a network makes them, rather than salt and pepper
        from scipy.ndimage import binary_opening

        mask = binary_opening(mask)
    return mask


@settings(max_examples=200, deadline=None)
@given(mask=masks(), radius=st.sampled_from(RADII), min_neighbours=st.integers(1, 9))
def test_equals_sklearn_label_for_label(mask: np.ndarray, radius: float, min_neighbours: int) -> None:
    np.testing.assert_array_equal(dbscan_grid(mask, radius, min_neighbours), reference(mask, radius, min_neighbours))


@settings(max_examples=60, deadline=None)
@given(
    mask=masks(),
    radius=st.one_of(st.floats(0.3, 4.0), st.sampled_from([2**0.5, 3**0.5, 5**0.5, 6**0.5, 8**0.5])),
    min_neighbours=st.integers(1, 30),
)
def test_equals_sklearn_at_any_radius(mask: np.ndarray, radius: float, min_neighbours: int) -> None:
    np.testing.assert_array_equal(dbscan_grid(mask, radius, min_neighbours), reference(mask, radius, min_neighbours))


@pytest.mark.parametrize(("radius", "min_neighbours"), [(1.0, 5), (1.8, 9), (3.0, 40)])
def test_equals_sklearn_on_blobs_cut_into_slabs(
    radius: float, min_neighbours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs that touch, in a volume scanned in many slabs: clusters reach across every slab border."""
    monkeypatch.setattr(inspect.getmodule(dbscan_grid), "_SLAB_VOXELS", 3 * 50 * 70)
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(np.random.default_rng(3).normal(size=(40, 50, 70)), 1.6)
    mask = field > np.quantile(field, 0.8)
    np.testing.assert_array_equal(dbscan_grid(mask, radius, min_neighbours), reference(mask, radius, min_neighbours))


def test_radius_one_with_one_neighbour_is_face_connectivity() -> None:
    from scipy.ndimage import label

    mask = np.random.default_rng(0).random((30, 30, 30)) < 0.3
    np.testing.assert_array_equal(dbscan_grid(mask, 1.0, 1), label(mask)[0])


def test_neighbours_do_not_wrap_round_rows_and_planes() -> None:
    mask = np.zeros((3, 4, 5), dtype=bool)
    mask[0, 0, 4] = mask[0, 1, 0] = True  # neighbours in memory, four voxels apart in space
    mask[1, 3, 4] = mask[2, 0, 0] = True
    assert dbscan_grid(mask, 1.0, 1).max() == 4
    assert (dbscan_grid(mask, 1.0, 2)[mask] == -1).all()


def test_border_voxel_of_two_clusters_goes_to_the_first() -> None:
    mask = np.zeros((3, 3, 7), dtype=bool)
    mask[:, :, :3] = mask[:, :, 4:] = True
    mask[1, 1, 3] = True  # a bridge of two neighbours: no core voxel
    labels = dbscan_grid(mask, 1.0, 4)
    assert labels.max() == 2
    assert labels[1, 1, 3] == 1
    np.testing.assert_array_equal(labels, reference(mask, 1.0, 4))


def test_classes_are_clustered_apart() -> None:
    class_map = np.random.default_rng(1).integers(0, 4, (12, 14, 16)).astype(np.uint8)
    for label, clusters in zip((1, 2, 3), dbscan_classes(class_map, (1, 2, 3), 1.5, 4), strict=True):
        expected = reference(class_map == label, 1.5, 4)
        got = np.where(class_map == label, -1, 0).reshape(-1)
        for indices, numbers in clusters.voxels(chunk=17):
            got[indices] = numbers + 1
        np.testing.assert_array_equal(got.reshape(class_map.shape), expected)
        assert clusters.voxel_count == (expected > 0).sum()
        assert clusters.noise_count == (expected < 0).sum()


def test_strided_and_fortran_ordered_masks() -> None:
    whole = np.random.default_rng(2).random((20, 22, 24)) < 0.4
    for mask in (whole[::2, :, ::3], np.asfortranarray(whole), whole.T):
        np.testing.assert_array_equal(dbscan_grid(mask, 1.0, 5), reference(mask, 1.0, 5))


@pytest.mark.parametrize("shape", [(0, 3, 3), (4, 4, 4)])
def test_nothing_labelled(shape: tuple[int, int, int]) -> None:
    labels = dbscan_grid(np.zeros(shape, dtype=bool))
    assert labels.shape == shape
    assert not labels.any()


def test_memory_grows_with_the_labelled_voxels_and_not_with_the_volume() -> None:
    import tracemalloc

    class_map = np.zeros((128, 1024, 1024), dtype=np.uint8)  # never touched: no memory
    class_map[60:70, 500:600, 500:600] = 1
    tracemalloc.start()
    try:
        clusters = dbscan_classes(class_map, (1,))[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert clusters.count == 1
    assert peak < 40 * 2**20  # of which one slab's comparison is 4 MiB; the volume is 128 MiB


def test_ball_offsets_are_symmetric_and_complete() -> None:
    assert [len(ball_offsets(radius)) for radius in (0.5, 1.0, 2**0.5 + 1e-9, 2.0)] == [1, 7, 19, 33]
    offsets = {tuple(offset) for offset in ball_offsets(3.0).tolist()}
    assert offsets == {(-z, -y, -x) for z, y, x in offsets}


def test_bad_arguments() -> None:
    mask = np.ones((3, 3, 3), dtype=bool)
    with pytest.raises(InputError, match="radius_vox"):
        dbscan_grid(mask, 0.0)
    with pytest.raises(InputError, match="min_neighbours"):
        dbscan_grid(mask, 1.0, 0)
    with pytest.raises(InputError, match="three dimensions"):
        dbscan_grid(mask[0])
