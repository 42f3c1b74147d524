"""Iterations of alignment and averaging, in two half sets that never see each other's reference.

The halves share two things: the reference of the first iteration where a map is given, low-passed to at least
`start_resolution_angstrom`; and the FSC curve, by which both filter their references, as in RELION. Where the lists give
orientations and no map is given, not even the first reference is shared: each half averages its own particles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.averaging.alignment import Aligner, LocalSearch, Poses
from robpicker_jax.averaging.extraction import boxes, soft_ball
from robpicker_jax.averaging.particle_set import ParticleSet, Source
from robpicker_jax.averaging.resolution import (
    THRESHOLDS,
    ShellCorrelation,
    figure_of_merit,
    fourier_shells,
    low_pass,
    masked_correlation,
    weighted_by_shell,
)
from robpicker_jax.averaging.settings import AveragingSettings
from robpicker_jax.averaging.sums import Sums
from robpicker_jax.rotations import covering, point_group

HALVES = (1, 2)

_MASK_SHARE = 1.25  # of the radius: what of a reference is compared
_MASK_EDGE_VOX = 3.0
_SMALLEST_ANGLE_DEG = 1.0
_COARSE_LEVELS, _FINE_LEVELS = 2, 5
_WHITENING_FLOOR = 0.01

Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Iteration:
    """What an iteration leaves to the next.

    Attributes:
        number: 0 for the particles as they are listed.
        particles: with their poses.
        sums: of the two halves.
        power: mean power of the subtomograms of both halves by shell, (2, edge // 2): the whitening of each half is its own.
        fsc: of the halves, under a soft ball.
    """

    number: int
    particles: ParticleSet
    sums: tuple[Sums, Sums]
    power: np.ndarray
    fsc: ShellCorrelation


def start(
    sources: Sequence[Source], particles: ParticleSet, settings: AveragingSettings, voxel_size: float, advance: Advance
) -> Iteration:
    """Iteration 0: the averages of both halves in the poses that the lists give."""
    return _averaged(0, sources, particles, settings, voxel_size, advance)


def iterate(
    before: Iteration,
    sources: Sequence[Source],
    settings: AveragingSettings,
    voxel_size: float,
    advance: Advance,
    *,
    reference: np.ndarray | None = None,
) -> Iteration:
    """Align every particle to its half's reference, discard by score, average.

    Args:
        before: the iteration before.
        sources: the tomograms.
        settings: the settings.
        voxel_size: of the tomograms, Å.
        advance: told how many particles were done.
        reference: (edge, edge, edge), for the first iteration: a map that both halves start from.
    """
    number, particles = before.number + 1, before.particles
    searching = number == 1 and settings.first == "global"
    found = particles
    for half in HALVES:
        whitening = _whitening(before.power[half - 1])
        box, resolution = _reference(before, half, settings, voxel_size, reference if number == 1 else None)
        plan = _Plan.of(settings, number, resolution, voxel_size)
        coarse = Aligner(
            box, plan.coarse_resolution, voxel_size, whitening=whitening, shift_limit_vox=settings.shift_limit_vox
        )
        fine = Aligner(box, resolution, voxel_size, whitening=whitening, shift_limit_vox=settings.shift_limit_vox)
        rotations = covering(settings.angle_step_deg, settings.symmetry) if searching else None
        found = _aligned(found, half, sources, settings, plan, coarse, fine, rotations, advance)
    return _averaged(number, sources, _discarded(found, settings.keep), settings, voxel_size, advance)


@dataclass(frozen=True)
class _Plan:
    """Steps of one iteration: a global search as fine as its angles, then a local one."""

    coarse_resolution: float
    step_vox: float
    coarse: LocalSearch
    fine: LocalSearch

    @classmethod
    def of(cls, settings: AveragingSettings, number: int, resolution: float, voxel_size: float) -> _Plan:
        step = np.deg2rad(settings.angle_step_deg)
        # Crowther: an angular step Δ tells apart what is D Δ wide at the rim of a particle of diameter D.
        coarse = max(resolution, float(2 * settings.radius_vox * voxel_size * step))
        step_vox = max(1.0, float(np.floor(coarse / voxel_size / 4)))
        local = settings.local_angle_deg / 2 ** (number - 1)
        if settings.first == "global":
            local = settings.angle_step_deg / 3 / 2 ** (number - 1)
        fine = LocalSearch(max(local, _SMALLEST_ANGLE_DEG), 0.5 if number > 1 else 1.0, _FINE_LEVELS)
        return cls(coarse, step_vox, LocalSearch(settings.angle_step_deg / 2, step_vox, _COARSE_LEVELS), fine)


def _aligned(
    particles: ParticleSet,
    half: int,
    sources: Sequence[Source],
    settings: AveragingSettings,
    plan: _Plan,
    coarse: Aligner,
    fine: Aligner,
    rotations: np.ndarray | None,
    advance: Advance,
) -> ParticleSet:
    """The particles, those of one half aligned."""
    positions, turned = particles.positions_vox.copy(), particles.rotations.copy()
    scores = particles.scores.copy()
    for number, source in enumerate(sources):
        members = particles.members(half, number)
        for which, volumes, offsets in _boxes(source, particles, members, settings):
            here = members[which]
            padded = np.concatenate([here, np.repeat(here[:1], len(volumes) - len(here))])
            drift = particles.positions_vox[padded] - particles.listed_vox[padded]
            offsets = offsets.astype(np.float64)
            offsets[len(here) :] = offsets[0]
            poses = Poses(particles.rotations[padded], offsets, np.zeros(len(padded)))
            if rotations is not None:
                poses = coarse.globally(
                    volumes, offsets, source.transfer, rotations, plan.coarse, drift=drift, step_vox=plan.step_vox
                )
            poses = fine.local(
                volumes,
                poses.offsets,
                poses.rotations,
                source.transfer,
                plan.fine,
                drift=drift + poses.offsets - offsets,
            )
            rows = slice(len(here))
            positions[here] += (poses.offsets - offsets)[rows]
            turned[here], scores[here] = poses.rotations[rows], poses.scores[rows]
            advance(len(here))
    return particles.with_(positions_vox=positions, rotations=turned, scores=scores)


def _boxes(
    source: Source, particles: ParticleSet, members: np.ndarray, settings: AveragingSettings
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The subtomograms of some particles of one tomogram, batch by batch."""
    return boxes(
        source.reader,
        particles.positions_vox[members],
        settings.edge,
        settings.radius_vox,
        sign=settings.sign,
        batch=settings.batch,
    )


def _averaged(
    number: int,
    sources: Sequence[Source],
    particles: ParticleSet,
    settings: AveragingSettings,
    voxel_size: float,
    advance: Advance,
) -> Iteration:
    """The averages of both halves in the particles' poses."""
    group = point_group(settings.symmetry)
    halves = [Sums.empty(settings.edge) for _ in HALVES]
    power = np.zeros((2, settings.edge // 2))
    for half in HALVES:
        for index, source in enumerate(sources):
            members = particles.members(half, index, kept=True)
            for which, volumes, offsets in _boxes(source, particles, members, settings):
                here = members[which]
                halves[half - 1].add(
                    volumes, offsets, particles.rotations[here], source.transfer, voxel_size, symmetry=group
                )
                power[half - 1] += shell_power(volumes[: len(here)])
                advance(len(here))
        power[half - 1] /= max(1, halves[half - 1].count)
    first, second = (half.average(settings.wiener) for half in halves)
    fsc = masked_correlation(first, second, voxel_size, reference_mask(settings), seed=settings.seed)
    return Iteration(number, particles, (halves[0], halves[1]), power, fsc)


def reference_mask(settings: AveragingSettings) -> np.ndarray:
    """The soft ball in which references are compared; it follows from the radius alone, so it ties no halves together."""
    radius = min(_MASK_SHARE * settings.radius_vox, settings.edge / 2 - _MASK_EDGE_VOX - 1)
    return soft_ball(settings.edge, radius, _MASK_EDGE_VOX)


def _reference(
    before: Iteration,
    half: int,
    settings: AveragingSettings,
    voxel_size: float,
    given: np.ndarray | None,
) -> tuple[np.ndarray, float]:
    """The filtered, masked reference of a half, and its resolution in Å."""
    mask = reference_mask(settings)
    if given is not None:
        resolution = max(settings.start_resolution_angstrom, 2 * voxel_size)
        filtered = weighted_by_shell(given, low_pass(settings.edge, voxel_size, resolution))
        return filtered * mask, resolution
    resolution = before.fsc.resolution_angstrom(THRESHOLDS["0.143"])
    if not np.isfinite(resolution):
        resolution = settings.start_resolution_angstrom
        weights = low_pass(settings.edge, voxel_size, resolution)
    else:
        weights = figure_of_merit(before.fsc.corrected)
    own = before.sums[half - 1].average(settings.wiener)
    return weighted_by_shell(own, weights) * mask, resolution


def _whitening(power: np.ndarray) -> np.ndarray | None:
    """Weights by shell, inverse to the subtomograms' power, which is mostly noise; None without particles."""
    if not power.any():
        return None
    return np.asarray(power.max() / np.maximum(power, _WHITENING_FLOOR * power.max()))


def shell_power(volumes: np.ndarray) -> np.ndarray:
    """Sum over volumes (n, edge, edge, edge) of the mean power in each shell, (edge // 2,)."""
    edge = volumes.shape[-1]
    shells, _ = fourier_shells(edge)
    power = (np.abs(np.fft.rfftn(volumes, axes=(1, 2, 3))) ** 2).sum(axis=0).ravel()
    total, count = np.bincount(shells, power)[: edge // 2], np.bincount(shells)[: edge // 2]
    return np.asarray(total / np.maximum(count, 1))


def _discarded(particles: ParticleSet, keep: float) -> ParticleSet:
    """The particles, of each half only the share with the best scores kept."""
    kept = np.zeros(len(particles), bool)
    for half in HALVES:
        members = np.flatnonzero(particles.half == half)
        count = max(1, round(keep * len(members)))
        order = members[np.argsort(-particles.scores[members], kind="stable")]
        kept[order[:count]] = True
    return particles.with_(kept=kept)
