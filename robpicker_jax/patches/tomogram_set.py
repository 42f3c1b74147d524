"""Tomograms to cut patches from, and where in them a patch may lie.

Where a tomogram has a mask of the sample, particles outside it are never drawn, and patches drawn anywhere have their
central voxel inside. What a patch holds is left as it is: a patch that reaches over the mask's border keeps the density
and the labels there, since a label erased would teach that a particle is background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from robpicker_jax.annotations.bounds import in_mask, nearest_voxel
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.labels import Region
from robpicker_jax.system.errors import InputError


@runtime_checkable
class Density(Protocol):
    """Normalised densities (z, y, x) that are indexed by three slices: an array, or a tomogram that stays in its file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size in voxels, z y x."""
        ...

    def __getitem__(self, region: Any, /) -> Any:
        """Densities of a box, float32."""
        ...


@dataclass(frozen=True, eq=False)
class PatchTomogram:
    """One tomogram to cut patches from.

    Attributes:
        name: for messages.
        density: float32 (z, y, x), normalised; an array, or read from its file box by box.
        particles: where patches are centred.
        labels: the label map, uint8 (z, y, x), or a function region → label map that draws it from coordinates for
            each patch (`LabelMaker.bind`): no memory for a map, some milliseconds a patch.
        mask: bool (z, y, x), where the centres of patches may lie; None: everywhere.

    Raises:
        InputError: a density that is not 3D, or a label map or mask of another shape.
    """

    name: str
    density: Density
    particles: Particles
    labels: np.ndarray | Callable[[Region], np.ndarray]
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.density.shape) != 3:
            raise InputError(f"density of shape {self.density.shape}; a tomogram has three axes", where=self.name)
        for what, array in (("label map", self.labels), ("mask", self.mask)):
            if isinstance(array, np.ndarray) and array.shape != self.density.shape:
                raise InputError(
                    f"{what} of shape {array.shape}, tomogram of shape {self.density.shape}", where=self.name
                )

    def density_in(self, region: Region) -> np.ndarray:
        """The density in a box of the volume."""
        return np.asarray(self.density[region])

    def labels_in(self, region: Region) -> np.ndarray:
        """The label map of a box of the volume."""
        return self.labels[region] if isinstance(self.labels, np.ndarray) else self.labels(region)


@dataclass(frozen=True, eq=False)
class PatchPlan:
    """Where one patch is cut and how it is augmented.

    Attributes:
        tomogram: index of the tomogram.
        corner_zyx: first voxel of the patch.
        particle: index, within the tomogram, of the particle it was drawn for; −1 for a background patch.
        label: that particle's class label; 0 for a background patch.
        drawn: the random numbers of its augmentations (`Augmenter.draw`).
    """

    tomogram: int
    corner_zyx: tuple[int, int, int]
    particle: int
    label: int
    drawn: tuple[np.ndarray, ...] = ()


class _Corners:
    """The corners of patches whose central voxel lies in a mask, each equally likely; memory of one plane."""

    def __init__(self, mask: np.ndarray, size: int) -> None:
        half = size // 2
        z, y, x = (slice(half, half + n - size + 1) for n in mask.shape)
        self._centres = np.asarray(mask, dtype=bool)[z, y, x]
        self._planes = np.cumsum(self._centres.sum(axis=(1, 2), dtype=np.int64))
        self.count = int(self._planes[-1])

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int]:
        rank = int(rng.integers(self.count))
        z = int(np.searchsorted(self._planes, rank, side="right"))
        before = int(self._planes[z - 1]) if z else 0
        y, x = divmod(int(np.flatnonzero(self._centres[z])[rank - before]), self._centres.shape[2])
        return z, y, x


class TomogramSet:
    """What a sampler draws from: the particles and the voxels of a set of tomograms, those inside the masks.

    Patches that it gives always lie inside their volume.

    Args:
        tomograms: at least one, none smaller than a patch.
        size: edge of the patches, voxels.
        name: of the set, for messages.

    Attributes:
        labels: class label of each particle that patches can be drawn for, int (n,); particles are numbered by it.

    Raises:
        InputError: no tomogram, or one smaller than a patch.
    """

    def __init__(self, tomograms: Sequence[PatchTomogram], size: int, *, name: str = "set of tomograms") -> None:
        if not tomograms:
            raise InputError(f"the {name} has no tomograms to cut patches from")
        for tomogram in tomograms:
            if min(tomogram.density.shape) < size:
                raise InputError(
                    f"volume of shape {tomogram.density.shape} (z, y, x) is smaller than a patch of {size} voxels",
                    where=tomogram.name,
                    fix="reduce patches.size",
                )
        self.name, self.size = name, size
        self._last_corner = np.array([np.array(t.density.shape) - size for t in tomograms])
        self._corners = [None if t.mask is None else _Corners(t.mask, size) for t in tomograms]
        whole = (self._last_corner + 1).prod(axis=1)
        counts = np.array(
            [n if masked is None else masked.count for n, masked in zip(whole, self._corners, strict=True)], np.float64
        )
        self._edges = np.cumsum(counts) / max(counts.sum(), 1.0)
        indices = [np.flatnonzero(_in_mask(t)) for t in tomograms]
        self._tomogram = np.repeat(np.arange(len(tomograms)), [len(index) for index in indices])
        self._index = np.concatenate(indices)
        chosen = [t.particles.select(index) for t, index in zip(tomograms, indices, strict=True)]
        self.labels = np.concatenate([particles.labels for particles in chosen])
        self._centre = nearest_voxel(np.concatenate([particles.positions_vox for particles in chosen]))[:, ::-1]

    @property
    def n_particles(self) -> int:
        """Particles that patches can be drawn for, in all tomograms together: those inside the masks."""
        return len(self.labels)

    @property
    def by_tomogram(self) -> list[np.ndarray]:
        """Numbers of the particles of each tomogram."""
        return [np.flatnonzero(self._tomogram == tomogram) for tomogram in range(len(self._last_corner))]

    def require_particles(self) -> None:
        """Raise InputError where there is no particle to draw a patch for."""
        if not self.n_particles:
            raise InputError(f"the {self.name} has no particles", fix="check its annotations and masks")

    def anywhere(self, rng: np.random.Generator) -> PatchPlan:
        """A patch uniformly anywhere in all tomograms together, its central voxel in the mask where there is one.

        Raises:
            InputError: the masks leave no voxel for its centre.
        """
        if not self._edges[-1]:
            raise InputError(
                f"the masks leave no voxel for the centre of a patch of {self.size} voxels",
                fix="correct the masks (1 in the sample, 0 elsewhere) or reduce patches.size",
            )
        # Rounding may leave the last edge below 1. The edge of a tomogram without voxels repeats the one before it, so
        # that the search never returns that tomogram.
        draw = min(rng.random(), np.nextafter(self._edges[-1], 0.0))
        tomogram = int(np.searchsorted(self._edges, draw, side="right"))
        corners = self._corners[tomogram]
        if corners is None:
            z, y, x = rng.integers(0, self._last_corner[tomogram] + 1).tolist()
        else:
            z, y, x = corners.draw(rng)
        return PatchPlan(tomogram, (z, y, x), -1, 0)

    def around(self, particle: int, rng: np.random.Generator, shift_vox: int) -> PatchPlan:
        """A patch around a particle, shifted at random, and moved inside the volume where it would stick out.

        Args:
            particle: its number, an index of `labels`.
            rng: random numbers.
            shift_vox: largest shift along each axis, voxels; the shift is uniform.
        """
        tomogram = int(self._tomogram[particle])
        shift = rng.integers(-shift_vox, shift_vox + 1, 3)
        corner = np.clip(self._centre[particle] + shift - self.size // 2, 0, self._last_corner[tomogram])
        z, y, x = corner.tolist()
        return PatchPlan(tomogram, (z, y, x), int(self._index[particle]), int(self.labels[particle]))

    def holding(self, particle: int, rng: np.random.Generator) -> PatchPlan:
        """A patch that holds a particle's voxel, every one that lies in the volume equally likely.

        Args:
            particle: its number, an index of `labels`.
            rng: random numbers.
        """
        tomogram, centre = int(self._tomogram[particle]), self._centre[particle]
        last = self._last_corner[tomogram]
        low = np.clip(centre - self.size + 1, 0, last)
        z, y, x = rng.integers(low, np.clip(centre, 0, last) + 1).tolist()
        return PatchPlan(tomogram, (z, y, x), int(self._index[particle]), int(self.labels[particle]))


def _in_mask(tomogram: PatchTomogram) -> np.ndarray:
    """Which particles have the voxel nearest to them in the mask, bool (n,)."""
    if tomogram.mask is None:
        return np.ones(len(tomogram.particles), dtype=bool)
    return in_mask(tomogram.particles.positions_vox, tomogram.mask)
