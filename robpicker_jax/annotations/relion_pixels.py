"""Which pixels `rlnCoordinate?` counts in RELION's, Warp's and M's particle tables, and positions in voxels from them.

The columns that state the pixel's edge p, in the order in which they are believed:

- names of tomograms that end in `.tomostar`, or no `rlnTomoName` (Warp, RELION 3): `rlnPixelSize`,
  `rlnMicrographPixelSize`, `rlnImagePixelSize`, `rlnDetectorPixelSize` (µm) over `rlnMagnification`;
- `rlnTomoName` (RELION 4 and 5): `rlnTomoTiltSeriesPixelSize`, `rlnMicrographOriginalPixelSize`, then the others.

Each is looked for in the particles' table, then in the optics table. x = (X − A_sub o / p) p / v, with v the voxel size.
Coordinates that all lie between 0 and 1 are fractions of the box (Warp's template matching): x = X N − A_sub o / v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, star
from robpicker_jax.annotations.bounds import are_fractions, in_voxels
from robpicker_jax.annotations.names import TOMOSTAR
from robpicker_jax.annotations.relion_columns import DEFINITE_PIXELS, PIXELS, pixel_origins
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.notes import note

_TILT_SERIES = "rlnTomoTiltSeriesPixelSize"
_ORIGINAL = "rlnMicrographOriginalPixelSize"
_DETECTOR = ("rlnDetectorPixelSize", "rlnMagnification")
_IMAGE = ("rlnPixelSize", "rlnMicrographPixelSize", "rlnImagePixelSize", _DETECTOR[0])  # Warp's and RELION 3's
_ANGSTROM_PER_MICROMETRE = 1e4


@dataclass(frozen=True)
class StatedPixel:
    """Edge of the pixels of each particle's coordinates as the file states it, (n, 1) in Å, and the column that does."""

    column: str
    angstrom: np.ndarray

    @property
    def is_definite(self) -> bool:
        """Whether the column can mean no other pixels than the coordinates'."""
        return self.column in DEFINITE_PIXELS


def stated_pixel(
    tables: Mapping[str, star.Table], table: star.Table, names: np.ndarray | None, path: Path, *, image_pixels: bool
) -> StatedPixel | None:
    """What the file says of the pixels that its coordinates count; None where no column says it.

    Args:
        tables: the file's tables, for the optics table.
        table: the particles.
        names: their tomograms.
        path: the file, for messages.
        image_pixels: whether the list is known to be Warp's.

    Raises:
        InputError: a particle's optics group that is not in the optics table, or a size that is not positive.
    """
    warp = image_pixels or (names is not None and any(name.endswith(TOMOSTAR) for name in names.tolist()))
    if warp:
        order: tuple[str, ...] = (*_IMAGE, _TILT_SERIES, _ORIGINAL)
    elif "rlnTomoName" in table:
        order = (_TILT_SERIES, _ORIGINAL, *_IMAGE)
    else:
        order = (_TILT_SERIES, *_IMAGE, _ORIGINAL)
    for name in order:
        found = _column(tables, table, name, path)
        if found is not None and name == _DETECTOR[0]:
            magnification = _column(tables, table, _DETECTOR[1], path)
            if magnification is None or not (magnification > 0).all() or not (found > 0).all():
                continue  # RELION 3 leaves them 0 where they are not known
            found = found * _ANGSTROM_PER_MICROMETRE / magnification
        if found is not None:
            for i in np.flatnonzero(found[:, 0] <= 0)[:1]:
                raise InputError(f"row {i + 1}: {name} is {found[i, 0]:g}, not a length", where=path)
            return StatedPixel(name, found)
    return None


def _column(tables: Mapping[str, star.Table], table: star.Table, name: str, path: Path) -> np.ndarray | None:
    if name in table:
        return star.numbers(table, [name], path)
    return by_optics_group(tables["optics"], table, name, path) if name in tables.get("optics", {}) else None


def by_optics_group(optics: star.Table, table: star.Table, name: str, path: Path) -> np.ndarray:
    """A number of the optics table for each particle, (n, 1).

    Raises:
        InputError: a particle's optics group is not in the table.
    """
    values = star.numbers(optics, [name], path)
    n = len(next(iter(table.values())))
    if len(values) == 1 and "rlnOpticsGroup" not in table:
        return np.repeat(values, n, axis=0)
    groups = star.numbers(optics, ["rlnOpticsGroup"], path)[:, 0]
    row_of = {group: row for row, group in enumerate(groups.tolist())}
    wanted = star.numbers(table, ["rlnOpticsGroup"], path)[:, 0].tolist()
    for i, group in enumerate(wanted):
        if group not in row_of:
            raise InputError(f"row {i + 1}: optics group {group:g} is not in the optics table", where=path)
    return values[[row_of[group] for group in wanted]]


