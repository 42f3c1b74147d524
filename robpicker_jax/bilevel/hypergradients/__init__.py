"""Every hypergradient method by name: one file a method, one line here.

A method's file opens with its formula, its cost and its reference, and defines `build`, as `EstimatorBuilder` describes
it. A method from outside of the package is added by `METHODS["mine"] = Method("what it computes", lambda: build)`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.bilevel.method import EstimatorBuilder, Method
from robpicker_jax.bilevel.problem import BilevelProblem, Estimate, Estimator, Tree
from robpicker_jax.bilevel.update_derivative import refuse_without_derivative
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.registry import check_option_names, checked_options, look_up, option_parameters

_CORNER = 4  # entries along each axis of a parameter on which an update is tried


def _from_file(name: str, summary: str, *, differentiates_update: bool = True) -> Method:
    """The method of a file in this folder, which is imported when the method is used."""

    @functools.cache
    def load() -> EstimatorBuilder:
        build: EstimatorBuilder = importlib.import_module(f"{__name__}.{name}").build
        return build

    return Method(summary, load, differentiates_update)


METHODS: dict[str, Method] = {
    "unrolled": _from_file("unrolled", "jax.grad through the inner steps: the definition (exact)"),
    "tangent": _from_file("tangent", "gradient over M of the inner loss's slope along u (exact, lean in memory)"),
    "forward_over_reverse": _from_file(
        "forward_over_reverse", "derivative along u of the gradient over M (exact, mixed mode over the steps)"
    ),
    "finite_difference": _from_file(
        "finite_difference", "central differences at the old parameters (the paper's eq. 12–13)"
    ),
    "darts": _from_file(
        "darts",
        "central differences at the updated parameters, without η (the published code)",
        differentiates_update=False,
    ),
    "neumann": _from_file(
        "neumann", "implicit differentiation, inverse Hessian by a Neumann series", differentiates_update=False
    ),
    "conjugate_gradient": _from_file(
        "conjugate_gradient",
        "implicit differentiation, linear system by conjugate gradients",
        differentiates_update=False,
    ),
    "truncated": _from_file("truncated", "plain inner steps, the last ones differentiated (the published schedule)"),
    "none": _from_file("none", "zero: the meta networks stay as they are", differentiates_update=False),
}
"""Name → method."""


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: for an unknown name; the message lists the nearest names.
    """
    return look_up(METHODS, name, key="hypergradient method")


def hypergradient(
    name: str, problem: BilevelProblem, inner_steps: int = 1, *, check_update: bool = True, **options: Any
) -> Estimator:
    """Estimator of the hypergradient by the named method: K inner steps, and the outer loss's gradient w.r.t. `meta`.

    Args:
        name: one of `METHODS`.
        problem: the bi-level problem.
        inner_steps: number K ≥ 1 of inner steps for each hypergradient.
        check_update: at the first call (or the first tracing of one), refuse an inner optimiser through whose update no
            hypergradient can pass (see `check_optimizer`).
        options: the method's own options, as in its file.

    Returns:
        `estimate(params, meta, state, opt_state, inner_batches, outer_batch) -> Estimate`, a pure function to
        be jitted; the leaves of `inner_batches` have a leading axis of length `inner_steps`.

    Raises:
        InputError: for an unknown method or option, or `inner_steps < 1`; from the estimator, for an optimiser whose
            update has no useful derivative.
    """
    if inner_steps < 1:
        raise InputError(f"inner_steps is {inner_steps}", where=f"hypergradient {name}", fix="give at least 1")
    method = find_method(name)
    build = method.load()
    check_option_names(build, options, key=f"hypergradient {name}")
    estimator: Estimator = build(problem, inner_steps, **options)
    return _checked_once(estimator, problem) if check_update and method.differentiates_update else estimator


def _checked_once(estimator: Estimator, problem: BilevelProblem) -> Estimator:
    """The estimator, which looks at the optimiser's update when it is called first."""
    is_checked = False

    def estimate(params: Tree, *rest: Tree) -> Estimate:
        nonlocal is_checked
        if not is_checked:
            # Numbers of the same structure take the parameters' place, which may be a tracer's; a corner is enough.
            corner = jax.tree.map(lambda leaf: np.ones([min(n, _CORNER) for n in leaf.shape], leaf.dtype), params)
            with jax.ensure_compile_time_eval():
                try:
                    refuse_without_derivative(problem.inner_optimizer, jax.tree.map(jnp.asarray, corner))
                except InputError:
                    raise
                except (TypeError, ValueError, AttributeError, IndexError):
                    pass  # an optimiser made for parameters of these very shapes: it cannot be tried on others
            is_checked = True
        return estimator(params, *rest)

    return estimate


def configured_options(name: str, options: Mapping[str, Any], *, key: str) -> dict[str, Any]:
    """Options that a user gave for a method, checked against the method's signature before anything is built.

    `truncated` hands on what it does not know itself to the method that it differentiates the last steps by, so such
    options are checked against that method's signature.

    Args:
        name: one of `METHODS`.
        options: name → value; `mean`, which belongs to the program and not to the user, is refused.
        key: key of the configuration that holds the options, for messages.

    Raises:
        InputError: an unknown method, an unknown option, or a value of another type.
    """
    build = find_method(name).load()
    checked = checked_options(build, options, key=key, reserved=("mean",))
    known = option_parameters(build)
    further = {option: checked.pop(option) for option in list(checked) if option not in known}
    if further:
        inner = checked.get("method", known["method"].default)
        checked |= configured_options(inner, further, key=key)
    return checked


def accepts(name: str, option: str) -> bool:
    """Whether a method has an option of this name (`mean`, say: whether it can run inside `shard_map` or `pmap`)."""
    parameters = option_parameters(find_method(name).load()).values()
    return any(option == parameter.name or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
