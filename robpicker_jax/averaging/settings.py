"""What an averaging is told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from robpicker_jax.averaging.sums import WIENER


@dataclass(frozen=True)
class AveragingSettings:
    """How the particles of one class are averaged.

    Attributes:
        edge: edge of the boxes, voxels.
        radius_vox: radius of the particle; outside is background.
        iterations: alignments; 0 averages the particles as they are listed.
        first: how the first alignment searches: all orientations, or around those listed.
        angle_step_deg: step of the global search.
        local_angle_deg: first step of the local search in the first local iteration; halved from one to the next.
        shift_limit_vox: largest distance from where a particle was listed, on each axis.
        start_resolution_angstrom: to which a reference that both halves share is low-passed.
        keep: share of each half set that is averaged, the best by score.
        symmetry: point group.
        wiener: ε of the average, see `sums`.
        mask_threshold, dilation_vox, soft_edge_vox: see `masks.make_mask`.
        molecular_weight_kda: for the check of the mask.
        sign: −1 where particles are dark.
        seed: of the split into halves.
        batch: subtomograms in memory at once.
    """

    edge: int
    radius_vox: float
    iterations: int = 3
    first: Literal["global", "local"] = "local"
    angle_step_deg: float = 15.0
    local_angle_deg: float = 6.0
    shift_limit_vox: float = 4.0
    start_resolution_angstrom: float = 60.0
    keep: float = 1.0
    symmetry: str = "C1"
    wiener: float = WIENER
    mask_threshold: float | None = None
    dilation_vox: float = 1.0
    soft_edge_vox: float = 3.0
    molecular_weight_kda: float | None = None
    sign: float = 1.0
    seed: int = 0
    batch: int = 16

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, as the summary records them."""
        return dataclasses.asdict(self)


def default_edge(radius_vox: float) -> int:
    """Edge of the boxes where none is given: two diameters, the next even number with small prime factors."""
    edge = max(16, int(4 * radius_vox + 0.999))
    while edge % 2 or not _smooth(edge):
        edge += 1
    return edge


def _smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1
