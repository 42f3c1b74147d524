"""Augmentations of patches, by name, and what each does to the missing wedge and to handedness.

A tilt series about y leaves a wedge of Fourier space about the z axis, in x–z, unmeasured. A network sees its streaks
in every patch, so an augmentation that turns the wedge shows it data that no microscope gives:

| name | transformation | wedge | handedness | default |
| --- | --- | --- | --- | --- |
| rotate_180 | identity or half-turn about x, y or z | kept | kept | on |
| flip | mirror images along the axes | kept | changed: the mirror image of a protein does not exist | off |
| rotate_z90 | quarter turns about z | turned: the tilt axis goes from y to x | kept | off |
| rotate_any | any rotation | turned, and the image is interpolated | kept | off |
| elastic | smooth displacements of up to 3 voxels | its border blurred, and the image interpolated | kept | off |
| rotate_tilt | identity or half-turn about the tilt axis y, DeepFinder's | kept | kept | off |
| deepict | DeePiCt's rounds: half-turn about z, noise, grains; one patch in four as it is | filled | kept | off |
| noise | normal noise of a random strength | filled | kept | off |
| salt_pepper | a hundredth of the voxels lighter or darker | filled | kept | off |
| standardise | each patch to mean 0 and variance 1, DeepFinder's | kept | kept | off |

The half-turns with the identity are the largest group of rotations that keeps both.

Each augmentation is one piece of code for NumPy arrays (patches cut on the host) and for JAX arrays under `jit` and
`vmap` (patches cut on a device): it takes its functions from the patch's own array namespace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.patches.arrays import Array, interpolated, namespace, select
from robpicker_jax.patches.elastic import Elastic
from robpicker_jax.patches.intensity import GaussianNoise, SaltAndPepper, Standardisation
from robpicker_jax.system.registry import look_up


class Augmentation(Protocol):
    """The contract of an augmentation: random numbers drawn on the host, then a function of patch and numbers.

    To add one, write a class with these three methods and put an instance into `AUGMENTATIONS`; configurations then
    name it in `patches.augment`.
    """

    def margin(self, size: int) -> int:
        """Voxels that `apply` needs beyond each face of a patch of edge `size`; 0 unless it resamples the patch."""
        ...

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the numbers of one patch: an array whose shape and type are always the same."""
        ...

    def apply(self, patch: Array, drawn: Array, *, size: int, nearest: bool) -> Array:
        """Transform a patch.

        Args:
            patch: (n, n, n), axes z y x, n = size + 2 margin: a NumPy array, or a JAX array that may be traced.
            drawn: what `draw` gave, of the same kind of array.
            size: edge of the result, voxels.
            nearest: True for label maps, whose values must not be mixed; False for densities.

        Returns:
            (size, size, size), of the patch's type.
        """
        ...


# Axes (z, y, x) that are reversed by: nothing, a half-turn about x, about y, about z.
_HALF_TURNS = np.array([(0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)], bool)


class _Reversal:
    """Reversal of axes: `drawn` is bool (3,), which of z, y, x are reversed."""

    def margin(self, size: int) -> int:
        return 0

    def apply(self, patch: Array, drawn: Array, *, size: int, nearest: bool) -> Array:
        for axis in range(3):
            patch = select(drawn[axis], [patch, namespace(patch).flip(patch, axis)])
        return patch


class HalfTurn(_Reversal):
    """The identity or a half-turn about x, y or z, each equally likely."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(_HALF_TURNS[rng.integers(4)])


class TiltAxisTurn(_Reversal):
    """The identity or the half-turn about the tilt axis y, equally likely."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(_HALF_TURNS[2 * rng.integers(2)])


