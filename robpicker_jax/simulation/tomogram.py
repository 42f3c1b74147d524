"""One simulated tomogram: particles → sample → tilt series → reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import SimulationConfig
from robpicker_jax.molecules import bead_density
from robpicker_jax.simulation.drawing import draw_sample
from robpicker_jax.simulation.placement import Outline, outline, place_particles
from robpicker_jax.simulation.reconstruction import reconstruct
from robpicker_jax.simulation.tilt_series import TiltSeries, take_tilt_series

_POSITIONS, _ORIENTATIONS, _NOISE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class SimulatedTomogram:
    """A simulated tomogram and its truth.

    Attributes:
        density: float32 (z, y, x), the reconstruction.
        particles: every particle, with label and rotation.
        sample: float32 (z, y, x), the protein density that was imaged, Da/Å³.
        series: the tilt series.
        beads_vox: (n, 3) x y z, centres of the gold beads, voxels.
    """

    density: np.ndarray
    particles: Particles
    sample: np.ndarray
    series: TiltSeries
    beads_vox: np.ndarray


def simulate_tomogram(
    densities: Sequence[np.ndarray],
    copies: Sequence[int],
    config: SimulationConfig,
    *,
    key: Sequence[int] = (),
    outlines: Sequence[Outline] | None = None,
) -> SimulatedTomogram:
    """Simulate a tomogram with particles at random positions, without overlap, in random orientations.

    Args:
        densities: odd cubes in Da/Å³, one a species (see `species_density`), on the grid of the tomogram.
        copies: particles of each species; species k has label k + 1.
        config: shape, voxel size, tilts, optics, noise, gold beads, seed.
        key: numbers that tell this tomogram from others of the same seed.
        outlines: of the densities, where they are known already (see `outline`).

    Raises:
        InputError: the particles and beads do not fit into the volume.
    """
    if outlines is None:
        outlines = [outline(density, margin_vox=config.min_gap_vox / 2) for density in densities]
    if config.beads:
        bead = Outline.ball(config.bead_diameter_angstrom / 2 / config.voxel_size_angstrom)
        outlines, copies = [*outlines, bead], [*copies, config.beads]
    rng = _generator(config, _POSITIONS, key)
    placed = place_particles(config.shape_zyx, outlines, copies, rng, min_gap_vox=config.min_gap_vox)
    is_bead = placed.labels > len(densities)
    beads_vox = placed.positions_vox[is_bead]
    return simulate_at(placed.select(~is_bead), densities, config, key=key, beads_vox=beads_vox)


def simulate_at(
    particles: Particles,
    densities: Sequence[np.ndarray],
    config: SimulationConfig,
    *,
    key: Sequence[int] = (),
    beads_vox: np.ndarray | None = None,
) -> SimulatedTomogram:
    """Simulate a tomogram with particles at given positions, for instance those of a real object list.

    Args:
        particles: positions and labels; orientations that are unknown are drawn at random.
        densities, config, key: as for `simulate_tomogram`; `config.beads` does not count.
        beads_vox: (n, 3) x y z, centres of gold beads.

    Raises:
        InputError: a label without a density.
    """
    particles = _with_rotations(particles, _generator(config, _ORIENTATIONS, key))
    sample = draw_sample(config.shape_zyx, particles, densities)
    beads_vox, contaminants = np.zeros((0, 3)) if beads_vox is None else np.asarray(beads_vox, float), None
    if len(beads_vox):
        beads = Particles(beads_vox, np.ones(len(beads_vox), int), rotations=np.tile(np.eye(3), (len(beads_vox), 1, 1)))
        bead = bead_density(config.bead_diameter_angstrom, config.voxel_size_angstrom)
        contaminants = draw_sample(config.shape_zyx, beads, [bead])
    series = take_tilt_series(sample, config, _generator(config, _NOISE, key), contaminants=contaminants)
    density = reconstruct(series, config.shape_zyx, phase_flip=config.ctf_correction == "phase_flip")
    return SimulatedTomogram(density, particles, sample, series, beads_vox)


def _with_rotations(particles: Particles, rng: np.random.Generator) -> Particles:
    drawn = random_rotations(len(particles), rng)
    if particles.rotations is None:
        return particles.with_(rotations=drawn)
    unknown = ~np.isfinite(particles.rotations).all(axis=(1, 2))
    return particles.with_(rotations=np.where(unknown[:, None, None], drawn, particles.rotations))


def _generator(config: SimulationConfig, stream: int, key: Sequence[int]) -> np.random.Generator:
    sequence = np.random.SeedSequence(config.seed, spawn_key=(stream, *(int(k) for k in key)))
    return np.random.default_rng(sequence)
