"""Maxima whose gradient does not depend on how the compiler orders its work.

JAX finds the place of a maximum again by comparing the operand with the result. XLA may compute the operand a second time for
that, in another order of operations: it then equals the result nowhere, and the gradient is lost. A choice between two
values passes the gradient on to one of them in any case.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax


def larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """The larger of each pair, NaN where one is NaN. Of equal values the first has the gradient."""
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def maximum_along(x: jax.Array, axis: int) -> jax.Array:
    """The maximum along a short axis, which is dropped. Of equal values the first has the gradient."""
    return functools.reduce(larger, (lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])))


def between(x: jax.Array, least: float, most: float) -> jax.Array:
    """Values clipped to an interval; the gradient is zero beyond its ends."""
    bounded: jax.Array = lax.clamp(jnp.asarray(least, x.dtype), x, jnp.asarray(most, x.dtype))
    return bounded
