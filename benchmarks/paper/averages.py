"""Subtomogram averages of what a case picked, after the paper's figure 5: all cases align equally many picks alike.

Of each species the best-scored picks of all test tomograms are aligned by `robpicker_jax.averaging` from the same start,
the true map low-passed to 60 Å, in two halves; orientations that a list may have are not used. Two FSC curves follow: of the
halves, and of the average with the true map, both under the same soft ball. The start biases an average towards the truth as
far as 60 Å. Beyond, only what the picks contain can agree with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.averaging import averaged
from benchmarks.paper.study import Matched
from robpicker_jax.annotations import Particles
from robpicker_jax.averaging import (
    AveragingSettings,
    Source,
    Transfer,
    gather,
    masked_correlation,
    shell_correlation,
)
from robpicker_jax.averaging.extraction import in_box
from robpicker_jax.averaging.refinement import reference_mask
from robpicker_jax.averaging.resolution import resolution_angstrom
from robpicker_jax.averaging.settings import default_edge
from robpicker_jax.config import Config, Species
from robpicker_jax.datasets import OpenedTomogram
from robpicker_jax.molecules import species_density
from robpicker_jax.simulation import Optics
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import open_volume

_BALL_OVER_SPHERE = 1.5  # radius that holds a particle, over that of the ball of its volume
_BOX_OVER_BALL = 0.75  # of the customary box, since the simulated tomograms are thin
_SHIFT_VOX = 3.0


def average_metrics(
    config: Config, matched: Matched, tomograms: Sequence[OpenedTomogram], picks: Mapping[str, Particles]
) -> dict[str, float | None]:
    """FSC curves and resolutions of the averaged species.

    Args:
        config: of the run.
        matched: what is averaged, and how.
        tomograms: the test tomograms.
        picks: of each, by name; by score where there are scores, else in any order.

    Returns:
        `average/…/SPECIES`: number, right (share that lies within a true particle of the species), halves 0.143, halves 0.5
        and truth 0.5 in Å, edge in voxels; and `fsc halves/SPECIES/SHELL`, `fsc truth/SPECIES/SHELL`.
    """
    found: dict[str, float | None] = {}
    for name in matched.averaged:
        label, species = next((n, s) for n, s in enumerate(config.data.species, 1) if s.name == name)
        found |= _of_species(config, matched, label, species, tomograms, picks)
    return found


def _of_species(
    config: Config,
    matched: Matched,
    label: int,
    species: Species,
    tomograms: Sequence[OpenedTomogram],
    picks: Mapping[str, Particles],
) -> dict[str, float | None]:
    voxel, name = config.simulation.voxel_size_angstrom, species.name
    truths = [_of_label(tomogram.particles, label) for tomogram in tomograms]
    wanted = round(matched.share * sum(map(len, truths)))
    lists = _best([_of_label(picks[tomogram.name], label) for tomogram in tomograms], wanted)
    right = sum(_hits(listed, truth, species.radius_vox) for listed, truth in zip(lists, truths, strict=True))
    number = sum(map(len, lists))
    found: dict[str, float | None] = {
        f"average/number/{name}": number,
        f"average/right/{name}": right / number if number else None,
    }
    radius = _BALL_OVER_SPHERE * species.radius_vox
    edge = default_edge(_BOX_OVER_BALL * radius)
    settings = AveragingSettings(
        edge=edge,
        radius_vox=radius,
        iterations=matched.iterations,
        first="global",
        angle_step_deg=matched.average_step_deg,
        shift_limit_vox=_SHIFT_VOX,
        sign=-1.0 if config.simulation.dark_particles else 1.0,
    )
    sources = _sources(config, tomograms)
    particles, _ = gather(lists, sources, edge)
    if min((particles.half == 1).sum(), (particles.half == 2).sum()) < 2:
        return found  # no halves to compare
    reference = in_box(species_density(species, voxel), edge)
    try:
        result = averaged(particles, sources, settings, voxel, reference)
    except InputError:  # an average without a mask shows nothing
        return found
    mask = reference_mask(settings)
    halves = masked_correlation(result.halves[0], result.halves[1], voxel, mask)
    truth = shell_correlation(result.average * mask, reference * mask)
    found |= {
        f"average/halves 0.143/{name}": _finite(halves.resolution_angstrom(0.143)),
        f"average/halves 0.5/{name}": _finite(halves.resolution_angstrom(0.5)),
        f"average/truth 0.5/{name}": _finite(resolution_angstrom(truth, edge, voxel, 0.5)),
        f"average/edge/{name}": edge,
    }
    for shell in range(1, edge // 2):
        found[f"fsc halves/{name}/{shell:02d}"] = _finite(halves.corrected[shell])
        found[f"fsc truth/{name}/{shell:02d}"] = _finite(truth[shell])
    return found


def _sources(config: Config, tomograms: Sequence[OpenedTomogram]) -> list[Source]:
    optics, tilt = Optics.from_config(config.simulation), config.simulation.tilt_max_deg
    flipped = config.simulation.ctf_correction == "phase_flip"

    def transfer(frequency: np.ndarray) -> np.ndarray:
        values = optics.ctf(frequency)
        return np.abs(values) if flipped else values

    weights = Transfer(-tilt, tilt, ctf=transfer if config.simulation.defocus_um else None)
    return [Source(t.name, open_volume(t.files.volume_path), weights) for t in tomograms]


def _of_label(particles: Particles | None, label: int) -> Particles:
    assert particles is not None
    chosen = particles.select(particles.labels == label)
    return replace(chosen, rotations=None)


def _best(lists: Sequence[Particles], wanted: int) -> list[Particles]:
    """The best-scored particles of all lists together; without scores, some drawn by one seed."""
    counts = [len(each) for each in lists]
    if all(each.scores is not None for each in lists if len(each)):
        scores = np.concatenate([np.zeros(0) if each.scores is None else each.scores for each in lists])
    else:
        scores = np.random.default_rng(0).random(sum(counts))
    chosen = np.zeros(sum(counts), bool)
    chosen[np.argsort(-scores, kind="stable")[:wanted]] = True
    parts = np.split(chosen, np.cumsum(counts)[:-1])
    return [each.select(part) for each, part in zip(lists, parts, strict=True)]


def _hits(listed: Particles, truth: Particles, radius_vox: float) -> int:
    """Picks within a radius of a true particle."""
    if not len(listed) or not len(truth):
        return 0
    away = np.linalg.norm(listed.positions_vox[:, None] - truth.positions_vox[None], axis=2)
    return int((away.min(axis=1) <= radius_vox).sum())


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
