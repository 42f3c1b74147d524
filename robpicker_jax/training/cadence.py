"""When a training writes checkpoints, and how long its steps take."""

from __future__ import annotations

import time
from collections.abc import Callable

from robpicker_jax import parallel
from robpicker_jax.config import TrainConfig

OnPace = Callable[[float, float], None]
"""Takes seconds a step and seconds left."""

_TIMED_STEPS = 5


class Saving:
    """When a checkpoint is due: every so many steps, after the last one, and where it is asked for every so many minutes."""

    def __init__(self, train: TrainConfig) -> None:
        self._train = train
        self.now()

    def now(self) -> None:
        """A checkpoint has been written."""
        self._last = time.monotonic()

    def is_due(self, done: int) -> bool:
        """Whether to write one after step `done`; processes, whose clocks differ, agree on it now and then."""
        train = self._train
        if done % train.checkpoint_every == 0 or done == train.steps:
            return True
        if train.checkpoint_minutes is None:
            return False
        late = time.monotonic() - self._last >= 60 * train.checkpoint_minutes
        if parallel.process_share()[1] == 1:
            return late
        return done % train.log_every == 0 and parallel.any_process(late)


class Pace:
    """Times the first steps of a start and tells the time left, once.

    The first step is left out: it loads libraries and fills caches. A checkpoint or a validation in between ends it.
    """

    def __init__(self, steps: int, start: int, on_pace: OnPace | None) -> None:
        self._steps, self._start, self._on_pace = steps, start, on_pace
        self._timed_from: float | None = None

    def step_done(self, started: int) -> None:
        """The step before step number `started` is done."""
        if started == self._start + 2:
            self._timed_from = time.monotonic()
        elif started == self._start + 2 + _TIMED_STEPS and self._on_pace is not None and self._timed_from is not None:
            seconds = (time.monotonic() - self._timed_from) / _TIMED_STEPS
            self._on_pace(seconds, seconds * (self._steps - started + 1))

    def interrupted(self) -> None:
        """Something else than steps takes time now."""
        self._timed_from = None
