"""The three networks: parameter counts, shapes, receptive field, presets, precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robpicker_jax.config import ModelConfig
from robpicker_jax.models import (
    build_data_reweighting,
    build_label_correction,
    build_unet,
    n_parameters,
)
from robpicker_jax.models.presets import UNetShape, unet_shape
from robpicker_jax.models.unet import UNet
from robpicker_jax.system.errors import InputError


def key(number: int = 0) -> jax.Array:
    """A key whose random numbers compile fast."""
    return jax.random.key(number, impl="rbg")


def test_parameter_counts_are_the_papers() -> None:
    model = ModelConfig()
    assert n_parameters(build_data_reweighting(model).init(key())) == 1501
    assert n_parameters(build_label_correction(model, 13, 64).init(key())) == 1378


def test_unet_parameter_count_is_the_sum_over_its_layers() -> None:
    unet = UNet(UNetShape((4, 6), 2, 0, 1, 1, True, 0.0, "transposed"), 3)
    params, stats = unet.init(key())
    convolutions = 27 * (1 * 4 + 4 * 4 + 4 * 6 + 8 * 4)  # no bias before batch norm
    norms = 2 * (4 + 4 + 6 + 4)
    assert n_parameters(params) == convolutions + norms + (8 * 6 * 4 + 4) + (4 * 3 + 3)
    assert n_parameters(stats) == norms


@pytest.mark.parametrize("preset", ["paper", "deepfinder", "deepict"])
def test_presets_give_features_and_scores_at_full_resolution(preset: str) -> None:
    levels = len(unet_shape(ModelConfig(preset=preset)).widths)
    model = ModelConfig(preset=preset, widths=tuple(range(2, 2 + levels)))  # type: ignore[arg-type]
    unet = build_unet(model, 5)
    edge = unet.stride
    assert edge == 2 ** (levels - 1)

    def apply(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params, stats = unet.init(key)
        features, logits, _ = unet.apply(params, stats, jnp.zeros((2, edge, edge, 2 * edge, 1)), train=False)
        return features, logits

    features, logits = jax.eval_shape(apply, key())
    assert features.shape == (2, edge, edge, 2 * edge, 2)
    assert logits.shape == (2, edge, edge, 2 * edge, 5)
    assert logits.dtype == jnp.float32


def test_deepfinder_has_its_published_shape() -> None:
    shape = unet_shape(ModelConfig(preset="deepfinder"))
    assert shape.widths == (32, 48, 64)
    assert shape.bottleneck_convs == 4
    assert not shape.batch_norm


def test_a_patch_that_cannot_be_halved_is_refused() -> None:
    unet = UNet(UNetShape((2, 2, 2), 1, 0, 1, 1, False, 0.0, "transposed"), 2)
    params, stats = unet.init(key())
    with pytest.raises(InputError, match="multiple of 4"):
        unet.apply(params, stats, jnp.zeros((1, 8, 8, 6, 1)), train=False)


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(
            preset="custom", widths=(2, 2), convs_per_block=1, bottleneck_convs=1, decoder_convs=1, batch_norm=False
        ),
        ModelConfig(
            preset="custom", widths=(2, 2, 2), convs_per_block=1, bottleneck_convs=1, decoder_convs=1, batch_norm=False
        ),
        ModelConfig(preset="deepfinder", widths=(2, 2), bottleneck_convs=1, decoder_convs=1),
    ],
    ids=["one level", "two levels", "deepfinder"],
)
def test_receptive_field_is_what_an_output_depends_on(model: ModelConfig) -> None:
    """The span of input voxels with a gradient, largest over the positions an output can have in the pooling grid."""
    unet = build_unet(model, 2)
    params, stats = unet.init(key())
    # Positive weights: no ReLU closes and nothing cancels, so that every dependence shows.
    params = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.01, params)
    expected = unet.receptive_field
    edge = unet.stride
    size = -(-(2 * expected + edge) // edge) * edge
    image = jnp.linspace(1.0, 2.0, size)[None, None, None, :, None] * jnp.ones((1, edge, edge, size, 1))

    @jax.jit
    def slope(x: jax.Array) -> jax.Array:
        weights = jax.nn.one_hot(x, size)
        return jax.grad(
            lambda image: (unet.apply(params, stats, image, train=False)[1][0, 0, 0, :, 0] * weights).sum()
        )(image)[0].sum(axis=(0, 1, 3))

    centre = size // 2 // edge * edge
    spans = []
    for offset in range(edge):
        touched = np.flatnonzero(np.asarray(slope(centre + offset)))
        spans.append(touched[-1] - touched[0] + 1)
    # A max-pool passes the gradient of its largest voxel alone: up to one voxel a level is missing at the low end.
    assert expected - 2 * edge <= max(spans) <= expected


def test_remat_changes_memory_and_nothing_else() -> None:
    shape = UNetShape((3, 4), 1, 0, 1, 1, True, 0.0, "transposed")
    image = jax.random.normal(key(1), (1, 4, 4, 4, 1))
    params, stats = UNet(shape, 2).init(key())

    def gradient(remat: bool) -> jax.Array:
        unet = UNet(shape, 2, remat=remat)
        return jax.jit(jax.grad(lambda p: (unet.apply(p, stats, image, train=True)[1] ** 2).mean()))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient(True), gradient(False))


def test_bfloat16_keeps_parameters_statistics_and_scores_in_float32() -> None:
    unet = UNet(UNetShape((3, 4), 1, 0, 1, 1, True, 0.0, "transposed"), 2, "bfloat16")

    def run(key: jax.Array) -> tuple[jax.Array, ...]:
        params, stats = unet.init(key)
        features, logits, new = unet.apply(params, stats, jnp.ones((1, 4, 4, 4, 1)), train=True)
        return params, new, logits, features

    params, stats, logits, features = jax.eval_shape(run, key())
    assert {leaf.dtype for leaf in jax.tree.leaves((params, stats, logits))} == {jnp.dtype("float32")}
    assert features.dtype == jnp.bfloat16


@pytest.mark.parametrize("channels", ["classes", "one"])
def test_label_correction_is_the_formula(channels: str) -> None:
    correction = build_label_correction(ModelConfig(alpha_channels=channels), 3, 5, alpha_bias=-1.0)  # type: ignore[arg-type]
    params = correction.init(key())
    features = np.asarray(jax.random.normal(key(2), (2, 2, 2, 2, 5)))
    label = np.eye(3, dtype=np.float32)[np.arange(16).reshape(2, 2, 2, 2) % 3]
    corrected, alpha = correction.apply(params, jnp.asarray(features), jnp.asarray(label))

    p = jax.tree.map(np.asarray, params)
    s = np.exp(features @ p["scores"]["kernel"] + p["scores"]["bias"])
    s /= s.sum(-1, keepdims=True)
    hidden = np.maximum(np.concatenate([s, label], -1) @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
    expected = 1 / (1 + np.exp(-(hidden @ p["alpha"]["kernel"] + p["alpha"]["bias"])))
    assert alpha.shape[-1] == (3 if channels == "classes" else 1)
    np.testing.assert_allclose(alpha, expected, rtol=2e-5)
    np.testing.assert_allclose(corrected, expected * s + (1 - expected) * label, rtol=2e-5, atol=1e-6)


def test_data_reweighting_is_the_formula() -> None:
    network = build_data_reweighting(ModelConfig())
    params = network.init(key())
    losses = jnp.array([0.0, 0.3, 1.0])
    p = jax.tree.map(np.asarray, params)
    hidden = np.maximum(np.asarray(losses)[:, None] @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
    expected = 1 / (1 + np.exp(-(hidden @ p["weight"]["kernel"] + p["weight"]["bias"])[:, 0]))
    np.testing.assert_allclose(network.apply(params, losses), expected, rtol=1e-5)
