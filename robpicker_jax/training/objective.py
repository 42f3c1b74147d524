"""RobPicker's inner and outer loss as pure functions of parameters (the paper's eq. 1–5).

inner:  L_tr(I, C, R) = mean_i w_i ℓ_i,  ℓ_i = D(f(t_i; I), C(a_i)),  w_i = R(ℓ_i)
outer:  L_val(I')     = mean_j D(f(t_j; I'), a_j)

D is the loss of a segmentation that `train.loss` names (`robpicker_jax.training.losses`), the paper's being Dice.
Means stand where the paper has sums, so that learning rates do not depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from robpicker_jax.bilevel import BilevelProblem
from robpicker_jax.training.losses import BoundLoss, dice

Tree = Any


class Networks(NamedTuple):
    """The three networks as pure functions.

    Attributes:
        segment: (params, batch_stats, image (n,z,y,x,1), train, dropout_key=None)
            → (features (n,z,y,x,f), logits (n,z,y,x,c), batch_stats).
        correct: (params, features, one-hot label (n,z,y,x,c)) → (corrected label, alpha (n,z,y,x,1 or c)).
        reweight: (params, loss (n,)) → weight (n,).
        dropout: whether `segment` uses its dropout key.
    """

    segment: Callable[..., tuple[Array, Array, Tree]]
    correct: Callable[[Tree, Array, Array], tuple[Array, Array]]
    reweight: Callable[[Tree, Array], Array]
    dropout: bool = False


class NetworkState(NamedTuple):
    """What the segmentation network carries from step to step beside its parameters; no gradient flows through it.

    Attributes:
        batch_stats: running statistics of batch norm, updated by training batches alone.
        dropout_key: key of the next dropout masks.
    """

    batch_stats: Tree
    dropout_key: Array


class Batch(NamedTuple):
    """Patches, their label maps, and the class each was drawn for (0: a random position)."""

    image: Float[Array, "n z y x 1"]
    label: Int[Array, "n z y x"]
    center_class: Int[Array, " n"]


class InnerAux(NamedTuple):
    """What the inner loss returns beside its value: one entry for each patch.

    Attributes:
        loss: loss against the corrected label, not weighted.
        weight: the weight of the patch.
        alpha: mean of the label correction's α over the patch.
        changed: share of voxels whose class the correction changed.
        center_class: the class that the patch was drawn for (0: a random position).
    """

    loss: Float[Array, " n"]
    weight: Float[Array, " n"]
    alpha: Float[Array, " n"]
    changed: Float[Array, " n"]
    center_class: Int[Array, " n"]


def robpicker_problem(
    networks: Networks,
    inner_optimizer: optax.GradientTransformation,
    loss: BoundLoss = dice,
    *,
    stop_gradient_label: bool = True,
    stop_gradient_weight: bool = True,
) -> BilevelProblem:
    """RobPicker's bi-level problem: `inner_loss` and `outer_loss` with the same arguments, and an inner optimiser."""
    return BilevelProblem(
        inner_loss(networks, loss, stop_gradient_label=stop_gradient_label, stop_gradient_weight=stop_gradient_weight),
        outer_loss(networks, loss),
        inner_optimizer,
        inner_loss_uses_frozen=True,
    )


def inner_loss(
    networks: Networks,
    loss: BoundLoss = dice,
    *,
    stop_gradient_label: bool = True,
    stop_gradient_weight: bool = True,
) -> Callable[[Tree, Tree, NetworkState, Batch, Tree], tuple[Array, tuple[NetworkState, InnerAux]]]:
    """The inner loss as `(params, meta, state, batch, frozen) -> (loss, (state, aux))`.

    `frozen` has the value of `params` (see `BilevelProblem.inner_loss_uses_frozen`): targets and weights are computed
    from it where the inner gradient must not follow them. So finite differences, which shift `params`, and the
    derivatives of several inner steps leave out the same paths as the inner gradient, and no others. The second forward
    pass has the same operands as the first, and the compiler merges the two.

    `meta` holds the parameters of the meta networks in use: "correction", "reweighting", both or none. Without a
    network its step is left out: labels stay as they are, weights are one. So the variants differ in `meta` alone.

    Args:
        networks: the three networks.
        loss: the loss of a segmentation.
        stop_gradient_label: no gradient with respect to the segmentation network through the corrected label.
        stop_gradient_weight: none through the loss value that sets the weight.
    """
    stop = jax.lax.stop_gradient

    def inner(
        params: Tree, meta: Tree, state: NetworkState, batch: Batch, frozen: Tree
    ) -> tuple[Array, tuple[NetworkState, InnerAux]]:
        this_key, next_key = None, state.dropout_key
        if networks.dropout:
            this_key, next_key = jax.random.split(state.dropout_key)

        def segment(params: Tree) -> tuple[Array, Array, Tree]:
            return networks.segment(params, state.batch_stats, batch.image, train=True, dropout_key=this_key)

        features, logits, batch_stats = segment(params)
        probabilities = _softmax(logits)
        noisy = jax.nn.one_hot(batch.label, logits.shape[-1], dtype=probabilities.dtype)

        def target(features: Array) -> tuple[Array, Array]:
            if "correction" not in meta:
                return noisy, jnp.zeros_like(noisy[..., :1])
            return networks.correct(meta["correction"], features, noisy)

        still_features, still_logits = features, logits
        if meta and (stop_gradient_label or stop_gradient_weight):
            still_features, still_logits, _ = segment(frozen)
        corrected, alpha = target(still_features if stop_gradient_label else features)
        losses = loss(probabilities, corrected).per_patch
        weights = jnp.ones_like(losses)
        if "reweighting" in meta:
            # Only the segmentation network is frozen: the weight still depends on the correction, through the target.
            seen = losses
            if stop_gradient_weight:
                seen = loss(_softmax(still_logits), target(still_features)[0]).per_patch
            weights = networks.reweight(meta["reweighting"], seen)
        changed = jnp.mean(jnp.argmax(corrected, axis=-1) != batch.label, axis=(1, 2, 3), dtype=probabilities.dtype)
        aux = InnerAux(losses, weights, jnp.mean(alpha, axis=(1, 2, 3, 4)), changed, batch.center_class)
        return jnp.mean(weights * losses), (NetworkState(batch_stats, next_key), jax.tree.map(stop, aux))

    return inner


def outer_loss(
    networks: Networks, loss: BoundLoss = dice
) -> Callable[[Tree, NetworkState, Batch], tuple[Array, Array]]:
    """The outer loss as `(params, state, batch) -> (loss, loss of each patch)`, on clean labels.

    Batch norm uses the meta batch's own statistics, and leaves the running ones alone; nothing is dropped out.
    """

    def outer(params: Tree, state: NetworkState, batch: Batch) -> tuple[Array, Array]:
        _, logits, _ = networks.segment(params, state.batch_stats, batch.image, train=True)
        clean = jax.nn.one_hot(batch.label, logits.shape[-1], dtype=_wide(logits))
        losses = loss(_softmax(logits), clean).per_patch
        return jnp.mean(losses), losses

    return outer


def _wide(array: Array) -> jnp.dtype:
    return jnp.promote_types(array.dtype, jnp.float32)


def _softmax(logits: Array) -> Array:
    return jax.nn.softmax(logits.astype(_wide(logits)), axis=-1)
