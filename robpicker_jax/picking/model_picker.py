"""A trained model as a picker: class maps and picks of tomograms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jax.sharding import Mesh

from robpicker_jax.annotations import Particles
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.densities import DensityStatistics
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.models.model_file import fingerprint
from robpicker_jax.models.trained_model import TrainedModel
from robpicker_jax.picking.inference import (
    DevicePredictor,
    MemoryBound,
    OnScores,
    Reader,
    Segmentation,
    memory_bound,
    number_of_tiles,
    over_rotations,
    prediction_mesh,
    segment,
)
from robpicker_jax.picking.picks import particles_from_class_map, particles_from_score_maps
from robpicker_jax.picking.rejection import rejected_by
from robpicker_jax.picking.score_maps import check_picking, uses_score_maps


@dataclass(frozen=True)
class ModelPicker:
    """Picks with a trained model, as its card says; see `picker.Picker` for the contract.

    Attributes:
        model: the model.
        min_scores: smallest score of a pick of each class, in place of picking.min_score.

    Raises:
        InputError: the card names a clustering that is not known.
    """

    model: TrainedModel
    min_scores: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_picking(self.model.card.picking)

    @cached_property
    def fingerprint(self) -> str:
        """A text that differs wherever picks or class maps may differ: of the model with its card, and the score limits."""
        return f"{fingerprint(self.model)} {self.min_scores}"

    @property
    def class_names(self) -> list[str]:
        """Names of the species, that of label 1 first."""
        return self.model.card.class_names

    @property
    def data(self) -> DataConfig:
        """How tomograms are opened: contrast, normalisation, voxel size."""
        return self.model.card.data

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Voxel size of the training tomograms, Å."""
        return self.model.card.voxel_size_angstrom

    @property
    def voxel_size_tolerance(self) -> float:
        """Largest relative difference of a tomogram's voxel size from it."""
        return self.model.card.voxel_size_tolerance

    @property
    def calibration(self) -> Mapping[str, ClassCalibration] | None:
        """What picks were worth by score, by species, where the model's card tells; None: it does not."""
        provenance = self.model.card.provenance
        return None if provenance is None else provenance.calibration or None

    @property
    def densities(self) -> DensityStatistics | None:
        """Scale and skewness of the training tomograms' densities; None where the model does not tell."""
        return self.model.card.densities

    @property
    def smallest_scores(self) -> Sequence[float]:
        """Smallest score of a pick of class 1, 2, …."""
        return self.min_scores or self.model.card.picking.smallest_scores(self.model.card.data.species)

    def with_min_scores(self, min_scores: Sequence[float]) -> ModelPicker:
        """The same picker with a smallest score for each class."""
        return replace(self, min_scores=tuple(min_scores))

    def tiles(self, shape_zyx: Sequence[int]) -> int:
        """Number of tiles that a tomogram of this shape takes."""
        return number_of_tiles(shape_zyx, self._tile, self.model.card.inference.overlap_vox)

    def memory(
        self,
        shape_zyx: Sequence[int],
        *,
        keep_scores: bool | None = None,
        stream_scores: bool = False,
        resident_bytes: int = 0,
    ) -> MemoryBound:
        """Memory that `segment` takes at most for a tomogram of this shape, beside the network's activations.

        Args:
            shape_zyx: the tomogram's size.
            keep_scores: whether all class probabilities are kept; None: as `pick` does it.
            stream_scores: whether they are handed on block by block.
            resident_bytes: memory that the tomogram's reader and mask take.
        """
        inference = self.model.card.inference
        return memory_bound(
            shape_zyx,
            self.model.card.n_classes,
            tile=self._tile,
            overlap_vox=inference.overlap_vox,
            batch_size=self._batch_size,
            rotations=inference.rotations,
            keep_scores=self._picks_from_scores if keep_scores is None else keep_scores,
            stream_scores=stream_scores,
            shared=self._mesh.devices.flat[0].platform == "cpu",
            resident_bytes=resident_bytes,
        )

    def segment(
        self,
        tomogram: np.ndarray | Reader,
        on_tiles: Callable[[int], None] | None = None,
        *,
        keep_scores: bool = False,
        on_scores: OnScores | None = None,
    ) -> Segmentation:
        """Class map of a normalised tomogram (z, y, x), in memory or behind a reader.

        Args:
            tomogram: normalised densities.
            on_tiles: called with the number of tiles just finished.
            keep_scores: also return the probabilities of all classes.
            on_scores: called with the probabilities of all classes, block by block, as they are finished.
        """
        inference = self.model.card.inference
        return segment(
            tomogram,
            over_rotations(self._predictor, inference.rotations),
            self.model.card.n_classes,
            tile=self._tile,
            overlap_vox=inference.overlap_vox,
            batch_size=self._batch_size,
            blend=inference.blend,
            keep_scores=keep_scores,
            on_scores=on_scores,
            on_tiles=on_tiles,
            to_devices=self._predictor.to_devices,
            device=self._predictor.first,
        )

    def pick(
        self,
        tomogram: np.ndarray | Reader,
        on_tiles: Callable[[int], None] | None = None,
        *,
        mask: np.ndarray | None = None,
    ) -> Particles:
        """Picks of a normalised tomogram (z, y, x), by falling score; none outside `mask`, where one is given."""
        return self.picks_of(self.segment(tomogram, on_tiles, keep_scores=self._picks_from_scores), mask=mask)

    def pick_judged(
        self,
        tomogram: np.ndarray | Reader,
        on_tiles: Callable[[int], None] | None = None,
        *,
        mask: np.ndarray | None = None,
    ) -> tuple[Particles, Particles]:
        """As `pick`; and the candidates that a limit dropped, its name in their column `rejected_by` (see `rejection`)."""
        segmentation = self.segment(tomogram, on_tiles, keep_scores=self._picks_from_scores)
        return self._judged(segmentation, mask)

    def picks_of(self, segmentation: Segmentation, *, mask: np.ndarray | None = None) -> Particles:
        """Picks of a segmented tomogram, filtered as the card's section `picking` says.

        Args:
            segmentation: with `scores` where the card's way of picking needs them.
            mask: bool (z, y, x); no picks outside.
        """
        return self._judged(segmentation, mask)[0]

    def _judged(self, segmentation: Segmentation, mask: np.ndarray | None) -> tuple[Particles, Particles]:
        """What is picked and what is not."""
        card = self.model.card
        species, names = card.data.species, card.class_names
        # Limits of 1 voxel and score 0 keep every candidate.
        least: dict[str, Any] = {"min_cluster_vox": [1] * len(names), "min_score": [0.0] * len(names)}
        if self._picks_from_scores:
            assert segmentation.scores is not None
            # A method may have regions of its own, so that it gets the mask itself.
            radii = [entry.radius_vox for entry in species]
            candidates = particles_from_score_maps(
                segmentation.scores, radii, card.picking, mask=mask, class_names=names, **least
            )
            mask = None
        else:
            candidates = particles_from_class_map(
                segmentation.classes, segmentation.probability, card.n_classes, card.picking, class_names=names, **least
            )
        reasons = rejected_by(
            candidates,
            segmentation.classes.shape,
            min_cluster_vox=card.picking.smallest_clusters(species),
            min_score=self.smallest_scores,
            edge_vox=card.picking.edge_vox,
            mask=mask,
            min_distance_vox=card.picking.closest_picks(species),
            max_picks=card.picking.max_picks,
        )
        kept = reasons == ""
        rejected = candidates.select(~kept)
        return candidates.select(kept), rejected.with_(extra={"rejected_by": reasons[~kept]})

    @property
    def _picks_from_scores(self) -> bool:
        return uses_score_maps(self.model.card.picking.clustering)

    @property
    def _tile(self) -> int:
        tile = self.model.card.inference.tile
        assert tile is not None  # a card always gives it
        return tile

    @property
    def _batch_size(self) -> int:
        return self.model.card.inference.batch_size * self._mesh.size

    @cached_property
    def _mesh(self) -> Mesh:
        return prediction_mesh(self.model.devices)

    @cached_property
    def _predictor(self) -> DevicePredictor:
        return DevicePredictor(self.model.predict, (self.model.params, self.model.batch_stats), self._mesh)
