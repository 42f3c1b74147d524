"""Mean shift on binned class maps against loops over bins and scikit-learn on their coordinates."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import MeanShift

from robpicker_jax.config import PickingConfig
from robpicker_jax.picking.clustering import mean_shift
from robpicker_jax.picking.clustering.mean_shift import binned_classes
from robpicker_jax.picking.picks import particles_from_class_map
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast


def binned_by_loops(class_map: np.ndarray, probability: np.ndarray | None, edge: int) -> np.ndarray:
    """Votes counted bin by bin."""
    shape = [-(-size // edge) for size in class_map.shape]
    found = np.zeros(shape, class_map.dtype)
    for bin_ in itertools.product(*map(range, shape)):
        at = tuple(slice(edge * i, edge * (i + 1)) for i in bin_)
        votes: Counter[int] = Counter()
        weights = np.ones(class_map[at].shape) if probability is None else probability[at]
        for label, weight in zip(class_map[at].ravel().tolist(), weights.ravel().tolist(), strict=True):
            votes[label] += weight
        most = max(votes.values())
        found[bin_] = min(label for label, count in votes.items() if count == most)
    return found


@st.composite
def class_maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A map of up to three classes in blobs and single voxels, and probabilities that sums hold exactly."""
    shape = draw(st.tuples(*[st.integers(1, 14)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    class_map = np.zeros(shape, np.uint8)
    for _ in range(draw(st.integers(0, 6))):
        centre = rng.uniform(0, shape)
        class_map[((grid - centre) ** 2).sum(-1) < rng.uniform(1, 12)] = rng.integers(1, 4)
    salt = rng.random(shape) < 0.03
    class_map[salt] = rng.integers(0, 4, int(salt.sum()))
    return class_map, rng.integers(1, 256, shape) / 256


@settings(max_examples=60, deadline=None)
@given(maps=class_maps(), edge=st.integers(1, 3), weighted=st.booleans())
def test_bins_have_the_class_of_most_votes(maps: tuple[np.ndarray, np.ndarray], edge: int, weighted: bool) -> None:
    class_map, probability = maps[0], maps[1] if weighted else None
    np.testing.assert_array_equal(
        binned_classes(class_map, probability, edge), binned_by_loops(class_map, probability, edge)
    )


@settings(max_examples=60, deadline=None)
@given(maps=class_maps(), edge=st.integers(1, 2), bandwidth=st.sampled_from((3.0, 5.0, 10.0)))
def test_clusters_are_those_of_scikit_learn(maps: tuple[np.ndarray, np.ndarray], edge: int, bandwidth: float) -> None:
    class_map, probability = maps
    clusters = mean_shift(class_map, probability, (1, 2, 3), bandwidth_vox=bandwidth, binning=edge)
    found = set()
    for label, of_class in zip((1, 2, 3), clusters, strict=True):
        voxels: dict[int, set[tuple[int, ...]]] = {}
        for indices, numbers in of_class.voxels():
            for index, number in zip(indices.tolist(), numbers.tolist(), strict=True):
                at = np.unravel_index(index, class_map.shape)
                voxels.setdefault(number, set()).add(tuple(int(i) for i in at))
        assert sorted(voxels) == list(range(of_class.count))
        found |= {(label, frozenset(members)) for members in voxels.values()}

    binned = binned_by_loops(class_map, probability, edge)
    points = np.argwhere(binned > 0)
    expected = set()
    if len(points):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            numbers = MeanShift(bandwidth=bandwidth / edge, bin_seeding=True).fit(points).labels_
        for number in range(numbers.max() + 1):
            members = points[numbers == number]
            if len(members):
                label = int(np.bincount([binned[tuple(bin_)] for bin_ in members]).argmax())
                voxels_of = {
                    at
                    for bin_ in members
                    for at in itertools.product(*(range(edge * i, edge * (i + 1)) for i in bin_.tolist()))
                    if all(i < size for i, size in zip(at, class_map.shape, strict=True))
                }
                expected.add((label, frozenset(voxels_of)))
    assert found == expected


def test_a_particle_of_two_classes_is_one_pick_of_the_larger_share() -> None:
    class_map = np.zeros((20, 20, 44), np.uint8)
    grid = np.stack(np.meshgrid(*map(np.arange, class_map.shape), indexing="ij"), -1)
    for centre in ((9.5, 9.5, 9.5), (9.5, 9.5, 33.5)):
        class_map[((grid - centre) ** 2).sum(-1) < 25] = 2
    class_map[:, :, :8][class_map[:, :, :8] == 2] = 1  # a cap of the first ball
    picking = PickingConfig(clustering="mean_shift", min_distance_vox=0)
    picks = particles_from_class_map(class_map, np.full(class_map.shape, 0.5, np.float16), 3, picking)
    assert picks.labels.tolist() == [2, 2]
    np.testing.assert_allclose(np.sort(picks.positions_vox[:, 0]), [9.5, 33.5])
    np.testing.assert_allclose(picks.positions_vox[:, 1:], 9.5)
    np.testing.assert_array_equal(picks.cluster_sizes % 8, 0)


@pytest.mark.parametrize(("options", "key"), [({"bandwidth_vox": 0.0}, "bandwidth_vox"), ({"binning": 0}, "binning")])
def test_options_that_make_no_sense_are_refused(options: dict[str, float], key: str) -> None:
    with pytest.raises(InputError, match=key):
        mean_shift(np.ones((2, 2, 2), np.uint8), None, (1,), **options)
