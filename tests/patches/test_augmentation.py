"""Augmentations: what they keep (the missing wedge, handedness), what they move, how they are drawn, host and device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.config import PatchConfig
from robpicker_jax.patches import AUGMENTATIONS, Augmenter, BatchSource, PatchTomogram
from robpicker_jax.patches.device import BatchPlan, cut
from robpicker_jax.patches.loader import cut_box
from tests.patches.patch_cases import RADII, tomogram, within

pytestmark = pytest.mark.fast

POINT = np.array([1, 2, 3])  # x y z from the centre of a 9³ patch


def wedge_volume(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise seen through tilts within ±60° about y, so |kz| <= |kx| tan 60° is measured: (volume, that mask)."""
    k = np.fft.fftfreq(n)
    kz, _, kx = np.meshgrid(k, k, k, indexing="ij")
    measured = np.abs(kz) <= np.abs(kx) * np.tan(np.deg2rad(60)) + 1e-12
    noise = np.random.default_rng(seed).standard_normal((n, n, n))
    return np.fft.ifftn(np.fft.fftn(noise) * measured).real, measured


def wedge_leak(volume: np.ndarray, measured: np.ndarray) -> float:
    """Share of the power that lies in the missing wedge."""
    power = np.abs(np.fft.fftn(volume)) ** 2
    return float(power[~measured].sum() / power.sum())


def matrix(augmenter: Augmenter, drawn: tuple[np.ndarray, ...]) -> np.ndarray:
    """What an augmentation does to vectors x y z: the images of the unit vectors, as columns."""
    columns = []
    for axis in range(3):
        patch = np.zeros((9, 9, 9))
        patch[tuple(4 + 3 * np.eye(3, dtype=int)[axis][::-1])] = 1
        moved = np.argwhere(np.asarray(augmenter.apply(patch, drawn, nearest=False)))
        columns.append((moved[0][::-1] - 4) / 3)
    return np.array(columns).T


def group(*names: str, draws: int = 600) -> list[tuple[np.ndarray, tuple[np.ndarray, ...]]]:
    """The different transformations that are drawn, as (matrix, numbers)."""
    augmenter, rng = Augmenter(names, 9), np.random.default_rng(0)
    found = {}
    for _ in range(draws):
        drawn = augmenter.draw(rng)
        found[matrix(augmenter, drawn).tobytes()] = drawn
    return [(np.frombuffer(key).reshape(3, 3), drawn) for key, drawn in found.items()]


def test_default_turns_keep_the_wedge_and_handedness() -> None:
    default = PatchConfig().augment
    turns = group(*default)
    assert len(turns) == 4  # identity and three half-turns
    volume, measured = wedge_volume(15, 0)
    for turn, drawn in turns:
        assert np.linalg.det(turn) == pytest.approx(1)
        assert wedge_leak(np.asarray(Augmenter(default, 15).apply(volume, drawn, nearest=False)), measured) < 1e-20


def test_mirrors_keep_the_wedge_but_not_handedness() -> None:
    turns = group("flip")
    assert len(turns) == 8
    volume, measured = wedge_volume(15, 0)
    flip = Augmenter(["flip"], 15)
    assert all(wedge_leak(np.asarray(flip.apply(volume, d, nearest=False)), measured) < 1e-20 for _, d in turns)
    assert sum(np.linalg.det(turn) < 0 for turn, _ in turns) == 4


def test_quarter_turns_turn_the_wedge() -> None:
    names = ("rotate_180", "rotate_z90")
    turns = group(*names)
    assert len(turns) == 8  # the rotations of a square prism
    volume, measured = wedge_volume(15, 0)
    for turn, drawn in turns:
        assert np.linalg.det(turn) == pytest.approx(1)
        leak = wedge_leak(np.asarray(Augmenter(names, 15).apply(volume, drawn, nearest=False)), measured)
        swaps_x_and_y = turn[0, 0] == 0
        assert leak > 0.1 if swaps_x_and_y else leak < 1e-20


