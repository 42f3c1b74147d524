"""Faults of a data set, each planted into a copy of a clean simulated one, with the code that the doctor gives it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.volumes import read_volume, write_mrc
from tests.tiny import TINY, merged

VOXEL = 20.0
SIZE = np.array([80, 80, 40])  # x y z
SETTINGS: dict[str, Any] = merged(
    TINY,
    {
        "data": {
            "species": [species | {"copies": n} for species, n in zip(TINY["data"]["species"], (12, 16), strict=True)]
        },
        "simulation": {
            "shape_zyx": [40, 80, 80],
            "voxel_size_angstrom": VOXEL,
            "train": 2,
            "snr": 1.0,
            "tilt_step_deg": 6.0,
        },
        "label_noise": {"missing": 0.0, "jitter_vox": 0.0},
    },
)


def volume(data: Path, name: str = "train/train_000") -> Path:
    return data / f"{name}.mrc"


def listed(data: Path, name: str = "train/train_000") -> Path:
    return data / f"{name}_objl.xml"


ALL = ("train/train_000", "train/train_001", "meta/meta_000", "test/test_000")


def move(change: Callable[[np.ndarray], np.ndarray], *names: str) -> Callable[[Path], None]:
    """A fault that changes the positions of some lists, of all by default."""

    def fault(data: Path) -> None:
        for name in names or ALL:
            particles = read_annotations(listed(data, name))
            write_annotations(listed(data, name), particles.with_(positions_vox=change(particles.positions_vox)))

    return fault


def relist(change: Callable[[Particles], Particles], *names: str) -> Callable[[Path], None]:
    """A fault that changes some lists, of all by default."""

    def fault(data: Path) -> None:
        for name in names or ALL:
            write_annotations(listed(data, name), change(read_annotations(listed(data, name))))

    return fault


def revoxel(
    change: Callable[[np.ndarray], np.ndarray], voxel: float | None = VOXEL, name: str = "train/train_000"
) -> Callable[[Path], None]:
    """A fault that changes the voxels or the voxel size of one volume."""

    def fault(data: Path) -> None:
        write_mrc(volume(data, name), change(read_volume(volume(data, name)).data), voxel)

    return fault


def flip(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    def mirrored(p: np.ndarray) -> np.ndarray:
        result = p.copy()
        result[:, axis] = SIZE[axis] - 1 - p[:, axis]
        return result

    return mirrored


def truncate(path: Callable[[Path], Path]) -> Callable[[Path], None]:
    def fault(data: Path) -> None:
        content = path(data).read_bytes()
        path(data).write_bytes(content[: len(content) // 2])

    return fault


def with_nan(data: Path) -> None:
    with mrcfile.open(volume(data), mode="r+") as file:
        file.data[3, 4, 5] = np.nan


def smoothed(density: np.ndarray) -> np.ndarray:
    return np.asarray(gaussian_filter(density, 1.0))


def wrapped_bytes(data: Path) -> None:
    """Bytes of 0 to 255 in mode 0, which MRC2014 reads as signed, under a header whose statistics are unset."""
    density = read_volume(volume(data)).data
    low, high = np.percentile(density, [0.1, 99.9])
    scaled = np.rint(255 * np.clip((density - low) / (high - low), 0, 1)).astype(np.uint8)
    with mrcfile.new(volume(data), scaled.view(np.int8), overwrite=True) as file:
        file.voxel_size = VOXEL
        file.header.dmin = file.header.dmax = file.header.dmean = 0.0


ORIGIN = np.array([-460.0, 340.0, 120.0])


def with_origins(data: Path) -> None:
    """Headers that place the first voxel elsewhere, which says nothing of lists in voxels."""
    for name in ALL:
        write_mrc(volume(data, name), read_volume(volume(data, name)).data, VOXEL, tuple(ORIGIN.tolist()))


def off_by_origin(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """A fault of lists beside volumes whose headers have an origin."""

    def fault(data: Path) -> None:
        with_origins(data)
        move(change)(data)

    return fault


def not_cubes(data: Path) -> None:
    with mrcfile.open(volume(data), mode="r+") as file:
        file.voxel_size = (VOXEL, VOXEL, 2 * VOXEL)


def unknown_voxel_size(data: Path) -> None:
    for name in ALL:
        with mrcfile.open(volume(data, name), mode="r+") as file:
            file.voxel_size = 0.0


def copy_to_meta(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def fault(data: Path) -> None:
        write_mrc(data / "meta/again.mrc", change(read_volume(volume(data)).data), VOXEL)
        shutil.copy(listed(data), data / "meta/again_objl.xml")

    return fault


def noisy(density: np.ndarray) -> np.ndarray:
    return density + np.random.default_rng(0).normal(0, 6 * density.std(), density.shape).astype(np.float32)


def mask_of_one_half(data: Path) -> None:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[:, :40] = 1
    write_mrc(data / "train/train_000_mask.mrc", mask, VOXEL)


def wrong_names(particles: Particles) -> Particles:
    other = {"ribosome": "apoferritin", "apoferritin": "ribosome"}
    return particles.with_(class_names=[other[str(name)] for name in particles.class_names])


def twice(particles: Particles) -> Particles:
    return Particles.concatenate([particles, particles.select(slice(0, 5))])


def repicked(particles: Particles) -> Particles:
    again = particles.select(slice(0, 6))
    return Particles.concatenate([particles, again.with_(positions_vox=again.positions_vox + np.array([2.0, 0, 0]))])


def few(particles: Particles) -> Particles:
    return particles.select(np.cumsum(particles.labels == 1) * (particles.labels == 1) <= 2)


def two_lists(data: Path) -> None:
    for suffix in (".csv", ".cmm"):
        shutil.copy(listed(data), data / f"train/train_000{suffix}")
    listed(data).unlink()


def one_outside(particles: Particles) -> Particles:
    positions = particles.positions_vox.copy()
    positions[3, 2] += SIZE[2]
    return particles.with_(positions_vox=positions)


def swapped(*order: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda p: p[:, list(order)]


def elsewhere(particles: Particles) -> Particles:
    """Picks between the particles: the positions of an unrelated tomogram would sometimes hit one."""
    rng = np.random.default_rng(3)
    places = rng.random((4000, 3)) * (SIZE - 12) + 5.5
    distance, _ = cKDTree(particles.positions_vox).query(places)
    return particles.with_(positions_vox=places[np.argsort(abs(distance - 8))[: len(particles)]])


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "truncated volume": ("unreadable_volume", truncate(volume)),
    "text as volume": ("unreadable_volume", lambda d: volume(d).write_text("no volume") and None),
    "broken list": ("unreadable_annotations", truncate(listed)),
    "coordinate that is no number": (
        "unreadable_annotations",
        lambda d: listed(d).write_text(listed(d).read_text().replace('x="', 'x="~', 1)) and None,
    ),
    "list missing": ("no_annotations", lambda d: listed(d).unlink()),
    "empty list": ("no_annotations", relist(lambda p: Particles.empty(), "meta/meta_000")),
    "two lists": ("layout", two_lists),
    "no meta": ("split_missing", lambda d: shutil.rmtree(d / "meta")),
    "NaN": ("bad_voxels", with_nan),
    "constant": ("bad_voxels", revoxel(np.zeros_like)),
    "wrapped bytes": ("assumed", wrapped_bytes),
    "another voxel size": ("voxel_sizes_differ", revoxel(lambda v: v, 10.0)),
    "voxels not cubes": ("voxels_not_cubes", not_cubes),
    "voxel size unknown": ("voxel_size_unknown", unknown_voxel_size),
    "one position outside": ("outside", relist(one_outside, "train/train_000")),
    "in angstrom": ("in_angstrom", move(lambda p: p * VOXEL)),
    "one list in angstrom": ("in_angstrom", move(lambda p: p * VOXEL, "train/train_001")),
    "fractions of the box (A5)": ("fractions", move(lambda p: p / SIZE)),
    "from the centre": ("centred", move(lambda p: p - SIZE / 2)),
    "relion 5 written as pixels": ("centred", move(lambda p: (p - SIZE / 2) * VOXEL)),
    "origin in the list": ("origin", off_by_origin(lambda p: p + ORIGIN / VOXEL)),
    "origin in the list, in angstrom": ("origin", off_by_origin(lambda p: p * VOXEL + ORIGIN)),
    "origin taken off twice": ("origin", off_by_origin(lambda p: p - ORIGIN / VOXEL)),
    "z y x": ("axes_swapped", move(swapped(2, 1, 0))),
    "y x z": ("axes_swapped", move(swapped(1, 0, 2))),
    "x z y": ("axes_swapped", move(swapped(0, 2, 1))),
    "y z x": ("axes_swapped", move(swapped(1, 2, 0))),
    "z x y": ("axes_swapped", move(swapped(2, 0, 1))),
    "mirrored in z": ("flipped", move(flip(2))),
    "mirrored in y": ("flipped", move(flip(1))),
    "mirrored in x": ("flipped", move(flip(0))),
    "one list mirrored in z": ("flipped", move(flip(2), "meta/meta_000")),
    "binned twice": ("binning", move(lambda p: p / 2)),
    "binned four times": ("binning", move(lambda p: p / 4)),
    "unbinned by 2": ("binning", move(lambda p: p * 2)),
    "unbinned by 4": ("binning", move(lambda p: p * 4)),
    "picks elsewhere": ("no_density", relist(elsewhere, "train/train_001")),
    "origin off": ("centre_offset", move(lambda p: np.minimum(p + np.array([2.0, 0, 0]), SIZE - 1))),
    "one volume inverted": ("contrast_differs", revoxel(np.negative)),
    "unknown class": ("class_unknown", relist(lambda p: p.with_(labels=p.labels + 1, class_names=None))),
    "labels in another order": ("class_order", relist(wrong_names)),
    "species missing": ("class_missing", relist(lambda p: p.select(p.labels == 1), "meta/meta_000")),
    "species rare": ("class_rare", relist(few, "meta/meta_000")),
    "duplicates": ("duplicates", relist(twice, "train/train_000")),
    "picked again": ("overlaps", relist(repicked, "train/train_000")),
    "train volume in meta": ("same_volume", copy_to_meta(lambda v: v)),
    "scaled copy in meta": ("same_volume", copy_to_meta(lambda v: 3 * v + 7)),
    "inverted copy in meta": ("same_volume", copy_to_meta(np.negative)),
    "same particles in meta": ("same_particles", copy_to_meta(noisy)),
    "one volume denoised": ("spectrum", revoxel(smoothed)),
    "mask of one half": ("outside_mask", mask_of_one_half),
    "mask of another size": (
        "bad_label_map",
        lambda d: write_mrc(d / "train/train_000_mask.mrc", np.ones((4, 4, 4), np.uint8), VOXEL),
    ),
}

CONFIG_FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "wrong voxel size": ("voxel_size_config", {"data.voxel_size_angstrom": 10.0}),
    "radius too large": ("radius", {"data.species.0.radius_vox": 12, "patches.size": 40}),
    "radius too small": ("radius", {"data.species.0.radius_vox": 2}),
    "patch larger than volume": ("patch_too_large", {"patches.size": 64}),
    "patch the U-Net cannot halve": ("patch_stride", {"patches.size": 17}),
    "patch small": ("patch_small", {"patches.size": 12}),
    "shift": ("shift", {"patches.shift_vox": 7}),
    "cluster": ("min_cluster", {"data.species.1.min_cluster_vox": 5000}),
    "no label maps": ("bad_label_map", {"data.train_labels": "map"}),
    "overlapping spheres": ("overlaps", {"data.species.0.radius_vox": 14, "patches.size": 40}),
}
