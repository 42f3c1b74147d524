"""Label maps against brute force, scipy's interpolation, and real SHREC 2019 masks and object lists."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import Species
from robpicker_jax.labels import (
    PointLabels,
    ShapeLabels,
    SphereLabels,
    instance_labels,
    label_maker,
    shape_labels,
    sphere_labels,
)
from robpicker_jax.system.errors import InputError

SHAPE = (18, 22, 26)
SPECIES = ["1bxn", "1qvr", "1s3x", "1u6g", "2cg9", "3cf3", "3d2f", "3gl1", "3h84", "3qm1", "4b4t", "4d8q"]


def crowd(n: int, seed: int, *, whole: bool = False) -> Particles:
    """Particles so dense that most touch, some beyond the borders."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-3, np.array(SHAPE[::-1]) + 3, (n, 3))
    if whole:
        positions = np.rint(positions)
    return Particles(positions, rng.integers(1, 4, n), rotations=random_rotations(n, rng))


def blob(seed: int, size: int = 11) -> np.ndarray:
    """A random lopsided mask with its centre of rotation at size // 2."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(size) - size // 2] * 3, indexing="ij"), -1)
    mask = np.zeros((size, size, size), bool)
    for _ in range(3):
        mask |= ((grid - rng.uniform(-2, 2, 3)) ** 2).sum(-1) < rng.uniform(1.5, 2.8) ** 2
    return mask


MASKS = [blob(1), blob(2), blob(3, 10)]


def brute_spheres(particles: Particles, radii: list[float]) -> np.ndarray:
    """Nearest centre wins, by looking at every voxel and every particle."""
    zyx = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).reshape(-1, 3).astype(float)
    centres = particles.positions_vox[:, ::-1]
    order = sorted(range(len(particles)), key=lambda k: (*centres[k], particles.labels[k]))
    squared = ((zyx[:, None] - centres[order]) ** 2).sum(-1)
    reach = np.array(radii)[particles.labels[order] - 1] ** 2
    squared[squared > reach] = np.inf
    owner = squared.argmin(1)  # argmin gives the first of equals
    owner = np.where(np.isinf(squared.min(1)), 0, np.array(order)[owner] + 1)
    return owner.reshape(SHAPE)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_spheres_equal_brute_force(seed: int, whole: bool) -> None:
    particles = crowd(40, seed, whole=whole)
    radii = [2.0, 3.5, 5.0]
    owner = brute_spheres(particles, radii)
    np.testing.assert_array_equal(instance_labels(SHAPE, particles, radii_vox=radii), owner)
    labels = sphere_labels(SHAPE, particles, radii)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.concatenate([[0], particles.labels])[owner])


@pytest.mark.parametrize("seed", range(3))
def test_points_are_the_voxels_nearest_to_the_positions(seed: int) -> None:
    particles = crowd(60, seed)
    expected: dict[tuple[int, ...], tuple[float, ...]] = {}
    for (x, y, z), label in zip(particles.positions_vox, particles.labels, strict=True):
        voxel = tuple(int(np.floor(c + 0.5)) for c in (z, y, x))
        if all(0 <= c < n for c, n in zip(voxel, SHAPE, strict=True)):
            apart = sum((c - v) ** 2 for c, v in zip((z, y, x), voxel, strict=True))
            candidate = (apart, z, y, x, int(label))
            expected[voxel] = min(expected.get(voxel, candidate), candidate)
    made = PointLabels(3).labels(SHAPE, particles)
    assert {tuple(at): int(made[tuple(at)]) for at in np.argwhere(made).tolist()} == {
        voxel: key[-1] for voxel, key in expected.items()
    }
    region = (slice(3, 9), slice(0, 22), slice(5, 20))
    np.testing.assert_array_equal(PointLabels(3).labels(SHAPE, particles, region=region), made[region])


def test_a_sphere_has_the_voxels_within_its_radius() -> None:
    labels = sphere_labels((9, 9, 9), Particles(np.array([[4.0, 4, 4]]), np.array([2])), [1.0, 2.0])
    assert (labels == 2).sum() == 33  # lattice points with x²+y²+z² <= 4
    assert labels[4, 4, 6] == 2
    assert labels[4, 5, 6] == 0


def test_positions_are_x_y_z_and_maps_z_y_x() -> None:
    labels = sphere_labels((5, 6, 7), Particles(np.array([[6.0, 5, 4]]), np.array([1])), [0.5])
    assert np.argwhere(labels).tolist() == [[4, 5, 6]]


def test_a_shape_in_reference_orientation_is_the_mask_itself() -> None:
    position = np.array([[13.0, 9.0, 8.0]])
    for mask in MASKS:
        labels = shape_labels(SHAPE, Particles(position, np.array([1]), rotations=np.eye(3)[None]), [mask])
        half = np.array(mask.shape) // 2
        z, y, x = np.array([8, 9, 13]) - half
        n = mask.shape[0]
        np.testing.assert_array_equal(labels[z : z + n, y : y + n, x : x + n], mask)
        assert labels.sum() == mask.sum()


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    mask = np.zeros((9, 9, 9))
    mask[4, 4, 4:8] = 1  # a rod from the centre along +x
    turn = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    labels = shape_labels((9, 9, 9), Particles(np.array([[4.0, 4, 4]]), np.array([1]), rotations=turn[None]), [mask])
    assert np.argwhere(labels).tolist() == [[4, y, 4] for y in range(4, 8)]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_shapes_agree_with_scipy_interpolation(seed: int, soft: bool) -> None:
    rng = np.random.default_rng(seed)
    mask = blob(seed, 12).astype(float)
    if soft:
        mask *= rng.uniform(0.4, 1.0, mask.shape)
    rotation = random_rotations(1, rng)
    position = rng.uniform(11, 13, (1, 3))
    labels = shape_labels((24, 24, 24), Particles(position, np.array([1]), rotations=rotation), [mask])
    back = rotation[0].T[::-1, ::-1]  # tomogram z y x to reference z y x
    padded = np.pad(mask, 12)
    value = affine_transform(
        padded, back, offset=18 - back @ position[0, ::-1], output_shape=(24, 24, 24), order=1, prefilter=False
    )
    clear = np.abs(value - 0.5) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear] == 1, value[clear] >= 0.5)


def test_a_turned_shape_keeps_its_volume() -> None:
    rotations = random_rotations(50, np.random.default_rng(0))
    for mask in MASKS:
        sizes = [
            shape_labels((24, 24, 24), Particles(np.full((1, 3), 12.0), np.array([1]), rotations=r[None]), [mask]).sum()
            for r in rotations
        ]
        assert np.mean(sizes) == pytest.approx(mask.sum(), rel=0.12)  # interpolation rounds corners


def makers() -> list[SphereLabels | ShapeLabels]:
    return [SphereLabels([2.0, 3.0, 4.5]), ShapeLabels(MASKS)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), whole=st.booleans(), which=st.integers(0, 1))
def test_the_order_of_the_list_does_not_matter(seed: int, whole: bool, which: int) -> None:
    particles = crowd(30, seed, whole=whole)
    maker = makers()[which]
    shuffled = np.random.default_rng(seed).permutation(len(particles))
    np.testing.assert_array_equal(maker.labels(SHAPE, particles), maker.labels(SHAPE, particles.select(shuffled)))
    back = np.concatenate([[0], shuffled + 1])
    np.testing.assert_array_equal(
        maker.instances(SHAPE, particles), back[maker.instances(SHAPE, particles.select(shuffled))]
    )


def test_equal_distances_go_to_the_smaller_coordinates() -> None:
    pair = Particles(np.array([[6.0, 4, 4], [4.0, 4, 4]]), np.array([1, 2]))
    for particles in (pair, pair.select([1, 0])):
        labels = sphere_labels((9, 9, 9), particles, [2.0, 2.0])
        assert labels[4, 4, 5] == 2


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6), which=st.integers(0, 1))
def test_a_region_is_a_crop_of_the_whole(data: st.DataObject, seed: int, which: int) -> None:
    particles = crowd(30, seed)
    maker = makers()[which]
    region = []
    for edge in SHAPE:
        start = data.draw(st.integers(0, edge))
        region.append(slice(start, data.draw(st.integers(start, edge))))
    box = (region[0], region[1], region[2])
    np.testing.assert_array_equal(maker.labels(SHAPE, particles, region=box), maker.labels(SHAPE, particles)[box])
    np.testing.assert_array_equal(maker.bind(SHAPE, particles)(box), maker.labels(SHAPE, particles)[box])
    np.testing.assert_array_equal(maker.instances(SHAPE, particles, region=box), maker.instances(SHAPE, particles)[box])


def test_open_ended_regions_and_none() -> None:
    particles = crowd(10, 0)
    whole = sphere_labels(SHAPE, particles, [2, 3, 4])
    region = (slice(None), slice(3, None), slice(None, 5))
    np.testing.assert_array_equal(sphere_labels(SHAPE, particles, [2, 3, 4], region=region), whole[region])


def test_no_particles_give_an_empty_map() -> None:
    assert not sphere_labels(SHAPE, Particles.empty(), [2.0]).any()
    assert not shape_labels(SHAPE, Particles.empty(), [MASKS[0]]).any()
    assert instance_labels(SHAPE, Particles.empty(), masks=[MASKS[0]]).shape == SHAPE


def test_bad_input_is_named() -> None:
    one = Particles(np.zeros((1, 3)), np.array([3]))
    with pytest.raises(InputError, match=r"class label 3.*2 species"):
        sphere_labels(SHAPE, one, [1.0, 2.0])
    with pytest.raises(InputError, match="no class label"):
        sphere_labels(SHAPE, one.with_(labels=np.array([0])), [1.0])
    with pytest.raises(InputError, match="1 of 1 particles have no orientation"):
        shape_labels(SHAPE, one, MASKS)
    two = Particles(np.zeros((2, 3)), np.array([1, 1]), rotations=np.stack([np.eye(3), np.full((3, 3), np.nan)]))
    with pytest.raises(InputError, match="1 of 2 particles have no orientation"):
        shape_labels(SHAPE, two, MASKS)
    with pytest.raises(InputError, match="radii are positive"):
        SphereLabels([1.0, 0.0])
    with pytest.raises(InputError, match="class label 2 is empty"):
        ShapeLabels([MASKS[0], np.zeros((3, 3, 3))])
    with pytest.raises(InputError, match="2 dimensions"):
        ShapeLabels([np.ones((3, 3))])
    with pytest.raises(InputError, match=r"256 species"):
        SphereLabels([1.0] * 256)
    for region in [(slice(0, 19), slice(None), slice(None)), (slice(-2, 5), slice(None), slice(None))]:
        with pytest.raises(InputError, match=r"not inside a volume of shape \(18, 22, 26\)"):
            sphere_labels(SHAPE, Particles.empty(), [1.0], region=region)
    with pytest.raises(TypeError):
        instance_labels(SHAPE, one)


def test_particles_without_orientation_may_be_drawn_unturned() -> None:
    bare = Particles(np.array([[13.0, 9.0, 8.0]]), np.array([1]))
    straight = bare.with_(rotations=np.eye(3)[None])
    np.testing.assert_array_equal(
        shape_labels(SHAPE, bare, MASKS, unoriented="identity"), shape_labels(SHAPE, straight, MASKS)
    )


def test_the_label_maker_of_a_configuration(shared_data: Path) -> None:
    mask = shared_data / "shrec2019" / "masks" / "3qm1.mrc"
    species = [Species("ball", 3.0, phantom=None), Species("3qm1", 2.0, mask=str(mask))]
    particles = Particles(np.array([[12.0, 12, 12]]), np.array([1]))
    np.testing.assert_array_equal(
        label_maker(species, "sphere").labels((24, 24, 24), particles),
        sphere_labels((24, 24, 24), particles, [3.0, 2.0]),
    )
    turned = particles.with_(rotations=np.eye(3)[None])
    drawn = label_maker(species[1:], "shape", voxel_size_angstrom=10.0).labels((24, 24, 24), turned)
    assert drawn.sum() == 149
    with pytest.raises(InputError, match=r"voxel size.*data\.voxel_size_angstrom"):
        label_maker(species, "shape")
    with pytest.raises(InputError, match="'ball' has no shape"):
        label_maker(species, "shape", voxel_size_angstrom=10.0)


@pytest.fixture(scope="module")
def shrec_masks(shared_data: Path) -> list[np.ndarray]:
    masks = []
    for name in SPECIES:
        with mrcfile.open(shared_data / "shrec2019" / "masks" / f"{name}.mrc", permissive=True) as file:
            masks.append(np.array(file.data))
    return masks


@pytest.mark.filterwarnings("ignore:Unrecognised machine stamp")
def test_real_masks_are_centred_on_half_their_size(shrec_masks: list[np.ndarray]) -> None:
    """The convention `size // 2`: mid-points of the bounding boxes, averaged over species and axes."""
    middles = np.array([(np.argwhere(m).min(0) + np.argwhere(m).max(0)) / 2 for m in shrec_masks])
    assert np.abs(middles - 20).max() <= 0.5
    assert np.median(middles) == 20


@pytest.mark.filterwarnings("ignore:Unrecognised machine stamp")
def test_a_real_tomogram_of_2490_particles(shared_data: Path, shrec_masks: list[np.ndarray]) -> None:
    from robpicker_jax.annotations import read_annotations

    particles = read_annotations(shared_data / "shrec2019" / "object_list_valid.xml")
    shape = (200, 512, 512)
    maker = ShapeLabels(shrec_masks)
    owner = maker.instances(shape, particles)
    drawn = np.bincount(owner.ravel(), minlength=len(particles) + 1)[1:]
    assert (drawn > 0).all()  # every particle is somewhere
    volume = np.array([m.sum() for m in shrec_masks])[particles.labels - 1]
    inside = ((particles.positions_vox > 24) & (particles.positions_vox < np.array(shape[::-1]) - 24)).all(1)
    ratio = drawn[inside] / volume[inside]
    assert np.median(ratio) == pytest.approx(1, abs=0.02)  # turning keeps the volume
    assert ratio.min() > 0.7
    region = (slice(60, 124), slice(200, 264), slice(10, 74))
    labels = maker.labels(shape, particles, region=region)
    np.testing.assert_array_equal(labels, np.concatenate([[0], particles.labels])[owner[region]])
