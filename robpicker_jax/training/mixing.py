"""Mixup: convex combinations of patches and of their labels (Zhang et al. 2018, arXiv 1710.09412).

    x' = c x + (1 − c) x_p,     y' = c y + (1 − c) y_p,     x_p another patch of the batch

The coefficient c is one number a patch, drawn from Beta(a, a), or a map that a network makes of both patches and labels (the
published RobPicker's MetaMixup). Which patches are mixed and how is drawn from a key alone, so that all evaluations of one step
see the same mixture: with draws of their own, finite differences of a loss differ by more than what they are to measure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

_STREAM = 11  # apart from the keys of dropout and corruption


class Mixup(NamedTuple):
    """How often and how patches are mixed.

    Attributes:
        share: probability that a batch is mixed.
        strength: a of Beta(a, a).
        meta: whether meta batches are mixed too, as the published RobPicker does.
    """

    share: float = 0.0
    strength: float = 1.0
    meta: bool = False


NO_MIXUP = Mixup()


class Mixture(NamedTuple):
    """A drawn mixture.

    Attributes:
        partner: int32 (n,), the other patch of each.
        coefficient: c, (n, 1, 1, 1, 1) or (n, z, y, x, 1).
    """

    partner: Array
    coefficient: Array

    def of(self, values: Array) -> Array:
        """c v + (1 − c) v_p of values (n, z', y', x', k); a map of c takes means where they are coarser."""
        c = self.coefficient
        if c.shape[1] > values.shape[1]:
            n, z, y, x, _ = c.shape
            factor = z // values.shape[1]
            blocks = c.reshape(n, z // factor, factor, y // factor, factor, x // factor, factor, 1)
            c = jnp.mean(blocks, axis=(2, 4, 6))
        return c * values + (1.0 - c) * jnp.take(values, self.partner, axis=0)


Coefficient = Callable[[Array, Array, Array, Array], Array]
"""(image, partner's image, label, partner's label) → coefficient map (n, z, y, x, 1)."""


def drawn_mixture(key: Array, n: int, mixup: Mixup) -> Mixture:
    """A mixture of a batch of n patches; with probability 1 − share it leaves all as they are."""
    of_batch, of_partner, of_patch = jax.random.split(jax.random.fold_in(key, _STREAM), 3)
    drawn = jax.random.beta(of_patch, mixup.strength, mixup.strength, (n, 1, 1, 1, 1))
    mixed = jax.random.bernoulli(of_batch, mixup.share)
    return Mixture(jax.random.permutation(of_partner, n), jnp.where(mixed, drawn, 1.0))


def learned_mixture(key: Array, image: Array, label: Array, coefficient: Coefficient) -> Mixture:
    """A mixture of every patch with another one, by coefficients that a network gives."""
    partner = jax.random.permutation(jax.random.fold_in(key, _STREAM), len(image))
    others = (jnp.take(values, partner, axis=0) for values in (image, label))
    other_image, other_label = others
    return Mixture(partner, coefficient(image, other_image, label, other_label))
