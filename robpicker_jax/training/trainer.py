"""The training loop: steps, metrics, validation, checkpoints, a clean stop.

The loop owns no mathematics (that is `bilevel.step`) and no files of tomograms (that is `patches`). It can be stopped
at any time and run again: batches are a function of (seed, step), and a checkpoint is the whole state.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import jax

from robpicker_jax import parallel
from robpicker_jax.bilevel import Metrics, Step, TrainState
from robpicker_jax.config import TrainConfig
from robpicker_jax.system.progress import progress, say
from robpicker_jax.system.signals import stop_requests
from robpicker_jax.training.cadence import OnPace, Pace, Saving
from robpicker_jax.training.checkpoint import Checkpoints
from robpicker_jax.training.experiment import Experiment
from robpicker_jax.training.metrics_log import MetricsLog, SilentLog
from robpicker_jax.training.not_finite import (
    MOST_IN_A_ROW,
    LeftOut,
    NotFinite,
    Place,
    all_finite,
    diverged,
    found_in,
)
from robpicker_jax.training.out_of_memory import on_devices
from robpicker_jax.training.validations import (
    Interrupted,
    OnBest,
    Validate,
    Validations,
    saved_when_stopped,
    stop_if_asked,
)


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
    choose_by: str = "macro_f1",
    class_names: Sequence[str] = (),
    on_pace: OnPace | None = None,
    on_best: OnBest | None = None,
    place: Place | None = None,
) -> FitResult:
    """Train from the latest checkpoint of `workdir` (or from the start) to `train.steps`.

    Args:
        experiment: step functions and initial state.
        batches: first step → iterator of (training batches, meta batch) from that step on, placed on the devices.
        workdir: gets metrics.jsonl, tensorboard/ and checkpoints/.
        validate: state → scores by name.
        choose_by: name of the score that chooses the best checkpoint, the larger the better.
        class_names: species, in the order of their labels from 1 (names of per-class metrics).
        on_pace: called once, after the first few steps, with seconds a step and seconds left (without validations).
        on_best: called with each new best state and its score, once its checkpoint is written.
        place: names the patches in which a loss is not finite.

    Raises:
        InputError: the loss or a parameter stopped being finite; the last good checkpoint is kept.
        StepOutOfMemory: the memory of a device does not suffice for a step.
        Interrupted: stopped by a signal, after saving.
    """
    train = experiment.config.train
    checkpoints = Checkpoints(workdir / "checkpoints", train.keep_checkpoints)
    log = MetricsLog(workdir, train.trackers) if parallel.is_first() else SilentLog()
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), experiment.state
    )
    try:
        left_out = LeftOut(workdir, fresh=checkpoints.latest_step() is None)
        if checkpoints.latest_step() is None:
            checkpoints.check_readable()
            state = experiment.state
            if train.on_nan == "rollback":
                checkpoints.save(0, state)
        else:
            state = checkpoints.restore(experiment.state)
            say(f"going on from step {int(state.step)} of {train.steps}")
        log.truncate(int(state.step))
        validation = Validations(train, validate, choose_by, log, checkpoints, on_best)
        validation.catch_up(state)
        loop = _Loop(experiment, batches, validation, log, checkpoints, class_names, on_pace, place, left_out)
        while True:
            try:
                state = loop.run(state)
                break
            except NotFinite as fault:
                kept = checkpoints.latest_step()
                if train.on_nan != "rollback":
                    raise diverged(fault.what, kept) from None
                left_out.add(fault, kept)
                say(f"{fault.what}; back to step {kept}, and on without step {fault.step}")
            state = checkpoints.restore(like)
            log.truncate(int(state.step))
        best = checkpoints.restore(state, best=True)
        return FitResult(last=state, best=best, best_step=int(best.step), input_wait_share=log.wait_share())
    finally:
        log.close()
        checkpoints.close()


@dataclass
class _Loop:
    """What the steps of a training share; `run` takes those that are left."""

    experiment: Experiment
    batches: Callable[[int], Iterator[tuple[Any, Any]]]
    validation: Validations
    log: MetricsLog
    checkpoints: Checkpoints
    class_names: Sequence[str]
    on_pace: OnPace | None
    place: Place | None
    left_out: LeftOut

    def run(self, state: TrainState) -> TrainState:
        """The loop over the steps that are left; returns the last state.

        Raises:
            NotFinite: a step that is not to be gone on from.
        """
        train, start, log, checkpoints = self.experiment.config.train, int(state.step), self.log, self.checkpoints
        pace = Pace(train.steps, start, self.on_pace)
        phases = _Phases(self.experiment, log, self.validation.choose_by)
        saved = Saving(train)
        with stop_requests() as stop, progress("training", train.steps, completed=start) as bar:
            reporter = _Reporter(train, log, bar, self.class_names, self.place)
            source = iter(self.batches(start)) if start < train.steps else iter(())
            for done in range(start + 1, train.steps + 1):
                inner_batches, meta_batch = next_batch(source, reporter.pending_metrics, log)
                if done == start + 1:
                    log.reset_clock()  # filling the queue for the first time belongs to the start, not to the pace
                if done in self.left_out.steps:
                    reporter.flush()
                    state = state._replace(step=state.step + 1)
                else:
                    step = phases.step(done)
                    # Jitted steps return before they are done: the previous step's metrics are read while this one runs.
                    with on_devices():
                        if phases.began:
                            reporter.flush()  # with the time that the step before took, without that of compiling this one
                        state, metrics = step(state, inner_batches, meta_batch)
                        if phases.began:
                            log.reset_clock()  # such a step was compiled now, which belongs to no step's pace
                            pace.interrupted()
                        if reporter.flush():
                            pace.step_done(done)
                    reporter.pending = (done, metrics)
                stopping = _stopping(stop, done, train)
                saving = saved.is_due(done) or stopping
                validating = self.validation.is_due(done)
                if saving or validating:
                    with on_devices():
                        reporter.flush()
                        _check_finite(state, done)
                    pace.interrupted()
                if saving:
                    checkpoints.save(done, state)
                    saved.now()
                if stopping:
                    raise Interrupted(f"stopped after step {done}; its state is saved")
                if validating:
                    with saved_when_stopped(checkpoints, done, state):
                        self.validation.run(done, state)
                        stop_if_asked()
                    log.reset_clock()
        return state


def _stopping(stop: Sequence[int], done: int, train: TrainConfig) -> bool:
    """Whether to stop after this step. Saving takes all processes together, so they agree on it now and then."""
    if parallel.process_share()[1] == 1:
        return bool(stop)
    return done % train.log_every == 0 and parallel.any_process(bool(stop))


class _Phases:
    """Which step is taken when: the two halves of the warm-up, then the training step, fine-tuning in the end.

    In the first half the segmentation network learns alone; in the second the label correction learns to repair
    corrupted meta labels as well, but touches no training label yet. With `meta_warmup_until: plateau` the warm-up ends
    at the first validation that is no better than one before it. That is read from the log, so that a run which is
    stopped and started again changes phase at the same step.

    Attributes:
        began: whether the step that was asked for last is another one than the step before it.
    """

    def __init__(self, experiment: Experiment, log: MetricsLog, choose_by: str) -> None:
        self._experiment, self._log, self._choose_by = experiment, log, choose_by
        self._train = experiment.config.train
        self._over: bool | None = None
        self._former: Step | None = None
        self.began = False

    def step(self, done: int) -> Step:
        """The step number `done`, counted from 1; says when the warm-up ends."""
        step, former = self._step(done), self._former
        self._former, self.began = step, step is not former
        if self.began and former is not None and step is self._experiment.step:
            say(f"the warm-up is over: the meta networks take part from step {done} on")
        return step

    def _step(self, done: int) -> Step:
        experiment, most = self._experiment, self._train.n_meta_warmup_steps
        if experiment.fine_tune is not None and done > self._train.main_steps:
            return experiment.fine_tune
        if not self._train.is_bilevel or done > most or self._is_over(done):
            return experiment.step
        # A correction network of its own learns from the density; the others from what the segmentation network knows.
        alone = most // 2 if experiment.config.model.correction != "network" else 0
        return experiment.warmup if experiment.teach is None or done <= alone else experiment.teach

    def _is_over(self, done: int) -> bool:
        if self._train.meta_warmup_until == "steps":
            return False
        if self._over is None or (not self._over and (done - 1) % self._train.validate_every == 0):
            scores = self._log.validation_scores(self._choose_by)
            steps = sorted(step for step in scores if step < done)
            # Two scores of zero are no plateau: the network has found nothing yet.
            flat = any(scores[step] <= scores[before] != 0 for before, step in itertools.pairwise(steps))
            self._over = bool(parallel.as_first(flat))
        return self._over


@dataclass
class _Reporter:
    """Reads the metrics of a step from the device one step later, looks for NaN, and writes them every `log_every` steps.

    Attributes:
        train: batch sizes, how often to write, and what becomes of NaN.
        log: where to write.
        bar: the progress bar.
        class_names: species, in the order of their labels from 1.
        place: names the patches in which a loss is not finite.
        pending: number and metrics of the step that was started last and is not reported yet.
        skipped: steps in a row that changed nothing, because they were not finite.
    """

    train: TrainConfig
    log: MetricsLog
    bar: Any
    class_names: Sequence[str]
    place: Place | None
    pending: tuple[int, Metrics] | None = field(default=None, init=False)
    skipped: int = field(default=0, init=False)

    @property
    def pending_metrics(self) -> Metrics | None:
        """Metrics of the step that was started last; None where it is reported already."""
        return None if self.pending is None else self.pending[1]

    def flush(self) -> bool:
        """Report the pending step; whether there was one.

        Raises:
            NotFinite: its loss or its update is not finite, and `train.on_nan` does not say to skip it.
        """
        if self.pending is None:
            return False
        (done, metrics), self.pending = self.pending, None
        values = jax.device_get(metrics)
        finite = math.isfinite(float(values.inner_loss)) if values.finite is None else bool(values.finite)
        if not finite:
            what = found_in(values, done, self.train.inner_steps, self.place)
            self.skipped += 1
            if self.train.on_nan != "skip" or self.skipped > MOST_IN_A_ROW:
                raise NotFinite(done, what)
            say(f"{what}; the step is left out")
        else:
            self.skipped = 0
        # The mean loss without weights: the weighted one rises while the weights grow, and looks like divergence.
        loss = float(values.inner.loss.mean())
        fields = {"loss": f"{loss:.4f}"}
        if done % self.train.log_every == 0 or done == self.train.steps:
            steps_per_second, wait_share = self.log.pace(done)
            rate = steps_per_second * self.train.batch_size * self.train.inner_steps
            row = {"step": done, "kind": "train"} | _row(values, self.class_names)
            row |= {} if finite else {"left_out": 1}
            self.log.write(row | {"patches_per_second": rate, "input_wait_share": wait_share})
            fields["patches/s"] = f"{rate:.1f}"
        bar = self.bar
        bar.advance(0 if bar.completed >= done else done - bar.completed, **fields)
        return True


def _row(values: Metrics, class_names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a step as numbers for the log."""
    inner = values.inner
    row = {
        "inner_loss": float(values.inner_loss),
        "patch_loss": float(inner.loss.mean()),
        "outer_loss": float(values.outer_loss),
        "hypergradient_norm": float(values.hypergradient_norm),
        "alpha_mean": float(inner.alpha.mean()),
        "changed_share": float(inner.changed.mean()),
        "weight_mean": float(inner.weight.mean()),
        "weight_std": float(inner.weight.std()),
    }
    if values.direct is not None:
        row["own_loss"] = float(values.direct.loss.mean())
        row["own_restored"] = float(values.direct.restored.mean())
        row["own_spoiled"] = float(values.direct.spoiled.mean())
    for label, name in enumerate(["background", *class_names]):
        row[f"label_mass/{name}"] = float(inner.mass[:, label].mean())
        row[f"label_gained/{name}"] = float(inner.gained[:, label].mean())
        row[f"label_lost/{name}"] = float(inner.lost[:, label].mean())
    for label, name in enumerate(class_names, start=1):
        weights = inner.weight[inner.center_class == label]
        if len(weights):
            row[f"weight_mean/{name}"] = float(weights.mean())
            row[f"weight_std/{name}"] = float(weights.std())
    return row


def next_batch(source: Iterator[tuple[Any, Any]], last: Metrics | None, log: MetricsLog) -> tuple[Any, Any]:
    """The next batches; their time counts as waiting if the devices had come to the end of the last step by then.

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


_all_finite = jax.jit(all_finite)


def _check_finite(state: TrainState, done: int) -> None:
    if not bool(_all_finite((state.params, state.meta))):
        raise NotFinite(done, f"a parameter stopped being finite by step {done}")
