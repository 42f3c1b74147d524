"""Particles from maps of class probabilities against loops over all voxels, SciPy and scikit-learn's connected pixels."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from robpicker_jax.annotations import Particles
from robpicker_jax.config import DataConfig, InferenceConfig, ModelConfig, PickingConfig, Species, load_config
from robpicker_jax.models.trained_model import ModelCard, TrainedModel, build_network
from robpicker_jax.picking.inference import Segmentation
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.picks import particles_from_score_maps
from robpicker_jax.picking.score_maps import check_picking, local_maxima, oks_nms, threshold_components
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast

Rows = set[tuple[int, float, float, float, float]]


@st.composite
def score_maps(draw: st.DrawFn, smooth: bool = False) -> np.ndarray:
    """Maps of two classes beside the background, with ties."""
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = np.round(rng.random((*shape, 3)) * draw(st.sampled_from((8, 50)))) / 64
    if smooth or draw(st.booleans()):
        scores = np.stack([ndimage.uniform_filter(scores[..., k], 3) for k in range(3)], -1)
    return (np.round(scores * 1024) / 1024).astype(np.float32)  # sums of these are exact


def rows(found: Particles) -> Rows:
    assert found.scores is not None or not len(found)
    scores = found.scores if found.scores is not None else np.zeros(0)
    return {
        (int(label), *map(float, position), float(score))
        for label, position, score in zip(found.labels, found.positions_vox, scores, strict=True)
    }


def bins(map_: np.ndarray, edge: int, pooling: str) -> np.ndarray:
    """Bins one after the other."""
    shape = [size // edge for size in map_.shape]
    found = np.zeros(shape, map_.dtype)
    for at in product(*map(range, shape)):
        block = map_[tuple(slice(edge * i, edge * (i + 1)) for i in at)]
        found[at] = block.mean() if pooling == "mean" else block.max()
    return found


def position(voxel: tuple[int, ...], edge: int, corner: bool) -> tuple[float, float, float]:
    z, y, x = (edge * i + (0 if corner else (edge - 1) / 2) for i in voxel)
    return x, y, z


@settings(max_examples=40, deadline=None)
@given(
    scores=score_maps(),
    radii=st.tuples(*[st.floats(0.4, 4.5)] * 2),
    window=st.sampled_from(("ball", "cube")),
    share=st.sampled_from((0.5, 1.0)),
    least=st.sampled_from((0.0, 0.3)),
)
def test_local_maxima_are_not_exceeded_in_their_window(
    scores: np.ndarray, radii: tuple[float, float], window: str, share: float, least: float
) -> None:
    found = local_maxima(scores, radii, None, min_probability=least, window_radii=share, window=window)
    expected: Rows = set()
    for label, radius in enumerate(radii, start=1):
        map_, reach = scores[..., label], share * radius
        voxels = list(product(*map(range, map_.shape)))
        for voxel in voxels:
            if map_[voxel] < least:
                continue
            gaps = [np.abs(np.subtract(voxel, other)) for other in voxels]
            near = [(gap**2).sum() <= reach**2 if window == "ball" else gap.max() <= int(reach) for gap in gaps]
            if all(map_[other] <= map_[voxel] for other, is_near in zip(voxels, near, strict=True) if is_near):
                expected.add((label, *position(voxel, 1, False), float(map_[voxel])))
    assert rows(found) == expected


@settings(max_examples=40, deadline=None)
@given(
    scores=score_maps(),
    radii=st.tuples(*[st.floats(0.4, 4.5)] * 2),
    oks=st.sampled_from((None, 0.8)),
    edge=st.integers(1, 2),
    pooling=st.sampled_from(("mean", "max")),
    corner=st.booleans(),
)
def test_oks_nms_takes_the_highest_voxel_that_is_left(
    scores: np.ndarray, radii: tuple[float, float], oks: float | None, edge: int, pooling: str, corner: bool
) -> None:
    found = oks_nms(
        scores, radii, None, min_probability=0.05, oks=oks, binning=edge, pooling=pooling, at_bin_corner=corner
    )
    expected: Rows = set()
    for label, radius in enumerate(radii, start=1):
        map_ = bins(scores[..., label], edge, pooling)
        left = [voxel for voxel in product(*map(range, map_.shape)) if map_[voxel] >= 0.05]
        left.sort(key=lambda voxel: -map_[voxel])  # stable: ties in z, y, x order
        while left:
            best = left.pop(0)
            expected.add((label, *position(best, edge, corner), float(map_[best])))
            squared = [edge**2 * np.square(np.subtract(best, voxel)).sum() for voxel in left]
            if oks is None:
                left = [voxel for voxel, d2 in zip(left, squared, strict=True) if d2 >= radius**2]
            else:
                similar = [np.exp(-d2 / (2 * radius**2)) for d2 in squared]
                left = [voxel for voxel, similarity in zip(left, similar, strict=True) if similarity <= oks]
    assert rows(found) == expected


def components_by_search(on: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """Components under 26 neighbours, by a search from voxel to voxel."""
    left, found = {tuple(map(int, at)) for at in np.argwhere(on)}, []
    while left:
        stack, members = [left.pop()], []
        while stack:
            z, y, x = stack.pop()
            members.append((z, y, x))
            for step in product((-1, 0, 1), repeat=3):
                other = (z + step[0], y + step[1], x + step[2])
                if other in left:
                    left.remove(other)
                    stack.append(other)
        found.append(members)
    return found


@settings(max_examples=80, deadline=None)
@given(
    scores=score_maps(smooth=True),
    seed=st.integers(0, 2**32 - 1),
    region=st.sampled_from(("none", "intersection", "contact", "colocalisation")),
    border=st.tuples(*[st.integers(0, 2)] * 3),
    smallest=st.integers(0, 4),
    largest=st.sampled_from((None, 30)),
)
def test_threshold_components_by_search(
    scores: np.ndarray,
    seed: int,
    region: str,
    border: tuple[int, int, int],
    smallest: int,
    largest: int | None,
) -> None:
    scores = scores * (0.6 / max(scores.max(), 1e-6))
    mask = None if region == "none" else np.random.default_rng(seed).random(scores.shape[:3]) < 0.05
    found = threshold_components(
        scores,
        (1.0, 1.0),
        mask,
        threshold=0.3,
        border_vox=border,
        larger_than_vox=smallest,
        max_cluster_vox=largest,
        region="centre" if region == "none" else region,
        contact_distance_vox=2,
        rounded=True,
        score="size",
    )
    expected = []
    for label in (1, 2):
        on = scores[..., label] > 0.3
        for axis, width in enumerate(border[::-1]):
            index = np.arange(on.shape[axis])
            inside = (index >= width) & (index < on.shape[axis] - width)
            on = on & inside.reshape([-1 if other == axis else 1 for other in range(3)])
        if region == "intersection":
            on = on & mask
        for members in components_by_search(on):
            if not smallest < len(members) <= (len(members) if largest is None else largest):
                continue
            if region == "contact" and not any(mask[at] for at in members):
                continue
            centre = np.rint(np.mean(members, axis=0))
            if region == "colocalisation" and not any(np.abs(centre - at).max() <= 2 for at in np.argwhere(mask)):
                continue
            expected.append((label, *map(float, centre[::-1]), float(len(members))))
    assert len(found) == len(expected)
    assert sorted(rows(found)) == sorted(set(expected))


def test_components_carry_mean_probability_and_size() -> None:
    scores = np.zeros((5, 5, 9, 2), np.float32)
    scores[1:3, 1, 1, 1] = 0.75, 1.0
    scores[2, 3, 6:9, 1] = 0.625
    found = threshold_components(scores, (2.0,), None)
    np.testing.assert_allclose(found.scores, [0.875, 0.625])
    np.testing.assert_array_equal(found.cluster_sizes, [2, 3])
    np.testing.assert_allclose(found.positions_vox, [[1, 1, 1.5], [7, 3, 2]])


def picker(**picking: object) -> ModelPicker:
    """A picker for two species, its network without training."""
    card = ModelCard(
        model=ModelConfig(preset="custom", widths=(2, 3), convs_per_block=1, bottleneck_convs=1, decoder_convs=1),
        data=DataConfig(species=(Species("a", 3.0), Species("b", 2.0))),
        inference=InferenceConfig(tile=16, overlap_vox=4),
        picking=PickingConfig(**picking),
        voxel_size_angstrom=10.0,
        step=1,
        score=None,
    )
    return ModelPicker(TrainedModel(*build_network(card).init(jax.random.key(1)), card))


def test_a_picker_finds_a_faint_class_under_the_background() -> None:
    """The background is everywhere more probable: a class map would hold nothing."""
    scores = np.zeros((16, 16, 16, 3), np.float32)
    scores[..., 0] = 0.9
    scores[4, 5, 6, 1], scores[10, 11, 12, 2], scores[10, 3, 3, 1] = 0.2, 0.3, 0.25
    segmented = Segmentation(np.zeros((16,) * 3, np.uint8), np.full((16,) * 3, 0.9, np.float16), scores)
    found = picker(clustering="local_maxima", min_scores={"a": 0.22}).picks_of(segmented)
    assert found.labels.tolist() == [2, 1]
    assert found.class_names.tolist() == ["b", "a"]
    np.testing.assert_array_equal(found.positions_vox, [[12, 11, 10], [3, 3, 10]])
    mask = np.zeros((16,) * 3, bool)
    mask[:, :6] = True
    assert picker(clustering="local_maxima").picks_of(segmented, mask=mask).labels.tolist() == [1, 1]


def test_a_picker_keeps_the_scores_it_needs() -> None:
    """From the network to picks; the memory bound counts four bytes for each voxel and class."""
    volume = np.random.default_rng(0).normal(size=(16, 20, 18)).astype(np.float32)
    one = picker(clustering="oks_nms", clustering_options={"min_probability": 0.2}, min_distance_vox=0)
    scores = one.segment(volume, keep_scores=True).scores
    expected = oks_nms(scores, [3.0, 2.0], None, min_probability=0.2)
    assert rows(one.pick(volume)) == rows(expected)
    plain = replace(one, model=replace(one.model, card=replace(one.model.card, picking=PickingConfig())))
    assert one.memory(volume.shape).host - plain.memory(volume.shape).host >= 3 * 4 * volume.size


def test_limits_hold_for_each_class() -> None:
    scores = np.zeros((8, 8, 30, 3), np.float32)
    scores[3, 3, 3:6, 1] = 0.9
    scores[3, 3, 12:14, 1] = 0.9
    scores[3, 3, 20:22, 2] = 0.6
    picking = PickingConfig(clustering="threshold_components")
    found = particles_from_score_maps(scores, (2.0, 2.0), picking, min_cluster_vox=(3, None), class_names=("a", "b"))
    assert found.class_names.tolist() == ["a", "b"]
    assert found.cluster_sizes.tolist() == [3, 2]


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(InputError, match="local_maxima"):
        check_picking(PickingConfig(clustering="local_maxma"))
    with pytest.raises(InputError, match="min_probability"):
        check_picking(PickingConfig(clustering="oks_nms", clustering_options={"probability": 1}))
    with pytest.raises(InputError, match=r"picking.clustering_options.oks"):
        oks_nms(np.zeros((2, 2, 2, 2)), (1.0,), None, oks=1.0)
    with pytest.raises(InputError, match="no species 'c'"):
        load_config(None, ["picking.min_scores.c=0.5"])