def test_a_quarter_turn_goes_from_x_to_y() -> None:
    once = Augmenter(["rotate_z90"], 9)
    expected = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    np.testing.assert_allclose(matrix(once, (np.asarray(1, np.int32),)), expected, atol=1e-12)


def test_nothing_is_done_without_names_and_their_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    patch = rng.standard_normal((9, 9, 9))
    none = Augmenter((), 9)
    assert none.draw(rng) == ()
    assert none.apply(patch, (), nearest=False) is patch
    one, other = Augmenter(("flip", "rotate_180"), 9), Augmenter(("rotate_180", "flip"), 9)
    drawn = [augmenter.draw(np.random.default_rng(3)) for augmenter in (one, other)]
    np.testing.assert_array_equal(
        one.apply(patch, drawn[0], nearest=False), other.apply(patch, drawn[1], nearest=False)
    )


def test_turns_are_drawn_uniformly() -> None:
    rng = np.random.default_rng(1)
    augmenter = Augmenter(("rotate_180", "flip", "rotate_z90"), 9)
    drawn = [matrix(augmenter, augmenter.draw(rng)).tobytes() for _ in range(2400)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 16
    assert all(within(count, 2400, 1 / 16) for count in counts)


@pytest.mark.parametrize("name", ["rotate_180", "flip", "rotate_z90"])
def test_turns_move_every_voxel_as_their_matrix_says(name: str) -> None:
    augmenter = Augmenter([name], 9)
    patch = np.zeros((9, 9, 9))
    patch[tuple(4 + POINT[::-1])] = 1
    for turn, drawn in group(name):
        goes_to = np.argwhere(np.asarray(augmenter.apply(patch, drawn, nearest=False)))[0][::-1] - 4
        np.testing.assert_array_equal(goes_to, turn @ POINT)


@pytest.mark.parametrize("names", [("rotate_180",), ("flip", "rotate_z90"), tuple(AUGMENTATIONS)])
@pytest.mark.parametrize("labels", [False, True])
def test_host_and_device_augment_alike(names: tuple[str, ...], labels: bool) -> None:
    """Bit for bit where voxels move onto voxels; to rounding where densities are interpolated."""
    rng = np.random.default_rng(5)
    shape, size = (20, 22, 24), 12
    volume = rng.integers(0, 5, shape).astype(np.uint8) if labels else rng.standard_normal(shape).astype(np.float32)
    config = PatchConfig(size=size, augment=names)
    particles = tomogram("a", shape, (3, 3, 3), seed=0).particles
    only = PatchTomogram("a", volume.astype(np.float32), particles, volume.astype(np.uint8))
    source = BatchSource([only], [], config, seed=0, batch_size=6)
    plans = source.plans("train", 0)
    batch = source.train_batch(0)
    host = batch["label"] if labels else batch["image"][..., 0]
    shapes = np.array([shape], np.int32)
    device = jax.jit(lambda plan: cut(volume[None], shapes, plan, config, nearest=labels))(BatchPlan.of(plans))
    assert device.dtype == volume.dtype
    if "rotate_any" not in names:
        np.testing.assert_array_equal(device, host)
    elif labels:
        assert (np.asarray(device) != host).mean() < 1e-3
    else:
        np.testing.assert_allclose(device, host, atol=2e-4)


def smooth_field(r: np.ndarray) -> np.ndarray:
    """A smooth lopsided density at points (..., 3) x y z from the centre."""
    blobs = [((3, 0, 0), 1.0), ((0, 4, 1), 2.0), ((-2, -1, 4), -1.5)]
    return sum(a * np.exp(-((r - np.array(c)) ** 2).sum(-1) / 50) for c, a in blobs)


def rotated(volume: np.ndarray, corner: tuple[int, ...], size: int, rotation: np.ndarray) -> np.ndarray:
    """A patch of a volume, rotated; of a label map where the volume is one."""
    augmenter = Augmenter(["rotate_any"], size)
    patch = cut_box(lambda box: volume[box], volume.shape, corner, size, augmenter.margin)
    nearest = volume.dtype == np.uint8
    return np.asarray(augmenter.apply(patch, (rotation.astype(np.float32),), nearest=nearest))


def test_rotation_by_interpolation_agrees_with_the_field_itself() -> None:
    shape, corner, size = (40, 42, 44), (11, 12, 14), 17
    centre = np.array([14, 12, 11]) + 8.0
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")[::-1], -1)
    volume = smooth_field(grid - centre).astype(np.float32)
    inner = np.stack(np.meshgrid(*[np.arange(size) - 8.0] * 3, indexing="ij")[::-1], -1)
    for rotation in random_rotations(5, np.random.default_rng(0)):
        patch = rotated(volume, corner, size, rotation)
        np.testing.assert_allclose(patch, smooth_field(inner @ rotation), atol=0.04)  # rows times R: Rᵀ r


def test_rotation_by_a_quarter_turn_moves_voxels_onto_voxels() -> None:
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((20, 20, 20)).astype(np.float32)
    labels = rng.integers(0, 5, (20, 20, 20)).astype(np.uint8)
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    turn, once = Augmenter(["rotate_z90"], 9), (np.asarray(1, np.int32),)
    box = (slice(5, 14),) * 3
    image = rotated(volume, (5, 5, 5), 9, quarter)
    np.testing.assert_allclose(image, turn.apply(volume[box], once, nearest=False), atol=1e-5)
    classes = rotated(labels, (5, 5, 5), 9, quarter)
    np.testing.assert_array_equal(classes, turn.apply(labels[box], once, nearest=True))
    assert classes.dtype == np.uint8


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(4, 12))
def test_rotated_patches_equal_scipys_and_are_continued_by_reflection(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 4, (14, 13, 12)).astype(np.uint8)
    volume = rng.standard_normal(labels.shape).astype(np.float32)
    corner = [int(rng.integers(0, edge - size + 1)) for edge in labels.shape]
    rotation = random_rotations(1, rng)[0]
    back, half = rotation.T[::-1, ::-1], np.full(3, (size - 1) / 2)  # in z y x: out(r) = volume(centre + back r)
    offset = np.array(corner) + half - back @ half
    for data, order in ((volume, 1), (labels, 0)):
        expected = scipy.ndimage.affine_transform(
            data, back, offset=offset, output_shape=(size,) * 3, order=order, mode="mirror", prefilter=False
        )
        found = rotated(data, tuple(corner), size, rotation)
        if order == 1:
            np.testing.assert_allclose(found, expected, atol=1e-4)
        else:
            assert (found != expected).mean() < 5e-3  # voxels halfway between two, to rounding


