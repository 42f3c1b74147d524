"""Bi-level optimisation on pure functions: problems and their hypergradients, usable on any pytrees."""

from __future__ import annotations

from robpicker_jax.bilevel.hypergradients import METHODS, accepts, hypergradient
from robpicker_jax.bilevel.optimizer_check import check_optimizer
from robpicker_jax.bilevel.problem import BilevelProblem, Estimate, LossAux

__all__ = ["METHODS", "BilevelProblem", "Estimate", "LossAux", "accepts", "check_optimizer", "hypergradient"]
