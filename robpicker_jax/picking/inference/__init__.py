"""Tomogram → class map: overlapping tiles, streamed from the volume to the class map."""

from __future__ import annotations

from robpicker_jax.picking.inference.accumulation import OnScores, Segmentation
from robpicker_jax.picking.inference.devices import DevicePredictor, prediction_mesh
from robpicker_jax.picking.inference.memory import MemoryBound, memory_bound
from robpicker_jax.picking.inference.reader import ArrayReader, Reader
from robpicker_jax.picking.inference.rotations import ROTATIONS, over_rotations
from robpicker_jax.picking.inference.segmentation import segment
from robpicker_jax.picking.inference.tiles import BLENDS, number_of_tiles, tile_starts

__all__ = [
    "BLENDS",
    "ROTATIONS",
    "ArrayReader",
    "DevicePredictor",
    "MemoryBound",
    "OnScores",
    "Reader",
    "Segmentation",
    "memory_bound",
    "number_of_tiles",
    "over_rotations",
    "prediction_mesh",
    "segment",
    "tile_starts",
]
