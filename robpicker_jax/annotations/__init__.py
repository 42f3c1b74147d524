"""Reading and writing particle lists: one record type, `Particles`, and one file per format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import registry
from robpicker_jax.annotations.bounds import check_writable
from robpicker_jax.annotations.format import Format
from robpicker_jax.annotations.names import plain_name, plain_names
from robpicker_jax.annotations.particles import Particles, with_known_labels
from robpicker_jax.annotations.registry import FORMATS, suffixes
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.system.notes import note

__all__ = ["FORMATS", "Format", "Particles", "read_annotations", "suffixes", "write_annotations"]


def read_annotations(
    path: str | os.PathLike[str],
    *,
    fmt: str | None = None,
    voxel_size_angstrom: float | None = None,
    shape_zyx: tuple[int, int, int] | None = None,
    class_labels: Mapping[str, int] | None = None,
    volume_origin_angstrom: tuple[float, float, float] | None = None,
    allow_empty: bool = False,
    **fmt_options: Any,
) -> Particles:
    """Read a particle list of any supported format.

    Args:
        path: the file.
        fmt: name of the format (a key of `FORMATS`); by default recognised by the suffix and the first lines.
        voxel_size_angstrom: voxel size of the tomogram, for formats whose coordinates are in Å or in other pixels.
        shape_zyx: size of the tomogram, for formats whose coordinates are measured from its centre.
        class_labels: label of each class name, for particles without a label of their own; names not in it get label 0.
        volume_origin_angstrom: origin of the tomogram's volume, x y z, for formats that viewers place beside it.
        allow_empty: accept a well-formed list without particles.
        fmt_options: further options of the format (see `FORMATS[fmt].options`).

    Returns:
        The particles, positions x y z in voxels with the centre of voxel 0 at 0.0.

    Raises:
        InputError: missing, malformed or empty file, unknown format or option, or a unit that the file leaves open.
    """
    path = Path(path)
    particles = registry.read(
        path,
        fmt,
        voxel_size_angstrom=voxel_size_angstrom,
        shape_zyx=shape_zyx,
        class_labels=class_labels,
        volume_origin_angstrom=volume_origin_angstrom,
        **fmt_options,
    )
    particles = with_known_labels(particles, class_labels or {})
    if not len(particles) and not allow_empty:
        raise InputError("holds no particles", where=path)
    return particles


def write_annotations(
    path: str | os.PathLike[str],
    particles: Particles,
    *,
    fmt: str | None = None,
    voxel_size_angstrom: float | None = None,
    shape_zyx: tuple[int, int, int] | None = None,
    shapes_zyx: Mapping[str, tuple[int, int, int]] | None = None,
    volume_origin_angstrom: tuple[float, float, float] | None = None,
    **fmt_options: Any,
) -> None:
    """Write a particle list; the file appears whole or not at all.

    Tomograms are written by `names.plain_name`: without folders and suffixes of files. Where the format cannot say that
    a value is unknown, what stands in for it is said in a note.

    Args:
        path: the file to write.
        particles: what to write.
        fmt: name of the format (a key of `FORMATS`); by default that of the suffix.
        voxel_size_angstrom: voxel size of the tomogram, for formats that store Å.
        shape_zyx: size of the tomogram, for formats that measure from its centre.
        shapes_zyx: size of each tomogram by its name, where the list holds several.
        volume_origin_angstrom: origin of the tomogram's volume, x y z, for formats that viewers place beside it.
        fmt_options: further options of the format (see `FORMATS[fmt].options`).

    Raises:
        InputError: unknown format or option, a format that needs a voxel size and got none, or values that no reader
            would take.
    """
    path = Path(path)
    format_ = registry.format_of(path, fmt, "write")
    if particles.tomograms is not None:
        with located(path):
            particles = particles.with_(tomograms=plain_names(particles.tomograms))
    if shapes_zyx is not None:
        shapes_zyx = {plain_name(name): shape for name, shape in shapes_zyx.items()}
    check_writable(particles, format_, path)
    for sentence in format_.stand_ins(particles):
        note(sentence)
    try:
        with np.errstate(over="ignore"):  # of a score that the format's numbers cannot hold: it reads back as unknown
            registry.call(
                format_,
                "write",
                path,
                particles,
                voxel_size_angstrom=voxel_size_angstrom,
                shape_zyx=shape_zyx,
                shapes_zyx=shapes_zyx,
                volume_origin_angstrom=volume_origin_angstrom,
                **fmt_options,
            )
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror or error})", where=path) from None
