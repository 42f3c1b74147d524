"""DeepETPicker's `.coords`: `class x y z`, tab-separated, voxels from 0."""

from __future__ import annotations

from pathlib import Path

from robpicker_jax.annotations import coords
from robpicker_jax.annotations.format import AXES, ORDER_XYZ, Format
from robpicker_jax.annotations.particles import Particles


def write(path: Path, particles: Particles) -> None:
    """Write DeepETPicker's `class x y z`."""
    coords.write_rows(path, particles, "xyz", labels=True)


FORMAT = Format(
    name="deepetpicker",
    title="DeepETPicker coordinates, class x y z",
    suffixes=(".coords",),
    read=coords.read,
    write=write,
    keeps=frozenset({"labels"}),
    options={"axes": AXES},
    assumptions=(ORDER_XYZ,),
)
