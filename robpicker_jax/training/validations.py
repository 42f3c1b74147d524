"""Validations of a training: when they are due, the best model by them, and how a signal ends one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

from robpicker_jax import parallel
from robpicker_jax.bilevel import TrainState
from robpicker_jax.config import TrainConfig
from robpicker_jax.system.progress import say
from robpicker_jax.system.signals import stop_requested
from robpicker_jax.training.checkpoint import Checkpoints
from robpicker_jax.training.metrics_log import MetricsLog

Validate = Callable[[TrainState], Mapping[str, float]]
OnBest = Callable[[TrainState, float], None]


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has saved its state."""


def stop_if_asked() -> None:
    """Leave a validation between two of its tomograms where a signal has come; all processes must call it together.

    Raises:
        Interrupted: the loop saves the state, and the validation is done when the run goes on.
    """
    if parallel.any_process(stop_requested()):
        raise Interrupted("stopped during a validation")


@contextlib.contextmanager
def saved_when_stopped(checkpoints: Checkpoints, done: int, state: TrainState) -> Iterator[None]:
    """Save the state where the block is left because of a signal."""
    try:
        yield
    except Interrupted:
        checkpoints.save(done, state)
        raise Interrupted(f"stopped after step {done}; its state is saved") from None


class Validations:
    """Validations when they are due, and the best checkpoint by them.

    Args:
        train: how often to validate, and the last step.
        validate: state → scores by name; None: no validation.
        choose_by: name of the score that chooses the best checkpoint.
        log: gets the scores.
        checkpoints: gets the best state with its score, which counts for the next start.
        on_best: called with each new best state and its score.
    """

    def __init__(
        self,
        train: TrainConfig,
        validate: Validate | None,
        choose_by: str,
        log: MetricsLog,
        checkpoints: Checkpoints,
        on_best: OnBest | None,
    ) -> None:
        self._train, self._validate, self.choose_by = train, validate, choose_by
        self._log, self._checkpoints, self._on_best = log, checkpoints, on_best
        self._best = _best_so_far(checkpoints, log, choose_by)

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` steps is to be validated."""
        train = self._train
        return self._validate is not None and step > 0 and (step % train.validate_every == 0 or step == train.steps)

    def catch_up(self, state: TrainState) -> None:
        """Do the validation that a run missed which was stopped between a checkpoint and its validation.

        Also one whose scores were recorded, but whose state was not kept although it is no worse than the kept one.
        """
        step = int(state.step)
        recorded = self._log.validation_scores(self.choose_by).get(step, math.inf)
        lost = math.isfinite(recorded) and recorded >= self._best and self._checkpoints.best_step() != step
        missing = not self._log.is_validated(step) or lost
        if self.is_due(step) and parallel.as_first(missing):
            self._log.truncate(step, without_validation=True)
            self.run(step, state)

    def run(self, step: int, state: TrainState) -> None:
        """Validate a state, record its scores, and keep it if it is the best so far.

        Of equal scores the later state is kept: on few tomograms scores are often equal, and it has trained for longer, at a
        lower learning rate.
        """
        assert self._validate is not None
        scores = dict(self._validate(state))
        score = scores[self.choose_by]
        is_best = parallel.as_first(score >= self._best)
        if is_best:
            self._best = score
            self._checkpoints.save_best(step, state, score)
            if self._on_best is not None:
                self._on_best(state, self._best)
        # The row comes last: a run that is killed before it validates again, and loses nothing.
        self._log.write({"step": step, "kind": "validation", **scores})
        say(f"step {step}: {self.choose_by} {score:.3f} at validation" + (", the best so far" if is_best else ""))


def _best_so_far(checkpoints: Checkpoints, log: MetricsLog, choose_by: str) -> float:
    """The score of the best checkpoint that is there, −∞ without one: a better one in the log whose state is lost is none.

    Checkpoints from before scores were stored with them have theirs from the log.
    """
    step = checkpoints.best_step()
    if step is None:
        return -math.inf
    score = checkpoints.best_score()
    return log.validation_scores(choose_by).get(step, -math.inf) if score is None else score
