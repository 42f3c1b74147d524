"""Tomogram → class map, by overlapping tiles averaged where they overlap, streamed along z.

Class scores are held for one slab of `tile` planes only: as soon as no later tile can reach a plane, the plane's
argmax and its probability are final and the scores are let go. Peak memory beside input and output is therefore
tile · Y · X · classes · 4 bytes, whatever the tomogram's depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robpicker_jax.errors import InputError


class Reader(Protocol):
    """What inference needs of a tomogram: its shape, and boxes of normalised densities."""

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Size in voxels."""
        ...

    def read(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        """Densities (z, y, x) of a box, float32."""
        ...


@dataclass(frozen=True)
class ArrayReader:
    """A tomogram that is in memory already."""

    data: np.ndarray

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Size in voxels."""
        z, y, x = self.data.shape
        return z, y, x

    def read(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        """Densities of a box."""
        return np.asarray(self.data[region], dtype=np.float32)


@dataclass(frozen=True)
class Segmentation:
    """A segmented tomogram.

    Attributes:
        classes: (z, y, x) uint8, the class of highest averaged probability.
        probability: (z, y, x) float16, that probability.
        scores: (z, y, x, classes) float32 averaged probabilities, or None when they were not asked for.
    """

    classes: np.ndarray
    probability: np.ndarray
    scores: np.ndarray | None = None


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Starts of tiles that cover an axis: a constant stride of tile − overlap, the last tile moved back to the end.

    An axis shorter than a tile gets one tile at 0 (the caller pads).
    """
    if size <= tile:
        return [0]
    stride = tile - overlap
    return [*range(0, size - tile, stride), size - tile]


def segment(
    tomogram: Reader | np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    n_classes: int,
    *,
    tile: int,
    overlap_vox: int,
    batch_size: int,
    keep_scores: bool = False,
    on_tiles: Callable[[int], None] | None = None,
) -> Segmentation:
    """Segment a tomogram.

    Args:
        tomogram: normalised densities, in memory or behind a reader.
        predict: tiles (batch_size, tile, tile, tile, 1) float32 → probabilities (batch_size, tile, tile, tile, c).
            Always called with a full batch, so that it is compiled once and no result depends on the batching.
        n_classes: c, background included.
        tile: edge of the cubic tiles, voxels.
        overlap_vox: overlap of neighbouring tiles, voxels.
        batch_size: tiles a call.
        keep_scores: also return all averaged class probabilities (z · y · x · c floats).
        on_tiles: called with the number of tiles just finished (progress).

    Raises:
        InputError: an overlap that leaves no stride.
    """
    if not 0 <= overlap_vox < tile:
        raise InputError(f"overlap {overlap_vox} must be at least 0 and smaller than the tile {tile}")
    reader = ArrayReader(tomogram) if isinstance(tomogram, np.ndarray) else tomogram
    shape = reader.shape_zyx
    padded = tuple(max(size, tile) for size in shape)
    starts = [tile_starts(size, tile, overlap_vox) for size in shape]
    classes = np.zeros(shape, np.uint8)
    probability = np.zeros(shape, np.float16)
    scores = np.zeros((*shape, n_classes), np.float32) if keep_scores else None
    # How many tiles cover a voxel is a product over the axes, so three vectors say it.
    counts = [_coverage(size, axis, tile) for size, axis in zip(padded, starts, strict=True)]
    in_plane = counts[1][:, None] * counts[2][None, :]

    slab = np.zeros((tile, padded[1], padded[2], n_classes), np.float32)
    for index, z in enumerate(starts[0]):
        _accumulate(slab, reader, predict, z, starts[1], starts[2], tile, batch_size, on_tiles)
        following = starts[0][index + 1] if index + 1 < len(starts[0]) else padded[0]
        done = following - z
        ready = min(following, shape[0]) - z
        for plane in range(ready):
            mean = slab[plane] / (in_plane * counts[0][z + plane])[..., None]
            mean = mean[: shape[1], : shape[2]]
            best = mean.argmax(axis=-1)
            classes[z + plane] = best
            probability[z + plane] = np.take_along_axis(mean, best[..., None], axis=-1)[..., 0]
            if scores is not None:
                scores[z + plane] = mean
        slab[: tile - done] = slab[done:]
        slab[max(tile - done, 0) :] = 0
    return Segmentation(classes, probability, scores)


def number_of_tiles(shape_zyx: Sequence[int], tile: int, overlap_vox: int) -> int:
    """Tiles that `segment` will predict."""
    return int(np.prod([len(tile_starts(size, tile, overlap_vox)) for size in shape_zyx]))


def _coverage(size: int, starts: Sequence[int], tile: int) -> np.ndarray:
    count = np.zeros(size, np.float32)
    for start in starts:
        count[start : start + tile] += 1
    return count


def _accumulate(
    slab: np.ndarray,
    reader: Reader,
    predict: Callable[[np.ndarray], np.ndarray],
    z: int,
    starts_y: Sequence[int],
    starts_x: Sequence[int],
    tile: int,
    batch_size: int,
    on_tiles: Callable[[int], None] | None,
) -> None:
    """Add the probabilities of one layer of tiles to the slab whose first plane is z."""
    corners = [(y, x) for y in starts_y for x in starts_x]
    planes = _read_planes(reader, z, tile)
    for chunk in _chunks(corners, batch_size):
        batch = np.zeros((batch_size, tile, tile, tile, 1), np.float32)
        for row, (y, x) in enumerate(chunk):
            batch[row, ..., 0] = planes[:, y : y + tile, x : x + tile]
        predicted = predict(batch)
        for row, (y, x) in enumerate(chunk):
            slab[:, y : y + tile, x : x + tile] += predicted[row]
        if on_tiles is not None:
            on_tiles(len(chunk))


def _read_planes(reader: Reader, z: int, tile: int) -> np.ndarray:
    """One layer of the tomogram, mirrored at the far side of every axis that is shorter than a tile."""
    shape = reader.shape_zyx
    region = (slice(z, min(z + tile, shape[0])), slice(0, shape[1]), slice(0, shape[2]))
    planes = reader.read(region)
    missing = [max(0, tile - size) for size in planes.shape]
    return np.pad(planes, [(0, count) for count in missing], mode="symmetric") if any(missing) else planes


def _chunks(items: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
