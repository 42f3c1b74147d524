"""The label correction's own loss, on clean labels that are corrupted at every step anew.

own:  L_C(C) = mean_j D(C(ã_j), a_j),  ã_j a corrupted copy of the clean label a_j

The own loss is what makes the correction correct: with it C is told, label by label, what it should have made of noise
of a known kind. The hypergradient of one step alone carries next to no signal for a species that is small.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robpicker_jax.training.corruption import CorruptionRates, corrupt
from robpicker_jax.training.losses import BoundLoss, dice
from robpicker_jax.training.losses.overlap import batch_dice, class_entropies
from robpicker_jax.training.losses.voxelwise import focal
from robpicker_jax.training.objective import Batch, Networks, NetworkState, of_device

Tree = Any


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


def own_loss(
    networks: Networks,
    corruption: CorruptionRates,
    loss: BoundLoss = dice,
    *,
    average_proposes: bool = False,
    own_head: bool = False,
    class_entropy: Callable[[Array], Array] | None = None,
    device_axis: str | None = None,
) -> Callable[[Tree, Tree, NetworkState, Batch, Array], tuple[Array, OwnAux]]:
    """The correction's own loss as `(params, meta, state, batch, step) -> (loss, aux)`, on clean labels that were corrupted.

    Only `meta["correction"]` is meant to be differentiated: the segmentation network is what it is.

    Args:
        networks: the three networks.
        corruption: the rates of errors.
        loss: the loss of a segmentation, of the corrected label against the clean one.
        average_proposes: the proposal is the prediction of the averaged parameters.
        own_head: the proposal is the correction's own. Then the loss is Dice over the batch of C(ã) and of S, and
            cross-entropy of S, whatever the loss of the segmentation: Dice patch by patch would punish every trace of the
            classes that a patch does not hold, and a correction has to begin with traces.
        class_entropy: with `own_head`, step → weight of a further cross-entropy in which every class counts alike (that of
            `batch_dice`), of C(ã) and of S. Where a particle's label is missing, a correction that repeats labels is
            sure of the background, and through softmax Dice hardly moves it. As rare classes count as much as the
            background, it also makes the correction add what is not there, so it should fade once it has done its work.
        device_axis: mapped axis of the devices that share the batch, inside `shard_map` or `pmap`.
    """

    cross_entropy = partial(focal, gamma=0.0)
    whole_dice = partial(batch_dice, device_axis=device_axis)
    by_class = partial(class_entropies, device_axis=device_axis)

    def own(params: Tree, meta: Tree, state: NetworkState, batch: Batch, step: Array) -> tuple[Array, OwnAux]:
        frozen = jax.lax.stop_gradient(params)
        features, logits, _ = networks.segment(frozen, state.batch_stats, batch.image, train=True)
        n_classes = logits.shape[-1]
        prediction = networks.probabilities(logits)
        if average_proposes:
            prediction = networks.probabilities(
                networks.segment(state.average, state.batch_stats, batch.image, train=True)[1]
            )
        noisy = corrupt(batch.label, batch.image, of_device(jax.random.fold_in(state.key, 1), device_axis), corruption)
        grid = networks.grid
        given, clean = (
            grid.given(jax.nn.one_hot(each, n_classes, dtype=prediction.dtype)) for each in (noisy, batch.label)
        )
        corrected, _, proposal = networks.correct(
            meta["correction"], grid.seen(features), grid.seen(prediction), given, batch.image
        )
        corrected, proposal = (grid.target(each, corrected=True) for each in (corrected, proposal))
        given, clean = (grid.target(each, corrected=False) for each in (given, clean))
        if own_head:
            # It has to learn what it proposes however small α is; cross-entropy still moves it where it is sure and wrong.
            both = whole_dice(corrected, clean).per_patch + whole_dice(proposal, clean).per_patch
            losses = both + cross_entropy(proposal, clean).per_patch
            if class_entropy is not None:
                entropies = by_class(corrected, clean) + by_class(proposal, clean)
                losses += class_entropy(step) * jnp.mean(entropies, axis=-1)
        else:
            losses = loss(corrected, clean).per_patch
        wanted = jnp.argmax(clean, axis=-1)
        right, wrong = jnp.argmax(corrected, axis=-1) == wanted, jnp.argmax(given, axis=-1) != wanted
        space = (1, 2, 3)
        n_wrong = jnp.sum(wrong, axis=space, dtype=losses.dtype)
        n_right = wrong[0].size - n_wrong
        restored = jnp.where(n_wrong > 0, jnp.sum(right & wrong, axis=space) / jnp.maximum(n_wrong, 1), 1.0)
        spoiled = jnp.sum(~right & ~wrong, axis=space) / jnp.maximum(n_right, 1)
        return jnp.mean(losses), OwnAux(losses, restored, spoiled)

    return own
