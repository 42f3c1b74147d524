"""Batches: reproducibility, statistics of the draws, masks, bad input."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import PatchConfig, load_config
from robpicker_jax.labels import SphereLabels
from robpicker_jax.patches import (
    SAMPLERS,
    BatchSource,
    Draw,
    PatchTomogram,
    SamplerSettings,
    TomogramSet,
    check_names,
)
from robpicker_jax.system.errors import InputError
from tests.patches.patch_cases import RADII, SMALL, same, source, tomogram, within


def test_shapes_and_types() -> None:
    batch = source().train_batch(0)
    assert batch["image"].shape == (8, 16, 16, 16, 1)
    assert batch["image"].dtype == np.float32
    assert batch["label"].shape == (8, 16, 16, 16)
    assert batch["label"].dtype == np.uint8
    assert batch["center_class"].shape == (8,)
    assert source().meta_batch(0)["image"].shape == (4, 16, 16, 16, 1)


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    one, two = source(), source()
    late = two.train_batch(5), two.meta_batch(5)  # asked for in another order
    for step in range(6):
        assert same(one.train_batch(step), two.train_batch(step))
        assert same(one.meta_batch(step), two.meta_batch(step))
    assert same(late[0], one.train_batch(5))
    assert same(late[1], one.meta_batch(5))
    assert not same(one.train_batch(0), one.train_batch(1))
    assert not same(one.train_batch(0), source(seed=8).train_batch(0))


def test_rows_do_not_depend_on_the_batch_size() -> None:
    small, large = source(batch_size=4).train_batch(3), source(batch_size=8).train_batch(3)
    assert same(small, {key: value[:4] for key, value in large.items()})


@pytest.mark.parametrize("count", [1, 2, 4])
def test_shards_make_up_the_global_batch(count: int) -> None:
    data = source()
    for get in (data.train_batch, data.meta_batch):
        parts = [get(2, shard=(index, count)) for index in range(count)]
        assert same(get(2), {key: np.concatenate([part[key] for part in parts]) for key in parts[0]})


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match=r"8 patches.*0 of 3"):
        source().train_batch(0, shard=(0, 3))
    with pytest.raises(InputError, match="2 of 2"):
        source().train_batch(0, shard=(2, 2))


@pytest.mark.parametrize(
    "config",
    [SMALL, PatchConfig(size=16, augment=("flip", "rotate_z90")), PatchConfig(size=12, augment=("rotate_any",))],
)
def test_labels_drawn_on_the_fly_equal_stored_maps(config: PatchConfig) -> None:
    stored, drawn = source(config), source(config, stored=False)
    for step in range(3):
        assert same(stored.train_batch(step), drawn.train_batch(step))
        assert same(stored.meta_batch(step), drawn.meta_batch(step))


def test_image_and_label_are_the_same_crop_of_their_volumes() -> None:
    data = source()
    for step, row in itertools.product(range(10), range(8)):
        plan = data.plan("train", step, row)
        from_volume = data._tomograms["train"][plan.tomogram]
        box = tuple(slice(start, start + 16) for start in plan.corner_zyx)
        batch = data.train_batch(step) if row == 0 else batch  # noqa: F821
        reverse = tuple(slice(None, None, -1 if each else 1) for each in plan.drawn[0])  # a half-turn
        np.testing.assert_array_equal(batch["image"][row, ..., 0], from_volume.density[box][reverse])
        np.testing.assert_array_equal(batch["label"][row], from_volume.labels[box][reverse])  # type: ignore[index]
        assert batch["center_class"][row] == plan.label


def test_patches_stay_inside_and_near_their_particles() -> None:
    data = source()
    offsets = []
    for step, row in itertools.product(range(150), range(8)):
        plan = data.plan("train", step, row)
        volume = data._tomograms["train"][plan.tomogram]
        corner, last = np.array(plan.corner_zyx), np.array(volume.density.shape) - 16
        assert ((corner >= 0) & (corner <= last)).all()
        if plan.particle < 0:
            assert plan.label == 0
            continue
        assert plan.label == volume.particles.labels[plan.particle]
        wanted = np.rint(volume.particles.positions_vox[plan.particle, ::-1]) - 8
        shift = corner - wanted
        free = (corner > 0) & (corner < last)  # not moved in from the border
        assert (np.abs(shift[free]) <= 3).all()
        assert (np.abs(corner - np.clip(wanted, 0, last)) <= 3).all()
        offsets.append(shift[free])
    seen = np.concatenate(offsets)
    counts = np.array([(seen == k).sum() for k in range(-3, 4)])
    assert counts.min() > 0.6 * counts.mean()
    assert counts.max() < 1.4 * counts.mean()


def test_without_shift_the_particle_is_in_the_middle() -> None:
    config = PatchConfig(size=16, shift_vox=0, background_share=0.0, augment=())
    particles = Particles(np.array([[20.0, 15.0, 12.0]]), np.array([2]))
    labels = SphereLabels([1.0, 2.0]).labels((24, 40, 36), particles)
    only = PatchTomogram("a", labels.astype(np.float32), particles, labels)
    batch = BatchSource([only], [], config, seed=0, batch_size=2).train_batch(0)
    assert np.argwhere(batch["label"][0]).mean(0).tolist() == [8, 8, 8]


def draws(data: BatchSource, kind: str, n: int) -> list[tuple[int, int, int]]:
    plans = [data.plan(kind, step, 0) for step in range(n)]  # type: ignore[arg-type]
    return [(plan.tomogram, plan.label, plan.particle) for plan in plans]


def test_background_share_and_places() -> None:
    data = source()
    n = 4000
    plans = [data.plan("train", step, 0) for step in range(n)]
    background = [plan for plan in plans if plan.particle < 0]
    assert within(len(background), n, 0.25)
    places = np.array([9 * 25 * 21, 5 * 17 * 33])  # corners that fit, in each tomogram
    assert within(sum(plan.tomogram == 0 for plan in background), len(background), places[0] / places.sum())
    z = np.array([plan.corner_zyx[0] for plan in background if plan.tomogram == 0])
    counts = np.bincount(z, minlength=9)
    assert all(within(count, len(z), 1 / 9) for count in counts)


def masked_tomogram(mask: np.ndarray, positions: np.ndarray, labels: np.ndarray, name: str = "m") -> PatchTomogram:
    density = np.random.default_rng(0).standard_normal(mask.shape).astype(np.float32)
    particles = Particles(positions, labels)
    return PatchTomogram(name, density, particles, RADII.labels(mask.shape, particles), mask)


def test_masks_decide_which_particles_and_places_are_drawn() -> None:
    rng = np.random.default_rng(5)
    mask = np.zeros((22, 30, 34), bool)
    mask[4:12, 9:20, 3:15] = True
    mask[13, 20, 25] = True
    positions = rng.uniform(0, 1, (60, 3)) * (np.array(mask.shape[::-1]) - 1)
    masked = masked_tomogram(mask, positions, np.arange(60) % 3 + 1)
    free = tomogram("free", (18, 20, 20), (2, 2, 2), seed=8)
    inside = {i for i, (x, y, z) in enumerate(positions) if mask[round(z), round(y), round(x)]}
    assert 0 < len(inside) < 60
    batches = BatchSource([masked, free], [masked], SMALL, seed=3, batch_size=1)
    drawn, places = set(), Counter[tuple[int, int, int]]()
    share = Counter[int]()
    for step in range(6000):
        for kind in ("train", "meta"):
            plan = batches.plan(kind, step, 0)  # type: ignore[arg-type]
            if plan.particle < 0:
                share[plan.tomogram] += 1
            if plan.particle < 0 and plan.tomogram == 0:
                z, y, x = (corner + 8 for corner in plan.corner_zyx)
                assert mask[z, y, x]
                places[z, y, x] += 1
            elif plan.tomogram == 0:
                drawn.add(plan.particle)
                assert plan.label == masked.particles.labels[plan.particle]
    assert drawn == inside
    # Every place that a patch of 16 can be centred on, equally likely, and no other; likewise among tomograms.
    possible = {
        tuple(zyx)
        for zyx in np.argwhere(mask).tolist()
        if all(8 <= c <= n - 8 for c, n in zip(zyx, mask.shape, strict=True))
    }
    assert (13, 20, 25) in possible
    assert set(places) <= possible
    expected = sum(places.values()) / len(possible)
    observed = np.array([places[place] for place in possible])
    assert scipy.stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), len(possible) - 1) > 1e-3
    weight = len(possible) / (len(possible) + 3 * 5 * 5)
    assert scipy.stats.binomtest(share[0], share.total(), weight).pvalue > 1e-3


def test_a_mask_of_ones_changes_where_no_particle_is_drawn() -> None:
    bare = tomogram("a", (24, 40, 36), (30, 10, 2), seed=1)
    masked = dataclasses.replace(bare, mask=np.ones(bare.density.shape, bool))
    config = dataclasses.replace(SMALL, background_share=0.0)
    sources = [BatchSource([item], [item], config, seed=7, batch_size=4) for item in (bare, masked)]
    assert all(same(*(s.train_batch(step) for s in sources)) for step in range(3))


def test_masks_that_leave_nothing_are_refused() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[10, 10, 10] = True
    positions, labels = np.array([[3.0, 4.0, 5.0]]), np.array([1])
    with pytest.raises(InputError, match=r"no particles.*masks"):
        BatchSource([masked_tomogram(mask, positions, labels)], [], SMALL, seed=0, batch_size=1)
    mask[10, 10, 10], mask[0, 0, 0] = False, True
    everywhere = dataclasses.replace(SMALL, background_share=1.0)
    batches = BatchSource([masked_tomogram(mask, positions, labels)], [], everywhere, seed=0, batch_size=1)
    with pytest.raises(InputError, match="centre of a patch of 16"):
        batches.train_batch(0)
    with pytest.raises(InputError, match="mask of shape"):
        PatchTomogram("m", np.zeros((4, 4, 4), np.float32), Particles.empty(), np.zeros((4, 4, 4), np.uint8), mask)


def test_training_particles_are_uniform_by_default() -> None:
    data = source(PatchConfig(size=16, background_share=0.0))
    n = 4000
    seen = draws(data, "train", n)
    for label, count in {1: 35, 2: 10, 3: 3}.items():
        assert within(sum(s[1] == label for s in seen), n, count / 48)
    per_particle = np.unique(np.array(seen), axis=0, return_counts=True)[1]
    assert len(per_particle) == 48  # every particle of both tomograms
    assert ((per_particle - n / 48) ** 2 / (n / 48)).sum() < 47 + 4 * np.sqrt(2 * 47)  # chi square, 47 degrees


def test_training_can_be_balanced_over_species() -> None:
    balanced = PatchConfig(size=16, background_share=0.0, train_sampler="class_balanced")
    seen = draws(source(balanced), "train", 3000)
    for label in (1, 2, 3):
        assert within(sum(s[1] == label for s in seen), 3000, 1 / 3)


def test_meta_patches_are_class_balanced() -> None:
    n = 3000
    seen = draws(source(), "meta", n)
    for label, members in {1: 40, 2: 8, 3: 2}.items():
        of_class = [particle for _, found, particle in seen if found == label]
        assert within(len(of_class), n, 1 / 3)
        counts = np.unique(of_class, return_counts=True)[1]
        assert len(counts) == members
        expected = len(of_class) / members
        assert ((counts - expected) ** 2 / expected).sum() < (members - 1) + 5 * np.sqrt(2 * members)  # chi square


def test_meta_patches_are_shifted_by_at_most_half() -> None:
    data = source(PatchConfig(size=16, shift_vox=6))
    shifts = []
    for step in range(200):
        plan = data.plan("meta", step, 0)
        volume = data._tomograms["meta"][0]
        wanted = np.rint(volume.particles.positions_vox[plan.particle, ::-1]) - 8
        last = np.array(volume.density.shape) - 16
        shifts.append(np.abs(plan.corner_zyx - np.clip(wanted, 0, last)).max())
    assert max(shifts) == 3


def test_a_uniform_sampler_knows_no_particles() -> None:
    data = source(PatchConfig(size=16, train_sampler="uniform"))
    plans = [data.plan("train", step, 0) for step in range(2000)]
    assert {(plan.particle, plan.label) for plan in plans} == {(-1, 0)}
    corners = np.array([9 * 25 * 21, 5 * 17 * 33])  # that fit, in each tomogram
    assert within(sum(plan.tomogram == 0 for plan in plans), 2000, corners[0] / corners.sum())


def rarest(tomograms: TomogramSet, settings: SamplerSettings) -> Draw:
    """A sampler of someone else's: patches around particles of the class with the fewest, never shifted."""
    labels, counts = np.unique(tomograms.labels, return_counts=True)
    members = np.flatnonzero(tomograms.labels == labels[counts.argmin()])
    return lambda rng: tomograms.around(int(rng.choice(members)), rng, 0)


