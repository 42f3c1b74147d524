"""Subtomogram averages of simulated particles: time, FSC resolution with true and with refined poses, overlap of masks.

Two tomograms with a big, a medium and a small species, CTF and noise. "True poses" averages the particles as they were placed;
"refined poses" starts from positions off by a voxel or so and orientations off by several degrees, as template matching
leaves them, and aligns each half to its own average; "from a map" knows no orientations and starts from the true map,
low-passed to 60 Å. The same is done at a lower signal-to-noise ratio, where noise ends the resolution before the voxels do.

The limit of what true poses can give is derived without comparing halves. The simulation is linear, so each tomogram is
the sum of a noiseless one and its noise, and both are averaged in the true poses like the tomogram itself. In shell s let c
be the coefficient of the true map T in the noiseless average A. Then c² Σ|T|² is signal; what the half averages have besides,
A_h − c T of the noiseless tomograms (neighbours, and the unequal views of few particles) and the averaged noise, is error
with power E in one half, and halves of such error agree by

    FSC(s) = c² Σ|T|² / (c² Σ|T|² + E),

all under the mask of the measured FSC. The limit is where this falls below 0.143, or two voxels.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Row, main, peak_memory_mib, row
from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.averaging import AveragingSettings, ParticleSet, Source, Transfer, finish, gather, iterate, start
from robpicker_jax.averaging.extraction import box_centres, cut, in_box, taper
from robpicker_jax.averaging.job import peak_bytes
from robpicker_jax.averaging.resolution import fourier_shells, resolution_angstrom
from robpicker_jax.averaging.results import AverageResult
from robpicker_jax.averaging.settings import default_edge
from robpicker_jax.averaging.sums import Sums
from robpicker_jax.config import SimulationConfig, Species
from robpicker_jax.molecules import get_phantom, species_density, species_mask
from robpicker_jax.rotations import local_covering, rotation_count
from robpicker_jax.simulation import Optics, simulate_at, simulate_tomogram
from robpicker_jax.volumes.volume import ArrayReader

NAME = "averaging"
SPECIES = ("ribosome", "proteasome", "hsp90")
VOXEL = 16.0
_SNR = (0.1, 0.02)
_WRONG_DEG, _WRONG_VOX = 8.0, 0.7


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases."""
    copies, shape, count = ([8, 10, 12], (48, 112, 112), 1) if quick else ([20, 25, 30], (72, 160, 160), 2)
    species = [
        Species(name, get_phantom(name).radius_angstrom / VOXEL, phantom=name)
        for name in (SPECIES[:2] if quick else SPECIES)
    ]
    densities = [species_density(entry, VOXEL) for entry in species]
    for snr in _SNR:
        config = SimulationConfig(shape_zyx=shape, voxel_size_angstrom=VOXEL, snr=snr, seed=3)
        tomograms = _simulated(densities, copies[: len(species)], config, count)
        for label, entry in enumerate(species, start=1):
            yield from _species(label, entry, densities[label - 1], tomograms, quick)


@dataclass(frozen=True)
class _Tomograms:
    """Simulated tomograms, and what they are the sum of.

    Attributes:
        snr: signal-to-noise ratio of the projections.
        particles: of each tomogram.
        whole, clean, noise: the tomograms, and each without noise, and the noise alone.
    """

    snr: float
    particles: list[Particles]
    whole: list[Source]
    clean: list[Source]
    noise: list[Source]


def _simulated(densities: list[np.ndarray], copies: list[int], config: SimulationConfig, count: int) -> _Tomograms:
    noisy = [simulate_tomogram(densities, copies, config, key=(k,)) for k in range(count)]
    quiet = replace(config, noise="none")
    clean = [simulate_at(one.particles, densities, quiet, key=(k,)).density for k, one in enumerate(noisy)]
    optics = Optics.from_config(config)
    tilt = config.tilt_max_deg
    transfer = Transfer(-tilt, tilt, ctf=lambda k: np.abs(optics.ctf(k)))

    def sources(volumes: list[np.ndarray]) -> list[Source]:
        return [
            Source(f"tomogram {k}", ArrayReader(Path("memory.mrc"), volume, (VOXEL,) * 3), transfer)
            for k, volume in enumerate(volumes)
        ]

    noise = [one.density - other for one, other in zip(noisy, clean, strict=True)]
    whole = [one.density for one in noisy]
    return _Tomograms(config.snr, [one.particles for one in noisy], sources(whole), sources(clean), sources(noise))


