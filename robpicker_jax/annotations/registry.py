"""The annotation formats by name, how a file's format is recognised, and calls of a format's reader and writer."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from robpicker_jax.annotations.bounds import check_size, in_voxels
from robpicker_jax.annotations.format import CONTEXT, Format, Verb
from robpicker_jax.annotations.particles import NotFiniteError, Particles
from robpicker_jax.system.errors import InputError

# Modules of this package that declare a format as `FORMAT`. Of formats that share a suffix, the earlier one goes first.
_MODULES = (
    "deepfinder_xml",
    "relion_star",
    "relion5_star",
    "m_species_star",
    "warp_star",
    "stopgap_star",
    "pytom_xml",
    "csv_table",
    "czii_csv",
    "robpicker_csv",
    "napari_points",
    "copick_json",
    "portal_ndjson",
    "dynamo_tbl",
    "em_motl",
    "coords",
    "deepetpicker_coords",
    "cryolo_cbox",
    "imod_model",
    "imod_points",
    "deepfinder_txt",
    "shrec_txt",
    "chimera_cmm",
    "chimera_bild",
)


def _declared(module: str) -> Format:
    found: Format = importlib.import_module(f"robpicker_jax.annotations.{module}").FORMAT
    return found


FORMATS: dict[str, Format] = {found.name: found for found in map(_declared, _MODULES)}
"""The annotation formats by name. `FORMATS["mine"] = Format(name="mine", …)` adds one from outside the package."""

NOT_OPENED = {
    ".tloc": (
        "TomoTwin's .tloc file is a Python pickle, which may run code and is not opened",
        "give the .coords or .cbox files that tomotwin_pick.py makes of it",
    )
}
"""Suffixes of lists that are known and refused: why, and what to give instead."""


def suffixes() -> tuple[str, ...]:
    """Suffixes of all formats, in the formats' order."""
    return tuple(dict.fromkeys(suffix for entry in FORMATS.values() for suffix in entry.suffixes))


def format_of(path: Path, fmt: str | None, verb: Verb = "read") -> Format:
    """The format named `fmt`, or the one that the file's suffix, name and first lines tell.

    Raises:
        InputError: a file that is not opened, an unknown name or suffix, or a suffix of several formats that the file's
            start does not tell apart.
    """
    if refusal := NOT_OPENED.get(path.suffix.lower()):
        raise InputError(refusal[0], where=path, fix=refusal[1])
    if fmt is not None:
        if fmt not in FORMATS:
            raise InputError(f"unknown annotation format {fmt!r}", fix=f"one of {', '.join(FORMATS)}")
        return FORMATS[fmt]
    name = path.name.lower()
    if path.is_dir():
        candidates = [entry for entry in FORMATS.values() if entry.is_folder]
    else:
        candidates = [entry for entry in FORMATS.values() if name.endswith(entry.suffixes)]
    if not candidates:
        raise InputError(
            "no annotation format has this suffix", where=path, fix=f"name the format, one of {', '.join(FORMATS)}"
        )
    if len(candidates) == 1 or path.is_dir():
        return candidates[0]
    start = _start(path) if verb == "read" and path.is_file() else b""
    named = [entry for entry in candidates if entry.stem_endings and path.stem.endswith(entry.stem_endings)]
    recognised = [entry for entry in candidates if entry.recognises is not None and entry.recognises(start)]
    default = [entry for entry in candidates if entry.recognises is None and not entry.stem_endings]
    for found in (named, recognised, default):
        if found:
            return found[0]
    what = "its first lines do" if start else f"the suffix {path.suffix} does"
    known = ", ".join(f"{entry.name} ({entry.title})" for entry in candidates)
    raise InputError(f"{what} not tell the format", where=path, fix=f"name the format: {known}")


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(1 << 16)


def call(format_: Format, verb: Verb, path: Path, *positional: Any, **options: Any) -> Any:
    """Call a format's `read` or `write` with those of `options` that are not None.

    What the caller knows of the tomogram (`voxel_size_angstrom`, `shape_zyx`, `class_labels`) is passed to formats that
    use it and dropped for the others; any other option that the format does not know is an error.

    Raises:
        InputError: a format that cannot be written, an option that it does not have, or a value of another type.
    """
    function = format_.function(verb)
    if function is None:
        raise InputError(f"{format_.title} cannot be {'read' if verb == 'read' else 'written'}", where=path)
    known = format_.arguments(verb)
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in known and name not in CONTEXT:
            raise InputError(
                f"format {format_.name!r} has no option {name!r}",
                where=path,
                fix=f"its options: {', '.join(known)}" if known else "it has none",
            )
    arguments = {name: value for name, value in given.items() if name in known}
    arguments |= checked_options(format_, verb, {k: v for k, v in arguments.items() if k not in CONTEXT}, where=path)
    return function(path, *positional, **arguments)


def written_files(format_: Format, path: Path, particles: Particles, options: Mapping[str, Any]) -> list[Path]:
    """The files that writing a list makes: itself, or those that a format keeps in a folder.

    Raises:
        InputError: particles or options that the format cannot write.
    """
    if format_.files is None:
        return [path]
    names = inspect.signature(format_.files).parameters
    chosen = {name: value for name, value in options.items() if name in names}
    return format_.files(path, particles, **checked_options(format_, "write", chosen, where=path))


def checked_options(
    format_: Format, verb: Verb, options: Mapping[str, Any], *, where: Path | str = "", key: str = "option"
) -> dict[str, Any]:
    """Options of a format with values of the types that its function declares; those that are None are left out.

    Raises:
        InputError: a value of another type.
    """
    function = format_.function(verb)
    given = {name: value for name, value in options.items() if value is not None}
    if function is None or not given:
        return given
    hints = typing.get_type_hints(function)
    separator = "." if "." in key else " "
    for name, value in given.items():
        try:
            given[name] = _validated(hints.get(name, Any), value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            message = message[0].lower() + message[1:]
            raise InputError(f"{key}{separator}{name}: {message}, got {value!r}", where=where) from None
    return given


def _validated(hint: Any, value: Any) -> Any:
    """The value in the type that an option declares; a name may look like a number, three numbers may be `1,2,3`."""
    takers = (hint, *typing.get_args(hint))
    if isinstance(value, str) and any(typing.get_origin(taker) is tuple for taker in takers):
        value = value.split(",")
    numbers_too = ConfigDict(coerce_numbers_to_str=True)
    return TypeAdapter(hint, config=numbers_too).validate_python(value)


def read(path: Path, fmt: str | None = None, **options: Any) -> Particles:
    """Read an annotation file; see `robpicker_jax.annotations.read_annotations`."""
    if not path.exists():
        raise InputError("no such file", where=path)
    try:
        format_ = format_of(path, fmt)
        with np.errstate(over="ignore"):  # what becomes infinite is refused below, or unknown
            particles: Particles = call(format_, "read", path, **options)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from None
    except NotFiniteError:  # finite in the file, and not in voxels
        raise InputError("a position is too large for a number", where=path, fix="correct the file") from None
    check_size(particles.positions_vox, path)
    if format_.unit != "voxel":
        return particles
    shape: tuple[int, int, int] | None = options.get("shape_zyx")
    size_xyz = None if shape is None else np.array(shape[::-1], np.float64)
    return particles.with_(positions_vox=in_voxels(particles.positions_vox, size_xyz, path))
