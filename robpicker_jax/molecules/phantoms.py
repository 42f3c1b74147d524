"""Built-in phantoms: analytic stand-ins for well-known complexes, from 66 kDa to 3.3 MDa.

Each is drawn in Å as a union of solids less some holes, then scaled so that its volume is that of its molecular weight
at the density of protein, 0.81 Da/Å³ (1.35 g/cm³), and centred on its centre of mass. So all species have the same
density inside, as proteins have, and differ in size and shape. None has a symmetry, so every orientation is a
different picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from robpicker_jax.molecules.solids import Capsule, Cylinder, Ellipsoid, Solid, Torus, occupancy, ring
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.registry import look_up

PROTEIN_DENSITY = 0.81
"""Mass density of protein, Da/Å³."""

_EDGE = 3.0  # Å, softness of the surfaces
_FIT_STEP = 4.0  # Å, grid on which volume, centre and extent are measured
_FINE_STEP = 4.0  # Å, coarsest sampling within a voxel
_LARGEST_VOX = 320  # edge of a grid; at finer voxels the grid takes gigabytes, and no tomogram has them


@dataclass(frozen=True)
class Phantom:
    """One analytic phantom.

    Attributes:
        name: its name in configurations.
        molecular_weight_kda: its mass.
        title: what it stands for and how it looks.
        solids, holes: the drawing, in Å.
    """

    name: str
    molecular_weight_kda: float
    title: str
    solids: tuple[Solid, ...]
    holes: tuple[Solid, ...] = ()

    @property
    def radius_angstrom(self) -> float:
        """Radius of the ball of the same volume: the size for sphere labels."""
        return float((3 * self.molecular_weight_kda * 1000 / PROTEIN_DENSITY / (4 * math.pi)) ** (1 / 3))

    @property
    def bounding_radius_angstrom(self) -> float:
        """Radius of the ball about the centre of mass that holds the whole particle."""
        return _fit(self.name)[2]


PHANTOMS: dict[str, Phantom] = {
    phantom.name: phantom
    for phantom in (
        Phantom(
            "ribosome",
            3300,
            "80S ribosome: large and small subunit with a cleft, stalks and a beak",
            solids=(
                Ellipsoid((0, 0, 25), (112, 98, 78)),
                Ellipsoid((10, 30, 78), (58, 45, 40)),  # central protuberance
                Ellipsoid((-12, 0, -78), (104, 62, 44), spin_deg=18),
                Ellipsoid((78, 38, -66), (40, 32, 36)),  # head
                Capsule((95, 55, -60), (116, 66, -44), 14),  # beak
                Capsule((-90, 30, 40), (-128, 58, 46), 16),  # L1 stalk
                Capsule((90, -30, 30), (126, -54, 14), 15),  # P stalk
            ),
            holes=(Ellipsoid((0, 12, -36), (72, 40, 11)), Capsule((0, 0, 10), (-20, -20, 120), 10)),
        ),
        Phantom(
            "fatty_acid_synthase",
            2600,
            "fungal fatty acid synthase: a barrel of two unequal domes about a central wheel, hollow",
            solids=(
                Ellipsoid((0, 0, 0), (112, 112, 128)),
                Torus((0, 0, 0), 92, 26),
                Capsule((70, 40, 80), (92, 58, 98), 17),
            ),
            holes=(
                Ellipsoid((0, 0, 58), (72, 70, 46)),
                Ellipsoid((4, 0, -58), (62, 72, 48)),
                *(Capsule((0, 0, 62), (120 * math.cos(a), 120 * math.sin(a), 66), 17) for a in (0.2, 2.3, 4.4)),
                *(Capsule((0, 0, -62), (120 * math.cos(a), 120 * math.sin(a), -66), 17) for a in (1.1, 3.4, 5.2)),
            ),
        ),
        Phantom(
            "proteasome",
            1600,
            "26S proteasome with one cap: a four-ring barrel with a channel and an offset lid",
            solids=(
                Cylinder((0, 0, 0), 52, 70),
                *ring(7, 42, 56, (20, 21, 21), 8),
                *ring(7, 44, 19, (21, 22, 21)),
                *ring(7, 44, -19, (21, 22, 21), 16),
                *ring(7, 42, -56, (20, 21, 21), 8),
                *ring(6, 34, 94, (24, 22, 24)),  # base
                Ellipsoid((36, 14, 136), (52, 40, 34), (0.3, 0.1, 1.0)),
                Ellipsoid((62, -28, 108), (30, 34, 40)),  # lid, to one side
                Capsule((70, 10, 150), (90, 28, 120), 18),
            ),
            holes=(
                Cylinder((0, 0, 0), 13, 120),
                Ellipsoid((0, 0, 0), (26, 26, 24)),
                Ellipsoid((0, 0, -48), (22, 22, 16)),
            ),
        ),
        Phantom(
            "chaperonin",
            870,
            "GroEL-GroES: two stacked rings with a cavity, closed by a dome on one side only",
            solids=(
                *ring(7, 46, 37, (21, 24, 38)),
                *ring(7, 44, -37, (22, 24, 36), 12),
                Ellipsoid((0, 0, 84), (44, 44, 24)),
                Capsule((48, 12, 80), (66, 22, 62), 12),
            ),
            holes=(Ellipsoid((0, 0, 52), (30, 30, 34)), Ellipsoid((0, 0, -60), (26, 26, 34))),
        ),
        Phantom(
            "thyroglobulin",
            660,
            "thyroglobulin: a long, bent dimer with unequal arms",
            solids=(
                Ellipsoid((0, 0, 0), (46, 34, 34)),
                Ellipsoid((62, 14, 18), (44, 30, 27), (1.0, 0.2, 0.5), 90),
                Ellipsoid((-62, 16, -10), (40, 32, 28), (-1.0, 0.3, 0.2), 90),
                Capsule((88, 24, 28), (104, 54, 40), 22),
                Capsule((-88, 26, -12), (-92, 60, 8), 20),
            ),
        ),
        Phantom(
            "atp_synthase",
            600,
            "ATP synthase: a round head on a stalk with a foot and a side arm",
            solids=(
                *ring(6, 30, 70, (24, 25, 42), 10),
                Capsule((0, 0, 60), (4, 0, -60), 14),
                Cylinder((0, 0, -72), 36, 22),
                Ellipsoid((44, 6, -74), (30, 24, 26)),
                Capsule((52, 8, -60), (56, 6, 40), 10),
                Capsule((56, 6, 40), (24, 4, 118), 11),
            ),
        ),
        Phantom(
            "p97",
            540,
            "p97/Cdc48: a flat six-membered ring with a pore and one raised flank",
            solids=(
                *ring(6, 50, 10, (27, 27, 24)),
                *ring(6, 38, -22, (24, 22, 22), 20),
                Ellipsoid((62, 20, 42), (26, 22, 22)),
            ),
            holes=(Cylinder((0, 0, 0), 14, 70),),
        ),
        Phantom(
            "apoferritin",
            480,
            "apoferritin: a hollow ball, its shell thicker on one side and pierced on another",
            solids=(Ellipsoid((0, 0, 0), (62, 62, 62)), Ellipsoid((40, 10, 42), (22, 18, 16), (1, 0.3, 1))),
            holes=(Ellipsoid((-5, 0, -5), (41, 41, 41)), Capsule((0, 0, 0), (-70, 26, -20), 9)),
        ),
        Phantom(
            "beta_galactosidase",
            465,
            "beta-galactosidase: a flat diamond of four lobes, unequal",
            solids=(
                Ellipsoid((52, 16, 4), (44, 31, 28), spin_deg=20),
                Ellipsoid((-52, -14, -4), (44, 31, 28), spin_deg=25),
                Ellipsoid((14, -38, 14), (34, 30, 26), spin_deg=-30),
                Ellipsoid((-12, 40, -10), (36, 30, 28), spin_deg=-20),
            ),
            holes=(Capsule((0, 0, -60), (0, 0, 60), 8),),
        ),
        Phantom(
            "nucleosome",
            205,
            "nucleosome: a disc wrapped by a double ring, with a linker leaving it",
            solids=(
                Cylinder((0, 0, 0), 33, 20),
                Torus((0, 0, 13), 42, 11),
                Torus((0, 2, -13), 41, 11),
                Capsule((42, 0, 13), (62, 34, 22), 10),
                Capsule((40, 4, -13), (72, -20, -22), 10),
            ),
        ),
        Phantom(
            "hsp90",
            180,
            "Hsp90, open: a V of two unequal, kinked arms",
            solids=(
                Ellipsoid((0, 0, -42), (30, 20, 20)),
                Ellipsoid((24, 4, -14), (18, 20, 30), (0.4, 0.1, 1)),
                Ellipsoid((46, 8, 34), (20, 19, 30), (0.3, 0.2, 1)),
                Ellipsoid((-24, -4, -16), (18, 19, 28), (-0.4, 0.0, 1)),
                Ellipsoid((-40, 4, 24), (20, 19, 24), (-0.2, 0.4, 1)),
            ),
        ),
        Phantom(
            "albumin",
            66,
            "serum albumin: a small heart of three lobes",
            solids=(
                Ellipsoid((0, 0, -14), (20, 15, 17)),
                Ellipsoid((21, 3, 12), (17, 14, 20), (0.3, 0, 1)),
                Ellipsoid((-19, -4, 8), (16, 14, 16), (-0.4, 0.2, 1)),
            ),
        ),
    )
}
"""The phantoms by name, largest first."""


def get_phantom(name: str) -> Phantom:
    """The phantom called `name`.

    Raises:
        InputError: no such phantom; the message lists them.
    """
    return look_up(PHANTOMS, name, key="phantom")


def phantom_density(name: str, voxel_size_angstrom: float) -> np.ndarray:
    """Sample a phantom on a cubic grid centred on its centre of mass.

    Each voxel holds the mean over its volume, so any voxel size gives the same mass.

    Args:
        name: a key of `PHANTOMS`.
        voxel_size_angstrom: voxel size of the grid.

    Returns:
        float32 (n, n, n), odd n, in Da/Å³: the sum times the voxel volume is the molecular weight.

    Raises:
        InputError: no such phantom, or voxels so small that its grid would be wider than 320 of them.
    """
    phantom = get_phantom(name)
    centre, scale, extent = _fit(name)
    edge, least = 2 * extent / voxel_size_angstrom, math.ceil(200 * extent / _LARGEST_VOX) / 100
    if edge > _LARGEST_VOX:
        raise InputError(
            f"phantom {name}: at voxels of {voxel_size_angstrom:g} Å it is {edge:.0f} voxels wide, more than {_LARGEST_VOX}",
            fix=f"take voxels of {least:g} Å or more (a template is drawn at half of those)",
        )
    half = math.ceil(extent / voxel_size_angstrom)
    samples = max(1, math.ceil(voxel_size_angstrom / _FINE_STEP))
    size = 2 * half + 1
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    fine = (np.arange(-half, half + 1)[:, None] + offsets).reshape(-1) * (voxel_size_angstrom / scale)
    values = occupancy(fine + centre[0], fine + centre[1], fine + centre[2], phantom.solids, phantom.holes, _EDGE)
    density = values.reshape(size, samples, size, samples, size, samples).mean(axis=(1, 3, 5))
    mass = density.sum(dtype=np.float64) * voxel_size_angstrom**3
    return np.asarray(density * np.float32(phantom.molecular_weight_kda * 1000 / mass))


@cache
def _fit(name: str) -> tuple[tuple[float, float, float], float, float]:
    """Centre (x, y, z) of the drawing, the scale that gives it its volume, and its extent from the centre, in Å."""
    phantom = PHANTOMS[name]
    corners = np.array([solid.box for solid in phantom.solids])
    lower, upper = corners[:, 0].min(axis=0) - 4 * _EDGE, corners[:, 1].max(axis=0) + 4 * _EDGE
    axes = [np.arange(low, high, _FIT_STEP) for low, high in zip(lower, upper, strict=True)]
    values = occupancy(axes[0], axes[1], axes[2], phantom.solids, phantom.holes, _EDGE).astype(np.float64)
    total = float(values.sum())
    marginals = (values.sum(axis=(0, 1)), values.sum(axis=(0, 2)), values.sum(axis=(1, 2)))
    centre = [float(axis @ marginal) / total for axis, marginal in zip(axes, marginals, strict=True)]
    target = phantom.molecular_weight_kda * 1000 / PROTEIN_DENSITY
    scale = (target / (total * _FIT_STEP**3)) ** (1 / 3)
    kept = np.argwhere(values > 0.05)[:, ::-1] * _FIT_STEP + [axis[0] for axis in axes]
    extent = float(np.linalg.norm(kept - centre, axis=1).max() * scale)
    return (centre[0], centre[1], centre[2]), float(scale), extent
