"""Turns of a patch, and what each does to the missing wedge and to handedness.

A tilt series about y leaves a wedge of Fourier space about the z axis, in x–z, unmeasured. A network sees its streaks
in every patch, so an augmentation that turns the wedge shows it data that no microscope gives:

| turn | wedge | handedness | default |
| --- | --- | --- | --- |
| half-turn about x, y or z | kept | kept | on |
| mirror along an axis | kept | changed: the mirror image of a protein does not exist | off |
| quarter turn about z | turned: the tilt axis goes from y to x | kept | off |
| any rotation | turned, and the image is interpolated | kept | off |

The half-turns with the identity are the largest group of rotations that keeps both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.config.schema import PatchConfig

# Axes (z, y, x) that are reversed by: nothing, a half-turn about x, about y, about z.
_HALF_TURNS = ((False, False, False), (True, True, False), (True, False, True), (False, True, True))


@dataclass(frozen=True)
class Turn:
    """A turn or mirror image of a cubic patch that moves voxels onto voxels.

    Attributes:
        reverse_zyx: which axes are reversed, first.
        quarter_turns_z: quarter turns about z, from x towards y, after that.
    """

    reverse_zyx: tuple[bool, bool, bool] = (False, False, False)
    quarter_turns_z: int = 0

    def apply(self, patch: np.ndarray) -> np.ndarray:
        """The turned (z, y, x) patch, as a view."""
        z, y, x = (slice(None, None, -1) if reverse else slice(None) for reverse in self.reverse_zyx)
        return np.rot90(patch[z, y, x], self.quarter_turns_z, axes=(2, 1))

    def matrix(self) -> np.ndarray:
        """What it does to vectors (x, y, z) from the patch's centre: an orthogonal (3, 3) matrix of 0 and ±1."""
        mirror = np.diag([-1.0 if reverse else 1.0 for reverse in self.reverse_zyx[::-1]])
        quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        return np.linalg.matrix_power(quarter, self.quarter_turns_z) @ mirror


def draw_turn(config: PatchConfig, rng: np.random.Generator) -> Turn:
    """Draw a turn uniformly from the group that the configuration's switches span."""
    reverse = np.array(_HALF_TURNS[rng.integers(4)] if config.rotate_180 else _HALF_TURNS[0])
    if config.flip:
        reverse ^= rng.integers(0, 2, 3).astype(bool)
    quarters = int(rng.integers(4)) if config.rotate_z90 else 0
    z, y, x = reverse.tolist()
    return Turn((z, y, x), quarters)


def rotated_patch(
    read: Callable[[tuple[slice, slice, slice]], np.ndarray],
    shape_zyx: Sequence[int],
    corner_zyx: Sequence[int],
    size: int,
    rotation: np.ndarray,
    *,
    order: int,
) -> np.ndarray:
    """Cut a patch whose content is rotated about its centre: patch(r) = volume(centre + Rᵀ r).

    The volume is read as far as the patch's circumscribed sphere reaches; where that is beyond the volume it is
    continued by reflection.

    Args:
        read: gives a box of the volume.
        shape_zyx: shape of the whole volume.
        corner_zyx: first voxel of the patch before the rotation.
        size: edge of the patch.
        rotation: R, (3, 3), on vectors x, y, z.
        order: of the interpolation: 1 for densities, 0 for labels.

    Returns:
        (size, size, size) array of the volume's type.
    """
    from scipy.ndimage import affine_transform  # slow to import, and of no use without rotations

    half = (size - 1) / 2
    centre = np.asarray(corner_zyx, dtype=np.float64) + half
    low = np.maximum(np.floor(centre - half * np.sqrt(3)).astype(int), 0)
    high = np.minimum(np.ceil(centre + half * np.sqrt(3)).astype(int) + 1, np.asarray(shape_zyx))
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    box = read((z, y, x))
    back = rotation.T[::-1, ::-1]  # the same matrix on vectors z, y, x
    offset = centre - low - back @ np.full(3, half)
    return affine_transform(
        box, back, offset=offset, output_shape=(size, size, size), order=order, mode="mirror", prefilter=False
    )
