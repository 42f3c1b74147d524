"""How far tiled inference is from inference on the whole volume, by tile size, overlap and blending.

A small network is trained on simulated tomograms. A test tomogram, a cube, is then segmented in one piece, and in tiles with
each way of blending. The figure is the share of the voxels with a particle in the whole volume's class map whose class
the tiles change, or that they add: changed voxels over foreground voxels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks._common import Row, main, row
from robpicker_jax.commands import main_job
from robpicker_jax.config import load_config
from robpicker_jax.datasets import discover, open_tomogram
from robpicker_jax.picking.inference import BLENDS
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.picker import model_picker
from robpicker_jax.system.compilation import enable_persistent_cache

NAME = "blending"
EDGE = 96
TILINGS = ((32, 8), (32, 16), (64, 20))
"""Edge and overlap of the tiles, voxels."""

SETTINGS = (
    f"simulation.shape_zyx=[{EDGE},{EDGE},{EDGE}]",
    "simulation.train=2",
    "simulation.val=0",
    "train.variant=supervised",
    "train.validate_every=400",
    "train.checkpoint_every=400",
)
FULL = ("train.steps=400",)
QUICK = ("train.steps=80", "model.widths=[8,16]")


def class_map(picker: ModelPicker, density: np.ndarray, tile: int, overlap_vox: int, blend: str) -> np.ndarray:
    """Class of each voxel, uint8 (z, y, x), with tiles of that size."""
    changes = {"tile": tile, "overlap_vox": overlap_vox, "blend": blend, "batch_size": 1}
    model = picker.model.with_overrides([f"inference.{key}={value}" for key, value in changes.items()])
    return ModelPicker(model).segment(density).classes


def run(quick: bool) -> Iterator[Row]:
    """Rows of all tilings."""
    enable_persistent_cache()
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Path(scratch) / "run"
        main_job.run(load_config(None, [*SETTINGS, *(QUICK if quick else FULL)]), workdir)
        picker = model_picker(workdir)
        (files,) = discover(workdir / "data")["test"]
        with open_tomogram(files, picker.data, mode="memory") as tomogram:
            density = np.asarray(tomogram)
    whole = class_map(picker, density, EDGE, 0, "average")
    foreground = int(np.count_nonzero(whole))
    yield row(NAME, f"{EDGE}³ in one piece", "foreground voxels", foreground, "")
    for tile, overlap_vox in TILINGS:
        for blend in BLENDS:
            changed = int(np.count_nonzero(class_map(picker, density, tile, overlap_vox, blend) != whole))
            share = 100 * changed / foreground if foreground else None
            case = f"tiles of {tile} that overlap by {overlap_vox}"
            yield row(NAME, case, f"changed voxels, {blend}", share, "%", why="the network found no particle")


if __name__ == "__main__":
    main(NAME, run)
