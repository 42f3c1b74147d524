"""The correction's own loss, with a network that proposes one score for the particle everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robpicker_jax.config import CorruptionConfig, Species
from robpicker_jax.models.label_correction import Corrected
from robpicker_jax.training.corruption import corruption_rates
from robpicker_jax.training.objective import Batch, Networks, NetworkState
from robpicker_jax.training.own_loss import own_loss

PARTICLE = np.s_[:, 3:5, 3:5, 3:5]
ALPHA = 0.25


def corrected(params: Any, features: Any, prediction: Any, label: jax.Array, image: Any) -> Corrected:
    """The same proposal at every voxel; the background's score is 0."""
    scores = jnp.stack([jnp.zeros(()), params["score"]])
    proposal = jnp.broadcast_to(jax.nn.softmax(scores), label.shape)
    return Corrected(ALPHA * proposal + (1 - ALPHA) * label, jnp.full((*label.shape[:-1], 1), ALPHA), proposal)


def segmented(params: Any, stats: Any, image: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, Any]:
    return image, jnp.zeros((*image.shape[:-1], 2)), stats


def loss_of(score: float, class_entropy: float, step: int = 0) -> jax.Array:
    """The mean loss of two patches, one with a particle whose label is always missing."""
    label = np.zeros((2, 8, 8, 8), np.int32)
    label[:1][PARTICLE] = 1
    batch = Batch(jnp.zeros((*label.shape, 1)), jnp.asarray(label), jnp.ones(2, int))
    certain = CorruptionConfig(missing=1.0, false_picks=0.0, swap=0.0, shifted=0.0, untouched=0.0)
    rates = corruption_rates(certain, (Species(name="a", radius_vox=1.0),))
    own = own_loss(Networks(segmented, corrected, corrected), rates, own_head=True, class_entropy=fading(class_entropy))
    state = NetworkState({}, jax.random.key(0))
    value: jax.Array = own(
        {}, {"correction": {"score": jnp.asarray(score, jnp.float32)}}, state, batch, jnp.asarray(step)
    )[0]
    return value


def fading(weight: float) -> Callable[[jax.Array], jax.Array] | None:
    """The whole weight at step 0, half of it at step 1."""
    return (lambda step: weight / (1 + step)) if weight else None


def test_devices_corrupt_their_shares_each_in_its_own_way() -> None:
    """Four devices with the same patches, half of whose particles lose their label: with one key all would lose the same."""
    label = np.zeros((4, 8, 8, 8), np.int32)
    label[PARTICLE] = 1
    share = Batch(jnp.zeros((*label.shape, 1)), jnp.asarray(label), jnp.ones(4, int))
    shares = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4, *leaf.shape)), share)
    half = CorruptionConfig(missing=0.5, false_picks=0.0, swap=0.0, shifted=0.0, untouched=0.0)
    rates = corruption_rates(half, (Species(name="a", radius_vox=1.0),))

    def losses(device_axis: str | None) -> np.ndarray:
        own = own_loss(Networks(segmented, corrected, corrected), rates, device_axis=device_axis)
        state, meta = NetworkState({}, jax.random.key(0)), {"correction": {"score": jnp.zeros(())}}
        on_each = jax.vmap(lambda share: own({}, meta, state, share, jnp.asarray(0))[1].loss, axis_name="devices")
        return np.asarray(on_each(shares))

    assert len(np.unique(losses(None), axis=0)) == 1
    assert len(np.unique(losses("devices"), axis=0)) > 1


def test_every_class_counts_alike_in_the_entropy() -> None:
    """Of the particle's 8 voxels the background is given; the other voxels are right."""
    score, weight = -1.0, 0.3
    p = 1 / (1 + np.exp(-score))
    corrected_entropy = [-np.log(ALPHA * (1 - p) + 1 - ALPHA), -np.log(ALPHA * p)]
    proposed_entropy = [-np.log(1 - p), -np.log(p)]
    added = weight * (np.mean(corrected_entropy) + np.mean(proposed_entropy))
    np.testing.assert_allclose(loss_of(score, weight) - loss_of(score, 0.0), added, rtol=1e-3)
    np.testing.assert_allclose(loss_of(score, weight, step=1) - loss_of(score, 0.0), added / 2, rtol=1e-3)


@pytest.mark.parametrize(("class_entropy", "least"), [(0.0, 0.0), (0.3, 0.25)])
def test_a_missing_particle_is_taught_though_the_background_is_sure(class_entropy: float, least: float) -> None:
    """A proposal of exp(−12) for the particle: Dice and the entropy of all voxels hardly pull, that of classes does."""
    pull = -float(jax.grad(loss_of)(-12.0, class_entropy))
    assert least <= pull <= least + 0.1
