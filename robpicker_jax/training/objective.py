"""RobPicker's inner and outer loss as pure functions of parameters (the paper's eq. 1–5), and the correction's own loss.

inner:  L_tr(I, C, R) = mean_i w_i ℓ_i,  ℓ_i = D(f(t_i; I), C(a_i)),  w_i = R(ℓ_i)
outer:  L_val(I')     = mean_j D(f(t_j; I'), a_j)
own:    L_C(C)        = mean_j D(C(ã_j), a_j),  ã_j a corrupted copy of the clean label a_j

D is the loss of a segmentation that `train.loss` names (`robpicker_jax.training.losses`), the paper's being Dice.
Means stand where the paper has sums, so that learning rates do not depend on the batch size.

The own loss is what makes the correction correct: with it C is told, label by label, what it should have made of noise
of a known kind. The hypergradient of one step alone carries next to no signal for a species that is small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from robpicker_jax.bilevel import BilevelProblem
from robpicker_jax.models import Head, class_probabilities
from robpicker_jax.models.label_correction import Corrected
from robpicker_jax.training.corruption import CorruptionRates, corrupt
from robpicker_jax.training.losses import BoundLoss, LossValues, dice
from robpicker_jax.training.losses.overlap import batch_dice
from robpicker_jax.training.losses.voxelwise import focal

Tree = Any
_PRESENT_VOX = 0.5  # a class is present in a patch whose label holds a voxel of it


class Networks(NamedTuple):
    """The three networks as pure functions.

    Attributes:
        segment: (params, batch_stats, image (n,z,y,x,1), train, dropout_key=None)
            → (features (n,z,y,x,f), class scores (n,z,y,x,c), batch_stats).
        correct: (params, features, class probabilities (n,z,y,x,c), one-hot label (n,z,y,x,c), image)
            → the corrected label, alpha and the proposal.
        reweight: (params, losses by class (n,c), presence of classes (n,c)) → weight (n,).
        dropout: whether `segment` uses its dropout key.
        head: how class scores become probabilities.
        deep: (params, batch_stats, image, dropout_key=None) → class scores (n,z,y,x,c) of coarser levels, finest first,
            of the pass that `segment` makes in training; None: the network has no deep supervision.
    """

    segment: Callable[..., tuple[Array, Array, Tree]]
    correct: Callable[[Tree, Array, Array, Array, Array], Corrected]
    reweight: Callable[[Tree, Array, Array], Array]
    dropout: bool = False
    head: Head = "softmax"
    deep: Callable[..., tuple[Array, ...]] | None = None

    def probabilities(self, scores: Array) -> Array:
        """Class probabilities (n,z,y,x,c) of class scores, float32 at least."""
        return class_probabilities(scores, self.head)


class NetworkState(NamedTuple):
    """What is carried from step to step beside the parameters; no gradient flows through it.

    Attributes:
        batch_stats: running statistics of batch norm, updated by training batches alone.
        key: key of the next step's dropout masks and corrupted labels.
        average: exponential average of the segmentation network's parameters; None where nothing uses it.
    """

    batch_stats: Tree
    key: Array
    average: Tree = None


class Batch(NamedTuple):
    """Patches and their label maps.

    Attributes:
        image: densities.
        label: class labels.
        center_class: the class that each patch was drawn for (0: a random position).
        is_clean: whether a patch's labels are known to be right and are not corrected; None: of no patch.
    """

    image: Float[Array, "n z y x 1"]
    label: Int[Array, "n z y x"]
    center_class: Int[Array, " n"]
    is_clean: Bool[Array, " n"] | None = None


class InnerAux(NamedTuple):
    """What the inner loss returns beside its value: one entry for each patch.

    Attributes:
        loss: loss against the corrected label, not weighted.
        weight: the weight of the patch.
        alpha: mean of the label correction's α over the patch.
        changed: share of voxels whose class the correction changed.
        gained: label mass that each class gained by the correction, in voxels.
        lost: label mass that each class lost.
        mass: label mass of each class before the correction.
        center_class: the class that the patch was drawn for (0: a random position).
    """

    loss: Float[Array, " n"]
    weight: Float[Array, " n"]
    alpha: Float[Array, " n"]
    changed: Float[Array, " n"]
    gained: Float[Array, "n c"]
    lost: Float[Array, "n c"]
    mass: Float[Array, "n c"]
    center_class: Int[Array, " n"]


class OwnAux(NamedTuple):
    """What the correction made of corrupted meta labels, one entry for each patch.

    Attributes:
        loss: loss of the corrected label against the clean one.
        restored: share of the corrupted voxels whose class the correction put right; 1 where nothing was corrupted.
        spoiled: share of the other voxels whose class it changed.
    """

    loss: Float[Array, " n"]
    restored: Float[Array, " n"]
    spoiled: Float[Array, " n"]


def robpicker_problem(
    networks: Networks,
    inner_optimizer: optax.GradientTransformation,
    loss: BoundLoss = dice,
    *,
    stop_gradient_label: bool = True,
    stop_gradient_weight: bool = True,
    weights: str = "none",
    average_decay: float = 0.0,
    average_proposes: bool = False,
) -> BilevelProblem:
    """RobPicker's bi-level problem: `inner_loss` and `outer_loss` with the same arguments, and an inner optimiser."""
    inner = inner_loss(
        networks,
        loss,
        stop_gradient_label=stop_gradient_label,
        stop_gradient_weight=stop_gradient_weight,
        weights=weights,
        average_decay=average_decay,
        average_proposes=average_proposes,
    )
    return BilevelProblem(
        inner,
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
    weights: str = "none",
    average_decay: float = 0.0,
    average_proposes: bool = False,
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
        weights: "none" takes weights as they are; "mean" and "sum" divide them by their mean or sum over the batch,
            without which more weight for every patch is a larger step, and all weights drift to one.
        average_decay: decay of the averaged parameters, where the state holds them.
        average_proposes: the correction's proposal is their prediction.
    """
    stop = jax.lax.stop_gradient

    def inner(
        params: Tree, meta: Tree, state: NetworkState, batch: Batch, frozen: Tree
    ) -> tuple[Array, tuple[NetworkState, InnerAux]]:
        this_key, next_key = jax.random.split(state.key)
        dropout_key = this_key if networks.dropout else None

        def segment(params: Tree) -> tuple[Array, Array, Tree]:
            return networks.segment(params, state.batch_stats, batch.image, train=True, dropout_key=dropout_key)

        features, logits, batch_stats = segment(params)
        probabilities = networks.probabilities(logits)
        noisy = jax.nn.one_hot(batch.label, logits.shape[-1], dtype=probabilities.dtype)
        average = None
        if state.average is not None:
            average = jax.tree.map(
                lambda old, new: average_decay * old + (1 - average_decay) * new, state.average, frozen
            )

        def target(features: Array, probabilities: Array) -> tuple[Array, Array]:
            if "correction" not in meta:
                return noisy, jnp.zeros_like(noisy[..., :1])
            if average_proposes:
                probabilities = networks.probabilities(segment(state.average)[1])
            corrected, alpha, _ = networks.correct(meta["correction"], features, probabilities, noisy, batch.image)
            if batch.is_clean is None:
                return corrected, alpha
            clean = batch.is_clean[:, None, None, None, None]
            return jnp.where(clean, noisy, corrected), jnp.where(clean, 0.0, alpha)

        still_features, still = features, probabilities
        if meta and (stop_gradient_label or stop_gradient_weight):
            still_features, still_logits, _ = segment(frozen)
            still = networks.probabilities(still_logits)
        corrected, alpha = target(*((still_features, still) if stop_gradient_label else (features, probabilities)))
        values = loss(probabilities, corrected)
        taught = values.per_patch
        if networks.deep is not None:
            deep = networks.deep(params, state.batch_stats, batch.image, dropout_key=dropout_key)
            taught = _with_levels(
                taught, [loss(networks.probabilities(scores), corrected).per_patch for scores in deep]
            )
        weight = jnp.ones_like(values.per_patch)
        if "reweighting" in meta:
            # Only the segmentation network is frozen: the weight still depends on the correction, through the target.
            seen = values
            if stop_gradient_weight:
                seen = loss(still, target(still_features, still)[0])
            present = jnp.sum(noisy, axis=(1, 2, 3)) >= _PRESENT_VOX
            weight = _normalised(networks.reweight(meta["reweighting"], seen.per_class, present), weights)
        aux = _inner_aux(values.per_patch, weight, alpha, noisy, corrected, batch)
        state = NetworkState(batch_stats, next_key, average)
        return jnp.mean(weight * taught), (state, jax.tree.map(stop, aux))

    return inner


def clean_loss(networks: Networks, loss: BoundLoss = dice) -> Callable[[Tree, NetworkState, Batch], LossValues]:
    """The loss on clean labels by patch and class, as `(params, state, batch) -> values`.

    Batch norm uses the batch's own statistics, and leaves the running ones alone; nothing is dropped out.
    """

    def values(params: Tree, state: NetworkState, batch: Batch) -> LossValues:
        _, logits, _ = networks.segment(params, state.batch_stats, batch.image, train=True)
        clean = jax.nn.one_hot(batch.label, logits.shape[-1], dtype=_wide(logits))
        return loss(networks.probabilities(logits), clean)

    return values


def outer_loss(
    networks: Networks, loss: BoundLoss = dice
) -> Callable[[Tree, NetworkState, Batch], tuple[Array, Array]]:
    """The outer loss as `(params, state, batch) -> (loss, loss of each patch)`: the mean of `clean_loss`."""
    values = clean_loss(networks, loss)

    def outer(params: Tree, state: NetworkState, batch: Batch) -> tuple[Array, Array]:
        losses = values(params, state, batch).per_patch
        return jnp.mean(losses), losses

    return outer


def own_loss(
    networks: Networks,
    corruption: CorruptionRates,
    loss: BoundLoss = dice,
    *,
    average_proposes: bool = False,
    own_head: bool = False,
    device_axis: str | None = None,
) -> Callable[[Tree, Tree, NetworkState, Batch], tuple[Array, OwnAux]]:
    """The correction's own loss as `(params, meta, state, batch) -> (loss, aux)`, on clean labels that were corrupted.

    Only `meta["correction"]` is meant to be differentiated: the segmentation network is what it is.

    Args:
        networks: the three networks.
        corruption: the rates of errors.
        loss: the loss of a segmentation, of the corrected label against the clean one.
        average_proposes: the proposal is the prediction of the averaged parameters.
        own_head: the proposal is the correction's own. Then the loss is Dice over the batch of C(ã) and of S, and
            cross-entropy of S, whatever the loss of the segmentation: Dice patch by patch would punish every trace of the
            classes that a patch does not hold, and a correction has to begin with traces.
        device_axis: mapped axis of the devices that share the batch, inside `shard_map` or `pmap`.
    """

    cross_entropy, whole_dice = partial(focal, gamma=0.0), partial(batch_dice, device_axis=device_axis)

    def own(params: Tree, meta: Tree, state: NetworkState, batch: Batch) -> tuple[Array, OwnAux]:
        frozen = jax.lax.stop_gradient(params)
        features, logits, _ = networks.segment(frozen, state.batch_stats, batch.image, train=True)
        n_classes = logits.shape[-1]
        prediction = networks.probabilities(logits)
        if average_proposes:
            prediction = networks.probabilities(
                networks.segment(state.average, state.batch_stats, batch.image, train=True)[1]
            )
        noisy = corrupt(batch.label, batch.image, jax.random.fold_in(state.key, 1), corruption)
        one_hot, clean = (jax.nn.one_hot(each, n_classes, dtype=prediction.dtype) for each in (noisy, batch.label))
        corrected, _, proposal = networks.correct(meta["correction"], features, prediction, one_hot, batch.image)
        if own_head:
            # It has to learn what it proposes however small α is; cross-entropy still moves it where it is sure and wrong.
            both = whole_dice(corrected, clean).per_patch + whole_dice(proposal, clean).per_patch
            losses = both + cross_entropy(proposal, clean).per_patch
        else:
            losses = loss(corrected, clean).per_patch
        right = jnp.argmax(corrected, axis=-1) == batch.label
        wrong = noisy != batch.label
        space = (1, 2, 3)
        n_wrong = jnp.sum(wrong, axis=space, dtype=losses.dtype)
        n_right = wrong[0].size - n_wrong
        restored = jnp.where(n_wrong > 0, jnp.sum(right & wrong, axis=space) / jnp.maximum(n_wrong, 1), 1.0)
        spoiled = jnp.sum(~right & ~wrong, axis=space) / jnp.maximum(n_right, 1)
        return jnp.mean(losses), OwnAux(losses, restored, spoiled)

    return own


def _with_levels(finest: Array, coarser: Sequence[Array]) -> Array:
    """Losses of all levels of a network with deep supervision: half the weight from level to level, 1 in all."""
    shares = [2.0**-level for level in range(1 + len(coarser))]
    total = sum(share * loss for share, loss in zip(shares, [finest, *coarser], strict=True))
    return jnp.asarray(total) / sum(shares)


def _normalised(weight: Array, how: str) -> Array:
    """Weights divided by their mean or sum over the batch, or as they are."""
    if how == "none":
        return weight
    total = jnp.maximum(jnp.sum(weight), 1e-6)
    return weight / total if how == "sum" else weight * (weight.size / total)


def _inner_aux(losses: Array, weight: Array, alpha: Array, noisy: Array, corrected: Array, batch: Batch) -> InnerAux:
    space = (1, 2, 3)
    changed = jnp.mean(jnp.argmax(corrected, axis=-1) != batch.label, axis=space, dtype=losses.dtype)
    difference = corrected - noisy
    return InnerAux(
        loss=losses,
        weight=weight,
        alpha=jnp.mean(alpha, axis=(1, 2, 3, 4)),
        changed=changed,
        gained=jnp.sum(jnp.maximum(difference, 0.0), axis=space),
        lost=jnp.sum(jnp.maximum(-difference, 0.0), axis=space),
        mass=jnp.sum(noisy, axis=space),
        center_class=batch.center_class,
    )


def _wide(array: Array) -> jnp.dtype:
    return jnp.promote_types(array.dtype, jnp.float32)
