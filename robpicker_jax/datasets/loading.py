"""Loading a data set's tomograms, with every check that a wrong file deserves before hours of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.annotations.bounds import check_inside
from robpicker_jax.annotations.options import check_options, options_for
from robpicker_jax.config.schema import DataConfig
from robpicker_jax.datasets.discovery import SHARED_LIST, SPLITS, Tomogram, discover, same_tomogram, tomograms_from
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import open_volume
from robpicker_jax.volumes.normalisation import normalise
from robpicker_jax.volumes.volume import slabs

__all__ = [
    "SPLITS",
    "LoadedTomogram",
    "Tomogram",
    "agreed_voxel_size",
    "check_dataset",
    "check_patch_fits",
    "discover",
    "load_mask",
    "load_particles",
    "load_target",
    "load_tomogram",
    "normalise",
    "tomograms_from",
]

_VOXEL_SIZE_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class LoadedTomogram:
    """One tomogram in memory.

    Attributes:
        name: as in `Tomogram`.
        density: float32 (z, y, x), normalised.
        particles: its annotations, None where there are none.
        voxel_size_angstrom: edge of a voxel in Å, None where neither file nor configuration says.
        tomogram: the files.
        mask: bool (z, y, x), where the sample is; None means everywhere.
    """

    name: str
    density: np.ndarray
    particles: Particles | None
    voxel_size_angstrom: float | None
    tomogram: Tomogram
    mask: np.ndarray | None = None


def load_particles(
    tomogram: Tomogram,
    *,
    species_names: Sequence[str],
    shape_zyx: tuple[int, int, int],
    voxel_size_angstrom: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> Particles:
    """Read and check the annotations of one tomogram.

    Args:
        tomogram: the tomogram.
        species_names: the species in the order of their labels; species k has label k + 1.
        shape_zyx: size of the volume.
        voxel_size_angstrom: voxel size, for formats in Å.
        options: how the list is read, as `data.annotation_options` has it (see `robpicker_jax.annotations.options`).

    Returns:
        The particles of this tomogram, every label between 1 and the number of species.

    Raises:
        InputError: no annotation file, none of its particles belongs to this tomogram, a class that is not among the
            species, or a position outside the volume.
    """
    path = tomogram.annotation_path
    if path is None:
        raise InputError(
            "tomogram without annotations",
            where=tomogram.volume_path,
            fix=f"put {tomogram.name}_objl.xml (or .star, .csv, …) beside it or move the tomogram to test/",
        )
    labels = {name: k + 1 for k, name in enumerate(species_names)}
    particles = read_annotations(
        path,
        voxel_size_angstrom=voxel_size_angstrom,
        shape_zyx=shape_zyx,
        class_labels=labels,
        **options_for(path, options),
    )
    particles = _of_tomogram(particles, tomogram)
    particles = _with_checked_labels(particles, species_names, path)
    check_inside(particles.positions_vox, shape_zyx, path, voxel_size_angstrom)
    return particles


def _of_tomogram(particles: Particles, tomogram: Tomogram) -> Particles:
    """The particles of one tomogram, where the list names more than one."""
    if particles.tomograms is None:
        return particles
    names = np.unique(particles.tomograms)
    if len(names) == 1 and not SHARED_LIST.match(tomogram.annotation_path.name if tomogram.annotation_path else ""):
        return particles  # the file's own name pairs it with its tomogram, whatever the program called that
    mine = [str(name) for name in names if same_tomogram(tomogram.name, str(name))]
    if not mine:
        listed = ", ".join(map(str, names[:5])) + (", …" if len(names) > 5 else "")
        raise InputError(
            f"no particle of tomogram {tomogram.name}; the list names {listed}",
            where=tomogram.annotation_path or "",
            fix="rename the volume or the list's tomograms",
        )
    return particles.select(np.isin(particles.tomograms, mine))


def _with_checked_labels(particles: Particles, species_names: Sequence[str], path: Path) -> Particles:
    species = ", ".join(f"{k + 1} {name}" for k, name in enumerate(species_names)) or "none"
    fix = f"add the species to data.species or correct the file (data.species: {species})"
    labels, names = particles.labels, particles.class_names
    if len(species_names) == 1 and names is None and not labels.any():
        return particles.with_(labels=np.ones(len(particles), np.int32))  # no class in the file, one to choose from
    unknown = (labels < 1) | (labels > len(species_names))
    if unknown.any():
        first = int(np.flatnonzero(unknown)[0])
        if labels[first] > 0:
            what = f"class label {labels[first]} is unknown"
        elif names is not None and names[first]:
            what = f"class {str(names[first])!r} is unknown"
        else:
            what = "no class is given"
        raise InputError(f"{what} (row {first + 1} and {np.count_nonzero(unknown) - 1} more)", where=path, fix=fix)
    if names is not None:
        for name in np.unique(names[np.isin(names, species_names)]):
            expected = list(species_names).index(str(name)) + 1
            other = np.flatnonzero((names == name) & (labels != expected))
            if len(other):
                raise InputError(
                    f"row {other[0] + 1} is named {str(name)!r} but labelled {labels[other[0]]}, not {expected}",
                    where=path,
                    fix=f"order data.species as the file does (now: {species})",
                )
    return particles


def agreed_voxel_size(tomograms: Iterable[Tomogram], configured: float | None = None) -> float | None:
    """The voxel size in Å that all headers and the configuration agree on; None where nobody knows it.

    Raises:
        InputError: two of them differ by more than 1 %; the message names file and values.
    """
    size, source = configured, "data.voxel_size_angstrom"
    for tomogram in tomograms:
        with open_volume(tomogram.volume_path) as reader:
            header = reader.voxel_size_angstrom
        if header is None:
            continue
        if size is None:
            size, source = header, str(tomogram.volume_path)
        elif abs(header - size) > _VOXEL_SIZE_TOLERANCE * size:
            raise InputError(
                f"voxel size {header:.4g} Å, but {source} says {size:.4g} Å",
                where=tomogram.volume_path,
                fix="correct the header or the configuration, or resample the tomogram",
            )
    return size


def check_patch_fits(shape_zyx: Sequence[int], patch_size: int, where: Path | str) -> None:
    """Refuse a volume that is smaller than a patch along any axis.

    Raises:
        InputError: naming the volume's size and the configuration's key.
    """
    if min(shape_zyx) < patch_size:
        depth, height, width = shape_zyx
        raise InputError(
            f"volume of {width} x {height} x {depth} voxels (x y z) is smaller than a patch of {patch_size}",
            where=where,
            fix="lower patches.size or use a larger volume",
        )


def load_tomogram(tomogram: Tomogram, data: DataConfig) -> LoadedTomogram:
    """Read one tomogram: density normalised, annotations checked.

    Raises:
        InputError: whatever is wrong with its files; in train and meta also the want of annotations.
    """
    voxel_size = agreed_voxel_size([tomogram], data.voxel_size_angstrom)
    with open_volume(tomogram.volume_path) as reader:
        shape = reader.shape_zyx
        particles = None
        if tomogram.annotation_path is not None or tomogram.split in ("train", "meta"):
            names = [species.name for species in data.species]
            particles = load_particles(
                tomogram,
                species_names=names,
                shape_zyx=shape,
                voxel_size_angstrom=voxel_size,
                options=data.annotation_options,
            )
        density = reader.read()
    if data.invert_contrast:
        np.negative(density, out=density)
    try:
        mask = load_mask(tomogram, shape)
        density = normalise(density, data.normalise, mask=mask, copy=False)
    except InputError as error:
        raise InputError(error.what, where=tomogram.volume_path, fix=error.fix) from None
    return LoadedTomogram(tomogram.name, density, particles, voxel_size, tomogram, mask)


def load_mask(tomogram: Tomogram, shape_zyx: tuple[int, int, int]) -> np.ndarray | None:
    """Read a tomogram's mask as bool (z, y, x), True where it is not 0; None where the tomogram has none.

    Raises:
        InputError: its size is not the tomogram's.
    """
    path = tomogram.mask_path
    if path is None:
        return None
    with open_volume(path) as reader:
        _check_same_shape(reader.shape_zyx, shape_zyx, "mask", path)
        mask = np.empty(shape_zyx, bool)
        for first, last in slabs(shape_zyx):
            mask[first:last] = reader.read((slice(first, last), slice(None), slice(None)), dtype=None) != 0
            reader.release()
        return mask


def _check_same_shape(shape: tuple[int, int, int], wanted: tuple[int, int, int], what: str, path: Path) -> None:
    if shape != tuple(wanted):
        raise InputError(f"{what} of {shape} voxels (z y x), tomogram of {tuple(wanted)}", where=path)


def load_target(tomogram: Tomogram, n_species: int, shape_zyx: tuple[int, int, int]) -> np.ndarray:
    """Read a stored label map as uint8 (z, y, x).

    Raises:
        InputError: there is none, its size is not the tomogram's, or it holds other values than 0 … n_species.
    """
    path = tomogram.target_path
    if path is None:
        raise InputError(
            "tomogram without a label map", where=tomogram.volume_path, fix=f"put {tomogram.name}_target.mrc beside it"
        )
    with open_volume(path) as reader:
        _check_same_shape(reader.shape_zyx, shape_zyx, "label map", path)
        stored = reader.read(dtype=None)
    labels = np.rint(stored)
    if (labels != stored).any() or labels.min() < 0 or labels.max() > n_species:
        raise InputError(
            f"label map holds values from {stored.min():g} to {stored.max():g}, not whole numbers 0 to {n_species}",
            where=path,
            fix="add the species to data.species or make the map again",
        )
    return labels.astype(np.uint8)


def check_dataset(dataset: Mapping[str, Sequence[Tomogram]], data: DataConfig, patch_size: int) -> float | None:
    """Everything that can be wrong with a data set's files, before hours of training: headers and lists, no voxels.

    Returns:
        The voxel size in Å that all agree on, None where nobody knows it.

    Raises:
        InputError: the first fault found; train or meta without tomograms is one.
    """
    for split in ("train", "meta"):
        if not dataset.get(split):
            raise InputError(
                f"no tomogram in {split}/",
                where=data.dir or "",
                fix="meta/ needs at least one carefully annotated tomogram"
                if split == "meta"
                else "add tomograms to it",
            )
    check_options(data.annotation_options)
    tomograms = [tomogram for split in SPLITS for tomogram in dataset.get(split, ())]
    voxel_size = agreed_voxel_size(tomograms, data.voxel_size_angstrom)
    names = [species.name for species in data.species]
    for tomogram in tomograms:
        with open_volume(tomogram.volume_path) as reader:
            shape = reader.shape_zyx
        check_patch_fits(shape, patch_size, tomogram.volume_path)
        if tomogram.annotation_path is not None or tomogram.split in ("train", "meta"):
            load_particles(
                tomogram,
                species_names=names,
                shape_zyx=shape,
                voxel_size_angstrom=voxel_size,
                options=data.annotation_options,
            )
    return voxel_size
