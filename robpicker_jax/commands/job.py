"""What the steps of the main job share: the run, its model, and picks compared with annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.bilevel.step import TrainState
from robpicker_jax.config import Config
from robpicker_jax.datasets import OpenedTomogram
from robpicker_jax.datasets.densities import DensityStatistics, block_edge, density_statistics, together
from robpicker_jax.labels import clean_labels, label_maker
from robpicker_jax.models.trained_model import TrainedModel
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.training.data import TrainingData
from robpicker_jax.training.experiment import Experiment
from robpicker_jax.training.export import trained_model
from robpicker_jax.training.validations import stop_if_asked

if TYPE_CHECKING:
    from robpicker_jax.evaluation import Evaluation


# Modules that are needed after training alone are imported then, so that the start does not take longer for them.


@dataclass(frozen=True)
class Job:
    """What the steps of the main job share.

    Attributes:
        config: the configuration, as planned.
        workdir: the run's folder.
        data: the data set, ready to train on.
        experiment: networks, initial state and compiled steps.
        validation: annotated tomograms that choose the best model: those of val, or of meta where there is no val, or of
            train where there is neither.
    """

    config: Config
    workdir: Path
    data: TrainingData
    experiment: Experiment
    validation: list[OpenedTomogram]

    def with_experiment(self, experiment: Experiment) -> Job:
        """The job with another experiment; itself where it is the same, so that what was computed once stays."""
        if experiment is self.experiment:
            return self
        return replace(self, config=experiment.config, experiment=experiment)

    @cached_property
    def densities(self) -> DensityStatistics | None:
        """Statistics of the training tomograms' densities as the network sees them."""
        block = block_edge([species.radius_vox for species in self.config.data.species])
        return together([density_statistics(tomogram, block) for tomogram in self.data.train])

    @cached_property
    def judged_patches(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Images, noisy and true labels of some training patches, where clean maps are stored; cut once a run."""
        from robpicker_jax.training.correction_quality import judged_patches

        truths = [clean_labels(tomogram, self.config.data) for tomogram in self.data.train]
        return judged_patches(self.data.noisy_source(augmented=False, anywhere=True), truths)


def validation_split(data: TrainingData) -> str:
    """The split that chooses the best model: val, or meta where there is no val, or train where there is neither."""
    return next((split for split in ("val", "meta") if data.survey.splits[split]), "train")


def evaluate_picks(job: Job, picker: ModelPicker, tomograms: list[OpenedTomogram]) -> Evaluation:
    """Pick annotated tomograms and compare with their annotations."""
    picks = {}
    for tomogram in tomograms:
        stop_if_asked()
        picks[tomogram.name] = picker.pick(tomogram, mask=tomogram.mask)
    return evaluate(job.config, job.data, tomograms, picks)


def evaluate(
    config: Config,
    data: TrainingData | OpenedTomogram,
    tomograms: Sequence[OpenedTomogram],
    picks: Mapping[str, Particles],
) -> Evaluation:
    """Compare picks with the annotations of their tomograms, by the configuration's rule; `data` tells the voxel size."""
    from robpicker_jax import evaluation

    truth = {tomogram.name: _particles(tomogram) for tomogram in tomograms}
    instances: dict[str, np.ndarray] | None = None
    if config.evaluation.rule in evaluation.LABEL_RULES and config.data.meta_labels == "shape":
        maker = label_maker(config.data.species, "shape", voxel_size_angstrom=data.voxel_size_angstrom)
        instances = {t.name: maker.instances(t.shape_zyx, _particles(t)) for t in tomograms}
    options = evaluation.EvaluationOptions.from_config(
        config.evaluation, config.data.species, voxel_size_angstrom=data.voxel_size_angstrom
    )
    masks = {tomogram.name: tomogram.mask for tomogram in tomograms if tomogram.mask is not None}
    return evaluation.evaluate(truth, picks, options, instance_maps=instances, regions=masks or None)


def _particles(tomogram: OpenedTomogram) -> Particles:
    assert tomogram.particles is not None
    return tomogram.particles


def model_of(job: Job, state: TrainState, score: float | None) -> TrainedModel:
    """The network of a state as a trained model, with the data's voxel size and densities and its validation score."""
    return trained_model(
        job.experiment,
        state,
        voxel_size_angstrom=job.data.voxel_size_angstrom,
        densities=job.densities,
        score=score,
    )


def species_names(config: Config) -> list[str]:
    """Names of the species, in the order of their labels."""
    return [species.name for species in config.data.species]
