"""Patches cut and augmented on the device, from tomograms in its memory.

Which patches a batch has and the random numbers of their augmentations are the host's draws (`BatchSource.plan`), so
that a batch is the same function of (seed, step) wherever it is cut; for each patch a few numbers go to the device.
The augmentations are the host's own code. Those that move voxels onto voxels give the host's patches bit for bit;
rotations by interpolation give them to rounding (densities to about 1e-5 of their range; a label differs only where a
voxel falls halfway between two, within that rounding).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.config import PatchConfig
from robpicker_jax.patches.arrays import Array
from robpicker_jax.patches.augmentation import Augmenter, reflected
from robpicker_jax.patches.tomogram_set import PatchPlan


class BatchPlan(NamedTuple):
    """Where n patches are cut, and the numbers of their augmentations; leaves may have further leading axes.

    Attributes:
        tomogram: int32 (n,), index of the tomogram.
        corner_zyx: int32 (n, 3), first voxel.
        drawn: for each augmentation the numbers of all patches, (n, …); `PatchPlan.drawn`.
    """

    tomogram: Array
    corner_zyx: Array
    drawn: tuple[Array, ...]

    @classmethod
    def of(cls, plans: Sequence[PatchPlan]) -> BatchPlan:
        """Of the plans of a batch."""
        return cls(
            np.array([plan.tomogram for plan in plans], np.int32),
            np.array([plan.corner_zyx for plan in plans], np.int32),
            tuple(np.stack(numbers) for numbers in zip(*(plan.drawn for plan in plans), strict=True)),
        )


class Stack(NamedTuple):
    """Tomograms of one set as one array, each from index 0 of its entry on every axis.

    Attributes:
        density: float32 (t, Z, Y, X), Z, Y, X being the largest edges.
        labels: uint8, of the same shape; None where labels are drawn from coordinates.
        shape_zyx: int32 (t, 3), size of each tomogram.
    """

    density: Array
    labels: Array | None
    shape_zyx: Array


def cut(volumes: Array, shapes: Array, plan: BatchPlan, config: PatchConfig, *, nearest: bool = False) -> jax.Array:
    """Augmented patches of a stack of volumes; to be called inside `jit`.

    Args:
        volumes: (t, Z, Y, X).
        shapes: int32 (t, 3), size of each volume in it.
        plan: of n patches.
        config: size of the patches, and the augmentations.
        nearest: True for label maps, False for densities.

    Returns:
        (n, size, size, size), of the type of `volumes`.
    """
    volumes, shapes, size = jnp.asarray(volumes), jnp.asarray(shapes), config.size
    augmenter = Augmenter(config.augment, size)
    margin = augmenter.margin

    def one(patch_plan: BatchPlan) -> jax.Array:
        if margin == 0:
            z, y, x = patch_plan.corner_zyx
            patch = jax.lax.dynamic_slice(volumes, (patch_plan.tomogram, z, y, x), (1, size, size, size))[0]
        else:
            reach = jnp.arange(-margin, size + margin, dtype=jnp.int32)
            last = shapes[patch_plan.tomogram] - 1
            z, y, x = (reflected(patch_plan.corner_zyx[axis] + reach, last[axis]) for axis in range(3))
            patch = volumes[patch_plan.tomogram, z[:, None, None], y[None, :, None], x[None, None, :]]
        return jnp.asarray(augmenter.apply(patch, patch_plan.drawn, nearest=nearest))

    return jax.vmap(one)(jax.tree.map(jnp.asarray, plan))
