"""Every hypergradient method by name: one file a method, one line here.

A method's file opens with its formula, its cost and its reference, and defines

- `build(problem, inner_steps, **options) -> Estimator`, the keyword arguments being the method's options;
- `DIFFERENTIATES_UPDATE`, whether it passes through the inner optimiser's update (see `check_optimizer`).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from robpicker_jax.bilevel.problem import BilevelProblem, Estimator
from robpicker_jax.system.errors import InputError

METHODS: dict[str, str] = {
    "unrolled": "jax.grad through the inner steps: the definition (exact)",
    "tangent": "gradient over M of the inner loss's slope along u (exact, lean in memory)",
    "forward_over_reverse": "derivative along u of the gradient over M (exact, mixed mode over the steps)",
    "finite_difference": "central differences at the old parameters (the paper's eq. 12–13)",
    "darts": "central differences at the updated parameters, without η (the published code)",
    "neumann": "implicit differentiation, inverse Hessian by a Neumann series",
    "conjugate_gradient": "implicit differentiation, linear system by conjugate gradients",
    "truncated": "plain inner steps, the last ones differentiated (the published schedule)",
    "none": "zero: the meta networks stay as they are",
}
"""Name of each method, which is the name of its file, and what it does in one line."""


def method_module(name: str) -> ModuleType:
    """The module of a method.

    Raises:
        InputError: for an unknown name; the message lists the nearest names.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(str(name), METHODS, n=3, cutoff=0.4)
        known = f"did you mean {' or '.join(near)}?" if near else "choose one"
        raise InputError(f"unknown hypergradient method {name!r}", fix=f"{known} (known: {', '.join(METHODS)})")
    return importlib.import_module(f"{__name__}.{name}")


def hypergradient(name: str, problem: BilevelProblem, inner_steps: int = 1, **options: Any) -> Estimator:
    """Estimator of the hypergradient by the named method: K inner steps, and the outer loss's gradient w.r.t. `meta`.

    Args:
        name: one of `METHODS`.
        problem: the bi-level problem.
        inner_steps: number K ≥ 1 of inner steps for each hypergradient.
        options: the method's own options, as in its file.

    Returns:
        `estimate(params, meta, state, opt_state, inner_batches, outer_batch) -> Estimate`, a pure function to
        be jitted; the leaves of `inner_batches` have a leading axis of length `inner_steps`.

    Raises:
        InputError: for an unknown method or option, or `inner_steps < 1`.
    """
    build = method_module(name).build
    if inner_steps < 1:
        raise InputError(f"inner_steps is {inner_steps}", where=f"hypergradient {name}", fix="give at least 1")
    known = [option.name for option in _options(build)]
    for option in options:
        if not accepts(name, option):
            raise InputError(
                f"unknown option {option!r}",
                where=f"hypergradient {name}",
                fix=f"its options are {', '.join(known)}" if known else "it has no options",
            )
    return build(problem, inner_steps, **options)


def accepts(name: str, option: str) -> bool:
    """Whether a method has an option of this name (`mean`, say: whether it can run inside `shard_map` or `pmap`)."""
    parameters = _options(method_module(name).build)
    return any(option == parameter.name or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _options(build: Callable[..., Estimator]) -> list[inspect.Parameter]:
    parameters = inspect.signature(build).parameters.values()
    return [parameter for parameter in parameters if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)]
