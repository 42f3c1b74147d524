"""ChimeraX and Chimera BILD files: `.sphere x y z r` for each particle, `.color` before them for its class; Å.

Format: https://www.cgl.ucsf.edu/chimerax/docs/user/formats/bild.html. The volume's origin is added, as in `chimera_cmm`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, text_table
from robpicker_jax.annotations.colours import COLOURS, label_of
from robpicker_jax.annotations.format import ORIGIN, Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text

_POINTS = (".sphere", ".marker", ".dot", ".m", ".d")


def read(
    path: Path,
    *,
    voxel_size_angstrom: float | None = None,
    origin_angstrom: tuple[float, float, float] | None = None,
    volume_origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Particles:
    """Read the spheres, markers and dots of a BILD file; the class is the colour that `write` gave.

    Raises:
        InputError: no text, malformed coordinates, or no voxel size.
    """
    lines = text_table.read_lines(path)
    label, labels, cells, numbers = 0, [], [], []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words and words[0] in (".color", ".c"):
            label = _label(words[1:])
        elif words and words[0] in _POINTS:
            if len(words) < 4:
                raise InputError(f"line {number}: {words[0]} without x y z", where=path)
            labels.append(label)
            cells.append(words[1:4])
            numbers.append(number)
    if not cells:
        if not any(line.lstrip().startswith(".") for line in lines):
            raise InputError("not a BILD file: no line starts with a dot command", where=path)
        return Particles.empty()
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "ChimeraX", path)

    def row(i: int) -> str:
        return f"line {numbers[i]}"

    positions = [columns.floats([cell[k] for cell in cells], axis, path, row) for k, axis in enumerate("xyz")]
    return Particles(
        (np.stack(positions, axis=1) - (origin_angstrom or volume_origin_angstrom)) / voxel_size, np.array(labels)
    )


def _label(words: list[str]) -> int:
    try:
        return label_of([float(word) for word in words]) if len(words) == 3 else 0
    except ValueError:
        return 0


def write(
    path: Path,
    particles: Particles,
    *,
    voxel_size_angstrom: float | None = None,
    radius_angstrom: float = 50.0,
    origin_angstrom: tuple[float, float, float] | None = None,
    volume_origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:
    """Write spheres coloured by class.

    Raises:
        InputError: the voxel size is not given.
    """
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "ChimeraX", path)
    positions = particles.positions_vox * voxel_size + (origin_angstrom or volume_origin_angstrom)
    lines = [".comment picks"]
    for label in np.unique(particles.labels):
        lines.append(".color " + " ".join(map(columns.number, COLOURS[(int(label) - 1) % len(COLOURS)])))
        lines.extend(
            ".sphere " + " ".join(map(columns.number, [*position, radius_angstrom]))
            for position in positions[particles.labels == label]
        )
    write_text(path, "".join(f"{line}\n" for line in lines))


FORMAT = Format(
    name="bild",
    title="ChimeraX BILD spheres, Å",
    suffixes=(".bild", ".bld"),
    read=read,
    write=write,
    keeps=frozenset({"labels"}),
    unit="angstrom",
    options={"origin_angstrom": ORIGIN, "radius_angstrom": "radius of the spheres that ChimeraX draws, Å"},
)