def test_random_rotations_turn_images_and_labels_alike() -> None:
    """A volume that equals its label map stays so, up to interpolation at the surface."""
    particles = tomogram("a", (40, 40, 40), (3, 3, 3), seed=0).particles
    labels = RADII.labels((40, 40, 40), particles)
    only = PatchTomogram("a", (labels > 0).astype(np.float32), particles, labels)
    config = PatchConfig(size=16, augment=("rotate_any", "rotate_180"))
    batch = BatchSource([only], [], config, seed=0, batch_size=8).train_batch(0)
    inside, outside = batch["label"] > 0, batch["label"] == 0
    assert batch["image"][..., 0][inside].mean() > 0.8
    assert batch["image"][..., 0][outside].mean() < 0.05
    assert not np.isin(batch["image"], [0, 1]).all()  # it was interpolated


class Halved:
    """An augmentation of someone else's: densities times a random factor."""

    def margin(self, size: int) -> int:
        return 0

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(rng.uniform(0.5, 1.0), np.float32)

    def apply(self, patch: jnp.ndarray, drawn: jnp.ndarray, *, size: int, nearest: bool) -> jnp.ndarray:
        return patch if nearest else patch * drawn


def test_an_augmentation_from_outside_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "contrast", Halved())
    only = tomogram("a", (24, 24, 24), (3, 3, 3), seed=0)
    sources = [
        BatchSource([only], [], PatchConfig(size=16, augment=names), seed=0, batch_size=4)
        for names in (("rotate_180", "contrast"), ("rotate_180",))
    ]
    changed, plain = (source.train_batch(0) for source in sources)
    np.testing.assert_array_equal(changed["label"], plain["label"])
    factors = changed["image"][:, 3, 3, 3, 0] / plain["image"][:, 3, 3, 3, 0]
    assert (factors >= 0.5).all()
    assert (factors < 1).all()
    assert len(set(factors.tolist())) == 4
    plans = sources[0].plans("train", 0)
    config = PatchConfig(size=16, augment=("rotate_180", "contrast"))
    device = jax.jit(lambda p: cut(only.density[None], np.array([[24, 24, 24]], np.int32), p, config))(
        BatchPlan.of(plans)
    )
    np.testing.assert_array_equal(device, changed["image"][..., 0])


