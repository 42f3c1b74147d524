"""Tomogram → class map: overlapping tiles, streamed from the volume to the class map."""

from __future__ import annotations

from robpicker_jax.inference.accumulation import Segmentation
from robpicker_jax.inference.reader import ArrayReader, Reader
from robpicker_jax.inference.segmentation import segment
from robpicker_jax.inference.tiles import BLENDS, number_of_tiles, plan_tiles, tile_starts

__all__ = [
    "BLENDS",
    "ArrayReader",
    "Reader",
    "Segmentation",
    "number_of_tiles",
    "plan_tiles",
    "segment",
    "tile_starts",
]