def test_a_sampler_from_outside_is_chosen_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(
        "data: {dir: /data, species: [{name: a, radius_vox: 2}], meta_labels: sphere}\n"
        "patches: {size: 16, shift_vox: 3, train_sampler: rarest}\ninference: {overlap_vox: 4}\n"
    )
    config = load_config(tmp_path / "mine.yaml").patches
    for build in (check_names, source):
        with pytest.raises(InputError, match=r"patches\.train_sampler.*rarest.*particles, class_balanced, .*uniform"):
            build(config)
    monkeypatch.setitem(SAMPLERS, "rarest", rarest)
    data = source(config)
    assert data.train_batch(0)["center_class"].tolist() == [3] * 8
    assert {particle for _, _, particle in draws(data, "train", 200)} == {40, 41, 5}  # of both tomograms
    assert same(data.train_batch(1), source(config).train_batch(1))
    with pytest.raises(InputError, match=r"patches\.augment.*did you mean flip"):
        source(dataclasses.replace(config, augment=("flipp",)))


def test_bad_input_is_named() -> None:
    good = tomogram("good", (20, 20, 20), (3,), seed=0)
    with pytest.raises(InputError, match=r"^thin: .*\(8, 40, 40\).*patch of 16.*patches\.size"):
        BatchSource([good, tomogram("thin", (8, 40, 40), (3,), seed=0)], [good], SMALL, seed=0, batch_size=1)
    with pytest.raises(InputError, match="no tomograms"):
        BatchSource([], [good], SMALL, seed=0, batch_size=1)
    bare = PatchTomogram("bare", good.density, Particles.empty(), np.zeros((20, 20, 20), np.uint8))
    with pytest.raises(InputError, match="training set has no particles"):
        BatchSource([bare], [good], SMALL, seed=0, batch_size=1)
    with pytest.raises(InputError, match="meta set has no particles"):
        BatchSource([good], [bare], SMALL, seed=0, batch_size=1)
    no_meta = BatchSource([good], [], SMALL, seed=0, batch_size=1)
    with pytest.raises(InputError, match="no meta set"):
        no_meta.meta_batch(0)
    with pytest.raises(InputError, match=r"wrong: label map of shape \(3, 3, 3\)"):
        PatchTomogram("wrong", good.density, good.particles, np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(InputError, match="three axes"):
        PatchTomogram("flat", good.density[0], good.particles, good.labels)


def test_background_alone_needs_no_particles() -> None:
    nothing = np.zeros((20, 20, 20))
    bare = PatchTomogram("bare", nothing.astype(np.float32), Particles.empty(), nothing.astype(np.uint8))
    data = BatchSource([bare], [], PatchConfig(size=16, background_share=1.0), seed=0, batch_size=3)
    assert data.train_batch(0)["center_class"].tolist() == [0, 0, 0]


def drawn_from(name: str, tomograms: list[PatchTomogram], n: int, **options: object) -> list:
    settings = SamplerSettings(**({"background_share": 0.1, "shift_vox": 3} | options))
    draw = SAMPLERS[name](TomogramSet(tomograms, 16), settings)
    return [draw(np.random.default_rng([11, number])) for number in range(n)]


def test_class_aware_draws_tomogram_then_class_then_a_place_that_holds_the_particle() -> None:
    first = tomogram("a", (24, 40, 36), (30, 10, 2), seed=1)
    second = tomogram("b", (20, 32, 48), (5, 0, 1), seed=2)
    n = 4000
    plans = drawn_from("class_aware", [first, second], n, class_weights=(1.0, 2.0, 5.0))
    background = [plan for plan in plans if plan.particle < 0]
    assert within(len(background), n, 0.1)
    drawn = [plan for plan in plans if plan.particle >= 0]
    for index, (volume, weights) in enumerate([(first, (1, 2, 5)), (second, (1, 0, 5))]):
        mine = [plan for plan in drawn if plan.tomogram == index]
        assert within(len(mine), len(drawn), 0.5)
        for label in (1, 2, 3):
            of_class = [plan for plan in mine if plan.label == label]
            assert within(len(of_class), len(mine), weights[label - 1] / sum(weights)) or not weights[label - 1]
            if not weights[label - 1]:
                assert not of_class
        for plan in mine:
            centre = np.floor(volume.particles.positions_vox[plan.particle, ::-1] + 0.5)
            corner = np.array(plan.corner_zyx)
            assert ((corner >= 0) & (corner <= np.array(volume.density.shape) - 16)).all()
            assert ((centre >= corner) & (centre < corner + 16)).all()


def test_every_place_that_holds_the_particle_is_equally_likely() -> None:
    particle = Particles(np.array([[20.0, 17.0, 3.0]]), np.array([1]))
    volume = PatchTomogram("a", np.zeros((24, 40, 36), np.float32), particle, np.zeros((24, 40, 36), np.uint8))
    plans = drawn_from("class_aware", [volume], 3000, background_share=0.0)
    corners = np.array([plan.corner_zyx for plan in plans])
    for axis, (low, high) in enumerate([(0, 3), (2, 17), (5, 20)]):
        counts = np.bincount(corners[:, axis], minlength=high + 1)
        assert not counts[:low].any()
        assert len(counts) == high + 1
        assert all(within(count, 3000, 1 / (high - low + 1)) for count in counts[low:])


def test_class_aware_refuses_weights_that_leave_nothing() -> None:
    only = tomogram("b", (20, 32, 48), (5, 0, 1), seed=2)
    with pytest.raises(InputError, match="1 weights for 3 classes"):
        drawn_from("class_aware", [only], 1, class_weights=(1.0,))
    with pytest.raises(InputError, match="no particle with a weight"):
        drawn_from("class_aware", [only], 1, class_weights=(0.0, 1.0, 0.0))


def test_bootstrap_draws_classes_alike_and_no_background() -> None:
    plans = drawn_from("bootstrap", [tomogram("a", (24, 40, 36), (30, 10, 2), seed=1)], 1500, background_share=0.9)
    counts = Counter(plan.label for plan in plans)
    assert set(counts) == {1, 2, 3}
    assert all(within(count, 1500, 1 / 3) for count in counts.values())