# --- densities alone, and elastic deformations -------------------------------------------------------------------


def test_the_half_turn_about_the_tilt_axis() -> None:
    turns = group("rotate_tilt")
    assert sorted(tuple(np.diag(turn)) for turn, _ in turns) == [(-1, 1, -1), (1, 1, 1)]
    assert all(np.count_nonzero(turn) == 3 for turn, _ in turns)


@pytest.mark.parametrize("name", ["noise", "salt_pepper", "standardise", "elastic", "rotate_tilt", "deepict"])
def test_host_and_device_agree_on_what_is_drawn(name: str) -> None:
    augmenter = Augmenter([name], 12)
    rng = np.random.default_rng(3)
    edge = 12 + 2 * augmenter.margin
    patch = rng.normal(size=(edge,) * 3).astype(np.float32)
    labels = rng.integers(0, 4, (edge,) * 3).astype(np.uint8)
    drawn = augmenter.draw(rng)
    host = augmenter.apply(patch, drawn, nearest=False)
    device = jax.jit(lambda p, d: augmenter.apply(p, d, nearest=False))(jnp.asarray(patch), drawn)
    assert host.dtype == device.dtype == np.float32
    np.testing.assert_allclose(host, device, atol=2e-5)
    host, device = (augmenter.apply(each, drawn, nearest=True) for each in (labels, jnp.asarray(labels)))
    assert np.mean(np.asarray(host) != np.asarray(device)) < 0.002
    assert set(np.unique(host)) <= {0, 1, 2, 3}


def test_noise_has_its_strength_and_is_normal() -> None:
    noise, rng = AUGMENTATIONS["noise"], np.random.default_rng(0)
    zeros = np.zeros((24,) * 3, np.float32)
    spreads = []
    for _ in range(200):
        changed = np.asarray(noise.apply(zeros, noise.draw(rng), size=24, nearest=False))
        spreads.append(changed.std())
        scaled = changed / changed.std()
        assert abs(scaled.mean()) < 5 / np.sqrt(scaled.size)
        assert abs(np.mean(scaled**4) - 3) < 6 * np.sqrt(96 / scaled.size)
    # The product of two uniform numbers has mean 1/4.
    assert np.mean(spreads) == pytest.approx(0.3 / 4, rel=0.2)
    assert max(spreads) < 0.31


def test_neighbouring_voxels_and_patches_have_independent_noise() -> None:
    noise, rng = AUGMENTATIONS["noise"], np.random.default_rng(1)
    zeros = np.zeros((32,) * 3, np.float32)
    first, second = (np.asarray(noise.apply(zeros, noise.draw(rng), size=32, nearest=False)) for _ in range(2))
    most = 4.5 / np.sqrt(first.size)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < most
    for axis in range(3):
        ahead = np.roll(first, -1, axis)
        assert abs(np.corrcoef(first.ravel(), ahead.ravel())[0, 1]) < most


