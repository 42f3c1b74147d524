"""The annotation formats by name, and how a file's format is told."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class Format:
    """One annotation format: a module of this package with `read` and, where it can be written, `write`.

    Attributes:
        name: what `--format` and `fmt` call it.
        module: name of its module in this package.
        suffixes: file suffixes, the first one for new files.
        title: one line for tables.
        keeps: which columns of `Particles` survive a write.
        numbered: whether it tells tomograms apart by numbers, though it does not keep their names.
        needs_voxel_size: whether it is written in Å.
        markers: bytes near the file's start that tell this format from others of the same suffix.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    title: str
    keeps: frozenset[str]
    markers: tuple[bytes, ...] = ()
    numbered: bool = False
    needs_voxel_size: bool = False

    def function(self, verb: str) -> Callable[..., Any] | None:
        """The module's `read`, `write` or `keeps_column`, or None where the format has none."""
        module = importlib.import_module(f"robpicker_jax.annotations.{self.module}")
        function: Callable[..., Any] | None = getattr(module, verb, None)
        return function

    def arguments(self, verb: str) -> tuple[str, ...]:
        """Names of the keyword arguments its `read` or `write` takes."""
        function = self.function(verb)
        if function is None:
            return ()
        parameters = inspect.signature(function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


_ALL = frozenset({"labels", "rotations", "scores", "cluster_sizes", "class_names", "tomograms", "extra"})
_MOTIVE = frozenset({"labels", "rotations", "scores"})
_LABELS = frozenset({"labels"})

_FORMATS = (
    Format("xml", "deepfinder_xml", (".xml",), "DeepFinder object list", _ALL),
    Format("star", "relion_star", (".star",), "RELION particles (reads 3 to 5, writes 4)", _ALL),
    Format("relion5", "relion5_star", (".star",), "RELION 5 particles, centred Å", _ALL, needs_voxel_size=True),
    Format("warp", "warp_star", (".star",), "Warp, WarpTools and M particles", _ALL, (b".tomostar",)),
    Format(
        "stopgap",
        "stopgap_star",
        (".star",),
        "STOPGAP motive list",
        _MOTIVE,
        (b"stopgap_motivelist", b"_motl_idx"),
        numbered=True,
    ),
    Format("csv", "csv_table", (".csv", ".tsv"), "CSV or TSV table", _ALL),
    Format(
        "czii",
        "czii_csv",
        (".csv",),
        "CZII submission table, Å",
        frozenset({"scores", "class_names", "tomograms"}),
        needs_voxel_size=True,
    ),
    Format(
        "copick",
        "copick_json",
        (".json",),
        "copick picks, Å",
        frozenset({"rotations", "scores", "class_names", "tomograms"}),
        needs_voxel_size=True,
    ),
    Format("dynamo", "dynamo_tbl", (".tbl",), "Dynamo table", _MOTIVE, numbered=True),
    Format("em", "em_motl", (".em",), "EM motive list (TOM, AV3)", _MOTIVE, numbered=True),
    Format("coords", "coords", (".coords",), "TomoTwin coordinates, x y z", frozenset()),
    Format("deepetpicker", "deepetpicker_coords", (".coords",), "DeepETPicker coordinates, class x y z", _LABELS),
    Format("imod", "imod_model", (".mod",), "IMOD model", frozenset({"labels", "scores", "class_names"})),
    Format("imod_points", "imod_points", (".pts", ".txt"), "IMOD point text", _LABELS),
    Format("txt", "deepfinder_txt", (".txt",), "DeepFinder text list, label z y x", _LABELS),
    Format("shrec", "shrec_txt", (".txt",), "SHREC particle locations", frozenset({"rotations", "class_names"})),
    Format(
        "cmm",
        "chimera_cmm",
        (".cmm",),
        "ChimeraX marker set, Å",
        frozenset({"labels", "scores", "class_names"}),
        needs_voxel_size=True,
    ),
    Format("bild", "chimera_bild", (".bild", ".bld"), "ChimeraX BILD spheres, Å", _LABELS, needs_voxel_size=True),
)

FORMATS: dict[str, Format] = {entry.name: entry for entry in _FORMATS}
"""The annotation formats by name."""

CONTEXT = ("voxel_size_angstrom", "shape_zyx", "class_labels")

SUFFIXES = tuple(dict.fromkeys(suffix for f in FORMATS.values() for suffix in f.suffixes))


def format_of(path: Path, fmt: str | None, verb: str = "read") -> Format:
    """The format named `fmt`, or the one that the file's suffix and first lines tell.

    Raises:
        InputError: unknown name or suffix.
    """
    if fmt is not None:
        if fmt not in FORMATS:
            raise InputError(f"unknown annotation format {fmt!r}", fix=f"one of {', '.join(FORMATS)}")
        return FORMATS[fmt]
    if path.is_dir():
        return FORMATS["copick"]
    if path.name.lower().endswith(".txt"):
        return FORMATS[_text_format(path, verb)]
    candidates = [f for f in FORMATS.values() if path.name.lower().endswith(f.suffixes)]
    if not candidates:
        raise InputError(
            "no annotation format has this suffix", where=path, fix=f"name the format, one of {', '.join(FORMATS)}"
        )
    if len(candidates) > 1 and verb == "read" and path.is_file():
        start = _start(path)
        candidates = [f for f in candidates if any(marker in start for marker in f.markers)] or candidates
    return candidates[0]


def _text_format(path: Path, verb: str) -> str:
    """Which of the `.txt` formats a file is, by its name or by the width of its rows."""
    fix = "name the format: txt (label z y x), imod_points (contour x y z) or shrec"
    if path.stem.endswith("_objl"):
        return "txt"
    if verb != "read" or not path.is_file():
        raise InputError("the suffix .txt does not tell the format", where=path, fix=fix)
    lines = (line.split() for line in _start(path).splitlines() if line.strip() and not line.lstrip().startswith(b"#"))
    width = len(next(lines, []))
    if width in (3, 5, 7):
        return "shrec" if width == 7 else "imod_points"
    raise InputError(f"rows of {width} columns do not tell the format", where=path, fix=fix)


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(1 << 16)


def call(format_: Format, verb: str, path: Path, *positional: Any, **options: Any) -> Any:
    """Call a format's `read` or `write` with those of `options` that are not None.

    What the caller knows of the tomogram (`voxel_size_angstrom`, `shape_zyx`, `class_labels`) is passed to formats that
    use it and dropped for the others; any other option that the format does not know is an error.
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


def checked_options(
    format_: Format, verb: str, options: Mapping[str, Any], *, where: Path | str = "", key: str = "option"
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
            given[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            message = message[0].lower() + message[1:]
            raise InputError(f"{key}{separator}{name}: {message}, got {value!r}", where=where) from None
    return given


def read(path: Path, fmt: str | None = None, **options: Any) -> Particles:
    """Read an annotation file; see `robpicker_jax.annotations.read_annotations`."""
    if not path.exists():
        raise InputError("no such file", where=path)
    try:
        particles: Particles = call(format_of(path, fmt), "read", path, **options)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from None
    return particles
