"""How the values of a trial are chosen, by name.

To add a way, write a function with the contract of `Proposer` and put it into `PROPOSALS`; `sweep --method` then takes
its name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from robpicker_jax.system.errors import InputError
from robpicker_jax.tuning.space import Choice, Range, Space


@dataclass(frozen=True)
class Done:
    """A trial that is done.

    Attributes:
        values: by field.
        score: higher is better; None where it failed.
    """

    values: Mapping[str, Any]
    score: float | None


class Proposer(Protocol):
    """Chooses the values of the next trial."""

    def __call__(self, space: Space, index: int, done: Sequence[Done], seed: int, /) -> dict[str, Any] | None:
        """Values of trial `index`, by field; None where there is nothing left to try.

        The same arguments give the same values, so that a sweep that was stopped goes on as if it had not been.

        Args:
            space: what is searched.
            index: number of the trial, from 0.
            done: the trials before it, in their order.
            seed: of what is random.

        Raises:
            InputError: a space that this way cannot search.
        """
        ...


def grid(space: Space, index: int, done: Sequence[Done], seed: int, /) -> dict[str, Any] | None:
    """Every combination of the choices, the last field fastest."""
    for key, values in space.items():
        if isinstance(values, Range):
            raise InputError("a grid needs values, not a range", where=f"--over {key}", fix="give them: a|b|c")
    choices = [values.values for values in space.values() if isinstance(values, Choice)]
    if index >= math.prod(map(len, choices)):
        return None
    return dict(zip(space, next(itertools.islice(itertools.product(*choices), index, None)), strict=True))


def random(space: Space, index: int, done: Sequence[Done], seed: int, /) -> dict[str, Any]:
    """Each field drawn by itself."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    return {key: _drawn(values, rng) for key, values in space.items()}


def _drawn(values: Choice | Range, rng: np.random.Generator) -> Any:
    share = float(rng.random())
    return values.at(share) if isinstance(values, Range) else values.values[int(share * len(values.values))]


def optuna(space: Space, index: int, done: Sequence[Done], seed: int, /) -> dict[str, Any]:
    """Optuna's tree-structured Parzen estimator, told of all trials that are done (extra `optuna`)."""
    try:
        import optuna as library
    except ImportError:
        raise InputError(
            "Optuna is not installed", where="--method optuna", fix="pip install 'robpicker-jax[optuna]'"
        ) from None
    library.logging.set_verbosity(library.logging.WARNING)
    sampler = library.samplers.TPESampler(seed=seed + index)
    study = library.create_study(direction="maximize", sampler=sampler)
    distributions: dict[str, Any] = {}
    for key, values in space.items():
        if isinstance(values, Choice):  # by their numbers, since Optuna's categories cannot be lists
            distributions[key] = library.distributions.CategoricalDistribution(range(len(values.values)))
        elif values.whole:
            distributions[key] = library.distributions.IntDistribution(
                int(values.low), int(values.high), log=values.log
            )
        else:
            distributions[key] = library.distributions.FloatDistribution(values.low, values.high, log=values.log)
    for trial in done:
        if trial.score is not None:
            parameters = {key: _told(space[key], value) for key, value in trial.values.items()}
            study.add_trial(
                library.trial.create_trial(params=parameters, distributions=distributions, value=trial.score)
            )
    asked = study.ask(distributions).params
    chosen = {}
    for key, values in space.items():
        chosen[key] = values.values[asked[key]] if isinstance(values, Choice) else asked[key]
    return chosen


def _told(values: Choice | Range, value: Any) -> Any:
    return values.values.index(value) if isinstance(values, Choice) else value


PROPOSALS: dict[str, Proposer] = {"random": random, "grid": grid, "optuna": optuna}
"""The ways by name."""
