"""The particle list of one tomogram, read and checked against its species and its volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.annotations.bounds import check_inside
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.annotations.options import options_for
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.discovery import DEFAULT_RULE, SHARED_LIST, TomogramFiles
from robpicker_jax.system.errors import InputError, located


def needs_particles(files: TomogramFiles) -> bool:
    """Whether the tomogram's list is read: it has one, or it is to be trained on and must have one."""
    return files.annotation_path is not None or files.split in ("train", "meta")


def load_particles(
    files: TomogramFiles,
    data: DataConfig,
    shape_zyx: tuple[int, int, int],
    voxel_size_angstrom: float | None = None,
) -> Particles:
    """Read and check the annotations of one tomogram.

    Args:
        files: the tomogram.
        data: the species in the order of their labels (species k has label k + 1), and how lists are read
            (`data.annotation_options`, see `robpicker_jax.annotations.options`).
        shape_zyx: size of the volume.
        voxel_size_angstrom: voxel size, for formats in Å.

    Returns:
        The particles of this tomogram, every label between 1 and the number of species.

    Raises:
        InputError: no annotation file, none of its particles belongs to this tomogram, a class that is not among the
            species, or a position outside the volume.
    """
    path = files.annotation_path
    if path is None:
        raise InputError(
            "tomogram without annotations",
            where=files.volume_path,
            fix=f"put {files.name}_objl.xml (or .star, .csv, …) beside it or move the tomogram to test/",
        )
    species_names = [species.name for species in data.species]
    listed = read_annotations(
        path,
        voxel_size_angstrom=voxel_size_angstrom,
        shape_zyx=shape_zyx,
        class_labels={name: k + 1 for k, name in enumerate(species_names)},
        **options_for(path, data.annotation_options),
    )
    rule = NameRule.of(data.name_pattern, "data.name_pattern")
    particles = particles_of_tomogram(listed, files.name, path, rule)
    if len(listed) and not len(particles):
        names = np.unique(listed.tomograms if listed.tomograms is not None else [])
        first = ", ".join(map(str, names[:5])) + (", …" if len(names) > 5 else "")
        raise InputError(
            f"no particle of tomogram {files.name}; the list names {first}",
            where=path,
            fix="rename the volume or the list's tomograms, or say with data.name_pattern what of the names counts",
        )
    particles = _with_checked_labels(particles, species_names, path)
    check_inside(particles.positions_vox, shape_zyx, path, voxel_size_angstrom)
    return particles


def particles_of_tomogram(particles: Particles, name: str, path: Path, rule: NameRule = DEFAULT_RULE) -> Particles:
    """The particles of the tomogram `name`, where the list at `path` names tomograms.

    A list of the tomogram's own that names a single one is taken whole: the file's name pairs it with the tomogram,
    whatever the program that wrote it called the tomogram inside.
    """
    if particles.tomograms is None:
        return particles
    names = np.unique(particles.tomograms)
    if len(names) == 1 and not SHARED_LIST.match(path.name):
        return particles
    with located(path):
        return particles.select(np.isin(particles.tomograms, rule.matching(name, map(str, names))))


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
