"""What an annotation format is: a record that says all that the program needs to know of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from robpicker_jax.annotations.columns import LARGEST_LABEL
from robpicker_jax.annotations.particles import Particles

Verb = Literal["read", "write"]

CONTEXT = ("voxel_size_angstrom", "shape_zyx", "shapes_zyx", "volume_origin_angstrom", "class_labels")
"""Keyword arguments that say what is known of the tomogram. They are no options of a format: a reader or writer that
has one of these parameters gets it, the others do without."""

ALL_COLUMNS = frozenset({"labels", "rotations", "scores", "cluster_sizes", "class_names", "tomograms", "extra"})

# Help of the options that several formats have.
BINNING = "pixels of the list per voxel of the tomogram"
FIRST_VOXEL = "how the list counts the first voxel, 0 or 1"
AXES = "order of the coordinate columns, a permutation of xyz"
HALF_PIXEL = "whether the centre of the first voxel is at 0.5 0.5 0 (as in IMOD) or at 0"
ORIGIN = "x y z of the volume's origin in Å; by default its header's"


@runtime_checkable
class Reader(Protocol):
    """A function that reads a list.

    It takes the path and returns the particles, positions x y z in voxels with the centre of voxel 0 at 0.0. Its
    keyword-only parameters are the format's options when reading, each annotated with its type and with a default, and
    those of `CONTEXT` that it needs. It raises InputError, naming the file, for whatever a malformed file holds.
    """

    def __call__(self, path: Path, /, *args: Any, **kwargs: Any) -> Particles: ...


@runtime_checkable
class Writer(Protocol):
    """A function that writes a list.

    It takes the path and the particles; its keyword-only parameters are the format's options when writing and those of
    `CONTEXT` that it needs. The file appears whole or not at all (`system.files.atomic_path`).
    """

    def __call__(self, path: Path, particles: Particles, /, *args: Any, **kwargs: Any) -> None: ...


@dataclass(frozen=True)
class Assumption:
    """What is assumed of a list where neither the file nor the user says it.

    It is reported when the list reads with `value` as it does without the option, whatever the voxel size, and
    otherwise with `alternative`.

    Attributes:
        option: an option of reading.
        value: what it is taken to be.
        alternative: another value that the file may have meant.
        statement: what is assumed, as part of a sentence.
        otherwise: `NAME=VALUE for …`, how a user says something else.
        settled_by: another option that decides the question when it is given.
    """

    option: str
    value: Any
    alternative: Any
    statement: str
    otherwise: str
    settled_by: str | None = None


FIRST_VOXEL_IS_0 = Assumption(
    "first_voxel", 0, 1, "the first voxel is taken to count 0", otherwise="first_voxel=1 for 1"
)
VOXELS_NOT_PIXELS = Assumption(
    "binning",
    1.0,
    2.0,
    "coordinates are taken as voxels of the tomogram",
    otherwise="binning=B for pixels B times smaller",
    settled_by="pixel_size_angstrom",
)
ORDER_XYZ = Assumption(
    "axes", "xyz", "zyx", "columns are taken in the order x y z", otherwise="axes=zyx for another order"
)
CENTRE_AT_HALF = Assumption(
    "half_pixel",
    True,
    False,
    "the first voxel's centre is taken to be at 0.5 0.5 0, as in IMOD",
    otherwise="half_pixel=false for 0 0 0",
)


@dataclass(frozen=True)
class StandIn:
    """What a format writes for a value that is not known, because it has no way to say so.

    Attributes:
        column: a column of `Particles`: "rotations" or "scores".
        text: what is written, as part of a sentence.
        always: whether it is written too where the list has no such column at all.
    """

    column: Literal["rotations", "scores"]
    text: str
    always: bool = True


@dataclass(frozen=True)
class Format:
    """One annotation format.

    Attributes:
        name: what `--format` and `fmt` call it.
        title: one line for tables.
        suffixes: file suffixes, the first one for new files.
        read: reads a list.
        write: writes a list; None for formats that are only read.
        keeps: which columns of `Particles` survive a write.
        unit: of the coordinates that are written. Formats in Å cannot be written without a voxel size.
        single_precision: whether coordinates are written as 32-bit floating-point numbers.
        numbered: whether it tells tomograms apart by numbers, though it does not keep their names.
        is_folder: whether the particles of one tomogram may fill a folder of files.
        files: of a folder, the files that `write` would write, from its path, the particles and those of its options
            that it has; None where a list is one file.
        options: help of every option of `read` and `write`, by name.
        assumptions: what is assumed where a file leaves an option open.
        stands_in: what is written for values that are not known.
        stem_endings: file names that end so before the suffix are of this format.
        recognises: whether a file that starts with these bytes is of this format. Where several formats share a suffix,
            the first one that recognises the file is taken, else the first one without this function.
        keeps_column: whether an extra column of this name survives a write, where `keeps` has "extra".
        renames: extra columns that are written under the format's own name, whatever `keeps` has.
        restates: of an extra column that is not copied, the name under which a new list states the same anew, from its
            name, the particles and the voxel size; None: nothing says it.
        largest_label: the largest class label that comes back as it was written.

    Raises:
        ValueError: an option without help, or help for an option that neither `read` nor `write` has.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    read: Reader
    write: Writer | None = None
    keeps: frozenset[str] = frozenset()
    unit: Literal["voxel", "angstrom"] = "voxel"
    single_precision: bool = False
    numbered: bool = False
    is_folder: bool = False
    files: Callable[..., list[Path]] | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    assumptions: tuple[Assumption, ...] = ()
    stands_in: tuple[StandIn, ...] = ()
    stem_endings: tuple[str, ...] = ()
    recognises: Callable[[bytes], bool] | None = None
    keeps_column: Callable[[str], bool] = lambda name: True
    renames: Mapping[str, str] = field(default_factory=dict)
    restates: Callable[[str, Particles, float | None], str | None] = lambda name, particles, voxel_size: None
    largest_label: int = LARGEST_LABEL

    def __post_init__(self) -> None:
        known = {*self.reading_options, *self.writing_options}
        if known != set(self.options):
            raise ValueError(f"format {self.name}: options {sorted(known)}, help for {sorted(self.options)}")

    @property
    def needs_voxel_size(self) -> bool:
        """Whether it is written in Å."""
        return self.unit == "angstrom"

    @property
    def tells_tomograms_apart(self) -> bool:
        """Whether one list can hold the particles of several tomograms."""
        return self.numbered or "tomograms" in self.keeps

    @property
    def reading_options(self) -> tuple[str, ...]:
        """Names of the options of reading."""
        return tuple(name for name in self.arguments("read") if name not in CONTEXT)

    @property
    def writing_options(self) -> tuple[str, ...]:
        """Names of the options of writing."""
        return tuple(name for name in self.arguments("write") if name not in CONTEXT)

    def stand_ins(self, particles: Particles) -> list[str]:
        """What a list of these particles would hold for values that are not known, as sentences."""
        sentences = []
        for entry in self.stands_in:
            values = getattr(particles, entry.column)
            if values is None:
                unknown = len(particles) if entry.always else 0
            else:
                known = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
                unknown = int(np.count_nonzero(~known))
            if unknown:
                name = {"rotations": "orientation", "scores": "score"}[entry.column]
                sentences.append(f"{self.title}: where the {name} is not known, {entry.text} stands in")
        return sentences

    def function(self, verb: Verb) -> Reader | Writer | None:
        """Its reader or writer; None where it has none."""
        return self.read if verb == "read" else self.write

    def arguments(self, verb: Verb) -> tuple[str, ...]:
        """Names of the keyword-only parameters of its reader or writer: options and context."""
        function = self.function(verb)
        if function is None:
            return ()
        parameters = inspect.signature(function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)

    def file_name(self, stem: str) -> str:
        """Name of a new list: `{stem}{suffix}`, or `{stem}_{name}` where the list is a folder."""
        return f"{stem}_{self.name}" if self.is_folder else f"{stem}{self.suffixes[0]}"
