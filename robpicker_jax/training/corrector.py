"""The label correction of a finished run, applied by itself: what it makes of label maps that it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from robpicker_jax import parallel
from robpicker_jax.bilevel.step import TrainState
from robpicker_jax.config import Config
from robpicker_jax.system.compilation import jit
from robpicker_jax.training.experiment import Experiment
from robpicker_jax.training.export import restored
from robpicker_jax.training.run_folder import read_config


@dataclass(frozen=True, eq=False)
class Corrector:
    """A run's label correction with the network whose prediction it proposes.

    The segmentation network's batch norm takes the running statistics, as in inference. A correction network of its own
    normalises by the patches that are given together, as in training.

    Attributes:
        config: the run's configuration.
        experiment: its networks.
        state: its best training state.
    """

    config: Config
    experiment: Experiment
    state: TrainState

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Corrected label maps (n, z, y, x, c) of normalised patches (n, z, y, x, 1) with labels (n, z, y, x)."""
        return np.asarray(self._correct(self.state, images, labels))

    @cached_property
    def _correct(self) -> Callable[..., jax.Array]:
        networks, n_classes = self.experiment.networks, self.experiment.n_classes

        def apply(state: TrainState, images: Any, labels: Any) -> jax.Array:
            statistics, average = state.network_state.batch_stats, state.network_state.average
            features, logits, _ = networks.segment(state.params, statistics, images, train=False)
            if self.config.model.correction == "ema":
                logits = networks.segment(average, statistics, images, train=False)[1]
            prediction = networks.probabilities(logits)
            one_hot = jax.nn.one_hot(labels, n_classes)
            return networks.correct(state.meta["correction"], features, prediction, one_hot, images).label

        return jit(apply)


def load_corrector(workdir: Path) -> Corrector | None:
    """The label correction of a run; None for a model's file, a run without checkpoints, or one that trained none.

    Raises:
        InputError: a checkpoint that the run's configuration does not fit.
    """
    if not workdir.is_dir() or not (workdir / "checkpoints").is_dir():
        return None
    config = read_config(workdir)
    if "correction" not in config.train.meta_networks:
        return None
    experiment, state, _ = restored(workdir, config)
    return Corrector(config, experiment, parallel.local(state))