class Flip(_Reversal):
    """Each axis reversed with probability one half."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 2, 3).astype(bool)


class QuarterTurn:
    """0 to 3 quarter turns about z, from x towards y, each equally likely."""

    def margin(self, size: int) -> int:
        return 0

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(rng.integers(4), np.int32)

    def apply(self, patch: Array, drawn: Array, *, size: int, nearest: bool) -> Array:
        return select(drawn, [namespace(patch).rot90(patch, k, axes=(2, 1)) for k in range(4)])


class Rotation:
    """A uniformly random rotation about the patch's centre: out(r) = patch(Rᵀ r), r from the centre.

    Densities are interpolated trilinearly, labels take the nearest voxel. Coordinates are float32 and count from the
    patch's corner, so that their rounding does not grow with the tomogram.
    """

    def margin(self, size: int) -> int:
        return math.ceil((size - 1) / 2 * (math.sqrt(3) - 1)) + 1  # up to the ball about the patch

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(random_rotations(1, rng)[0], np.float32)

    def apply(self, patch: Array, drawn: Array, *, size: int, nearest: bool) -> Array:
        xp, edge = namespace(patch), patch.shape[0]
        line = xp.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
        back = drawn.T[::-1, ::-1]  # Rᵀ, on vectors z y x instead of x y z
        along_z, along_y, along_x = line[:, None, None], line[None, :, None], line[None, None, :]
        at = [row[0] * along_z + row[1] * along_y + row[2] * along_x + np.float32((edge - 1) / 2) for row in back]
        return interpolated(patch, at, nearest=nearest)


class Rounds:
    """DeePiCt's rounds: one patch in four as it is, the others with the half-turn about z every second time, noise, and grains.

    DeePiCt stores a data set several times over, the first time untouched. `drawn` is uint32 (4,): whether the patch is
    changed, whether it is turned, and the seed of its noise.
    """

    def margin(self, size: int) -> int:
        return 0

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        changed, turned = rng.integers(4) > 0, rng.integers(2)
        return np.array([changed, turned, *rng.integers(0, 2**32, 2)], np.uint32)

    def apply(self, patch: Array, drawn: Array, *, size: int, nearest: bool) -> Array:
        xp = namespace(patch)
        changed, turned = drawn[0].astype(np.int32), drawn[1].astype(np.int32)
        other = select(turned, [patch, xp.flip(patch, (1, 2))])
        for part in (GaussianNoise(), SaltAndPepper()):
            other = part.apply(other, drawn[2:], size=size, nearest=nearest)
        return select(changed, [patch, other])


AUGMENTATIONS: dict[str, Augmentation] = {
    "rotate_any": Rotation(),
    "elastic": Elastic(),
    "rotate_180": HalfTurn(),
    "rotate_tilt": TiltAxisTurn(),
    "flip": Flip(),
    "rotate_z90": QuarterTurn(),
    "deepict": Rounds(),
    "noise": GaussianNoise(),
    "salt_pepper": SaltAndPepper(),
    "standardise": Standardisation(),
}
"""The augmentations by the names that `patches.augment` uses, in the order in which they are drawn and applied."""


class Augmenter:
    """The augmentations of a configuration, one after the other.

    The order of the names does not matter: augmentations are drawn and applied in the order of `AUGMENTATIONS`.

    Args:
        names: keys of `AUGMENTATIONS`, as in `patches.augment`.
        size: edge of the finished patches, voxels.

    Raises:
        InputError: an unknown name; the message lists the known ones.
    """

    def __init__(self, names: Sequence[str], size: int) -> None:
        for name in names:
            look_up(AUGMENTATIONS, name, key="patches.augment")
        self._steps = [augmentation for name, augmentation in AUGMENTATIONS.items() if name in names]
        self._sizes: list[int] = []  # edge of each augmentation's result
        edge = size
        for step in reversed(self._steps):
            self._sizes.insert(0, edge)
            edge += 2 * step.margin(edge)
        self.margin = (edge - size) // 2
        """Voxels that a patch must have beyond each of its faces before it is augmented."""

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """The random numbers of one patch, an array for each augmentation."""
        return tuple(step.draw(rng) for step in self._steps)

    def apply(self, patch: Array, drawn: Sequence[Array], *, nearest: bool) -> Array:
        """Augment one patch.

        Args:
            patch: (n, n, n), n = size + 2 `margin`; NumPy or JAX.
            drawn: what `draw` gave.
            nearest: True for label maps, False for densities.

        Returns:
            (size, size, size), of the patch's type; for NumPy input it may be a view.
        """
        for step, numbers, size in zip(self._steps, drawn, self._sizes, strict=True):
            patch = step.apply(patch, numbers, size=size, nearest=nearest)
        return patch


def reflected(index: Array, last: Array | int) -> Array:
    """Voxel indices along an axis, those beyond its ends reflected about its first and last voxel, once.

    Args:
        index: integers; at most `last` beyond either end.
        last: index of the last voxel.
    """
    xp = namespace(index)
    index = xp.abs(index)
    inside: Array = xp.clip(xp.where(index > last, 2 * last - index, index), 0, last)
    return inside
