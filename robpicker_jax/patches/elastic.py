"""Elastic deformations of patches, density and label alike. See `augmentation` for the contract."""

from __future__ import annotations

import numpy as np

from robpicker_jax.patches.arrays import Array, interpolated, namespace, uniforms

_STEP = 16  # voxels between two knots
_MOST = 3.0  # largest displacement along an axis, voxels


class Elastic:
    """out(r) = patch(r + u(r)), u interpolated linearly between random displacements on a coarse grid of knots.

    A knot's displacement along each axis is a·sin(2πφ), φ uniform in (0, 1), with one strength a for the patch, uniform
    between 0 and 3 voxels; knots are 16 voxels apart. (DeePiCt's are 32 apart, interpolated by cubic splines.) Densities
    are interpolated trilinearly, labels take the nearest voxel.
    """

    def margin(self, size: int) -> int:
        return int(_MOST) + 1

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 2**32, 2, dtype=np.uint32)

    def apply(self, patch: Array, drawn: Array, *, size: int, nearest: bool) -> Array:
        xp = namespace(patch)
        margin = (patch.shape[0] - size) // 2
        knots = (size - 1) // _STEP + 2
        strength = np.float32(_MOST) * uniforms(drawn, (1,), 1)[0]
        moves = strength * xp.sin(np.float32(2 * np.pi) * uniforms(drawn, (3, knots, knots, knots), 0))
        # The knots lie about the patch's centre; each voxel takes from the two next to it along every axis.
        start = np.float32(((knots - 1) * _STEP - (size - 1)) / 2)
        place = (np.arange(size, dtype=np.float32) + start) / np.float32(_STEP)
        hats = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(knots, dtype=np.float32))).astype(np.float32)
        for _ in range(3):  # each turn interpolates the first axis of the grid and moves it to the end
            moves = xp.tensordot(moves, xp.asarray(hats), axes=((1,), (1,)))
        line = xp.arange(size, dtype=np.float32) + np.float32(margin)
        at = [line.reshape([-1 if other == axis else 1 for other in range(3)]) + moves[axis] for axis in range(3)]
        return interpolated(patch, at, nearest=nearest)
