"""What a simulated data set consists of: its settings, and its tomograms one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.config import LabelNoiseConfig, SimulationConfig, Species
from robpicker_jax.datasets import SPLITS
from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class Placement:
    """A tomogram whose particles have the positions of an annotation file.

    Attributes:
        split: "train", "meta", "val" or "test".
        path: annotation file of any supported format; its positions and labels are used, and its angles if it has any.
        tomogram: the name of the one to take, if the file lists several.
    """

    split: str
    path: Path
    tomogram: str | None = None


@dataclass(frozen=True)
class DatasetRecipe:
    """All that a simulated data set is made from.

    Attributes:
        species: in the order of their class labels; each with a phantom or a density map.
        simulation: numbers of tomograms, their size, imaging, seed.
        label_noise: errors planted into the annotations of the splits that it names.
        placements: tomograms with particles at given positions, made instead of the `simulation.train` … `test` random
            ones; empty: the random ones.
    """

    species: tuple[Species, ...]
    simulation: SimulationConfig
    label_noise: LabelNoiseConfig = field(default_factory=LabelNoiseConfig)
    placements: tuple[Placement, ...] = ()

    def jobs(self) -> Iterator[Job]:
        """The tomograms to make, in order.

        Raises:
            InputError: a placement in an unknown split.
        """
        if self.placements:
            counts = dict.fromkeys(SPLITS, 0)
            for placement in self.placements:
                if placement.split not in counts:
                    raise InputError(f"unknown split {placement.split!r}", fix=f"use one of {', '.join(SPLITS)}")
                yield Job(placement.split, counts[placement.split], placement)
                counts[placement.split] += 1
            return
        for split in SPLITS:
            for index in range(getattr(self.simulation, split)):
                yield Job(split, index)

    def count(self) -> int:
        """How many tomograms the data set has."""
        return sum(1 for _ in self.jobs())


@dataclass(frozen=True)
class Job:
    """One tomogram to make.

    Attributes:
        split: "train", "meta", "val" or "test".
        index: its number within the split, from 0.
        placement: where its particles are; None: at random positions.
    """

    split: str
    index: int
    placement: Placement | None = None

    @property
    def name(self) -> str:
        """Name of its files without suffix."""
        return f"{self.split}_{self.index:03d}"

    @property
    def key(self) -> tuple[int, int]:
        """What selects its random streams: numbers of split and tomogram."""
        return SPLITS.index(self.split), self.index


def read_placement(placement: Placement, recipe: DatasetRecipe) -> Particles:
    """The particles of a placement.

    Raises:
        InputError: no such tomogram in the file, several tomograms and none named, or a position outside the volume.
    """
    labels = {species.name: k + 1 for k, species in enumerate(recipe.species)}
    particles = read_annotations(
        placement.path, voxel_size_angstrom=recipe.simulation.voxel_size_angstrom, class_labels=labels
    )
    names = [] if particles.tomograms is None else particles.tomograms.tolist()
    listed = sorted(set(names))
    if placement.tomogram is not None:
        if placement.tomogram not in listed:
            raise InputError(
                f"no particle of tomogram {placement.tomogram!r}",
                where=placement.path,
                fix=f"it lists {', '.join(listed) or 'no tomogram names'}",
            )
        particles = particles.select(np.array(names) == placement.tomogram)
    elif len(listed) > 1:
        raise InputError(f"lists several tomograms ({', '.join(listed)})", where=placement.path, fix="name one of them")
    last = np.array(recipe.simulation.shape_zyx[::-1]) - 1
    outside = ((particles.positions_vox < 0) | (particles.positions_vox > last)).any(axis=1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        position = " ".join(f"{value:g}" for value in particles.positions_vox[first])
        raise InputError(
            f"{outside.sum()} particles lie outside the volume, the first at x y z = {position}",
            where=placement.path,
            fix="set simulation.shape_zyx to the size of that tomogram",
        )
    return particles
