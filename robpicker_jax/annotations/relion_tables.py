"""RELION's tables beside the particles: tomograms and optimisation sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, star
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.system.errors import InputError, located

_SIZE = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")


@dataclass(frozen=True)
class TomogramTable:
    """Geometry of tomograms by name.

    Attributes:
        path: the file.
        names: their names.
        size_pixels: float64 (n, 3), x y z, unbinned (tilt-series) pixels.
        pixel_size_angstrom: float64 (n,), edge of a tilt-series pixel.
        binning: float64 (n,), tilt-series pixels per voxel of the reconstruction; NaN where the table does not say.
    """

    path: Path
    names: tuple[str, ...]
    size_pixels: np.ndarray
    pixel_size_angstrom: np.ndarray
    binning: np.ndarray

    def row(self, name: str) -> int | None:
        """Row of a tomogram, found by the rule of `names`; None where it is not in the table.

        Raises:
            InputError: the name may mean several of the table's tomograms.
        """
        with located(self.path):
            found = NameRule().matching(name, self.names)
        return self.names.index(found[0]) if found else None

    def rows(self, tomograms: np.ndarray) -> np.ndarray:
        """Row of each particle's tomogram.

        Raises:
            InputError: a particle's tomogram is not in the table.
        """
        row = {}
        for name in dict.fromkeys(tomograms.tolist()):
            found = self.row(name)
            if found is None:
                raise InputError(f"no tomogram {name!r} in it, which the particles name", where=self.path)
            row[name] = found
        return np.array([row[name] for name in tomograms.tolist()], dtype=np.intp)

    def voxel_sizes(self, rows: np.ndarray, voxel_size: float | None, binning: float | None) -> np.ndarray:
        """Edge of a voxel of each particle's tomogram in Å, (n, 1).

        Args:
            rows: row of each particle's tomogram.
            voxel_size: what the user or a volume's header says, else None.
            binning: tilt-series pixels per voxel, in place of the table's, for tomograms that it does not describe.

        Raises:
            InputError: neither says it, or the voxel size contradicts the table.
        """
        pixel = self.pixel_size_angstrom[rows, None]
        factor = self.binning[rows, None] if binning is None else np.full_like(pixel, binning)
        stated: np.ndarray = pixel * factor
        if voxel_size is None:
            if not np.isfinite(stated).all():
                raise InputError(
                    "the tomograms table has no rlnTomoTomogramBinning", where=self.path, fix="give the voxel size"
                )
            return stated
        if np.isfinite(stated).any():
            worst = int(np.nanargmax(np.abs(stated / voxel_size - 1)))
            new = voxel_size / float(pixel[worst, 0])
            fix = f"leave one out, or say binning={new:.4g} where the tomograms are not those of the table"
            says = "the table" if binning is None else "binning"
            columns.agree("a voxel size of", voxel_size, float(stated[worst, 0]), self.path, fix, says=says)
        return np.full_like(pixel, voxel_size)


def read_tomograms(path: Path) -> TomogramTable:
    """Read RELION's (4, 5) or WarpTools' tomograms table.

    Raises:
        InputError: no such table in the file.
    """
    if not path.is_file():
        raise InputError("no such tomograms table", where=path)
    tables = star.read_tables(path)
    table = next((t for t in tables.values() if star.has(t, ("rlnTomoName", *_SIZE))), None)
    if table is None:
        raise InputError("no tomograms table (rlnTomoName, rlnTomoSizeX …) in it", where=path)
    pixel = next((n for n in ("rlnTomoTiltSeriesPixelSize", "rlnMicrographOriginalPixelSize") if n in table), None)
    if pixel is None:
        raise InputError("the tomograms table has no rlnTomoTiltSeriesPixelSize", where=path)
    n = len(table["rlnTomoName"])
    binning = (
        star.numbers(table, ["rlnTomoTomogramBinning"], path)[:, 0]
        if "rlnTomoTomogramBinning" in table
        else np.full(n, np.nan)
    )
    return TomogramTable(
        path,
        tuple(table["rlnTomoName"].astype(str)),
        star.numbers(table, _SIZE, path),
        star.numbers(table, [pixel], path)[:, 0],
        binning,
    )


def optimisation_set(tables: dict[str, star.Table], path: Path) -> tuple[Path, Path | None] | None:
    """Particles and tomograms files that an optimisation set names, None when the file is none.

    The names are relative to the RELION project, which is one of the folders above the file, or above what it links to.

    Raises:
        InputError: the particles file it names does not exist.
    """
    for table in tables.values():
        if "rlnTomoParticlesFile" in table and len(table["rlnTomoParticlesFile"]):
            particles = _resolve(str(table["rlnTomoParticlesFile"][0]), path)
            if particles is None:
                raise InputError(f"the particles file {table['rlnTomoParticlesFile'][0]} does not exist", where=path)
            named = table.get("rlnTomoTomogramsFile")
            return particles, None if named is None else _resolve(str(named[0]), path)
    return None


def _resolve(name: str, path: Path) -> Path | None:
    candidates = (folder / name for folder in (*path.absolute().parents, *path.resolve().parents, Path.cwd()))
    return next((candidate for candidate in candidates if candidate.is_file()), None)
