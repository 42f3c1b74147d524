"""A trained run applied to tomograms: class maps, picks, and the files they are written to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from robpicker_jax import parallel
from robpicker_jax.annotations import Particles
from robpicker_jax.bilevel.step import TrainState
from robpicker_jax.config import Config, ParallelConfig
from robpicker_jax.picking.inference import (
    DevicePredictor,
    MemoryBound,
    Reader,
    Segmentation,
    memory_bound,
    number_of_tiles,
    over_rotations,
    prediction_mesh,
    segment,
)
from robpicker_jax.picking.pick_files import PickFiles, Place
from robpicker_jax.picking.picks import particles_from_class_map, remove_close_picks
from robpicker_jax.training.checkpoint import Checkpoints
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.run_folder import read_config

PICK_FORMATS = ("xml", "star", "csv")
"""Formats that a training run writes its picks in."""


@dataclass(frozen=True)
class Picker:
    """Networks with trained parameters.

    Attributes:
        experiment: the networks.
        state: the parameters.
        min_scores: smallest score of a pick of each class, in place of picking.min_score.
        devices: most devices of this process to share the tiles; None: as parallel.devices says.
    """

    experiment: Experiment
    state: TrainState
    min_scores: tuple[float, ...] | None = None
    devices: int | None = None

    @classmethod
    def from_workdir(cls, workdir: Path, config: Config | None = None) -> Picker:
        """The best model of a training run.

        Args:
            workdir: the run's folder.
            config: in place of the run's own configuration, to pick in another way.

        Raises:
            InputError: no run, no checkpoint, or a configuration of another network.
        """
        config = config or read_config(workdir)
        # Training's batches need not divide by the devices of this machine; tiles are shared by all of them.
        experiment = build_experiment(replace(config, parallel=ParallelConfig(devices=1)))
        devices = config.parallel.devices or len(jax.local_devices())
        checkpoints = Checkpoints(workdir / "checkpoints")
        try:
            return cls(experiment, checkpoints.restore(experiment.state, best=True), devices=devices)
        finally:
            checkpoints.close()

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.experiment.config

    def tiles(self, shape_zyx: Sequence[int]) -> int:
        """Number of tiles that a tomogram of this shape takes."""
        return number_of_tiles(shape_zyx, self._tile, self.config.inference.overlap_vox)

    def memory(self, shape_zyx: Sequence[int], *, keep_scores: bool = False, resident_bytes: int = 0) -> MemoryBound:
        """Memory that `segment` takes at most for a tomogram of this shape, beside the network's activations.

        Args:
            shape_zyx: the tomogram's size.
            keep_scores: whether all class probabilities are kept.
            resident_bytes: memory that the tomogram's reader and mask take.
        """
        return memory_bound(
            shape_zyx,
            self.experiment.n_classes,
            tile=self._tile,
            overlap_vox=self.config.inference.overlap_vox,
            batch_size=self._batch_size,
            rotations=self.config.inference.rotations,
            keep_scores=keep_scores,
            shared=self._mesh.devices.flat[0].platform == "cpu",
            resident_bytes=resident_bytes,
        )

    def segment(
        self,
        density: np.ndarray | Reader,
        on_tiles: Callable[[int], None] | None = None,
        *,
        keep_scores: bool = False,
    ) -> Segmentation:
        """Class map of a normalised tomogram (z, y, x), in memory or behind a reader; all scores only when asked for."""
        inference = self.config.inference
        return segment(
            density,
            over_rotations(self._predictor, inference.rotations),
            self.experiment.n_classes,
            tile=self._tile,
            overlap_vox=inference.overlap_vox,
            batch_size=self._batch_size,
            blend=inference.blend,
            keep_scores=keep_scores,
            on_tiles=on_tiles,
            place=self._predictor.place,
            device=self._predictor.first,
        )

    def pick(
        self,
        density: np.ndarray | Reader,
        on_tiles: Callable[[int], None] | None = None,
        *,
        mask: np.ndarray | None = None,
    ) -> Particles:
        """Picks of a normalised tomogram (z, y, x), by falling score; none outside `mask`, where one is given."""
        return self.picks_of(self.segment(density, on_tiles), mask=mask)

    def picks_of(self, segmentation: Segmentation, *, mask: np.ndarray | None = None) -> Particles:
        """Picks of a class map, filtered as the configuration says."""
        species, picking = self.config.data.species, self.config.picking
        picks = particles_from_class_map(
            segmentation.classes,
            segmentation.probability,
            self.experiment.n_classes,
            picking,
            min_cluster_vox=[entry.min_cluster_vox for entry in species],
            min_score=self.min_scores,
            mask=mask,
            edge_vox=picking.edge_vox,
            class_names=[entry.name for entry in species],
        )
        picks = picks.select(remove_close_picks(picks, picking.min_distance_vox))
        return picks if picking.max_picks is None else picks.select(slice(picking.max_picks))

    @property
    def _tile(self) -> int:
        return self.config.inference.tile or self.config.patches.size

    @property
    def _batch_size(self) -> int:
        return self.config.inference.batch_size * self._mesh.size

    @cached_property
    def _mesh(self) -> Mesh:
        return prediction_mesh(self.devices or self.config.parallel.devices)

    @cached_property
    def _predictor(self) -> DevicePredictor:
        variables = parallel.local((self.state.params, self.state.network_state.batch_stats))
        return DevicePredictor(self.experiment.predict, variables, self._mesh)


def write_picks(
    folder: Path,
    name: str,
    picks: Particles,
    *,
    formats: Sequence[str] = PICK_FORMATS,
    voxel_size_angstrom: float | None = None,
    shape_zyx: tuple[int, int, int] | None = None,
) -> list[Path]:
    """Write the picks of one tomogram as `folder/name.SUFFIX`, in each of the formats.

    Raises:
        InputError: an unknown format, or one that needs a voxel size nobody knows.
    """
    files = PickFiles(folder, formats)
    place = Place(name, shape_zyx or (0, 0, 0), voxel_size_angstrom)
    files.check([place])
    return files.write(place, picks)
