"""Subtomograms: boxes around particles, read part by part from the tomogram.

A box is cut at the voxel nearest to the particle; the rest of the position, at most half a voxel on each axis, stays a
number and becomes a phase of the box's Fourier transform, so that nothing is interpolated. A box that reaches over the
tomogram's edge is filled with the mean of its voxels inside; whoever averages leaves out particles whose box lies outside
by more than `MOST_OUTSIDE`. Each box is normalised by its own surroundings: mean 0 and standard deviation 1 outside the
particle's radius, and falls to 0 before the box's faces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from robpicker_jax.annotations.bounds import nearest_voxel
from robpicker_jax.volumes import VolumeReader

MOST_OUTSIDE = 0.25
"""Largest share of a box that may lie outside the tomogram."""

_EDGE_SHARE = 0.1  # of half the box: width of the fall to 0 before its faces


def box_centres(positions_vox: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The voxel at which each box is centred, int (n, 3), and the particle's distance from it, float (n, 3); x y z."""
    centres = nearest_voxel(positions_vox)
    return centres, np.asarray(positions_vox - centres, np.float32)


def share_outside(positions_vox: np.ndarray, edge: int, shape_zyx: Sequence[int]) -> np.ndarray:
    """Share of each particle's box that lies outside the tomogram, float (n,)."""
    centres, _ = box_centres(positions_vox)
    start = centres[:, ::-1] - edge // 2
    size = np.array(shape_zyx)
    kept = np.clip(np.minimum(start + edge, size) - np.maximum(start, 0), 0, edge)
    return np.asarray(1 - (kept / edge).prod(axis=1))


def cut(reader: VolumeReader, centre_xyz: np.ndarray, edge: int) -> np.ndarray:
    """One box of a tomogram, float32 (edge, edge, edge) z y x, the voxel `edge // 2` at the centre.

    Raises:
        InputError: voxels that are NaN or infinite.
    """
    start = np.asarray(centre_xyz)[::-1] - edge // 2
    stop = start + edge
    size = np.array(reader.shape_zyx)
    low, high = np.clip(start, 0, size), np.clip(stop, 0, size)
    slices = [slice(int(a), int(b)) for a, b in zip(low, high, strict=True)]
    part = reader.read((slices[0], slices[1], slices[2]))
    if part.shape == (edge,) * 3:
        return part
    box = np.full((edge,) * 3, part.mean() if part.size else 0.0, np.float32)
    box[tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, start, strict=True))] = part
    return box


def taper(edge: int) -> np.ndarray:
    """A soft ball that fills the box: 1 inside, a cosine fall to 0 at half the edge; float32 (edge, edge, edge)."""
    half = edge / 2 - 0.5
    width = max(2.0, _EDGE_SHARE * half)
    return soft_ball(edge, half - width, width)


def soft_ball(edge: int, radius: float, width: float) -> np.ndarray:
    """1 up to `radius` from voxel edge // 2, a cosine fall to 0 over `width`; float32 (edge, edge, edge)."""
    axis = np.arange(edge) - edge // 2
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    fall = np.clip((distance - radius) / max(width, 1e-6), 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * fall), np.float32)


def in_box(cube: np.ndarray, edge: int) -> np.ndarray:
    """A cube of any size cut or padded to `edge`, middle on middle (voxel size // 2); float32."""
    box = np.zeros((edge,) * 3, np.float32)
    size = cube.shape[0]
    before, after = min(edge // 2, size // 2), min(edge - edge // 2, size - size // 2)
    into = slice(edge // 2 - before, edge // 2 + after)
    of = slice(size // 2 - before, size // 2 + after)
    box[into, into, into] = cube[of, of, of]
    return box


def surroundings(edge: int, radius_vox: float) -> np.ndarray:
    """Where a box shows what is around a particle of a radius: beyond it, and before the box's faces; bool, never empty.

    Where a particle fills its box and less than a face's worth of voxels is left, it is the outermost shell that is seen.
    """
    seen = taper(edge) > 0
    around = np.asarray((soft_ball(edge, radius_vox, 0.0) == 0) & seen)
    if around.sum() >= edge**2:
        return around
    return np.asarray((soft_ball(edge, edge / 2 - 1.5, 0.0) == 0) & seen)


def normalised(box: np.ndarray, background: np.ndarray) -> np.ndarray:
    """A box with mean 0 and standard deviation 1 where `background` (bool) says that there is no particle."""
    around = box[background]
    spread = float(around.std())
    return np.asarray((box - around.mean()) / (spread if spread > 0 else 1.0), np.float32)


def boxes(
    reader: VolumeReader,
    positions_vox: np.ndarray,
    edge: int,
    radius_vox: float,
    *,
    sign: float = 1.0,
    batch: int = 16,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The normalised subtomograms of particles, batch by batch; of the tomogram only the boxes are read.

    Args:
        reader: the tomogram.
        positions_vox: (n, 3) x y z.
        edge: edge of the boxes, voxels.
        radius_vox: of the particle; what lies further out is background.
        sign: −1 where particles are darker than their surroundings.
        batch: boxes of one batch; the last is filled up with zeros, so that all have one shape.

    Yields:
        which: int (m,), index of each particle, m <= batch.
        volumes: float32 (batch, edge, edge, edge).
        offsets: float32 (batch, 3), the particle's distance from voxel edge // 2 of its box, x y z.

    Raises:
        InputError: voxels that are NaN or infinite.
    """
    centres, offsets = box_centres(positions_vox)
    soft, background = taper(edge), surroundings(edge, radius_vox)
    for start in range(0, len(centres), batch):
        which = np.arange(start, min(start + batch, len(centres)))
        volumes = np.zeros((batch, edge, edge, edge), np.float32)
        moved = np.zeros((batch, 3), np.float32)
        for row, index in enumerate(which.tolist()):
            volumes[row] = normalised(cut(reader, centres[index], edge), background) * (soft * np.float32(sign))
            moved[row] = offsets[index]
        reader.release()
        yield which, volumes, moved