def test_salt_and_pepper_are_as_frequent_as_drawn() -> None:
    grains, rng = AUGMENTATIONS["salt_pepper"], np.random.default_rng(2)
    zeros = np.zeros((24,) * 3, np.float32)
    lighter, darker, amounts = [], [], []
    for _ in range(200):
        changed = np.asarray(grains.apply(zeros, grains.draw(rng), size=24, nearest=False))
        values = np.unique(np.abs(changed[changed != 0]))
        assert len(values) <= 1  # one amount in a patch
        lighter.append(np.mean(changed > 0))
        darker.append(np.mean(changed < 0))
        amounts += values.tolist()
    assert np.mean(lighter) == pytest.approx(0.005, rel=0.2)
    assert np.mean(darker) == pytest.approx(0.005, rel=0.2)
    assert max(amounts) < 0.1
    assert np.mean(amounts) == pytest.approx(0.05, rel=0.2)


def test_standardised_patches() -> None:
    rng = np.random.default_rng(4)
    patch = rng.normal(3.0, 7.0, (10,) * 3).astype(np.float32)
    standard = np.asarray(Augmenter(["standardise"], 10).apply(patch, (np.zeros(2, np.uint32),), nearest=False))
    np.testing.assert_allclose(standard, (patch - patch.mean()) / patch.std(), atol=1e-5)
    flat = np.full((4,) * 3, 5.0, np.float32)
    assert not Augmenter(["standardise"], 4).apply(flat, (np.zeros(2, np.uint32),), nearest=False).any()


def test_elastic_deformations_by_scipy() -> None:
    """A patch of coordinates shows where each voxel came from; SciPy interpolates another patch there."""
    augmenter = Augmenter(["elastic"], 20)
    edge = 20 + 2 * augmenter.margin
    rng = np.random.default_rng(5)
    drawn = augmenter.draw(rng)
    grid = np.stack(np.meshgrid(*[np.arange(edge, dtype=np.float32)] * 3, indexing="ij"))
    at = np.stack([np.asarray(augmenter.apply(axis, drawn, nearest=False)) for axis in grid])
    moves = at - grid[:, *[slice(augmenter.margin, edge - augmenter.margin)] * 3]
    assert 0.2 < np.abs(moves).max() <= 3
    assert np.abs(np.diff(moves, axis=1)).max() <= 6 / 16 + 1e-3  # smooth: 16 voxels from knot to knot
    patch = rng.normal(size=(edge,) * 3).astype(np.float32)
    expected = scipy.ndimage.map_coordinates(patch, at, order=1)
    np.testing.assert_allclose(augmenter.apply(patch, drawn, nearest=False), expected, atol=1e-4)
    labels = rng.integers(0, 3, (edge,) * 3).astype(np.uint8)
    nearest = labels[tuple(np.floor(at + 0.5).astype(int))]
    assert np.mean(augmenter.apply(labels, drawn, nearest=True) != nearest) < 0.002


def test_rounds_leave_one_patch_in_four_and_turn_half_of_the_others() -> None:
    rounds, rng = AUGMENTATIONS["deepict"], np.random.default_rng(6)
    labels = rng.integers(0, 3, (6,) * 3).astype(np.uint8)
    density = rng.normal(size=(6,) * 3).astype(np.float32)
    untouched = turned = 0
    for _ in range(400):
        drawn = rounds.draw(rng)
        label = rounds.apply(labels, drawn, size=6, nearest=True)
        image = rounds.apply(density, drawn, size=6, nearest=False)
        same = np.array_equal(image, density)
        untouched += same
        if np.array_equal(label, labels):
            assert same or np.abs(image - density).max() < 2
        else:
            turned += 1
            assert not same
            np.testing.assert_array_equal(label, scipy.ndimage.rotate(labels, 180, axes=(1, 2), order=0))
            assert np.abs(image - density[:, ::-1, ::-1]).max() < 2
    assert abs(untouched - 100) < 45
    assert abs(turned - 150) < 50
