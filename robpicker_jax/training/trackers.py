"""Where the numbers of a training go beside `metrics.jsonl`, by name: `train.trackers`.

To add one, write a function with the contract of `TrackerBuilder` and put it into `TRACKERS` under a name.

A run that is gone on with goes on in the same place: what a tracker calls the run is kept in `trackers.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from robpicker_jax.config.loading import parse_yaml
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, read_text, write_text
from robpicker_jax.system.registry import look_up

_NAMES = "trackers.json"
_PROJECT = "robpicker"
_LONGEST = 500
"""Characters of a parameter that MLflow keeps."""


@runtime_checkable
class Tracker(Protocol):
    """Takes the numbers of one run."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the numbers of a step, by "kind/name"."""
        ...

    def close(self) -> None:
        """Write what is held back; nothing comes after it."""
        ...


class TrackerBuilder(Protocol):
    """Builds the tracker of a run."""

    def __call__(self, workdir: Path, /) -> Tracker:
        """Build it.

        Args:
            workdir: the run's folder; its config.yaml, where there is one, holds the settings.

        Raises:
            InputError: its library is not installed, or its server cannot be reached.
        """
        ...


class TensorBoard:
    """TensorBoard events in `WORKDIR/tensorboard`."""

    def __init__(self, workdir: Path) -> None:
        from tensorboardX import SummaryWriter  # slow to import, and only the first process needs it

        self._writer = SummaryWriter(str(workdir / "tensorboard"))

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """As scalars."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the events."""
        self._writer.close()


class MLflow:
    """A run of MLflow (extra `mlflow`): experiment `robpicker`, or that of MLFLOW_EXPERIMENT_NAME.

    Where it goes is MLflow's own setting, MLFLOW_TRACKING_URI.
    """

    def __init__(self, workdir: Path) -> None:
        import os

        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            raise _not_installed("MLflow", "mlflow") from None
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        try:
            self._client = MlflowClient()
            experiment = self._client.get_experiment_by_name(project)
            identity = self._client.create_experiment(project) if experiment is None else experiment.experiment_id
            self._run = _kept(workdir, "mlflow", lambda: self._create(identity, workdir))
            self._client.update_run(self._run, status="RUNNING")
        except MlflowException as error:
            raise InputError(
                f"MLflow refuses the run: {str(error).splitlines()[0]}",
                where="train.trackers",
                fix="see MLFLOW_TRACKING_URI",
            ) from None

    def _create(self, experiment: str, workdir: Path) -> str:
        run = self._client.create_run(experiment, run_name=workdir.resolve().name)
        for name, value in _settings(workdir).items():
            self._client.log_param(run.info.run_id, name, str(value)[:_LONGEST])
        return str(run.info.run_id)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """As metrics, all of a step at once."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value in scalars.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    """A run of Weights & Biases (extra `wandb`): project `robpicker`, or that of WANDB_PROJECT.

    WANDB_MODE=offline keeps it in the run's folder, from where `wandb sync` sends it.
    """

    def __init__(self, workdir: Path) -> None:
        import os
        import secrets

        try:
            import wandb
        except ImportError:
            raise _not_installed("Weights & Biases", "wandb") from None
        identity = _kept(workdir, "wandb", lambda: secrets.token_hex(6))
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                name=workdir.resolve().name,
                dir=str(workdir),
                id=identity,
                resume="allow",
                config=_settings(workdir),
            )
        except wandb.Error as error:
            raise InputError(
                f"Weights & Biases refuses the run: {str(error).splitlines()[0]}",
                where="train.trackers",
                fix="wandb login, or WANDB_MODE=offline",
            ) from None

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """As metrics."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


TRACKERS: dict[str, TrackerBuilder] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}
"""The trackers by name."""


def build_trackers(names: Sequence[str], workdir: Path) -> list[Tracker]:
    """The trackers of those names.

    Raises:
        InputError: an unknown name, or whatever building one raises.
    """
    builders = [look_up(TRACKERS, name, key="train.trackers") for name in dict.fromkeys(names)]
    return [builder(workdir) for builder in builders]


def _not_installed(title: str, extra: str) -> InputError:
    return InputError(f"{title} is not installed", where="train.trackers", fix=f"pip install 'robpicker-jax[{extra}]'")


def _kept(workdir: Path, tracker: str, make: Any) -> str:
    """What a tracker calls the run: as an earlier start of it kept it, or made now."""
    path = workdir / _NAMES
    known = read_json_object(path) if path.is_file() else {}
    if not isinstance(known.get(tracker), str):
        known[tracker] = make()
        write_text(path, json.dumps(known) + "\n")
    return str(known[tracker])


def _settings(workdir: Path) -> dict[str, Any]:
    """The run's configuration by dotted key; empty where there is none yet."""
    path = workdir / "config.yaml"
    return dict(_flat(parse_yaml(read_text(path), path), "")) if path.is_file() else {}


def _flat(values: Any, prefix: str) -> list[tuple[str, Any]]:
    if not isinstance(values, Mapping) or not values:
        return [(prefix.removesuffix("."), values)]
    return [pair for key, value in values.items() for pair in _flat(value, f"{prefix}{key}.")]
