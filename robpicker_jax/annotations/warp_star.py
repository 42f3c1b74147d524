"""Warp, WarpTools and M particle STAR files: RELION's columns, tomograms named by their `.tomostar`.

Unlike RELION 4, Warp counts `rlnCoordinate?` in pixels of the exported images: their edge is in `rlnPixelSize`,
`rlnImagePixelSize` or the optics table's `rlnImagePixelSize`. Files for WarpTools' `--input_star` have no such column;
their pixel size is an argument there (`--coords_angpix`) and here (`pixel_size_angstrom`; by default the voxel size).
Where RELION 5 refined such particles, coordinates are centred Å, read by RELION's rules.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, relion_columns, relion_star, star
from robpicker_jax.annotations.format import ALL_COLUMNS, Format
from robpicker_jax.annotations.names import TOMOSTAR
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.annotations.relion_columns import DEFINITE_PIXELS, PIXELS, common_columns, keeps_column


def write(path: Path, particles: Particles, *, voxel_size_angstrom: float | None = None, binning: float = 1.0) -> None:
    """Write what WarpTools' `ts_export_particles --input_star` opens.

    Args:
        path: the file.
        particles: what to write.
        voxel_size_angstrom: with it `rlnPixelSize` states the pixel size; give WarpTools the same `--coords_angpix`.
        binning: pixels of the coordinates per voxel.
    """
    columns.check_positive(binning=binning)
    table = dict(zip(PIXELS, (particles.positions_vox * binning).T, strict=True))
    rest = common_columns(particles)
    names = rest.pop("rlnTomoName", None)
    if names is not None:
        table["rlnMicrographName"] = np.array([f"{name.removesuffix(TOMOSTAR)}{TOMOSTAR}" for name in names.tolist()])
    if voxel_size_angstrom is not None:
        table["rlnPixelSize"] = np.full(len(particles), voxel_size_angstrom / binning)
    star.write_tables(path, {"": table | {name: values for name, values in rest.items() if name not in table}})


def _restates(name: str, particles: Particles, voxel_size_angstrom: float | None) -> str | None:
    """Warp's own columns, which `write` fills by the particles and by the voxel size."""
    if name == "rlnMicrographName":
        return name if particles.tomograms is not None else None
    return "rlnPixelSize" if voxel_size_angstrom is not None and name in DEFINITE_PIXELS else None


FORMAT = Format(
    name="warp",
    title="Warp, WarpTools and M particles",
    suffixes=(".star",),
    read=relion_star.particle_reader(image_pixels=True),
    write=write,
    keeps=ALL_COLUMNS,
    options=relion_star.READING_OPTIONS,
    assumptions=relion_star.ASSUMPTIONS,
    stands_in=relion_columns.STANDS_IN,
    recognises=lambda start: TOMOSTAR.encode() in start,
    keeps_column=keeps_column,
    restates=_restates,
)
