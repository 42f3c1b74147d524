"""What a hypergradient method must offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from robpicker_jax.bilevel.problem import BilevelProblem, Estimator


@runtime_checkable
class EstimatorBuilder(Protocol):
    """Builds the estimator of a hypergradient method: `build(problem, inner_steps, **options) -> Estimator`.

    To add a method, write such a function and put `Method(summary, lambda: build)` into `METHODS` under a name:
    in `robpicker_jax/bilevel/hypergradients/__init__.py`, or from outside of the package before the name is used.
    """

    def __call__(self, problem: BilevelProblem, inner_steps: int, /, *args: Any, **options: Any) -> Estimator:
        """The estimator of a problem.

        The estimator is a pure function `estimate(params, meta, state, opt_state, inner_batches, outer_batch) ->
        Estimate`. It runs the inner steps by `inner_step` or `run_inner_steps` of `bilevel/problem.py`, so that all
        methods train alike, and gives beside the new parameters an estimate of d(outer loss)/d(meta).

        Args:
            problem: the bi-level problem; its losses are called as `problem.inner` and `problem.outer`.
            inner_steps: number K ≥ 1 of inner steps; the leaves of `inner_batches` have a leading axis of this length.
            args: not used; it lets builders with other parameters fit this type.
            options: the builder's further keyword-only parameters: these are the method's options, and
                `train.hypergradient_options` is checked against their names and annotations. A method that can run
                inside `shard_map` has an option `mean`, the average over devices, which it applies outside of every
                derivative; users cannot set it.

        Raises:
            InputError: an option out of its range.
        """
        ...


@dataclass(frozen=True)
class Method:
    """An entry of `METHODS`.

    Attributes:
        summary: what the method computes, in one line.
        load: gives the builder; called when the method is used, so that a method's file need not be imported before.
        differentiates_update: whether the method differentiates the inner optimiser's update, so that optimisers
            without a useful derivative are refused (see `check_optimizer`).
    """

    summary: str
    load: Callable[[], EstimatorBuilder]
    differentiates_update: bool = True
