"""Where patches are cut: particle-centred with a random shift, class-balanced, or anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.errors import InputError
from robpicker_jax.labels import Region
from robpicker_jax.patches.augmentation import Turn

Choice = Literal["particle", "species"]


@dataclass(frozen=True, eq=False)
class PatchTomogram:
    """One tomogram to cut patches from.

    Attributes:
        name: for messages.
        density: float32 (z, y, x), normalised; may be memory-mapped.
        particles: where patches are centred.
        labels: the label map, uint8 (z, y, x), or a function region → label map that draws it from coordinates when
            it is wanted (`LabelMaker.bind`): no memory for a map, some milliseconds a patch.

    Raises:
        InputError: a density that is not 3D, or a label map of another shape.
    """

    name: str
    density: np.ndarray
    particles: Particles
    labels: np.ndarray | Callable[[Region], np.ndarray]

    def __post_init__(self) -> None:
        if self.density.ndim != 3:
            raise InputError(f"density of shape {self.density.shape}; a tomogram has three axes", where=self.name)
        if isinstance(self.labels, np.ndarray) and self.labels.shape != self.density.shape:
            raise InputError(
                f"label map of shape {self.labels.shape}, tomogram of shape {self.density.shape}", where=self.name
            )

    def density_in(self, region: Region) -> np.ndarray:
        """The density in a box of the volume."""
        return self.density[region]

    def labels_in(self, region: Region) -> np.ndarray:
        """The label map of a box of the volume."""
        return self.labels[region] if isinstance(self.labels, np.ndarray) else self.labels(region)


@dataclass(frozen=True)
class PatchPlan:
    """Where one patch is cut and how it is turned.

    Attributes:
        tomogram: index of the tomogram.
        corner_zyx: first voxel of the patch.
        particle: index, within the tomogram, of the particle it was drawn for; −1 for a background patch.
        label: that particle's class label; 0 for a background patch.
        turn: turn that moves voxels onto voxels.
        rotation: (3, 3) rotation by interpolation before that, or None.
    """

    tomogram: int
    corner_zyx: tuple[int, int, int]
    particle: int
    label: int
    turn: Turn = field(default_factory=Turn)
    rotation: np.ndarray | None = None


class PatchSampler:
    """Draws places of cubic patches in a set of tomograms; a patch always lies inside its volume.

    Args:
        tomograms: at least one, none smaller than a patch.
        size: edge of the patches, voxels.

    Raises:
        InputError: no tomogram, or one smaller than a patch.
    """

    def __init__(self, tomograms: Sequence[PatchTomogram], size: int) -> None:
        if not tomograms:
            raise InputError("no tomograms to cut patches from")
        for tomogram in tomograms:
            if min(tomogram.density.shape) < size:
                raise InputError(
                    f"volume of shape {tomogram.density.shape} (z, y, x) is smaller than a patch of {size} voxels",
                    where=tomogram.name,
                    mend="reduce patches.size",
                )
        self.size = size
        self._last_corner = np.array([np.array(t.density.shape) - size for t in tomograms])
        places = (self._last_corner + 1).prod(axis=1).astype(np.float64)
        self._place_edges = np.cumsum(places) / places.sum()
        counts = [len(t.particles) for t in tomograms]
        self._tomogram = np.repeat(np.arange(len(tomograms)), counts)
        self._index = np.concatenate([np.arange(count) for count in counts])
        self._label = np.concatenate([t.particles.labels for t in tomograms])
        self._centre = np.rint(np.concatenate([t.particles.positions_vox for t in tomograms]))[:, ::-1].astype(int)
        self._by_species = [np.flatnonzero(self._label == label) for label in np.unique(self._label)]

    @property
    def n_particles(self) -> int:
        """Particles in all tomograms together."""
        return len(self._label)

    def background(self, rng: np.random.Generator) -> PatchPlan:
        """A patch uniformly anywhere in all tomograms together."""
        tomogram = int(np.searchsorted(self._place_edges, rng.random(), side="right"))
        tomogram = min(tomogram, len(self._place_edges) - 1)
        z, y, x = rng.integers(0, self._last_corner[tomogram] + 1).tolist()
        return PatchPlan(tomogram, (z, y, x), -1, 0)

    def around_particle(self, rng: np.random.Generator, choice: Choice, shift_vox: int) -> PatchPlan:
        """A patch around a particle, shifted at random, and moved inside the volume where it would stick out.

        Args:
            rng: random numbers.
            choice: "particle": every particle equally likely; "species": every species present equally likely, then
                every particle of it.
            shift_vox: largest shift along each axis, voxels.

        Raises:
            InputError: there are no particles.
        """
        if not self.n_particles:
            raise InputError("no particles to cut patches around", mend="check the annotations")
        if choice == "particle":
            chosen = int(rng.integers(self.n_particles))
        else:
            members = self._by_species[rng.integers(len(self._by_species))]
            chosen = int(members[rng.integers(len(members))])
        tomogram = int(self._tomogram[chosen])
        shift = rng.integers(-shift_vox, shift_vox + 1, 3)
        corner = np.clip(self._centre[chosen] + shift - self.size // 2, 0, self._last_corner[tomogram])
        z, y, x = corner.tolist()
        return PatchPlan(tomogram, (z, y, x), int(self._index[chosen]), int(self._label[chosen]))
