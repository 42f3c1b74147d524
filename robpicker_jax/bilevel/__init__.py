"""Bi-level optimisation on pure functions: problems, their hypergradients and training steps, usable on any pytrees."""

from __future__ import annotations

from robpicker_jax.bilevel.accumulation import accumulated
from robpicker_jax.bilevel.hypergradients import METHODS, accepts, configured_options, hypergradient
from robpicker_jax.bilevel.method import EstimatorBuilder, Method
from robpicker_jax.bilevel.optimizer_check import check_optimizer
from robpicker_jax.bilevel.problem import BilevelProblem, Estimate, LossAux
from robpicker_jax.bilevel.step import Metrics, Step, TrainState, bilevel_step, initial_state, plain_step

__all__ = [
    "METHODS",
    "BilevelProblem",
    "Estimate",
    "EstimatorBuilder",
    "LossAux",
    "Method",
    "Metrics",
    "Step",
    "TrainState",
    "accepts",
    "accumulated",
    "bilevel_step",
    "check_optimizer",
    "configured_options",
    "hypergradient",
    "initial_state",
    "plain_step",
]
