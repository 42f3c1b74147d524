"""What a run's label correction does to the label of each suspicious particle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from robpicker_jax.annotations.bounds import nearest_voxel
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.auditing.evidence import ball, radii_of
from robpicker_jax.labels import SphereLabels
from robpicker_jax.picking.inference import Reader

_BATCH = 4

Correct = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(images (n, z, y, x, 1), labels (n, z, y, x)) → corrected label maps (n, z, y, x, c)."""


def label_change(
    correct: Correct,
    tomogram: Reader,
    annotations: Particles,
    at: Particles,
    radii_vox: Sequence[float],
    patch_vox: int,
) -> np.ndarray:
    """How much label the correction adds (above 0) or removes (below 0) at particles, given the annotations.

    At each particle a patch of the tomogram is cut as in training, with a ball of its species' radius as the label of
    each annotation. The result is the mean, over the ball about the particle, of corrected minus given label of the
    particle's class: −1 where the correction erases the whole label, +1 where it adds a whole one.

    Args:
        correct: the correction.
        tomogram: normalised densities; mirrored at the far side of every axis that is shorter than a patch.
        annotations: the annotations of the tomogram.
        at: m particles, with labels from 1: annotated or missing ones.
        radii_vox: radius of each species, voxels.
        patch_vox: edge of the patches.

    Returns:
        float64 (m,), in [−1, 1].
    """
    shape = np.array(tomogram.shape_zyx)
    draw = SphereLabels(list(radii_vox)).bind(tomogram.shape_zyx, annotations)
    centres, radii = at.positions_vox[:, ::-1], radii_of(at, radii_vox)
    corners = np.clip(nearest_voxel(centres) - patch_vox // 2, 0, np.maximum(shape - patch_vox, 0))
    result = np.zeros(len(at))
    for start in range(0, len(at), _BATCH):
        rows = range(start, min(start + _BATCH, len(at)))
        images = np.zeros((_BATCH, *[patch_vox] * 3, 1), np.float32)  # one shape, so that it is compiled once
        labels = np.zeros((_BATCH, *[patch_vox] * 3), np.uint8)
        for place, row in enumerate(rows):
            z, y, x = (
                slice(int(low), int(high))
                for low, high in zip(corners[row], np.minimum(corners[row] + patch_vox, shape), strict=True)
            )
            images[place, ..., 0] = _filled(tomogram.read((z, y, x)), patch_vox)
            labels[place] = _filled(draw((z, y, x)), patch_vox)
        corrected = correct(images, labels)
        for place, row in enumerate(rows):
            label = int(at.labels[row])
            last = np.minimum(shape - corners[row], patch_vox) - 1
            part, inside = ball(centres[row] - corners[row], radii[row], np.zeros(3, int), last)
            change = corrected[place][part][..., label] - (labels[place][part] == label)
            result[row] = float(change[inside].mean()) if inside.any() else 0.0
    tomogram.release()
    return result


def _filled(part: np.ndarray, size: int) -> np.ndarray:
    """A cube of an edge of `size`, mirrored at the far sides that the part does not reach."""
    missing = [(0, size - edge) for edge in part.shape]
    return np.pad(part, missing, mode="symmetric") if any(count for _, count in missing) else part