def from_pixels(
    table: star.Table,
    shift_angstrom: np.ndarray | None,
    sub: np.ndarray | None,
    stated: StatedPixel | None,
    path: Path,
    *,
    pixel_size: float | None,
    binning: float | None,
    voxel_size: float | None,
    size_xyz: np.ndarray | None,
) -> np.ndarray:
    """Voxel positions (n, 3) of `rlnCoordinate?`, origins subtracted; the module's docstring has the formula.

    Args:
        table: the particles.
        shift_angstrom: A_sub o in Å, None where the file has none.
        sub: A_sub, None for the identity.
        stated: what the file says of the coordinates' pixels.
        path: the file, for messages.
        pixel_size: edge of the coordinates' pixels in Å, where the user gives it.
        binning: pixels per voxel, where the user gives it.
        voxel_size: voxel size of the tomogram in Å.
        size_xyz: size of the tomogram, or of each particle's, voxels.

    Raises:
        InputError: options that contradict each other or the file; a length that the file leaves open.
    """
    coordinates = star.numbers(table, PIXELS, path)
    if are_fractions(coordinates):
        coordinates, binning, stated, pixel_size = in_voxels(coordinates, size_xyz, path), 1.0, None, None
    if stated is not None and not (voxel_size or binning or pixel_size):
        size = f"{stated.angstrom[0, 0]:.5g} Å ({stated.column})"
        note(f"the voxel size is not known, so coordinates in pixels of {size} are taken as voxels", where=path)
    pixel = _agreed_pixel(stated, pixel_size, binning, voxel_size, path)
    if pixel is None and voxel_size:
        pixel = voxel_size / (binning or 1.0)
    if shift_angstrom is not None and shift_angstrom.any():
        if pixel is None:
            raise InputError(
                "origins are in Å and the size of the coordinates' pixels is not in this file",
                where=path,
                fix="give pixel_size_angstrom, or the voxel size",
            )
        coordinates = coordinates - shift_angstrom / pixel
    elif shift_angstrom is None:
        coordinates = coordinates - pixel_origins(table, sub, path)
    if binning is not None:
        return coordinates / binning
    return coordinates * pixel / voxel_size if pixel is not None and voxel_size else coordinates


def shift_in_angstrom(
    origins: np.ndarray | float, pixel_size: float | None, stated: StatedPixel | None, path: Path
) -> np.ndarray | float:
    """Origins in pixels of a list whose coordinates are in Å, as Å.

    Raises:
        InputError: origins other than 0, and the pixel's size is not known.
    """
    if not np.any(origins):
        return 0.0
    pixel = pixel_size if stated is None else stated.angstrom
    if pixel is None:
        raise InputError(
            "origins are in pixels, whose size is not in this file", where=path, fix="give pixel_size_angstrom"
        )
    return origins * pixel


def _agreed_pixel(
    stated: StatedPixel | None, pixel_size: float | None, binning: float | None, voxel_size: float | None, path: Path
) -> np.ndarray | float | None:
    """Edge of the coordinates' pixels in Å, on which the file and the options agree; None where nobody says it."""
    if pixel_size and binning and voxel_size:
        fix = "leave one of them out"
        columns.agree(
            "a pixel size of", pixel_size, voxel_size / binning, path, fix, says="the voxel size over binning"
        )
    given = pixel_size or (voxel_size / binning if voxel_size and binning else None)
    if stated is None:
        return pixel_size
    if given is None:
        return None if binning else stated.angstrom
    worst = float(stated.angstrom[np.argmax(np.abs(stated.angstrom[:, 0] / given - 1)), 0])
    if stated.is_definite:
        fix = f"leave out {'pixel_size_angstrom' if pixel_size else 'binning'}, or correct the file"
        columns.agree("a pixel size of", given, worst, path, fix, says=stated.column)
        return stated.angstrom
    if abs(given - worst) > columns.SAME_LENGTH * worst:
        note(f"coordinates are taken in pixels of {given:.5g} Å, not of {stated.column}, {worst:.5g} Å", where=path)
    return given
