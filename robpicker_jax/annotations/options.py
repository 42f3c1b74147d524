"""How the particle lists of a data set are read: `data.annotation_options` as arguments of reading one list.

annotation_options: {binning: 4}                                  every list; one whose format has no binning is refused
annotation_options: {format: deepetpicker, axes: zyx}             the format of lists with that format's suffix
annotation_options: {star: {binning: 4}, csv: {unit: angstrom}}   the lists of one format each
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robpicker_jax.annotations.format import CONTEXT
from robpicker_jax.annotations.registry import FORMATS, checked_options, format_of
from robpicker_jax.system.errors import InputError

KEY = "data.annotation_options"


def options_for(path: Path, options: Mapping[str, Any] | None, *, fmt: str | None = None) -> dict[str, Any]:
    """The arguments of `read_annotations` for one list: `fmt`, where it is chosen, and the options of its format.

    Args:
        path: the list.
        options: `data.annotation_options`.
        fmt: its format, where that is known otherwise.

    Raises:
        InputError: an option that no format or not the list's format has, or a value of another type; the message
            lists the options that there are.
    """
    found: dict[str, Any] = {} if fmt is None else {"fmt": fmt}
    if not options:
        return found
    check_options(options)
    chosen = options.get("format")
    if fmt is None:
        fmt = chosen if chosen is not None and path.name.lower().endswith(FORMATS[chosen].suffixes) else None
    format_ = format_of(path, fmt)
    known = format_.reading_options
    found = {} if fmt is None else {"fmt": fmt}
    for name, value in options.items():
        if name == "format" or name in FORMATS or value is None:
            continue
        if name not in known:
            raise InputError(
                f"{KEY}.{name}: {format_.title} (format {format_.name}) has no such option",
                where=path,
                fix=f"{_listed(format_.name)}; {KEY}.FORMAT.{name} is for the lists of one format alone",
            )
        found[name] = value
    return found | {name: value for name, value in (options.get(format_.name) or {}).items() if value is not None}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options with which no list could be read, of whatever format it is.

    Raises:
        InputError: naming the key, the nearest valid one, and what there is.
    """
    everything = sorted({name for known in FORMATS.values() for name in known.reading_options})
    for name, value in options.items():
        key = f"{KEY}.{name}"
        if name in CONTEXT:
            raise InputError(f"{key}: not an option of a format", fix=_ELSEWHERE[name])
        if name == "format":
            if value is not None and value not in FORMATS:
                raise InputError(f"{key}: unknown format {value!r}", fix=f"one of {', '.join(FORMATS)}")
        elif name in FORMATS:
            _check_section(key, name, value)
        elif name not in everything:
            near = difflib.get_close_matches(name, [*everything, *FORMATS], n=1, cutoff=0.6)
            fix = f"did you mean {near[0]}? " if near else ""
            fix += f"options: {', '.join(everything)}; or format, or the name of a format with options of its own"
            raise InputError(f"{key}: no annotation format has this option", fix=fix)
        else:
            readers = [known for known in FORMATS.values() if name in known.reading_options]
            checked_options(readers[0], "read", {name: value}, key=KEY)


_ELSEWHERE = {
    "voxel_size_angstrom": "say data.voxel_size_angstrom",
    "shape_zyx": "the volumes say it",
    "shapes_zyx": "the volumes say it",
    "volume_origin_angstrom": "the volumes say it; origin_angstrom replaces it",
    "class_labels": "the order of data.species says it",
}


def _check_section(key: str, fmt: str, section: Any) -> None:
    if section is None:
        return
    if not isinstance(section, Mapping):
        raise InputError(f"{key}: must hold options of the format, got {section!r}", fix=_listed(fmt))
    known = FORMATS[fmt].reading_options
    for name in section:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
            fix = (f"did you mean {near[0]}? " if near else "") + _listed(fmt)
            raise InputError(f"{key}.{name}: {FORMATS[fmt].title} has no such option", fix=fix)
    checked_options(FORMATS[fmt], "read", section, key=key)


def _listed(fmt: str) -> str:
    known = FORMATS[fmt].reading_options
    return f"format {fmt} knows {', '.join(known)}" if known else f"format {fmt} has no options"
