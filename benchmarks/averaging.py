"""Subtomogram averages of simulated particles: time, FSC resolution with true and with refined poses, overlap of masks.

Two tomograms with a big, a medium and a small species, CTF and noise. "True poses" averages the particles as they were placed;
"refined poses" starts from positions off by a voxel or so and orientations off by several degrees, as template matching
leaves them, and aligns each half to its own average; "from a map" knows no orientations and starts from the true map,
low-passed to 60 Å.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Row, main, peak_memory_mib, row
from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.averaging import AveragingSettings, ParticleSet, Source, Transfer, finish, gather, iterate, start
from robpicker_jax.averaging.extraction import in_box
from robpicker_jax.averaging.job import peak_bytes
from robpicker_jax.averaging.results import AverageResult
from robpicker_jax.averaging.settings import default_edge
from robpicker_jax.config import SimulationConfig, Species
from robpicker_jax.molecules import get_phantom, species_density, species_mask
from robpicker_jax.rotations import local_covering, rotation_count
from robpicker_jax.simulation import Optics, SimulatedTomogram, simulate_tomogram
from robpicker_jax.volumes.volume import ArrayReader

NAME = "averaging"
SPECIES = ("ribosome", "proteasome", "hsp90")
VOXEL = 16.0
_WRONG_DEG, _WRONG_VOX = 8.0, 0.7


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases."""
    copies, shape, count = ([8, 10, 12], (48, 112, 112), 1) if quick else ([20, 25, 30], (72, 160, 160), 2)
    config = SimulationConfig(shape_zyx=shape, voxel_size_angstrom=VOXEL, snr=0.1, seed=3)
    species = [
        Species(name, get_phantom(name).radius_angstrom / VOXEL, phantom=name)
        for name in (SPECIES[:2] if quick else SPECIES)
    ]
    densities = [species_density(entry, VOXEL) for entry in species]
    simulated = [simulate_tomogram(densities, copies[: len(species)], config, key=(k,)) for k in range(count)]
    sources = _sources(simulated, config)
    for label, entry in enumerate(species, start=1):
        yield from _species(label, entry, densities[label - 1], simulated, sources, quick)


def _sources(simulated: list[SimulatedTomogram], config: SimulationConfig) -> list[Source]:
    optics = Optics.from_config(config)
    tilt = config.tilt_max_deg
    transfer = Transfer(-tilt, tilt, ctf=lambda k: np.abs(optics.ctf(k)))
    return [
        Source(f"tomogram {k}", ArrayReader(Path("memory.mrc"), one.density, (VOXEL,) * 3), transfer)
        for k, one in enumerate(simulated)
    ]


def _species(
    label: int,
    entry: Species,
    density: np.ndarray,
    simulated: list[SimulatedTomogram],
    sources: list[Source],
    quick: bool,
) -> Iterator[Row]:
    radius = 1.5 * entry.radius_vox
    edge = default_edge(radius)
    particles, _ = gather([one.particles.select(one.particles.labels == label) for one in simulated], sources, edge)
    common: dict[str, Any] = {"edge": edge, "radius_vox": radius, "sign": -1.0, "iterations": 1 if quick else 3}
    truth = in_box(species_mask(entry, VOXEL).astype(np.float32), edge) > 0.5
    reference = in_box(density, edge)
    cases: dict[str, tuple[ParticleSet, AveragingSettings, np.ndarray | None]] = {
        "true poses": (particles, AveragingSettings(**{**common, "iterations": 0}), None),
        "refined poses": (_displaced(particles), AveragingSettings(**common), None),
    }
    if not quick:
        lost = particles.with_(rotations=np.tile(np.eye(3), (len(particles), 1, 1)))
        cases["from a map"] = (lost, AveragingSettings(**common, first="global"), reference)
    for name, (listed, settings, given) in cases.items():
        case = f"{entry.name}, {name}"
        began = time.perf_counter()
        result, peak = peak_memory_mib(functools.partial(_average, listed, settings, given, sources))
        yield row(NAME, case, "time with compilation", time.perf_counter() - began, "s", particles=len(listed))
        for threshold in (0.143, 0.5):
            limit = result.fsc.resolution_angstrom(threshold)
            yield row(NAME, case, f"FSC {threshold}", limit, "Å", why="the halves do not agree")
        found = result.mask.sharp
        yield row(NAME, case, "mask, IoU with the true shape", (found & truth).sum() / (found | truth).sum(), "")
        if particles.rotations is not None and name != "true poses":
            errors = rotation_angle_deg(result.particles.rotations, particles.rotations)
            shifts = np.linalg.norm(result.particles.positions_vox - particles.positions_vox, axis=1)
            yield row(NAME, case, "median error of orientations", float(np.median(errors)), "degrees")
            yield row(NAME, case, "median error of positions", float(np.median(shifts)), "voxels")
        searched = rotation_count(settings.angle_step_deg)
        bound = peak_bytes(settings, searched if settings.first == "global" else 0) / 2**20
        yield row(NAME, case, "peak memory", peak, "MiB", why="peak memory is read from /proc", bound_mib=round(bound))


def _average(
    listed: ParticleSet, settings: AveragingSettings, reference: np.ndarray | None, sources: list[Source]
) -> AverageResult:
    def ignore(_: int) -> None:
        return None

    last = start(sources, listed, settings, VOXEL, ignore)
    for _ in range(settings.iterations):
        last = iterate(last, sources, settings, VOXEL, ignore, reference=reference)
    return finish(last, settings, VOXEL)


def _displaced(particles: ParticleSet) -> ParticleSet:
    """Poses off by up to 8 degrees, and by 0.7 voxels (standard deviation) along each axis."""
    rng = np.random.default_rng(0)
    turns = local_covering(_WRONG_DEG, 2.0)
    wrong = particles.rotations @ turns[rng.integers(0, len(turns), len(particles))]
    moved = particles.listed_vox + rng.normal(0, _WRONG_VOX, (len(particles), 3))
    return particles.with_(rotations=wrong, listed_vox=moved, positions_vox=moved.copy())


if __name__ == "__main__":
    main(NAME, run)
