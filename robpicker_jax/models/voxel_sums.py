"""Sums over samples and voxels, and values spread over them, channels last: one definition, lowered per platform.

The two are each other's transposes, so that two JAX primitives with linear rules give forward and reverse mode to any
order, as for convolutions (`conv.py`), and the sums of a backward pass are those of a forward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

voxel_sum_p = Primitive("robpicker_voxel_sum")
voxel_spread_p = Primitive("robpicker_voxel_spread")


def voxel_sum(x: jax.Array | np.ndarray) -> jax.Array:
    """Sum of `x (..., C)` over all axes but the last: `(C,)`."""
    total: jax.Array = voxel_sum_p.bind(x)
    return total


def voxel_spread(values: jax.Array | np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """The values `(C,)` at every voxel of an array of `shape (..., C)`."""
    spread: jax.Array = voxel_spread_p.bind(values, shape=tuple(shape))
    return spread


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=tuple(range(x.ndim - 1)))


def _sum_by_rows(x: jax.Array) -> jax.Array:
    """The sum in two stages, for CPU.

    XLA's CPU code gives each channel to one thread, which reads all voxels in steps of C values. Sums along x come
    first, so that many threads share the work and each reads values that lie together.
    """
    return _sum(lax.optimization_barrier(jnp.sum(x, axis=-2))) if x.ndim > 2 else _sum(x)


def _spread(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.broadcast_to(values, shape)


def _sum_shape(x: Any) -> Any:
    return x.update(shape=x.shape[-1:], weak_type=False)


def _spread_shape(values: Any, *, shape: tuple[int, ...]) -> Any:
    return values.update(shape=shape, weak_type=False)


def _batched_sum(args: Any, dims: Any) -> Any:
    x = jnp.moveaxis(args[0], dims[0], 0)
    return jnp.sum(x, axis=tuple(range(1, x.ndim - 1))), 0


def _batched_spread(args: Any, dims: Any, *, shape: tuple[int, ...]) -> Any:
    values = jnp.moveaxis(args[0], dims[0], 0)
    return jnp.broadcast_to(values.reshape(-1, *[1] * (len(shape) - 1), shape[-1]), (len(values), *shape)), 0


def _register(
    primitive: Primitive, shape: Any, transpose: Any, batched: Any, forms: dict[Any, Callable[..., Any]]
) -> None:
    primitive.def_abstract_eval(shape)
    primitive.def_impl(functools.partial(jax.jit, static_argnames="shape")(primitive.bind))
    ad.deflinear2(primitive, transpose)
    batching.primitive_batchers[primitive] = batched
    for platform, form in forms.items():
        mlir.register_lowering(primitive, mlir.lower_fun(form, multiple_results=False), platform=platform)


_register(
    voxel_sum_p,
    _sum_shape,
    lambda g, x: [voxel_spread(g, x.aval.shape)],
    _batched_sum,
    {None: _sum, "cpu": _sum_by_rows},
)
_register(voxel_spread_p, _spread_shape, lambda g, _, shape: [voxel_sum(g)], _batched_spread, {None: _spread})
