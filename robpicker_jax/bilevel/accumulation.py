"""Gradient accumulation: a batch taken in m micro-batches, one after the other, with the memory of one.

    L(θ, M; b) = 1/m Σ_i L(θ, M; b_i),    F(θ; B) = 1/m Σ_i F(θ; B_i)

A loss that is a mean over samples is the mean of its values on micro-batches of equal size, and so is everything linear
in it: the inner gradient ∇_θ L, v = ∇_θ F, and the second-order product ∂/∂M ⟨∇_θ L, u⟩. Here the loss itself is a
`lax.scan` over micro-batches whose body is rematerialised, so every hypergradient method, whatever it differentiates,
accumulates by JAX's own rules and stays what it was: the scan's transpose adds up the micro-batches' contributions and
recomputes each one's activations when its turn comes.

Cost: one more forward pass for each gradient (4 U-Net forwards for 3, in the inner as in the outer gradient).
Memory: the activations of one micro-batch.

Batch norm is the exception. Statistics over the whole batch would need every micro-batch at every layer at once; here
each micro-batch is normalised by its own (Hoffer, Hubara & Soudry 2017, arXiv 1705.08741, "ghost" batch norm), so that
with batch norm the step is not that of the large batch but that of m small ones with one common update.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from robpicker_jax.bilevel.problem import BilevelProblem, Tree
from robpicker_jax.system.errors import InputError


def accumulated(problem: BilevelProblem, micro_batches: int) -> BilevelProblem:
    """The problem with both losses taken over `micro_batches` equal parts of each batch, one at a time.

    Batches: leaves with samples along their first axis; part i holds samples i, i + m, i + 2m, …, so that a batch that
    is split over devices stays where it is. Aux: leaves with samples first are put together again, scalars averaged.
    State: every part starts from the same floating-point leaves (running statistics), whose new values are averaged;
    other leaves (keys, counters) are handed from part to part, so that each draws its own dropout masks.

    Raises:
        InputError: fewer than one micro-batch; when called, a batch that does not divide.
    """
    if micro_batches < 1:
        raise InputError(f"micro_batches is {micro_batches}", fix="give at least 1")
    if micro_batches == 1:
        return problem

    def inner(params: Tree, meta: Tree, state: Tree, batch: Tree, *frozen: Tree) -> tuple[jax.Array, tuple[Tree, Tree]]:
        leaves, structure = jax.tree.flatten(state)
        floating = [jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact) for leaf in leaves]

        def part(passed: list[Tree], micro: Tree) -> tuple[list[Tree], tuple[jax.Array, list[Tree], Tree]]:
            rest = iter(passed)
            current = [leaf if is_float else next(rest) for leaf, is_float in zip(leaves, floating, strict=True)]
            loss, (after, aux) = problem.inner_loss(
                params, meta, jax.tree.unflatten(structure, current), micro, *frozen
            )
            new = jax.tree.leaves(after)
            floats = [leaf for leaf, is_float in zip(new, floating, strict=True) if is_float]
            return [leaf for leaf, is_float in zip(new, floating, strict=True) if not is_float], (loss, floats, aux)

        start = [leaf for leaf, is_float in zip(leaves, floating, strict=True) if not is_float]
        passed, (losses, floats, aux) = _scan(part, start, _split(batch, micro_batches))
        averaged, rest = iter([jnp.mean(leaf, axis=0) for leaf in floats]), iter(passed)
        after = jax.tree.unflatten(structure, [next(averaged) if is_float else next(rest) for is_float in floating])
        return jnp.mean(losses), (after, _join(aux))

    def outer(*arguments: Tree) -> tuple[jax.Array, Tree]:
        *fixed, batch = arguments

        def part(passed: None, micro: Tree) -> tuple[None, tuple[jax.Array, Tree]]:
            return passed, problem.outer_loss(*fixed, micro)

        _, (losses, aux) = _scan(part, None, _split(batch, micro_batches))
        return jnp.mean(losses), _join(aux)

    return dataclasses.replace(problem, inner_loss=inner, outer_loss=outer)


def _scan(part: Any, start: Any, parts: Tree) -> Any:
    return jax.lax.scan(jax.checkpoint(part, prevent_cse=False), start, parts)


def _split(batch: Tree, parts: int) -> Tree:
    """Leaves (n, …) as (parts, n/parts, …), sample i·parts + j going to part j."""

    def split(leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] % parts:
            raise InputError(
                f"a batch of {leaf.shape[0]} samples does not divide into {parts} micro-batches",
                fix="choose a batch size that is a multiple of their number",
            )
        return jnp.moveaxis(leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]), 1, 0)

    return jax.tree.map(split, batch)


def _join(aux: Tree) -> Tree:
    """Inverse of `_split` for leaves with samples; the mean of scalars."""

    def join(leaf: jax.Array) -> jax.Array:
        if leaf.ndim < 2:
            return jnp.mean(leaf, axis=0)
        return jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

    return jax.tree.map(join, aux)
