"""One tomogram examined: its class probabilities, what they say of its annotations, and what has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.auditing.evidence import BYTES_PER_VOXEL, Evidence
from robpicker_jax.auditing.scoring import KINDS, TOLERATED_SHARE, Judgement, judge, unannotated
from robpicker_jax.picking.inference import MemoryBound, Reader, Segmentation
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.score_maps import uses_score_maps

LEAST_PROBABILITY = 0.3
"""Probability of any particle from which a voxel may belong to a missing one; lower than picking's, which is about one
half, so that the ranking is complete."""


@dataclass(frozen=True)
class Auditor:
    """Examines tomograms with a trained model.

    Attributes:
        picker: the model, with the settings of inference and picking.
        tolerated_share: displacement, as a share of the species' radius, that counts one half.
        least_probability: see `LEAST_PROBABILITY`.
    """

    picker: ModelPicker
    tolerated_share: float = TOLERATED_SHARE
    least_probability: float = LEAST_PROBABILITY

    @property
    def radii_vox(self) -> list[float]:
        """Radius of each species, voxels."""
        return [species.radius_vox for species in self.picker.data.species]

    def memory(self, shape_zyx: Sequence[int], *, resident_bytes: int = 0) -> MemoryBound:
        """The most memory that a tomogram of this shape takes; see `ModelPicker.memory`."""
        resident = resident_bytes + BYTES_PER_VOXEL * int(np.prod(shape_zyx))
        return self.picker.memory(shape_zyx, keep_scores=False, stream_scores=True, resident_bytes=resident)

    def examine(
        self,
        tomogram: Reader | np.ndarray,
        particles: Particles,
        name: str,
        *,
        mask: np.ndarray | None = None,
        on_tiles: Callable[[int], None] | None = None,
    ) -> Particles:
        """What is suspicious in a tomogram, by falling score; see `suspicions`.

        Args:
            tomogram: normalised densities.
            particles: its n annotations, with labels from 1.
            name: the tomogram's.
            mask: bool (z, y, x); nothing is missing outside it.
            on_tiles: called with the number of tiles just finished.
        """
        shape = tomogram.shape if isinstance(tomogram, np.ndarray) else tomogram.shape_zyx
        evidence = Evidence(shape, self.picker.model.card.n_classes, particles, self.radii_vox)
        self.picker.segment(tomogram, on_tiles, on_scores=evidence.add)
        judged = judge(particles, self.radii_vox, evidence, tolerated_share=self.tolerated_share)
        predicted = self.predicted(evidence, mask)
        missing = predicted.select(unannotated(predicted, particles, judged.found_vox, self.radii_vox))
        return suspicions(particles, judged, missing, name, self.picker.class_names)

    def predicted(self, evidence: Evidence, mask: np.ndarray | None) -> Particles:
        """The picker's particles, fainter ones than it would keep among them."""
        faint = evidence.foreground < self.least_probability
        map_ = Segmentation(np.where(faint, np.uint8(0), evidence.species), evidence.probability)
        model = self.picker.model
        picking = replace(model.card.picking, max_picks=None)
        if uses_score_maps(picking.clustering):  # the evidence holds the likeliest species alone
            picking = replace(picking, clustering="dbscan", clustering_options={})
        card = replace(model.card, picking=picking)
        complete = ModelPicker(replace(model, card=card), (0.0,) * (card.n_classes - 1))
        return complete.picks_of(map_, mask=mask)


def suspicions(
    particles: Particles, judged: Judgement, missing: Particles, name: str, class_names: Sequence[str]
) -> Particles:
    """One row for each annotation, under its likeliest kind, and one for each missing particle, by falling score.

    Args:
        particles: the annotations.
        judged: the judgement of them.
        missing: predicted particles without annotation, with scores.
        name: of the tomogram.
        class_names: of label 1, 2, ….

    Returns:
        Particles at the annotated (of missing ones: predicted) positions, with the annotated (predicted) class and these
        extra columns: `kind`, `suggested_class`, `suggested_x_vox` … `suggested_z_vox`, `row` in the list from 1 (0:
        missing ones have none), and the scores of all three kinds, `false`, `wrong_class`, `displaced` (NaN for missing ones).
    """
    n, names = len(particles), np.asarray(class_names, np.str_)
    kinds = judged.kinds
    wrong, displaced = kinds == KINDS.index("wrong_class"), kinds == KINDS.index("displaced")
    labels = np.concatenate([particles.labels, missing.labels])
    suggested = np.concatenate([np.where(wrong, judged.other_labels, particles.labels), missing.labels])
    positions = np.concatenate([particles.positions_vox, missing.positions_vox])
    moved = np.concatenate(
        [np.where(displaced[:, None], judged.found_vox, particles.positions_vox), missing.positions_vox]
    )
    scores = np.zeros(0) if missing.scores is None else missing.scores
    columns = np.concatenate([judged.scores, np.full((len(missing), 3), np.nan)])
    found = Particles(
        positions,
        labels,
        scores=np.concatenate([judged.scores.max(axis=1, initial=0.0), scores]),
        class_names=names[labels - 1],
        tomograms=np.full(len(labels), name),
        extra={
            "kind": np.array([KINDS[kind] for kind in kinds] + ["missing"] * len(missing), np.str_),
            "suggested_class": names[suggested - 1],
            **{f"suggested_{axis}_vox": moved[:, column] for column, axis in enumerate("xyz")},
            "row": np.concatenate([np.arange(1, n + 1), np.zeros(len(missing), np.int64)]),
            **{kind: columns[:, column] for column, kind in enumerate(KINDS[:3])},
        },
    )
    return found.select(by_falling_score(found))


def by_falling_score(found: Particles) -> np.ndarray:
    """Indices that rank the rows, (n,); equal scores stay in their order."""
    assert found.scores is not None  # every row has one
    return np.argsort(-found.scores, kind="stable")
