"""What the tests of several rooms need to take training steps: a loaded data set, or batches of noise."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from robpicker_jax.config import Config
from robpicker_jax.training.data import TrainingData, load_training_data
from robpicker_jax.training.experiment import Experiment
from robpicker_jax.training.objective import Batch
from robpicker_jax.training.plan import batch_shapes


def loaded_data(config: Config, directory: Path | None = None, *, scalings: Path | None = None) -> TrainingData:
    """The data set of a folder, or else of `data.dir`, as a configuration asks for it."""
    return load_training_data(
        Path(config.data.dir or "") if directory is None else directory,
        data=config.data,
        patches=config.patches,
        model=config.model,
        train=config.train,
        parallel=config.parallel,
        scalings=scalings,
    )


def noise_batches(experiment: Experiment, rng: np.random.Generator) -> tuple[Batch, Batch]:
    """Training batches and meta batch of one step: densities are normal, labels any of three classes."""

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        values = rng.standard_normal(leaf.shape) if leaf.dtype == np.float32 else rng.integers(0, 3, leaf.shape)
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    shapes = batch_shapes(experiment.config.train, experiment.config.patches, experiment.mesh)
    batches: tuple[Batch, Batch] = jax.tree.map(draw, shapes)
    return batches
