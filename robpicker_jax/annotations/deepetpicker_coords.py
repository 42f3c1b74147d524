"""DeepETPicker's `.coords`: `class x y z`, tab-separated, voxels from 0."""

from __future__ import annotations

from pathlib import Path

from robpicker_jax.annotations import coords
from robpicker_jax.annotations.particles import Particles

read = coords.read


def write(path: Path, particles: Particles) -> None:
    """Write DeepETPicker's `class x y z`."""
    coords.write_rows(path, particles, "xyz", labels=True)
