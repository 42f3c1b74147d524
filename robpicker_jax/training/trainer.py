"""The training loop: steps, metrics, validation, checkpoints, a clean stop.

The loop owns no mathematics (that is `bilevel.step`) and no files of tomograms (that is `patches`). It can be stopped
at any time and run again: batches are a function of (seed, step), and a checkpoint is the whole state.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import jax
import jax.numpy as jnp

from robpicker_jax import parallel
from robpicker_jax.bilevel.step import Metrics, TrainState
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text
from robpicker_jax.system.progress import progress
from robpicker_jax.training.checkpoint import Checkpoints
from robpicker_jax.training.experiment import Experiment

Validate = Callable[[TrainState], Mapping[str, float]]
OnPace = Callable[[float, float], None]
OnBest = Callable[[TrainState, float], None]
_TIMED_STEPS = 5


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has saved its state."""


@dataclass(frozen=True)
class FitResult:
    """A finished training.

    Attributes:
        last: the last state.
        best: the best state by validation.
        best_step: its step.
        input_wait_share: share of the time of this start's steps in which the devices waited for input; None: no step.
    """

    last: TrainState
    best: TrainState
    best_step: int
    input_wait_share: float | None = None


def fit(
    experiment: Experiment,
    batches: Callable[[int], Iterator[tuple[Any, Any]]],
    workdir: Path,
    *,
    validate: Validate | None = None,
    class_names: Sequence[str] = (),
    on_pace: OnPace | None = None,
    on_best: OnBest | None = None,
) -> FitResult:
    """Train from the latest checkpoint of `workdir` (or from the start) to `train.steps`.

    Args:
        experiment: step functions and initial state.
        batches: first step → iterator of (training batches, meta batch) from that step on, placed on the devices.
        workdir: gets metrics.jsonl, tensorboard/ and checkpoints/.
        validate: state → scores, of which "macro_f1" chooses the best checkpoint.
        class_names: species, in the order of their labels from 1 (names of per-class metrics).
        on_best: called with each new best state and its score, once its checkpoint is written.
        on_pace: told once, after the first few steps, seconds a step and seconds left (validations left out).

    Raises:
        InputError: the loss or a parameter stopped being finite; the last good checkpoint is kept.
        Interrupted: stopped by a signal, after saving.
    """
    config = experiment.config.train
    checkpoints = Checkpoints(workdir / "checkpoints", config.keep_checkpoints)
    log = MetricsLog(workdir) if parallel.is_first() else SilentLog()
    alone = parallel.process_share()[1] == 1
    try:
        state = experiment.state
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(state)
        start = int(state.step)
        log.truncate(start)
        best_score = log.best_score()

        def due(step: int) -> bool:
            return validate is not None and step > 0 and (step % config.validate_every == 0 or step == config.steps)

        def judge(step: int, state: TrainState) -> None:
            nonlocal best_score
            assert validate is not None
            scores = dict(validate(state))
            if parallel.as_first(scores["macro_f1"] > best_score):
                best_score = scores["macro_f1"]
                checkpoints.save_best(step, state)
                if on_best is not None:
                    on_best(state, best_score)
            log.write({"step": step, "kind": "validation", **scores})

        # A run that was stopped between a checkpoint and its validation makes up for it.
        if due(start) and parallel.as_first(not log.is_validated(start)):
            judge(start, state)
        with _stop_requested() as stop, progress("training", config.steps, completed=start) as bar:
            source = iter(batches(start)) if start < config.steps else iter(())
            pending: tuple[int, Metrics] | None = None
            timed_from: float | None = None
            for done in range(start + 1, config.steps + 1):
                train, meta = next_batch(source, None if pending is None else pending[1], log)
                if done == start + 1:
                    log.reset_clock()  # filling the queue for the first time is a matter of the start
                step = experiment.warmup if done <= config.meta_warmup_steps else experiment.step
                # Jitted steps return before they are done: the previous step's metrics are read while this one runs.
                state, metrics = step(state, train, meta)
                if pending is not None:
                    _report(pending, experiment, log, bar, class_names)
                    if done == start + 2:
                        timed_from = time.monotonic()  # the first step loads libraries and fills caches
                    elif done == start + 2 + _TIMED_STEPS and on_pace is not None and timed_from is not None:
                        pace = (time.monotonic() - timed_from) / _TIMED_STEPS
                        on_pace(pace, pace * (config.steps - done + 1))
                pending = (done, metrics)
                # Saving takes all processes together: they agree now and then on whether one was asked to stop.
                stopping = bool(stop) if alone else done % config.log_every == 0 and parallel.any_process(bool(stop))
                validating = due(done)
                saving = done % config.checkpoint_every == 0 or done == config.steps or stopping
                if saving or validating:
                    _report(pending, experiment, log, bar, class_names)
                    pending = None
                    _check_finite(state, done, checkpoints)
                    checkpoints.save(done, state) if saving else None
                if validating and not stopping:
                    judge(done, state)
                    log.reset_clock()
                if saving or validating:
                    timed_from = None
                if stopping:
                    raise Interrupted(f"stopped after step {done}; its state is saved")
        best = checkpoints.restore(state, best=True)
        return FitResult(last=state, best=best, best_step=int(best.step), input_wait_share=log.wait_share())
    finally:
        log.close()
        checkpoints.close()


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events of a run; rows after the step a run resumes from are dropped.

    Attributes:
        waited_s: seconds that the devices waited for input since `pace` was last asked for.
    """

    waited_s: float
    _clock: tuple[float, int]
    _total: tuple[float, float]

    def __init__(self, workdir: Path) -> None:
        from tensorboardX import SummaryWriter

        workdir.mkdir(parents=True, exist_ok=True)
        self._path = workdir / "metrics.jsonl"
        self._writer = SummaryWriter(str(workdir / "tensorboard"))
        self._start_clock(0)

    def rows(self) -> list[dict[str, Any]]:
        """All rows written so far; a half-written last line (a killed run) is passed over."""
        return read_metrics(self._path)

    def truncate(self, step: int) -> None:
        """Drop what lies after `step`."""
        rows = [row for row in self.rows() if row["step"] <= step]
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._start_clock(step)

    def best_score(self) -> float:
        """Best validation score so far, −1 before the first."""
        return max((row["macro_f1"] for row in self.rows() if row["kind"] == "validation"), default=-1.0)

    def is_validated(self, step: int) -> bool:
        """Whether the validation of a step is among the rows."""
        return any(row["kind"] == "validation" and row["step"] == step for row in self.rows())

    def pace(self, step: int) -> tuple[float, float]:
        """Steps per second, and the share of time spent waiting for input, since last asked or reset."""
        now = time.monotonic()
        then, former = self._clock
        elapsed, waited = max(now - then, 1e-9), self.waited_s
        self._clock, self.waited_s = (now, step), 0.0
        self._total = (self._total[0] + elapsed, self._total[1] + waited)
        return (step - former) / elapsed, min(waited / elapsed, 1.0)

    def wait_share(self) -> float | None:
        """The share of time spent waiting for input, over all that `pace` was asked for; None: nothing yet."""
        elapsed, waited = self._total
        return min(waited / elapsed, 1.0) if elapsed else None

    def reset_clock(self) -> None:
        """Leave the time since the last row (a checkpoint, a validation) out of the rate."""
        self._clock, self.waited_s = (time.monotonic(), self._clock[1]), 0.0

    def _start_clock(self, step: int) -> None:
        self._clock, self.waited_s = (time.monotonic(), step), 0.0
        self._total = (0.0, 0.0)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, NaN as null, and the same numbers as TensorBoard scalars."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")
        for key, value in clean.items():
            if key != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(f"{clean['kind']}/{key}", value, clean["step"])

    def close(self) -> None:
        """Flush the events."""
        self._writer.close()


class SilentLog(MetricsLog):
    """The log of a process that is not the first: it keeps time and writes nothing."""

    def __init__(self) -> None:
        self._start_clock(0)

    def rows(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def truncate(self, step: int) -> None:
        """Start the clock."""
        self._start_clock(step)

    def write(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; a half-written last line (a killed run) is passed over."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


def _report(
    pending: tuple[int, Metrics],
    experiment: Experiment,
    log: MetricsLog,
    bar: Any,
    class_names: Sequence[str],
) -> None:
    """Read a step's metrics from the device, refuse NaN, and write them now and then."""
    done, metrics = pending
    config = experiment.config.train
    values = jax.device_get(metrics)
    if not math.isfinite(float(values.inner_loss)):
        raise _diverged(f"the training loss became {float(values.inner_loss)} at step {done}", None)
    # The mean Dice loss: the weighted one rises while the weights grow, and looks like divergence.
    dice = float(values.inner.loss.mean())
    fields = {"loss": f"{dice:.4f}"}
    if done % config.log_every == 0 or done == config.steps:
        steps_per_second, wait_share = log.pace(done)
        rate = steps_per_second * config.batch_size * config.inner_steps
        row = {
            "step": done,
            "kind": "train",
            "inner_loss": float(values.inner_loss),
            "dice_loss": dice,
            "outer_loss": float(values.outer_loss),
            "hypergradient_norm": float(values.hypergradient_norm),
            "alpha_mean": float(values.inner.alpha.mean()),
            "changed_share": float(values.inner.changed.mean()),
            "weight_mean": float(values.inner.weight.mean()),
            "weight_std": float(values.inner.weight.std()),
            "patches_per_second": rate,
            "input_wait_share": wait_share,
        }
        for label, name in enumerate(class_names, start=1):
            weights = values.inner.weight[values.center_class == label]
            if len(weights):
                row[f"weight_mean/{name}"] = float(weights.mean())
                row[f"weight_std/{name}"] = float(weights.std())
        log.write(row)
        fields["patches/s"] = f"{rate:.1f}"
    bar.advance(0 if bar.completed >= done else done - bar.completed, **fields)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def next_batch(source: Iterator[tuple[Any, Any]], last: Metrics | None, log: MetricsLog) -> tuple[Any, Any]:
    """The next batches; counts the time it took as waiting if the devices had come to the end of the last step by then.

    Args:
        source: the batches.
        last: metrics of the step that was started last; None where the devices have nothing to do.
        log: counts the time.
    """
    began = time.monotonic()
    batches = next(source)
    if last is None or cast(Any, last.inner_loss).is_ready():
        log.waited_s += time.monotonic() - began
    return batches


def _check_finite(state: TrainState, done: int, checkpoints: Checkpoints) -> None:
    if not bool(_all_finite((state.params, state.meta))):
        raise _diverged(f"a parameter stopped being finite by step {done}", checkpoints.latest_step())


def _diverged(what: str, step: int | None) -> InputError:
    kept = "the last good checkpoint is kept" if step is None else f"the checkpoint of step {step} is good and kept"
    return InputError(
        f"{what}; {kept}", fix="lower train.inner.learning_rate or set train.inner.clip_norm, and start anew"
    )


@contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """A list that becomes non-empty on the first SIGINT or SIGTERM; a second signal stops at once."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
