"""Components of voxels above a threshold, class by class, with limits of size and a region: DeePiCt's post-processing.

Source: de Teresa-Trueba et al., "Convolutional networks for supervised mining of molecular patterns within cellular context",
Nature Methods 20, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError

Region = Literal["centre", "intersection", "contact", "colocalisation"]


def threshold_components(
    scores: NDArray[np.floating],
    radii_vox: Sequence[float],
    mask: NDArray[np.bool_] | None,
    /,
    *,
    threshold: float = 0.5,
    border_vox: int | tuple[int, int, int] = 0,
    connectivity: int = 3,
    larger_than_vox: int = 0,
    max_cluster_vox: int | None = None,
    region: Region = "centre",
    contact_distance_vox: float = 10.0,
    rounded: bool = False,
    score: Literal["probability", "size"] = "probability",
) -> Particles:
    """The method `threshold_components`: voxels of a class above the threshold that touch are one particle.

    Each class is looked at on its own, so that a voxel may belong to several: this is for networks with one sigmoid a class.
    DeePiCt's settings: border_vox [10, 20, 10], larger_than_vox 100, rounded, score size.

    Args:
        scores: float (z, y, x, c), probabilities, class 0 the background.
        radii_vox: unused.
        mask: bool (z, y, x), the region; None: everywhere.
        threshold: a voxel belongs to the class where its probability is above this.
        border_vox: voxels nearer to a face than this belong to nothing; one number, or along x, y and z.
        connectivity: voxels touch by faces (1), also by edges (2), also by corners (3: 26 neighbours).
        larger_than_vox: components of at most so many voxels are dropped; `picking.min_cluster_vox` holds as well.
        max_cluster_vox: components of more voxels are dropped; None: none.
        region: what the mask does: `centre` keeps particles whose centre lies in it; `intersection` clears voxels outside
            before components are made; `contact` keeps components of which a voxel lies in it; `colocalisation` keeps those
            whose centre's voxel is within `contact_distance_vox` of it, by the largest difference along an axis.
        contact_distance_vox: for colocalisation, voxels.
        rounded: positions are rounded to whole voxels (halves to even ones).
        score: mean probability of the component's voxels, or their number.

    Raises:
        InputError: options out of range, or a mask of another shape.
    """
    where = "picking.clustering_options"
    if connectivity not in (1, 2, 3):
        raise InputError(f"must be 1, 2 or 3, got {connectivity}", where=f"{where}.connectivity")
    if not 0 <= threshold <= 1:
        raise InputError(f"must lie between 0 and 1, got {threshold}", where=f"{where}.threshold")
    borders = (border_vox,) * 3 if isinstance(border_vox, int) else border_vox[::-1]
    if min(borders) < 0:
        raise InputError("must not be negative", where=f"{where}.border_vox")
    if mask is not None and mask.shape != scores.shape[:3]:
        raise InputError(f"a mask of shape {mask.shape} for a tomogram of shape {scores.shape[:3]} (z, y, x)")
    shape: tuple[int, ...] = scores.shape[:3]
    allowed = np.zeros(shape, dtype=bool)
    allowed[tuple(slice(border, max(size - border, 0)) for border, size in zip(borders, shape, strict=True))] = True
    if mask is not None and region == "intersection":
        allowed &= mask
    parts = []
    for label in range(1, scores.shape[-1]):
        probability = scores[..., label]
        labels, count = ndimage.label(
            (probability > threshold) & allowed, ndimage.generate_binary_structure(3, connectivity)
        )
        sizes = np.bincount(labels.reshape(-1), minlength=count + 1)[1:]
        keep = (sizes > larger_than_vox) & (sizes <= (np.inf if max_cluster_vox is None else max_cluster_vox))
        if mask is not None and region == "contact":
            keep &= np.bincount(labels[mask], minlength=count + 1)[1:] > 0
        numbers = np.flatnonzero(keep) + 1
        centres = np.array(ndimage.center_of_mass(labels > 0, labels, numbers), np.float64).reshape(-1, 3)
        means = np.array(ndimage.mean(probability, labels, numbers), np.float64).reshape(-1)
        sizes = sizes[numbers - 1]
        if mask is not None and region == "colocalisation":
            near = _within(mask, contact_distance_vox)[tuple(np.rint(centres).astype(np.int64).T)]
            centres, means, sizes = centres[near], means[near], sizes[near]
        positions = centres[:, ::-1]
        parts.append(
            Particles(
                np.rint(positions) if rounded else positions,
                np.full(len(sizes), label, np.int32),
                scores=means if score == "probability" else sizes,
                cluster_sizes=sizes,
            )
        )
    return Particles.concatenate(parts)


def _within(mask: NDArray[np.bool_], distance: float) -> NDArray[np.bool_]:
    """Voxels whose largest difference along an axis to the nearest voxel of a mask is at most a distance."""
    if not mask.any():
        return np.zeros(mask.shape, dtype=bool)
    near: NDArray[np.bool_] = ndimage.distance_transform_cdt(~mask, metric="chessboard") <= distance
    return near
