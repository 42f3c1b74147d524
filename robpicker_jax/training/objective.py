"""RobPicker's inner and outer loss as pure functions of parameters (the paper's eq. 1–5).

inner:  L_tr(I, C, R) = mean_i w_i ℓ_i,  ℓ_i = D(f(t_i; I), C(a_i)),  w_i = R(ℓ_i)
outer:  L_val(I')     = mean_j D(f(t_j; I'), a_j)

D is the loss of a segmentation that `train.loss` names (`robpicker_jax.training.losses`), the paper's being Dice.
Means stand where the paper has sums, so that learning rates do not depend on the batch size.
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
from robpicker_jax.training.label_grid import LabelGrid
from robpicker_jax.training.losses import BoundLoss, LossValues, dice, weighted_cross_entropy
from robpicker_jax.training.mixing import NO_MIXUP, Coefficient, Mixture, Mixup, drawn_mixture, learned_mixture

Tree = Any
_PRESENT_VOX = 0.5  # a class is present in a patch whose label holds a voxel of it


class Networks(NamedTuple):
    """The networks as pure functions: segmentation, correction, reweighting, and the further meta modules.

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
        grid: where labels are corrected and compared with predictions; where it is the network's own, `segment` gives
            features and scores there.
        corrects_labels_alone: whether `correct` looks at nothing but the label.
        class_weights: parameters of the module "class_weights" → weights (c,); None: there is no such module.
        voxel_weights: (parameters, cross-entropies of voxels) → their weights.
        coefficient: (parameters, image, partner's, label, partner's) → coefficients of a mixture.
        fixed_class_weights: weights in place of the module's, where there are others but not this one.
        n_classes: species and background; needed where a module mixes patches.
    """

    segment: Callable[..., tuple[Array, Array, Tree]]
    correct: Callable[[Tree, Array, Array, Array, Array], Corrected]
    reweight: Callable[[Tree, Array, Array], Array]
    dropout: bool = False
    head: Head = "softmax"
    deep: Callable[..., tuple[Array, ...]] | None = None
    grid: LabelGrid = LabelGrid()
    corrects_labels_alone: bool = False
    class_weights: Callable[[Tree], Array] | None = None
    voxel_weights: Callable[[Tree, Array], Array] | None = None
    coefficient: Callable[..., Array] | None = None
    fixed_class_weights: tuple[float, ...] = ()
    n_classes: int = 0

    def probabilities(self, scores: Array) -> Array:
        """Class probabilities (n,z,y,x,c) of class scores, float32 at least."""
        return class_probabilities(scores, self.head)

    def weighted(self, loss: BoundLoss, meta: Tree, seen: Array) -> BoundLoss:
        """The loss with the weights of classes and voxels that the meta modules give, where there are any.

        Args:
            loss: the loss without them.
            meta: parameters of the meta networks.
            seen: class probabilities whose losses set the weights of voxels.
        """
        if "class_weights" not in meta and "voxel_weights" not in meta:
            return loss
        if self.class_weights is not None and "class_weights" in meta:
            weights = self.class_weights(meta["class_weights"])
        else:
            weights = jnp.asarray(self.fixed_class_weights, jnp.float32)
        of_voxels = None
        if self.voxel_weights is not None and "voxel_weights" in meta:
            of_voxels = partial(self.voxel_weights, meta["voxel_weights"])
        return lambda predicted, label: weighted_cross_entropy(predicted, label, weights, of_voxels, seen)

    def mixture(self, key: Array, meta: Tree, image: Array, label: Array, mixup: Mixup) -> Mixture | None:
        """How the patches of a batch are mixed; None: not at all."""
        if self.coefficient is not None and "mixup" in meta:
            coefficient: Coefficient = partial(self.coefficient, meta["mixup"])
            return learned_mixture(key, image, jax.nn.one_hot(label, self.n_classes), coefficient)
        return drawn_mixture(key, len(image), mixup) if mixup.share else None


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
    mixup: Mixup = NO_MIXUP,
    device_axis: str | None = None,
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
        mixup=mixup,
        device_axis=device_axis,
    )
    return BilevelProblem(
        inner,
        outer_loss(networks, loss, mixup if mixup.meta else NO_MIXUP),
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
    mixup: Mixup = NO_MIXUP,
    device_axis: str | None = None,
) -> Callable[[Tree, Tree, NetworkState, Batch, Tree], tuple[Array, tuple[NetworkState, InnerAux]]]:
    """The inner loss as `(params, meta, state, batch, frozen) -> (loss, (state, aux))`.

    `frozen` has the value of `params` (see `BilevelProblem.inner_loss_uses_frozen`): targets and weights are computed
    from it where the inner gradient must not follow them. So finite differences, which shift `params`, and the
    derivatives of several inner steps leave out the same paths as the inner gradient, and no others. The second forward
    pass has the same operands as the first, and the compiler merges the two.

    `meta` holds the parameters of the meta networks in use: "correction", "reweighting", further modules, or none. Without
    a network its step is left out: labels stay as they are, weights are one. So the variants differ in `meta` alone.

    Where patches are mixed, a correction that sees labels alone corrects them before, others correct the mixed label by
    what the network makes of the mixed patch.

    Args:
        networks: the three networks.
        loss: the loss of a segmentation.
        stop_gradient_label: no gradient with respect to the segmentation network through the corrected label.
        stop_gradient_weight: none through the loss value that sets the weight.
        weights: "none" takes weights as they are; "mean" and "sum" divide them by their mean or sum over the batch,
            without which more weight for every patch is a larger step, and all weights drift to one.
        average_decay: decay of the averaged parameters, where the state holds them.
        average_proposes: the correction's proposal is their prediction.
        mixup: how often and how patches are mixed, where no module does it.
        device_axis: mapped axis of the devices that share the batch, inside `shard_map` or `pmap`. Weights are then
            relative to the whole batch, as all else is.
    """
    stop = jax.lax.stop_gradient

    def inner(
        params: Tree, meta: Tree, state: NetworkState, batch: Batch, frozen: Tree
    ) -> tuple[Array, tuple[NetworkState, InnerAux]]:
        this_key, next_key = jax.random.split(state.key)
        this_key = of_device(this_key, device_axis)
        dropout_key = this_key if networks.dropout else None
        grid = networks.grid
        mixture = networks.mixture(this_key, meta, batch.image, batch.label, mixup)
        image = batch.image if mixture is None else mixture.of(batch.image)

        def segment(params: Tree) -> tuple[Array, Array, Tree]:
            return networks.segment(params, state.batch_stats, image, train=True, dropout_key=dropout_key)

        def mixed(label: Array) -> Array:
            return label if mixture is None else mixture.of(label)

        features, logits, batch_stats = segment(params)
        probabilities = networks.probabilities(logits)
        given = grid.given(jax.nn.one_hot(batch.label, logits.shape[-1], dtype=probabilities.dtype))
        noisy = grid.target(mixed(given), corrected=False)
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
            before = given if networks.corrects_labels_alone else mixed(given)
            corrected, alpha, _ = networks.correct(
                meta["correction"], grid.seen(features), grid.seen(probabilities), before, image
            )
            if batch.is_clean is not None:
                clean = batch.is_clean[:, None, None, None, None]
                corrected, alpha = jnp.where(clean, before, corrected), jnp.where(clean, 0.0, alpha)
            return grid.target(mixed(corrected) if networks.corrects_labels_alone else corrected, corrected=True), alpha

        still_features, still = features, probabilities
        if meta and (stop_gradient_label or stop_gradient_weight):
            still_features, still_logits, _ = segment(frozen)
            still = networks.probabilities(still_logits)
        weighted = networks.weighted(loss, meta, still if stop_gradient_weight else probabilities)
        corrected, alpha = target(*((still_features, still) if stop_gradient_label else (features, probabilities)))
        values = weighted(probabilities, corrected)
        taught = values.per_patch
        if networks.deep is not None:
            deep = networks.deep(params, state.batch_stats, image, dropout_key=dropout_key)
            taught = _with_levels(
                taught, [weighted(networks.probabilities(scores), corrected).per_patch for scores in deep]
            )
        weight = jnp.ones_like(values.per_patch)
        if "reweighting" in meta:
            # Only the segmentation network is frozen: the weight still depends on the correction, through the target.
            seen = values
            if stop_gradient_weight:
                seen = weighted(still, target(still_features, still)[0])
            present = jnp.sum(noisy, axis=(1, 2, 3)) >= _PRESENT_VOX
            weight = _normalised(networks.reweight(meta["reweighting"], seen.per_class, present), weights, device_axis)
        aux = _inner_aux(values.per_patch, weight, alpha, noisy, corrected, batch)
        state = NetworkState(batch_stats, next_key, average)
        return jnp.mean(weight * taught), (state, jax.tree.map(stop, aux))

    return inner


def clean_loss(
    networks: Networks, loss: BoundLoss = dice, mixup: Mixup = NO_MIXUP
) -> Callable[[Tree, NetworkState, Batch], LossValues]:
    """The loss on clean labels by patch and class, as `(params, state, batch) -> values`.

    Batch norm uses the batch's own statistics, and leaves the running ones alone; nothing is dropped out.
    """
    grid = networks.grid

    def values(params: Tree, state: NetworkState, batch: Batch) -> LossValues:
        mixture = drawn_mixture(state.key, len(batch.image), mixup) if mixup.share else None
        image = batch.image if mixture is None else mixture.of(batch.image)
        _, logits, _ = networks.segment(params, state.batch_stats, image, train=True)
        clean = grid.given(jax.nn.one_hot(batch.label, logits.shape[-1], dtype=_wide(logits)))
        clean = clean if mixture is None else mixture.of(clean)
        return loss(networks.probabilities(logits), grid.target(clean, corrected=False))

    return values


def outer_loss(
    networks: Networks, loss: BoundLoss = dice, mixup: Mixup = NO_MIXUP
) -> Callable[[Tree, NetworkState, Batch], tuple[Array, Array]]:
    """The outer loss as `(params, state, batch) -> (loss, loss of each patch)`: the mean of `clean_loss`."""
    values = clean_loss(networks, loss, mixup)

    def outer(params: Tree, state: NetworkState, batch: Batch) -> tuple[Array, Array]:
        losses = values(params, state, batch).per_patch
        return jnp.mean(losses), losses

    return outer


def of_device(key: Array, device_axis: str | None) -> Array:
    """The key of a device's own draws: with one key for all, patches at the same place of each share would draw alike.

    Args:
        key: the same on every device.
        device_axis: mapped axis of the devices, inside `shard_map` or `pmap`; None: the batch is one, and so is the key.
    """
    return key if device_axis is None else jax.random.fold_in(key, jax.lax.axis_index(device_axis))


def _with_levels(finest: Array, coarser: Sequence[Array]) -> Array:
    """Losses of all levels of a network with deep supervision: half the weight from level to level, 1 in all."""
    shares = [2.0**-level for level in range(1 + len(coarser))]
    total = sum(share * loss for share, loss in zip(shares, [finest, *coarser], strict=True))
    return jnp.asarray(total) / sum(shares)


def _normalised(weight: Array, how: str, device_axis: str | None) -> Array:
    """Weights divided by their mean or sum over the batch of all devices, or as they are."""
    if how == "none":
        return weight
    total, count = jnp.sum(weight), weight.size
    if device_axis is not None:
        total, count = jax.lax.psum((total, count), device_axis)
    total = jnp.maximum(total, 1e-6)
    return weight / total if how == "sum" else weight * (count / total)


def _inner_aux(losses: Array, weight: Array, alpha: Array, noisy: Array, corrected: Array, batch: Batch) -> InnerAux:
    space = (1, 2, 3)
    changed = jnp.mean(jnp.argmax(corrected, axis=-1) != jnp.argmax(noisy, axis=-1), axis=space, dtype=losses.dtype)
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
