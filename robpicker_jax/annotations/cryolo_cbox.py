"""crYOLO's and TomoTwin's boxes (`.cbox`), as their napari plug-in reads and writes them: a STAR table of boxes.

`CoordinateX` and `CoordinateY` are the box's lower corner, `CoordinateZ` is its centre: x = X + Width / 2,
y = Y + Height / 2, z = Z. Voxels, the centre of the first one at 0. `Confidence` is the score. A file is of one class
and one tomogram, which its name tells.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns, star
from robpicker_jax.annotations.format import Format
from robpicker_jax.annotations.particles import Particles

_POSITION = ("CoordinateX", "CoordinateY", "CoordinateZ")
_SIZE = ("Width", "Height")
_NOT_KNOWN = "<NA>"
_BLOCK = "cryolo"


def read(path: Path) -> Particles:
    """Read boxes.

    Raises:
        InputError: no table of boxes, or a cell that is no number.
    """
    tables = star.read_tables(path)
    table = star.find_table(tables, [" ".join((*_POSITION, *_SIZE))], None, path)
    if table is None:  # an empty table, or another STAR file, whose missing column is named
        table = tables.get(_BLOCK, {})
        if star.has(table, _POSITION) and not len(table[_POSITION[0]]):
            return Particles.empty()
    corner = star.numbers(table, _POSITION, path)
    if not len(corner):
        return Particles.empty()
    size = star.numbers(table, _SIZE, path)
    positions = corner + np.column_stack([size / 2, np.zeros(len(corner))])
    scores = None
    if "Confidence" in table:
        cells = [None if cell == _NOT_KNOWN else cell for cell in table["Confidence"].astype(str).tolist()]
        scores = columns.optional_floats(cells, "Confidence", path, lambda i: f"row {i + 1}")
    known = scores is not None and np.isfinite(scores).any()
    return Particles(positions, np.zeros(len(positions), np.int32), scores=scores if known else None)


def write(path: Path, particles: Particles, *, box_vox: float = 25.0) -> None:
    """Write boxes.

    Args:
        path: the file.
        particles: what to write.
        box_vox: edge of the boxes, voxels.
    """
    columns.check_positive(box_vox=box_vox)
    n = len(particles)
    x, y, z = particles.positions_vox.T
    missing = np.full(n, _NOT_KNOWN)
    scores = missing
    if particles.scores is not None:
        scores = np.array([_NOT_KNOWN if np.isnan(s) else columns.number(s) for s in particles.scores], np.str_)
    boxes = dict(zip(_POSITION, (x - box_vox / 2, y - box_vox / 2, z), strict=True))
    boxes |= {name: np.full(n, float(box_vox)) for name in ("Width", "Height", "Depth")}
    boxes |= {"EstWidth": missing, "EstHeight": missing, "Confidence": scores, "NumBoxes": missing, "Angle": missing}
    star.write_tables(path, {"global": {"_cbox_format_version": "1.0"}, _BLOCK: boxes})


FORMAT = Format(
    name="cbox",
    title="crYOLO and TomoTwin boxes",
    suffixes=(".cbox",),
    read=read,
    write=write,
    keeps=frozenset({"scores"}),
    options={"box_vox": "edge of the boxes, voxels"},
)