def _species(
    label: int,
    entry: Species,
    density: np.ndarray,
    tomograms: _Tomograms,
    quick: bool,
) -> Iterator[Row]:
    sources = tomograms.whole
    radius = 1.5 * entry.radius_vox
    edge = default_edge(radius)
    particles, _ = gather([one.select(one.labels == label) for one in tomograms.particles], sources, edge)
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
        case = f"{entry.name}, SNR {tomograms.snr:g}, {name}"
        began = time.perf_counter()
        result, peak = peak_memory_mib(functools.partial(averaged, listed, sources, settings, VOXEL, given))
        yield row(NAME, case, "time with compilation", time.perf_counter() - began, "s", particles=len(listed))
        for threshold in (0.143, 0.5):
            limit = result.fsc.resolution_angstrom(threshold)
            yield row(NAME, case, f"FSC {threshold}", limit, "Å", why="the halves do not agree")
        if name == "true poses":
            limit = limit_angstrom(particles, tomograms.clean, tomograms.noise, reference, result.mask.soft, settings)
            yield row(NAME, case, "limit of FSC 0.143", limit, "Å")
            shells = abs(edge * VOXEL / limit - edge * VOXEL / result.fsc.resolution_angstrom(0.143))
            yield row(NAME, case, "FSC 0.143 from the limit", shells, "shells", why="the halves do not agree")
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


def limit_angstrom(
    particles: ParticleSet,
    clean: list[Source],
    noise: list[Source],
    truth: np.ndarray,
    mask: np.ndarray,
    settings: AveragingSettings,
) -> float:
    """Where the FSC of true poses falls below 0.143 by construction, Å; see the module's description.

    Args:
        particles: with their true poses.
        clean, noise: the tomograms without noise, and their noise alone.
        truth: (edge, edge, edge), the true map.
        mask: of the FSC.
        settings: of the average.
    """
    signals = [_half(particles, half, clean, settings) for half in (1, 2)]
    errors = [_half(particles, half, noise, settings) for half in (1, 2)]
    edge = settings.edge
    wanted = _by_shell(truth * mask, truth * mask)
    both = (signals[0] + signals[1]) / 2
    share = _by_shell(both * mask, truth * mask) / np.maximum(wanted, 1e-30)
    power = share**2 * wanted
    error = np.zeros(edge // 2)
    for signal, other in zip(signals, errors, strict=True):
        unlike = _by_shell(signal * mask, signal * mask) - 2 * share * _by_shell(signal * mask, truth * mask) + power
        error += (unlike + _by_shell(other * mask, other * mask)) / 2
    expected = power / np.maximum(power + error, 1e-30)
    return resolution_angstrom(expected, edge, VOXEL, 0.143)


def _half(particles: ParticleSet, half: int, sources: list[Source], settings: AveragingSettings) -> np.ndarray:
    """The average of a half set in its poses, of boxes that are not normalised: a linear map of the tomograms."""
    sums, soft = Sums.empty(settings.edge), taper(settings.edge)
    for number, source in enumerate(sources):
        members = particles.members(half, number)
        centres, offsets = box_centres(particles.positions_vox[members])
        for first in range(0, len(members), settings.batch):
            now = slice(first, first + settings.batch)
            volumes = np.zeros((settings.batch, *(settings.edge,) * 3), np.float32)
            moved = np.zeros((settings.batch, 3), np.float32)
            for place, (centre, offset) in enumerate(zip(centres[now], offsets[now], strict=True)):
                volumes[place] = settings.sign * soft * cut(source.reader, centre, settings.edge)
                moved[place] = offset
            sums.add(volumes, moved, particles.rotations[members[now]], source.transfer, VOXEL)
    return sums.average(settings.wiener)


def _by_shell(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Re Σ F₁ F₂* of each shell, (edge // 2,)."""
    edge = one.shape[0]
    shells, twice = fourier_shells(edge)
    product = np.fft.rfftn(one.astype(float)) * np.fft.rfftn(other.astype(float)).conj()
    return np.bincount(shells, (product.real * twice).ravel())[: edge // 2]


def averaged(
    listed: ParticleSet,
    sources: Sequence[Source],
    settings: AveragingSettings,
    voxel_size: float,
    reference: np.ndarray | None,
) -> AverageResult:
    """The average after all iterations of its settings."""

    def ignore(_: int) -> None:
        return None

    last = start(sources, listed, settings, voxel_size, ignore)
    for _ in range(settings.iterations):
        last = iterate(last, sources, settings, voxel_size, ignore, reference=reference)
    return finish(last, settings, voxel_size)


def _displaced(particles: ParticleSet) -> ParticleSet:
    """Poses off by up to 8 degrees, and by 0.7 voxels (standard deviation) along each axis."""
    rng = np.random.default_rng(0)
    turns = local_covering(_WRONG_DEG, 2.0)
    wrong = particles.rotations @ turns[rng.integers(0, len(turns), len(particles))]
    moved = particles.listed_vox + rng.normal(0, _WRONG_VOX, (len(particles), 3))
    return particles.with_(rotations=wrong, listed_vox=moved, positions_vox=moved.copy())


if __name__ == "__main__":
    main(NAME, run)
