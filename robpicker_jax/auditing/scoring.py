"""How suspicious each annotation is, and what has none: scores in [0, 1] from a network's class probabilities.

With e the probability that there is a particle, ρ the share of another species in what speaks for one, and d the
distance to where the prediction has it (r the species' radius, s the share of it that is tolerated):

    false        1 − e
    wrong_class  e ρ,          ρ = q_other / (q_own + q_other)
    displaced    e (1 − ρ) g,  g = min(1, d / (2 s r)), one half at the tolerated distance
    missing      the mean probability of a predicted particle that nothing is annotated at

e is the mean probability of any particle in a ball: of the annotated species' radius about the annotation, or of the
annotated or predicted species' radius about the predicted particle that it belongs to, whichever is largest (a small
particle that is annotated as a large one fills little of a large ball). q are mean class probabilities in the ball about
the annotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.bounds import nearest_voxel
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.auditing.evidence import SMALLEST_RADIUS_VOX, Evidence, ball, radii_of

KINDS = ("false", "wrong_class", "displaced", "missing")
"""Kinds of suspicion; the first three are of annotations."""

TOLERATED_SHARE = 0.5
"""Displacement, as a share of the radius, that counts one half."""

_FIRST_WINDOW = 1.5  # radii in which a predicted particle is looked for
_WINDOW = 1.25  # radii of the ball that then moves to its centre of mass: little of a touching neighbour lies in it
_FARTHEST = 1.5  # radii; what lies beyond is another particle
_LEAST_MASS = 0.1  # of the volume of its own species: less is no particle of that
_LEAST_OF_SMALLEST = 0.5  # of the volume of the smallest species: less is no particle at all
_SAME = 0.5  # radii within which two annotations have found the same particle
_STEPS = 30
_STILL_VOX = 0.01


@dataclass(frozen=True)
class Judgement:
    """What is held against each of n annotations.

    Attributes:
        scores: float64 (n, 3), of the kinds false, wrong_class and displaced.
        other_labels: int32 (n,), the most probable other species; the own one where there is no other.
        found_vox: float64 (n, 3), x y z of the predicted particle that it belongs to, voxels; its own position where
            there is none.
        evidence: float64 (n,), e: the probability that there is a particle.
    """

    scores: NDArray[np.float64]
    other_labels: NDArray[np.int32]
    found_vox: NDArray[np.float64]
    evidence: NDArray[np.float64]

    @property
    def kinds(self) -> NDArray[np.int64]:
        """The likeliest kind of each annotation, as an index into `KINDS`."""
        return np.asarray(self.scores.argmax(axis=1), np.int64)


def judge(
    particles: Particles,
    radii_vox: Sequence[float],
    evidence: Evidence,
    *,
    tolerated_share: float = TOLERATED_SHARE,
) -> Judgement:
    """Score annotations against the class probabilities of their tomogram.

    Args:
        particles: n annotations, with labels from 1.
        radii_vox: radius of each species, voxels, that of label 1 first.
        evidence: of the same annotations, with every block added.
        tolerated_share: s, a share of the radius, above 0.
    """
    n, radii = len(particles), radii_of(particles, radii_vox)
    means = evidence.class_means
    found = np.array(particles.positions_vox)
    at_found = np.zeros((n, 2))  # mean probability of any particle, and of its own species, about the particle found
    for index in range(n):
        label = int(particles.labels[index])
        centre = located(evidence, found[index, ::-1], label, radii_vox)
        if centre is not None:
            found[index] = centre[::-1]
            there, own_there = _means_about(evidence, centre, float(radii[index]), label)
            predicted = _species_at(evidence, centre)
            as_predicted, _ = _means_about(evidence, centre, float(radii_vox[predicted - 1]), predicted)
            at_found[index] = max(there, as_predicted), own_there
    lost = _claimed_by_another(particles.positions_vox, found, radii, at_found[:, 0] > 0)
    found[lost], at_found[lost] = particles.positions_vox[lost], 0.0

    exists = np.clip(np.maximum(1 - means[:, 0], at_found[:, 0]), 0, 1)
    own, other, other_labels = _own_and_other(means, particles.labels)
    own = np.maximum(own, at_found[:, 1])
    share = other / np.maximum(own + other, np.finfo(float).tiny)
    far = np.linalg.norm(found - particles.positions_vox, axis=1) / (2 * tolerated_share * radii)
    scores = np.stack([1 - exists, exists * share, exists * (1 - share) * np.minimum(far, 1)], axis=1)
    return Judgement(scores, other_labels, found, exists)


def unannotated(
    predicted: Particles, particles: Particles, found_vox: NDArray[np.float64], radii_vox: Sequence[float]
) -> NDArray[np.bool_]:
    """Which predicted particles have no annotation, of whatever class, within the radius of their species.

    Args:
        predicted: m particles, with labels from 1.
        particles: n annotations.
        found_vox: (n, 3) x y z, where the prediction has the particle of each annotation; what a displaced annotation
            belongs to is not missing.
        radii_vox: radius of each species, voxels, that of label 1 first.

    Returns:
        bool (m,).
    """
    from scipy.spatial import cKDTree

    if not len(predicted) or not len(particles):
        return np.ones(len(predicted), bool)
    taken = cKDTree(np.concatenate([particles.positions_vox, found_vox]))
    return np.asarray(taken.query(predicted.positions_vox)[0] > radii_of(predicted, radii_vox))


def located(evidence: Evidence, start_zyx: np.ndarray, label: int, radii_vox: Sequence[float]) -> np.ndarray | None:
    """Centre (z, y, x) of the predicted particle that an annotation belongs to, by mean shift; None where there is none.

    A ball moves to the centre of mass of the probability in it until it rests. It follows the annotated species. Where
    next to nothing speaks for that, it follows any particle, and the annotation has to lie within that one's radius.

    Args:
        evidence: the maps.
        start_zyx: the annotated position, voxels.
        label: the annotated species' label.
        radii_vox: radius of each species, voxels, that of label 1 first.
    """
    radius, last = radii_vox[label - 1], np.array(evidence.foreground.shape) - 1
    box, _ = ball(start_zyx, (_FARTHEST + _FIRST_WINDOW) * radius, np.zeros(3, int), last)
    corner = np.array([part.start for part in box])
    own = np.where(evidence.species[box] == label, evidence.probability[box], 0)
    centre = _shifted(own, start_zyx - corner, radius, _LEAST_MASS * _volume(radius))
    if centre is not None and np.linalg.norm(centre + corner - start_zyx) <= _FARTHEST * radius:
        return np.asarray(centre + corner)
    centre = _shifted(
        evidence.foreground[box], start_zyx - corner, radius, _LEAST_OF_SMALLEST * _volume(min(radii_vox))
    )
    if centre is None:
        return None
    predicted = _species_at(evidence, centre + corner)
    near = np.linalg.norm(centre + corner - start_zyx) <= radii_vox[predicted - 1]
    return np.asarray(centre + corner) if near else None


def _shifted(map_: np.ndarray, start: np.ndarray, radius_vox: float, least: float) -> np.ndarray | None:
    """Where a ball comes to rest that moves to the centre of mass in it; None where it holds less than `least`."""
    weights, centre, window = map_.astype(np.float32), start, _FIRST_WINDOW * radius_vox
    for _ in range(_STEPS):
        mass, moved = _centre_of_mass(weights, centre, window)
        if mass < least:
            return None
        shift, centre, window = np.linalg.norm(moved - centre), moved, _WINDOW * radius_vox
        if shift < _STILL_VOX:
            break
    return centre


def _species_at(evidence: Evidence, centre_zyx: np.ndarray) -> int:
    voxel = np.clip(nearest_voxel(centre_zyx), 0, np.array(evidence.species.shape) - 1)
    return int(evidence.species[tuple(voxel)])


def _volume(radius_vox: float) -> float:
    return float(4 / 3 * np.pi * max(radius_vox, SMALLEST_RADIUS_VOX) ** 3)


def _centre_of_mass(weights: np.ndarray, centre: np.ndarray, radius_vox: float) -> tuple[float, np.ndarray]:
    """Mass in a ball, and its centre; the ball's own centre where there is no mass."""
    box, inside = ball(centre, radius_vox, np.zeros(3, int), np.array(weights.shape) - 1)
    part = np.where(inside, weights[box], 0)
    mass = float(part.sum())
    if mass <= 0:
        return 0.0, centre
    sums = [part.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    places = [np.arange(side.start, side.stop) for side in box]
    return mass, np.array([float(place @ total) for place, total in zip(places, sums, strict=True)]) / mass


def _means_about(evidence: Evidence, centre_zyx: np.ndarray, radius_vox: float, label: int) -> tuple[float, float]:
    """Mean probability of any particle, and of a species where it is the most probable one, in a ball."""
    box, inside = ball(centre_zyx, radius_vox, np.zeros(3, int), np.array(evidence.foreground.shape) - 1)
    if not inside.any():
        return 0.0, 0.0
    own = np.where(evidence.species[box] == label, evidence.probability[box], 0)
    return float(evidence.foreground[box][inside].mean(dtype=np.float64)), float(own[inside].mean(dtype=np.float64))


def _claimed_by_another(
    positions: np.ndarray, found: np.ndarray, radii: np.ndarray, has: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which annotations have found a particle that belongs to an annotation nearer to it, relative to the radii."""
    from scipy.spatial import cKDTree

    lost = np.zeros(len(positions), bool)
    rows = np.flatnonzero(has)
    if len(rows) < 2:
        return lost
    distances = np.linalg.norm(found - positions, axis=1) / radii
    pairs = rows[cKDTree(found[rows]).query_pairs(_SAME * float(radii.max()), output_type="ndarray")].reshape(-1, 2)
    # Near pairs first decided, so that of three annotations of one particle the nearest keeps it.
    for first, second in sorted(pairs.tolist(), key=lambda pair: (distances[pair].min(), pair)):
        if np.linalg.norm(found[first] - found[second]) > _SAME * min(radii[first], radii[second]):
            continue
        if not lost[first] and not lost[second]:
            lost[second if distances[first] <= distances[second] else first] = True
    return lost


def _own_and_other(means: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, NDArray[np.int32]]:
    """Mean probability of each annotation's own species, of the most probable other one, and that one's label."""
    rows = np.arange(len(labels))
    own = means[rows, labels]
    if means.shape[1] < 3:
        return own, np.zeros(len(labels)), labels.astype(np.int32)
    others = means[:, 1:].copy()
    others[rows, labels - 1] = -1.0
    best = others.argmax(axis=1)
    return own, others[rows, best], (best + 1).astype(np.int32)
