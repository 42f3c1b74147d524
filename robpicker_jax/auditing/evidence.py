"""What the class probabilities of a tomogram say, kept in little memory: filled block by block as they are computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robpicker_jax.annotations.particles import Particles

SMALLEST_RADIUS_VOX = 1.0  # a smaller ball between voxels would hold none

BYTES_PER_VOXEL = 5


class Evidence:
    """Maps of a tomogram, and the mean class probabilities in the ball around each annotation.

    All class probabilities of a tomogram would take 4 bytes for each voxel and class. What the audit needs of them is 5
    bytes for each voxel, and one row of means for each annotation.

    Args:
        shape_zyx: size of the tomogram, voxels.
        n_classes: classes, background included.
        particles: n annotations, with labels from 1.
        radii_vox: radius of each species, voxels, that of label 1 first.

    Attributes:
        foreground: (z, y, x) float16, probability of any particle.
        species: (z, y, x) uint8, the most probable species, whether or not background is more probable.
        probability: (z, y, x) float16, the probability of that species.
    """

    def __init__(
        self, shape_zyx: Sequence[int], n_classes: int, particles: Particles, radii_vox: Sequence[float]
    ) -> None:
        shape = tuple(int(size) for size in shape_zyx)
        self.foreground = np.zeros(shape, np.float16)
        self.species = np.ones(shape, np.uint8)
        self.probability = np.zeros(shape, np.float16)
        self._centres = particles.positions_vox[:, ::-1]
        self._radii = radii_of(particles, radii_vox)
        self._sums = np.zeros((len(particles), n_classes))
        self._counts = np.zeros(len(particles), np.int64)

    def add(self, z: int, y: int, block: np.ndarray) -> None:
        """Take the class probabilities (planes, lines, x, classes) of a block that starts at plane z and line y.

        Every voxel is to be given once, in any order of blocks.
        """
        planes, lines, width, _ = block.shape
        into = slice(z, z + planes), slice(y, y + lines)
        self.foreground[into] = 1 - block[..., 0]
        self.species[into] = block[..., 1:].argmax(axis=-1) + 1
        self.probability[into] = block[..., 1:].max(axis=-1)
        first, last = np.array([z, y, 0]), np.array([z + planes, y + lines, width]) - 1
        reach = self._radii[:, None]
        near = ((self._centres + reach >= first) & (self._centres - reach <= last)).all(axis=1)
        for index in np.flatnonzero(near):
            box, inside = ball(self._centres[index], self._radii[index], first, last)
            values = block[
                tuple(slice(part.start - low, part.stop - low) for part, low in zip(box, first, strict=True))
            ]
            self._sums[index] += values[inside].sum(axis=0, dtype=np.float64)
            self._counts[index] += int(inside.sum())

    @property
    def class_means(self) -> np.ndarray:
        """Mean probability of each class in the ball around each annotation, as far as it lies in the tomogram: (n, c)."""
        return self._sums / np.maximum(self._counts, 1)[:, None]


def radii_of(particles: Particles, radii_vox: Sequence[float]) -> np.ndarray:
    """Radius of each particle by its label, voxels: float64 (n,)."""
    radii = np.maximum(np.asarray(radii_vox, np.float64), SMALLEST_RADIUS_VOX)
    return np.asarray(radii[particles.labels - 1])


def ball(
    centre_zyx: np.ndarray, radius_vox: float, first: np.ndarray, last: np.ndarray
) -> tuple[tuple[slice, ...], np.ndarray]:
    """The box around a ball, cut to the voxels from `first` to `last`, and which of its voxels lie in the ball.

    Returns:
        Slices (z, y, x), and bool of their shape: |voxel − centre| ≤ radius.
    """
    low = np.maximum(np.ceil(centre_zyx - radius_vox).astype(int), first)
    high = np.maximum(np.minimum(np.floor(centre_zyx + radius_vox).astype(int), last) + 1, low)
    squares = [(np.arange(a, b) - c) ** 2 for a, b, c in zip(low, high, centre_zyx, strict=True)]
    distances = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)), distances <= radius_vox**2
