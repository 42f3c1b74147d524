"""What one reader reads, and what subjects are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.geometry import random_rotations

SHAPE_ZYX = (6, 7, 8)


@dataclass(frozen=True)
class Subject:
    """What one reader reads.

    Attributes:
        files: content of each file, by its path within the folder that the reader is given the `entry` of.
        entry: what the reader is given, a path within the folder.
        read: the reader.
    """

    files: dict[str, bytes]
    entry: str
    read: Callable[[Path], Any]


def some_particles(name: str) -> Particles:
    """Three particles of one tomogram."""
    rng = np.random.default_rng(0)
    return Particles(
        [[1.5, 2.25, 3.0], [4.0, 5.5, 2.0], [6.5, 3.0, 4.25]],
        [1, 2, 1],
        rotations=random_rotations(3, rng),
        scores=[0.9, 0.5, 0.25],
        cluster_sizes=[7, 8, 9],
        class_names=["ribosome", "apo", "ribosome"],
        tomograms=["TS_1"] * 3,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
