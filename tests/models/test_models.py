"""The three networks: parameter counts, shapes, receptive field, presets, precision."""

from __future__ import annotations

from typing import Any, Literal

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
from robpicker_jax.models.correction_network import CorrectionNetwork
from robpicker_jax.models.presets import UNetShape, unet_shape
from robpicker_jax.models.unet import UNet
from robpicker_jax.system.errors import InputError


def key(number: int = 0) -> jax.Array:
    """A key whose random numbers compile fast."""
    return jax.random.key(number, impl="rbg")


def test_parameter_counts_are_the_papers() -> None:
    model = ModelConfig(correction="head", alpha_channels="classes", reweighting_inputs="loss")
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


@pytest.mark.slow
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


def drawn(params: Any) -> Any:
    """Parameters with every leaf drawn anew: layers that start at zero hide what is behind them."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), params)


@pytest.mark.parametrize("proposal", ["tied", "head", "network"])
@pytest.mark.parametrize("channels", ["classes", "one"])
def test_label_correction_is_the_formula(
    channels: Literal["classes", "one"], proposal: Literal["tied", "head", "network"]
) -> None:
    model = ModelConfig(correction=proposal, alpha_channels=channels, alpha_bias=-1.0, alpha_reach=2.0)
    correction = build_label_correction(model, 3, 5)
    params = drawn(correction.init(key()))
    features = jax.random.normal(key(2), (2, 4, 4, 4, 5))
    prediction = jax.nn.softmax(jax.random.normal(key(3), (2, 4, 4, 4, 3)))
    label = jax.nn.one_hot(jnp.arange(128).reshape(2, 4, 4, 4) % 3, 3)
    density = 5 * jax.random.normal(key(4), (2, 4, 4, 4, 1))
    found = correction.apply(params, features, prediction, label, density)

    p = jax.tree.map(np.asarray, params)

    def layer(name: str, x: Any) -> np.ndarray:
        return np.asarray(x @ p[name]["kernel"] + p[name]["bias"])

    def leaky(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, 0.1 * x)

    s = np.asarray(prediction)
    if proposal == "network":
        seen = jnp.concatenate([jnp.tanh(density), jnp.tanh(density / 4), label, prediction], axis=-1)
        unet = UNet(UNetShape(model.correction_widths, 1, 0, 1, 1, True, 0.0, "transposed"), 3, channels=8)
        g = np.asarray(unet.apply(params["network"], unet.fresh_statistics(), seen, True)[1], np.float64)
        s = np.exp(6 * np.tanh((g + 4 * np.asarray(label)) / 6))
        s /= s.sum(-1, keepdims=True)
    elif proposal == "head":
        s = np.exp(layer("scores", np.asarray(features)))
        s /= s.sum(-1, keepdims=True)
    change = layer("alpha", leaky(layer("hidden", np.concatenate([s, label], -1))))
    expected = 1 / (1 + np.exp(1.0 - 2.0 * np.tanh(change / 2.0)))
    assert found.alpha.shape[-1] == (3 if channels == "classes" else 1)
    np.testing.assert_allclose(found.proposal, s, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.alpha, expected, rtol=5e-5)
    mixed = expected * s + (1 - expected) * label
    np.testing.assert_allclose(found.label, mixed / mixed.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6)
    assert ("scores" in params, "network" in params) == (proposal == "head", proposal == "network")


def test_a_correction_network_starts_with_the_given_label_and_uses_all_that_it_sees() -> None:
    network = CorrectionNetwork(3, (2, 3), label_score=4.0, prediction_score=0.0)
    label = jax.nn.one_hot(jax.random.randint(key(1), (3, 8, 8, 8), 0, 3), 3)
    prediction = jax.nn.softmax(jax.random.normal(key(2), label.shape))
    density = 4 * jax.random.normal(key(3), (3, 8, 8, 8, 1))
    fresh = network.init(key())
    np.testing.assert_array_equal(
        jnp.argmax(network.apply(fresh, density, label, prediction), -1), jnp.argmax(label, -1)
    )
    params = drawn(fresh)
    found = network.apply(params, density, label, prediction)
    np.testing.assert_allclose(jnp.sum(found, axis=-1), 1, rtol=1e-5)
    assert float(jnp.min(found)) > np.exp(-12.0) / 3  # scores lie between -6 and 6
    for changed in ((density + 1, label, prediction), (density, label[::-1], prediction), (density, label, label)):
        assert float(jnp.abs(network.apply(params, *changed) - found).max()) > 1e-3


def test_a_correction_network_starts_from_label_and_prediction_by_the_formula() -> None:
    network = CorrectionNetwork(3, (2, 3), label_score=3.0, prediction_score=2.5)
    label = jax.nn.one_hot(jax.random.randint(key(1), (2, 4, 4, 4), 0, 3), 3)
    prediction = jax.nn.softmax(4 * jax.random.normal(key(2), label.shape))
    params = network.init(key())
    params |= {"classes": jax.tree.map(jnp.zeros_like, params["classes"])}  # what the U-Net itself says: nothing
    found = network.apply(params, jnp.ones((2, 4, 4, 4, 1)), label, prediction)
    score = 6 * np.tanh((3.0 * np.asarray(label) + 2.5 * np.asarray(prediction)) / 6)
    expected = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(np.argmax(found, -1), np.argmax(label, -1))
    assert float(np.ptp(found[..., 0][np.asarray(label[..., 0]) == 1])) > 0.3  # the prediction decides how sure it is


def test_meta_networks_start_by_leaving_labels_and_weights_alone() -> None:
    correction = build_label_correction(ModelConfig(correction="tied"), 3, 5)
    label = jax.nn.one_hot(jnp.array([0, 1, 2]).reshape(1, 3, 1, 1), 3)
    prediction = jnp.full((1, 3, 1, 1, 3), 1 / 3)
    features = jnp.ones((1, 3, 1, 1, 5))
    alpha = correction.apply(correction.init(key()), features, prediction, label, jnp.zeros((1, 3, 1, 1, 1))).alpha
    np.testing.assert_allclose(alpha, 1 / (1 + np.exp(3.0)), rtol=1e-6)
    network = build_data_reweighting(ModelConfig(), 3)
    weights = network.apply(network.init(key()), jnp.array([[0.1, 0.9, 0.5]] * 2), jnp.ones((2, 3), bool))
    np.testing.assert_array_equal(weights, 1.0)


@pytest.mark.parametrize("reach", [None, 3.0])
@pytest.mark.parametrize("inputs", ["loss", "classes", "composition", "presence"])
def test_data_reweighting_is_the_formula(
    inputs: Literal["loss", "classes", "composition", "presence"], reach: float | None
) -> None:
    network = build_data_reweighting(ModelConfig(reweighting_inputs=inputs, weight_reach=reach), 3)
    params = drawn(network.init(key()))
    losses = np.array([[0.1, 0.9, 0.4], [0.2, 0.3, 0.7]], np.float32)
    present = np.array([[True, True, False], [True, True, True]])
    kept = losses * present
    x = {
        "loss": kept.sum(1, keepdims=True) / present.sum(1, keepdims=True),
        "classes": kept,
        "composition": np.concatenate([kept, present], 1),
        "presence": present.astype(np.float32),
    }[inputs]
    p = jax.tree.map(np.asarray, params)
    hidden = np.maximum(x @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
    score = (hidden @ p["weight"]["kernel"] + p["weight"]["bias"])[:, 0]
    expected = 1 / (1 + np.exp(-score)) if reach is None else reach ** np.tanh(score - score.mean())
    np.testing.assert_allclose(network.apply(params, jnp.asarray(losses), jnp.asarray(present)), expected, rtol=1e-4)
