"""Label maps from particle lists: spheres and rotated shapes, whole volumes and single patches.

2,500 particles of twelve species, oriented at random, in a volume of SHREC's size: time, memory, and what a patch costs
when its labels are cut from the list instead of from a stored map.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks._common import Row, main, peak_memory_mib, row, seconds
from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.labels import LabelMaker, ShapeLabels, SphereLabels

NAME = "labels"
SHAPE = (200, 512, 512)
PATCH = 64
RADII = [6.0, 6.0, 3.0, 6.0, 6.0, 7.0, 6.0, 4.0, 4.0, 3.0, 10.0, 8.0]
"""Radii of SHREC 2019's twelve species, voxels of 10 Å."""


def ellipsoid(radius: float, rng: np.random.Generator) -> np.ndarray:
    """Mask float32 (z, y, x) of an ellipsoid of that mean radius, its axes up to 1.5 times longer or shorter."""
    axes = radius * 1.5 ** rng.uniform(-1, 1, 3)
    edge = int(np.ceil(axes.max())) + 2
    grid = np.mgrid[-edge : edge + 1, -edge : edge + 1, -edge : edge + 1]
    inside: np.ndarray = np.sum([(g / a) ** 2 for g, a in zip(grid, axes, strict=True)], axis=0) <= 1
    return inside.astype(np.float32)


def particles(count: int, rng: np.random.Generator) -> Particles:
    """Particles of all species anywhere in the volume, oriented at random."""
    return Particles(
        rng.uniform(0, np.array(SHAPE[::-1]) - 1, (count, 3)),
        rng.integers(1, len(RADII) + 1, count).astype(np.int32),
        rotations=random_rotations(count, rng),
    )


def run(quick: bool) -> Iterator[Row]:
    """Rows of both kinds of labels."""
    rng = np.random.default_rng(0)
    makers: dict[str, LabelMaker] = {
        "spheres": SphereLabels(RADII),
        "rotated shapes": ShapeLabels([ellipsoid(radius, rng) for radius in RADII]),
    }
    for count in (2500,) if quick else (250, 2500, 25000):
        listed = particles(count, rng)
        for kind, maker in makers.items():
            case = f"{count:,} {kind} in {SHAPE}"
            yield row(NAME, case, "time", seconds(lambda: maker.labels(SHAPE, listed)), "s")  # noqa: B023
            _, peak = peak_memory_mib(lambda: maker.labels(SHAPE, listed))  # noqa: B023
            yield row(NAME, case, "peak memory", peak, "MiB", why="it is read from /proc")
            cut = maker.bind(SHAPE, listed)
            regions = [
                tuple(slice(start, start + PATCH) for start in rng.integers(0, np.array(SHAPE) - PATCH + 1))
                for _ in range(20)
            ]
            taken = seconds(lambda: [cut((z, y, x)) for z, y, x in regions])  # noqa: B023
            yield row(NAME, case, f"labels of one {PATCH}³ patch", taken / len(regions) * 1e3, "ms")


if __name__ == "__main__":
    main(NAME, run)
