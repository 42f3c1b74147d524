"""From a training run to its trained model: the object and the file `model.rpk`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax import parallel
from robpicker_jax.config import (
    Config,
    DataConfig,
    ParallelConfig,
    SimulationConfig,
)
from robpicker_jax.datasets import agreed_voxel_size, dataset
from robpicker_jax.datasets.densities import DensityStatistics
from robpicker_jax.models.model_file import MODEL_FILE, load_model_file, save_model
from robpicker_jax.models.shipped import find_model
from robpicker_jax.models.trained_model import ModelCard, TrainedModel, portable
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.training.run_folder import read_config, stored_densities

if TYPE_CHECKING:
    from robpicker_jax.bilevel.step import TrainState
    from robpicker_jax.training.experiment import Experiment

# What trains (optimisers, checkpoints) is imported where it is needed: applying a model needs none of it.


def trained_model(
    experiment: Experiment,
    state: TrainState,
    *,
    voxel_size_angstrom: float | None = None,
    densities: DensityStatistics | None = None,
    score: float | None = None,
) -> TrainedModel:
    """The model of a training state: what picking needs of it, without optimisers and meta networks.

    Args:
        experiment: what was trained; its configuration says how the model is applied.
        state: the state; its arrays are taken as they are, this process's copies of them.
        voxel_size_angstrom: of the training tomograms, Å; None where it is not known.
        densities: statistics of the training tomograms' densities.
        score: its validation score.
    """
    config = experiment.config
    params = state.network_state.average if config.train.average_decay else state.params
    params, batch_stats, step = parallel.local((params, state.network_state.batch_stats, state.step))
    card = ModelCard(
        config.model,
        portable(config.data),
        config.inference.with_tile(config.patches.size),
        config.picking,
        voxel_size_angstrom=voxel_size_angstrom,
        densities=densities,
        step=int(step),
        score=score,
        score_name=config.evaluation.choose_by,
    )
    return TrainedModel(params, batch_stats, card, devices=config.parallel.devices)


def load_trained_model(path: str | os.PathLike[str]) -> TrainedModel:
    """The trained model of a file, of a run's folder, or of a name that ships with the package.

    A folder without `model.rpk` gives the model of its best checkpoint, which is then kept as `model.rpk`. Before the
    first validation that is the latest checkpoint's, and it is not kept, since training goes on from it.

    Raises:
        InputError: a file that is no model, a name of none, or a folder without a model and without a checkpoint.
    """
    path = find_model(path)
    if not path.is_dir():
        return load_model_file(path)
    if (path / MODEL_FILE).exists():
        return load_model_file(path / MODEL_FILE)
    return _from_checkpoint(path)


def validation_score(workdir: Path, step: int, choose_by: str) -> float | None:
    """The score (`evaluation.choose_by`) that the model of a step had at its validation; None where there was none."""
    rows = read_metrics(workdir / "metrics.jsonl")
    return next((row[choose_by] for row in rows if row["kind"] == "validation" and row["step"] == step), None)


def restored(workdir: Path, config: Config) -> tuple[Experiment, TrainState, bool]:
    """A run's best checkpoint on one device, with its experiment, and whether it was validated (else it is the latest).

    Raises:
        InputError: no checkpoint, or one that the configuration does not fit.
    """
    from robpicker_jax.training.checkpoint import Checkpoints
    from robpicker_jax.training.experiment import build_experiment

    # Training's batches need not divide by the devices of this machine.
    experiment = build_experiment(replace(config, parallel=ParallelConfig(devices=1)))
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        validated = checkpoints.best_step() is not None
        return experiment, checkpoints.restore(experiment.state, best=True), validated
    finally:
        checkpoints.close()


def _from_checkpoint(workdir: Path) -> TrainedModel:
    """The model of a run that has none yet, from its best checkpoint."""
    config = read_config(workdir)
    experiment, state, validated = restored(workdir, config)
    score = validation_score(workdir, int(state.step), config.evaluation.choose_by)
    voxel_size = _voxel_size(config.data, config.simulation)
    model = trained_model(
        experiment, state, voxel_size_angstrom=voxel_size, densities=stored_densities(workdir), score=score
    )
    if validated:
        save_model(workdir / MODEL_FILE, model)
    return model


def _voxel_size(data: DataConfig, simulation: SimulationConfig) -> float | None:
    """Voxel size of a run's training tomograms, as far as it can be known without its data."""
    if data.voxel_size_angstrom is not None:
        return data.voxel_size_angstrom
    if data.dir is None:
        return simulation.voxel_size_angstrom
    try:
        return agreed_voxel_size(dataset(data.dir, data)["train"])
    except InputError:  # the data set has been moved away
        return None
