"""Class maps → picks, against direct sums over scikit-learn's clusters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import PickingConfig
from robpicker_jax.picking.clustering import CLUSTERINGS
from robpicker_jax.picking.picks import particles_from_class_map, remove_close_picks, within_volume
from robpicker_jax.system.errors import InputError

EVERYTHING = PickingConfig(min_cluster_vox=1)
NAMES = ("dbscan", "dbscan_reference")


def random_map(seed: int, shape: tuple[int, int, int] = (16, 18, 20), n_classes: int = 4) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.normal(size=shape), 1.3) for _ in range(n_classes)])
    fields[0] += 0.08
    return fields.argmax(axis=0).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radius=st.sampled_from((1.0, 1.8)), min_neighbours=st.integers(1, 8))
def test_picks_are_the_centres_of_sklearns_clusters(seed: int, radius: float, min_neighbours: int) -> None:
    class_map = random_map(seed)
    probabilities = np.random.default_rng(seed).random(class_map.shape, dtype=np.float32)
    options = {"radius_vox": radius, "min_neighbours": min_neighbours}
    config = PickingConfig(clustering_options=options, min_cluster_vox=3)
    picks = particles_from_class_map(class_map, probabilities, 4, config)
    rows = []
    for label in (1, 2, 3):
        points = np.argwhere(class_map == label)
        found = DBSCAN(eps=radius, min_samples=min_neighbours).fit_predict(points)
        for number in range(found.max() + 1):
            voxels = points[found == number]
            if len(voxels) >= 3:
                rows.append((label, len(voxels), *voxels.mean(axis=0)[::-1], probabilities[tuple(voxels.T)].mean()))
    rows.sort(key=lambda row: -row[-1])
    expected = np.array(rows).reshape(-1, 6)
    assert (np.diff(picks.scores) <= 0).all()
    np.testing.assert_array_equal(picks.labels, expected[:, 0])
    np.testing.assert_array_equal(picks.cluster_sizes, expected[:, 1])
    np.testing.assert_allclose(picks.positions_vox, expected[:, 2:5], atol=1e-9)
    np.testing.assert_allclose(picks.scores, expected[:, 5], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radius=st.sampled_from((1.0, 1.8, 2.5)), min_neighbours=st.integers(1, 12))
def test_the_reference_by_name_has_the_same_picks(seed: int, radius: float, min_neighbours: int) -> None:
    class_map = random_map(seed)
    probabilities = np.random.default_rng(seed).random(class_map.shape, dtype=np.float32)
    config = PickingConfig(
        clustering_options={"radius_vox": radius, "min_neighbours": min_neighbours}, min_cluster_vox=1
    )
    ours = particles_from_class_map(class_map, probabilities, 5, config)  # class 4 has no voxel
    theirs = particles_from_class_map(class_map, probabilities, 5, replace(config, clustering="dbscan_reference"))
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.cluster_sizes, theirs.cluster_sizes)
    np.testing.assert_allclose(ours.positions_vox, theirs.positions_vox, atol=1e-9)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
    for one, other in zip(*(CLUSTERINGS[name](class_map, None, (1, 2, 3)) for name in NAMES), strict=True):
        assert (one.count, one.voxel_count, one.noise_count) == (other.count, other.voxel_count, other.noise_count)
    with pytest.raises(InputError, match="min_neighbours"):
        CLUSTERINGS["dbscan_reference"](class_map, None, (1,), min_neighbours=0)  # type: ignore[call-arg]


def test_balls_are_picked_at_their_centres() -> None:
    centres = np.array([[8.0, 20.0, 9.0], [25.0, 9.0, 30.0], [25.5, 30.0, 12.0]])  # z y x
    grid = np.indices((40, 40, 40)).transpose(1, 2, 3, 0)
    class_map = np.zeros((40, 40, 40), dtype=np.uint8)
    for label, centre in enumerate(centres, 1):
        class_map[((grid - centre) ** 2).sum(axis=-1) <= 25] = label
    probabilities = np.where(class_map == 2, 0.75, 0.5).astype(np.float16)
    picks = particles_from_class_map(class_map, probabilities, 4, PickingConfig(), class_names=["a", "b", "c"])
    np.testing.assert_allclose(picks.positions_vox, centres[[1, 0, 2], ::-1])
    np.testing.assert_allclose(picks.scores, [0.75, 0.5, 0.5])
    assert picks.labels.tolist() == [2, 1, 3]
    assert picks.class_names.tolist() == ["b", "a", "c"]


def test_without_probabilities_there_are_no_scores() -> None:
    picks = particles_from_class_map(random_map(1), None, 4, EVERYTHING)
    assert len(picks) > 0
    assert picks.scores is None
    with pytest.raises(InputError, match="probabilities"):
        particles_from_class_map(random_map(1), None, 4, PickingConfig(min_score=0.5))


def test_limits_per_class() -> None:
    class_map, probabilities = random_map(2), np.random.default_rng(0).random((16, 18, 20))
    everything = particles_from_class_map(class_map, probabilities, 4, EVERYTHING)
    picks = particles_from_class_map(
        class_map, probabilities, 4, EVERYTHING, min_cluster_vox=[10, None, 30], min_score=[None, 0.5, 0.0]
    )
    least_vox, least_score = np.array([0, 10, 1, 30]), np.array([0, 0.0, 0.5, 0.0])
    expected = everything.select(
        (everything.cluster_sizes >= least_vox[everything.labels])
        & (everything.scores >= least_score[everything.labels])
    )
    assert 0 < len(picks) < len(everything)
    np.testing.assert_array_equal(picks.positions_vox, expected.positions_vox)


def test_mask_and_edge() -> None:
    class_map = random_map(3)
    everything = particles_from_class_map(class_map, None, 4, EVERYTHING)
    mask = np.zeros(class_map.shape, dtype=bool)
    mask[:, :, 10:] = True
    picks = particles_from_class_map(class_map, None, 4, EVERYTHING, mask=mask)
    assert 0 < len(picks) < len(everything)
    np.testing.assert_array_equal(
        picks.positions_vox, everything.positions_vox[np.floor(everything.positions_vox[:, 0] + 0.5) >= 10]
    )
    picks = particles_from_class_map(class_map, None, 4, EVERYTHING, edge_vox=3.0)
    far = np.minimum(everything.positions_vox, np.array([19, 17, 15]) - everything.positions_vox).min(axis=1) >= 3
    np.testing.assert_array_equal(picks.positions_vox, everything.positions_vox[far])


def test_within_volume_lets_the_outer_half_voxel_in() -> None:
    positions = [[-0.5, 0, 0], [-0.6, 0, 0], [9.5, 7, 5], [9.0, 7.6, 5], [9.0, 7.0, 5.0]]
    particles = Particles(np.array(positions), np.ones(5, dtype=np.int32))
    assert within_volume(particles, (6, 8, 10)).tolist() == [True, False, True, False, True]
    assert within_volume(particles, (6, 8, 10), edge_vox=1e-6).tolist() == [False] * 5


def test_an_empty_map_gives_an_empty_list() -> None:
    picks = particles_from_class_map(np.zeros((8, 8, 8), dtype=np.uint8), np.ones((8, 8, 8)), 3, PickingConfig())
    assert len(picks) == 0
    assert picks.scores is not None  # the columns are there, for writers that ask
    assert picks.cluster_sizes is not None


def test_a_map_of_foreground_alone_is_one_pick() -> None:
    picks = particles_from_class_map(np.full((9, 11, 13), 2, np.uint8), np.ones((9, 11, 13)), 3, PickingConfig())
    np.testing.assert_allclose(picks.positions_vox, [[6, 5, 4]])
    assert picks.cluster_sizes.tolist() == [9 * 11 * 13]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 40), distance=st.floats(0.1, 5))
def test_close_picks_are_thinned_greedily(seed: int, count: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    picks = Particles(rng.uniform(0, 8, (count, 3)), rng.integers(1, 3, count), scores=rng.random(count))
    keep = remove_close_picks(picks, distance)
    taken: list[int] = []
    for index in np.argsort(-picks.scores, kind="stable") if count else []:
        apart = np.linalg.norm(picks.positions_vox[taken] - picks.positions_vox[index], axis=1)
        if (apart >= distance).all():
            taken.append(index)
    assert sorted(taken) == np.flatnonzero(keep).tolist()


def test_bad_input() -> None:
    class_map = random_map(4)
    ones = np.ones(class_map.shape)
    with pytest.raises(InputError, match=r"holds 0 … 3, classes are 0 … 2"):
        particles_from_class_map(class_map, ones, 3, EVERYTHING)
    with pytest.raises(InputError, match="probabilities of shape"):
        particles_from_class_map(class_map, ones[1:], 4, EVERYTHING)
    with pytest.raises(InputError, match="mask of shape"):
        particles_from_class_map(class_map, ones, 4, EVERYTHING, mask=ones[1:] > 0)
    with pytest.raises(InputError, match="finite"):
        particles_from_class_map(class_map, np.full(class_map.shape, np.nan), 4, EVERYTHING)
    with pytest.raises(InputError, match="min_cluster_vox"):
        particles_from_class_map(class_map, ones, 4, EVERYTHING, min_cluster_vox=[1])
    with pytest.raises(InputError, match="class names"):
        particles_from_class_map(class_map, ones, 4, EVERYTHING, class_names=["a"])
