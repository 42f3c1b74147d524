"""The error of finite differences against ε, as rows and as a figure."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._common import Row, row
from benchmarks._hypergradient_problem import (
    LEARNING_RATE,
    Case,
    double_precision,
    flat,
    oracle,
    relative_error,
    setup,
)
from robpicker_jax.bilevel.adjoint import Point
from robpicker_jax.bilevel.hypergradients.finite_difference import central_difference
from robpicker_jax.bilevel.problem import Carry, run_inner_steps
from robpicker_jax.system.compilation import compile_options
from robpicker_jax.system.files import atomic_path


def epsilon_rows(benchmark: str, case: Case, epsilons: np.ndarray) -> Iterator[Row]:
    """Relative error of central differences against ε, the length of the shift of the parameters.

    The error is shown with and without paths that the inner gradient does not follow (they are frozen, see
    `BilevelProblem`); differences must agree with the exact hypergradient in both cases.
    """
    for dtype, stops in (("float64", False), ("float32", False), ("float32", True)):
        name = f"{case.name}: finite differences against ε, {_paths(stops)}"
        for epsilon, error in zip(epsilons.tolist(), _errors(case, dtype, stops, epsilons), strict=True):
            more = {"epsilon": epsilon, "dtype": dtype, "frozen": stops}
            yield row(benchmark, name, f"relative error at ε = {epsilon:.1e}, {dtype}", error, "", **more)


def _errors(case: Case, dtype: str, stops: bool, epsilons: np.ndarray) -> list[float]:
    reference = oracle(case, stops=stops)
    compiling = functools.partial(jax.jit, compiler_options=compile_options(case.platform))
    with double_precision() if dtype == "float64" else contextlib.nullcontext():
        problem, arguments = setup(case, dtype, stops=stops)

        @compiling
        def direction(params: Any, meta: Any, state: Any, opt_state: Any, train: Any, meta_batch: Any) -> Any:
            """u = −η v, v the outer loss's gradient at the updated parameters."""
            end = run_inner_steps(problem, 1, meta, Carry(params, state, opt_state), train)[0]
            v = jax.grad(problem.outer, has_aux=True)(end.params, meta, end.state, meta_batch)[0]
            return jax.tree.map(lambda leaf: -LEARNING_RATE * leaf, v)

        @compiling
        def differences(params: Any, meta: Any, state: Any, train: Any, u: Any, epsilon: Any) -> Any:
            point = Point(params, meta, state, jax.tree.map(lambda leaf: leaf[0], train))
            return central_difference(problem, point, u, epsilon, False)[1]

        u = direction(*arguments)
        params, meta, state, _, train, _ = arguments
        values = [differences(params, meta, state, train, u, jnp.asarray(size, dtype)) for size in epsilons]
    return [relative_error(flat(value), reference) for value in values]


def _paths(stops: bool) -> str:
    return "some paths frozen" if stops else "no path frozen"


def draw(rows: list[Row], path: Path) -> None:
    """The error of finite differences against ε, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="ε, length of the shift of the parameters", ylabel="relative error")
    series: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for item in rows:
        if "epsilon" in item:
            key = item["dtype"], item["frozen"]
            series.setdefault(key, []).append((item["epsilon"], item["value"]))
    for (dtype, stops), points in series.items():
        axes.loglog(*zip(*points, strict=True), "o-", label=f"{dtype}, {_paths(stops)}")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    axes.grid(alpha=0.3)
    with atomic_path(path) as partial:
        figure.savefig(partial, format=path.suffix[1:] or "png", dpi=150)
