"""The particle list of one tomogram, read and checked against its species and its volume."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.annotations.bounds import check_inside, inside
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.annotations.options import options_for
from robpicker_jax.annotations.registry import NOT_OPENED
from robpicker_jax.config import DataConfig, Species
from robpicker_jax.datasets.discovery import TomogramFiles, is_of_folder
from robpicker_jax.datasets.pairing import DEFAULT_RULE, SHARED_LIST
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.system.progress import say
from robpicker_jax.volumes import NO_ORIGIN, Origin, is_volume


def needs_particles(files: TomogramFiles, species: Sequence[Species]) -> bool:
    """Whether the tomogram's list is read: it has one, or it is to be trained on and must have one."""
    return bool(files.lists([entry.name for entry in species])) or files.split in ("train", "meta")


def load_particles(
    files: TomogramFiles,
    data: DataConfig,
    shape_zyx: tuple[int, int, int],
    voxel_size_angstrom: float | None = None,
    origin_angstrom: Origin = NO_ORIGIN,
) -> Particles:
    """Read and check the annotations of one tomogram.

    Args:
        files: the tomogram.
        data: the species in the order of their labels (species k has label k + 1), and how lists are read
            (`data.annotation_options`, see `robpicker_jax.annotations.options`).
        shape_zyx: size of the volume.
        voxel_size_angstrom: voxel size, for formats in Å.
        origin_angstrom: origin of the volume, for formats of viewers.

    Returns:
        The particles of this tomogram, every label between 1 and the number of species.

    Raises:
        InputError: no annotation file, none of its particles belongs to this tomogram, a class that is not among the
            species, or a position outside the volume.
    """
    species_names = [species.name for species in data.species]
    if not files.lists(species_names):
        fix = f"put {files.name}_objl.xml (or .star, .csv, …) beside it or move the tomogram to test/"
        if data.lists:
            fix = f"add it to the lists of data.lists, or take it out of data.splits.{files.split}"
        raise InputError(
            f"tomogram without annotations{'' if data.lists else unknown_lists(files)}",
            where=files.volume_path,
            fix=fix,
        )
    path = files.lists(species_names)[0][1]
    particles = read_list(
        files,
        voxel_size_angstrom=voxel_size_angstrom,
        shape_zyx=shape_zyx,
        class_labels={name: k + 1 for k, name in enumerate(species_names)},
        volume_origin_angstrom=origin_angstrom,
        options=data.annotation_options,
        rule=NameRule.of(data.name_pattern, "data.name_pattern"),
    )
    particles = checked_labels(particles, species_names, path)
    within = inside(particles.positions_vox, shape_zyx)
    if data.outside == "drop" and not within.all():
        dropped = f"{path}: {np.count_nonzero(~within)} of {len(within)} positions outside the volume are left out"
        say(dropped)
        return particles.select(within)
    check_inside(particles.positions_vox, shape_zyx, path, voxel_size_angstrom)
    return particles


def read_list(
    files: TomogramFiles,
    *,
    voxel_size_angstrom: float | None,
    shape_zyx: tuple[int, int, int] | None,
    class_labels: Mapping[str, int] | None,
    volume_origin_angstrom: Origin | None = None,
    options: Mapping[str, Any] | None = None,
    rule: NameRule = DEFAULT_RULE,
    fmt: str | None = None,
) -> Particles:
    """The particles of one tomogram from its list, from the list of its folder, or from its lists by class; unchecked.

    A list without particles is one of a tomogram in which there is nothing.

    Args:
        files: the tomogram, which has a list.
        voxel_size_angstrom: voxel size, for formats in Å.
        shape_zyx: size of the volume, for formats that count from its centre.
        class_labels: label of each class; of lists by class, those count whose class is among these.
        volume_origin_angstrom: origin of the volume, x y z, for formats of viewers.
        options: how lists are read, as `data.annotation_options` has it.
        rule: which names mean the same tomogram.
        fmt: annotation format; by default, suffix and content of the file decide.

    Raises:
        InputError: a list that cannot be read, or whose particles are all of other tomograms.
    """

    def read(path: Path, class_name: str = "") -> Particles:
        listed = read_annotations(
            path,
            voxel_size_angstrom=voxel_size_angstrom,
            shape_zyx=shape_zyx,
            class_labels=class_labels or None,
            volume_origin_angstrom=volume_origin_angstrom,
            allow_empty=True,
            **options_for(path, options, fmt=fmt),
        )
        of_folder = path in files.shared or (bool(class_name) and is_of_folder(path, class_name))
        if of_folder and listed.tomograms is None and len(listed) and path not in files.shared:
            raise InputError(
                "does not name tomograms, so that it cannot be a list for the whole folder",
                where=path,
                fix=f"call it {files.name}_{path.name} if its particles are that tomogram's",
            )
        found = particles_of_tomogram(listed, files.name, path, rule, own=not of_folder)
        if len(listed) and not len(found) and not of_folder:
            names = np.unique(listed.tomograms if listed.tomograms is not None else [])
            first = ", ".join(map(str, names[:5])) + (", …" if len(names) > 5 else "")
            raise InputError(
                f"no particle of tomogram {files.name}; the list names {first}",
                where=path,
                fix="rename the volume or the list's tomograms, or say with data.name_pattern what of the names counts",
            )
        return found

    parts = []
    for name, path in files.lists(list(class_labels or {})):
        part = read(path, name)
        if name:
            label = (class_labels or {})[name]
            part = part.with_(labels=np.full(len(part), label), class_names=np.full(len(part), name))
        parts.append(part)
    return parts[0] if len(parts) == 1 else Particles.concatenate(parts)


def unknown_lists(files: TomogramFiles) -> str:
    """What to say of files beside a tomogram without a list that are named after it: none of them is taken for one."""
    own = {files.volume_path, files.target_path, files.mask_path}
    folder = files.volume_path.parent
    beside = sorted(path for path in folder.glob(f"{glob.escape(files.name)}[._]*") if path not in own)
    named = [path.name for path in beside if not is_volume(path)]
    if not named:
        return ""
    refused = [NOT_OPENED[suffix] for name in named if (suffix := Path(name).suffix.lower()) in NOT_OPENED]
    listed = ", ".join(named[:3]) + (", …" if len(named) > 3 else "")
    why = ": ".join(refused[0]) if refused else "of no known format, or named after no species"
    return f" (beside it {listed}: {why})"


def particles_of_tomogram(
    particles: Particles, name: str, path: Path, rule: NameRule = DEFAULT_RULE, *, own: bool = True
) -> Particles:
    """The particles of the tomogram `name`, where the list at `path` names tomograms.

    A list of the tomogram's `own` that names a single one is taken whole: the file's name pairs it with the tomogram,
    whatever the program that wrote it called the tomogram inside.
    """
    if particles.tomograms is None:
        return particles
    names = np.unique(particles.tomograms)
    if own and len(names) == 1 and not SHARED_LIST.match(path.name):
        return particles
    with located(path):
        return particles.select(np.isin(particles.tomograms, rule.matching(name, map(str, names))))


def checked_labels(particles: Particles, species_names: Sequence[str], path: Path) -> Particles:
    """The particles, each of one of the species.

    Raises:
        InputError: a class that is not among the species, or a name that goes with another label.
    """
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
        elif labels.any():
            what = "class label 0 is the background's"
            fix = f"labels count from 1 here; add 1 to each if the file counts from 0 (data.species: {species})"
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
