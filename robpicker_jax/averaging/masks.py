"""A mask from an average: threshold, largest component, filled, dilated; with a soft edge for FSC, sharp for labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from robpicker_jax.averaging.extraction import soft_ball, taper
from robpicker_jax.system.errors import InputError

ANGSTROM3_PER_DALTON = 1.21
"""Volume of protein per mass (0.81 Da/Å³ is its inverse, within 2 %)."""

PLAUSIBLE = (0.8, 2.5)
"""Mask volume over molecular volume that raises no question: a mask of a blurred density holds more than the protein."""

_BINS = 256


@dataclass(frozen=True, eq=False)
class ParticleMask:
    """The mask of a particle.

    Attributes:
        sharp: bool (edge, edge, edge), for labels.
        soft: float32 (edge, edge, edge) in [0, 1], for FSC.
        threshold: density at which the map was cut.
        volume_angstrom3: of the sharp mask.
        expected_angstrom3: 1.21 Å³/Da times the molecular weight; None where that is not known.
    """

    sharp: np.ndarray
    soft: np.ndarray
    threshold: float
    volume_angstrom3: float
    expected_angstrom3: float | None

    @property
    def ratio(self) -> float | None:
        """Volume over expected volume; None where the molecular weight is not known."""
        return None if self.expected_angstrom3 is None else self.volume_angstrom3 / self.expected_angstrom3

    def warning(self) -> str | None:
        """What is implausible about the volume, as one sentence."""
        if self.ratio is None or PLAUSIBLE[0] <= self.ratio <= PLAUSIBLE[1]:
            return None
        return (
            f"the mask's volume is {self.ratio:.2f} times that of the molecular weight (expected {PLAUSIBLE[0]} to "
            f"{PLAUSIBLE[1]}): look at the map before labels are made from it, or change --mask-threshold"
        )

    def as_dict(self) -> dict[str, Any]:
        """What the summary says of it."""
        return {
            "threshold": self.threshold,
            "voxels": int(self.sharp.sum()),
            "volume_angstrom3": self.volume_angstrom3,
            "volume_over_molecular_weight": self.ratio,
        }


def make_mask(
    average: np.ndarray,
    voxel_size_angstrom: float,
    radius_vox: float,
    *,
    threshold: float | None = None,
    dilation_vox: float = 1.0,
    soft_edge_vox: float = 3.0,
    molecular_weight_kda: float | None = None,
) -> ParticleMask:
    """The mask of an average's particle.

    Args:
        average: (edge, edge, edge), particle bright, centred on voxel edge // 2.
        voxel_size_angstrom: of the average.
        radius_vox: the particle is looked for within one and a half of this from the centre.
        threshold: standard deviations of the map outside that ball, as far as boxes show anything, above the mean there;
            None: Otsu's threshold of the voxels inside it.
        dilation_vox: how far the component is dilated, voxels; closed cavities are filled before.
        soft_edge_vox: width of the soft edge outside the sharp mask.
        molecular_weight_kda: for the check of the volume.

    Raises:
        InputError: nothing lies above the threshold.
    """
    edge = average.shape[0]
    near = soft_ball(edge, min(1.5 * radius_vox, edge / 2 - 1), 0.0) > 0.5
    if threshold is None:
        level = otsu(average[near])
    else:
        around = average[~near & (taper(edge) > 0)]  # beyond it the boxes were set to 0
        level = float(around.mean() + threshold * around.std())
    parts, count = ndimage.label((average >= level) & near)
    if not count:
        raise InputError("no voxel of the average lies above the threshold", fix="lower --mask-threshold")
    sizes = np.bincount(parts.ravel())[1:]
    core = ndimage.binary_fill_holes(parts == int(sizes.argmax()) + 1)
    sharp = np.asarray(ndimage.distance_transform_edt(~core) <= dilation_vox)
    distance = ndimage.distance_transform_edt(~sharp)
    soft = 0.5 + 0.5 * np.cos(math.pi * np.clip(distance / max(soft_edge_vox, 1e-6), 0, 1))
    expected = None if molecular_weight_kda is None else ANGSTROM3_PER_DALTON * 1000 * molecular_weight_kda
    volume = float(sharp.sum()) * voxel_size_angstrom**3
    return ParticleMask(sharp, soft.astype(np.float32), level, volume, expected)


def otsu(values: np.ndarray) -> float:
    """The threshold that parts values into two groups of the largest variance between them (Otsu 1979)."""
    counts, edges = np.histogram(values, _BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[::-1][1:]
    sums = np.cumsum(counts * centres)
    low = sums[:-1] / np.maximum(below, 1)
    high = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below.astype(np.float64) * above * (low - high) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))  # an empty stretch: its middle
    return float(edges[1:-1][best].mean())
