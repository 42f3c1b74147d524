"""The networks of other systems and the stronger ones: parameters, shapes, receptive fields, bi-level training."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robpicker_jax.config import ModelConfig, load_config
from robpicker_jax.models import Backbone, build_backbone
from robpicker_jax.models.window_attention import apart, from_windows, to_windows
from robpicker_jax.system.errors import InputError
from robpicker_jax.training import objective
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.losses import dice
from tests.steps import noise_batches
from tests.tiny import write_tiny


def key(number: int = 0) -> jax.Array:
    """A key whose random numbers compile fast."""
    return jax.random.key(number, impl="rbg")


def built(name: str, n_classes: int = 3, *, model: dict[str, Any] | None = None, **options: Any) -> Any:
    """A backbone by name."""
    return build_backbone(ModelConfig(backbone=name, backbone_options=options, **(model or {})), n_classes)


def tiny(name: str, **model: Any) -> Any:
    """A backbone of a few channels and levels, dropout where it has any."""
    shapes: dict[str, Any] = {
        "deepfinder": ({"widths": (2, 3), "bottleneck_convs": 1, "decoder_convs": 1}, {}),
        "deepict": ({}, {"depth": 1, "initial_features": 2, "decoder_dropout": 0.3}),
        "flexunet": ({"widths": (2, 2, 3, 4, 5)}, {"blocks": (1, 1, 1, 1), "shortcut_gradient": True}),
        "residual_unet": ({"widths": (2, 3, 4), "dropout": 0.3}, {"blocks": (1, 1, 1)}),
        "swin_unet": ({"widths": (2, 3), "dropout": 0.3}, {"window": 2}),
    }
    fields, options = shapes[name]
    return built(name, model=fields | model, **options)


NAMES = ["deepfinder", "deepict", "flexunet", "residual_unet", "swin_unet"]


def count(network: Backbone) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(jax.eval_shape(network.init, key())[0]))


def test_parameters_are_as_many_as_published() -> None:
    assert count(built("deepfinder", 13)) == 903_357
    flexunet = built("flexunet", 3)  # two species
    assert count(flexunet) == 70_552_771
    # The published network also carries a full-resolution block of two convolutions with batch norm, 32 → 16 → 16
    # channels, and heads of 3³ on the maps of 256, 128 and 64 channels: 70.6 M in all, 63.3 M of them in the encoder.
    unused = 27 * (32 * 16 + 16 * 16) + 4 * 16 + sum(3 * (27 * width + 1) for width in (256, 128, 64))
    assert round((70_552_771 + unused) / 1e6, 1) == 70.6
    params = jax.eval_shape(flexunet.init, key())[0]
    encoder = [
        leaf for name, part in params.items() if name.startswith(("stem", "down")) for leaf in jax.tree.leaves(part)
    ]
    assert round(sum(int(np.prod(leaf.shape)) for leaf in encoder) / 1e6, 1) == 63.3


@pytest.mark.parametrize(("preset", "millions"), [("example", 0.021453), ("default", 5.646833), ("paper", 40.8)])
def test_deepict_has_the_parameters_of_its_depth_and_features(preset: str, millions: float) -> None:
    network = built("deepict", 2, preset=preset)
    widths = [network.initial_features * 2**level for level in range(network.depth + 1)]

    def block(inputs: int, outputs: int, norm: bool) -> int:
        return 27 * (inputs * outputs + outputs**2) + 2 * outputs + 4 * outputs * norm

    pairs = list(itertools.pairwise(widths))
    expected = block(1, widths[0], True) + sum(block(a, b, b != widths[-1]) for a, b in pairs)
    expected += sum(8 * b * a + a + block(2 * a, a, True) for a, b in pairs) + widths[0] + 1
    assert count(network) == expected
    assert expected / 1e6 == pytest.approx(millions, rel=2e-3)


def test_residual_and_swin_sizes_are_their_formulas() -> None:
    f, classes = 8, 5
    blocks, widths = (1, 2, 2, 4), [f, 2 * f, 4 * f, 8 * f]
    expected = 0
    for before, width, n in zip([1, *widths], widths, blocks, strict=False):
        expected += 27 * before * width + n * 2 * (27 * width**2 + 2 * width)
    for coarse, width in zip(widths[1:], widths, strict=False):
        expected += coarse * width + 2 * (27 * width**2 + 2 * width) + 2 * width + width * classes + classes
    # The level at 1/4 and that at 1/2 have a head for deep supervision, and the finest one its own.
    assert count(built("residual_unet", classes, model={"size": "small"})) == expected
    swin = built("swin_unet", classes, model={"widths": (12, 24)}, window=2)
    stages = 0
    for width, into in ((12, 8 * 12 + 12), (24, 8 * 12 * 24 + 2 * 96)):
        heads = width // 12
        linear = 3 * width**2 + 3 * width + width**2 + width + 8 * width**2 + 5 * width
        stages += into + 2 * (linear + 4 * width + 27 * heads) + 2 * width
    decoder = 8 * 24 * 12 + 12 + 8 * 12 * 12 + 12 + 2 * (27 * (24 * 12 + 12 * 12) + 4 * 12)
    assert count(swin) == stages + decoder + (27 * 12 + 2 * 12) + 12 * classes + classes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_have_their_shapes_and_types(name: str, dtype: str) -> None:
    network = tiny(name, compute_dtype=dtype, remat=True)
    image = jax.ShapeDtypeStruct((2, 16, 16, 32, 1), jnp.float32)

    def run(key: jax.Array, image: jax.Array) -> Any:
        params, stats = network.init(key)
        return params, network.apply(params, stats, image, train=True, dropout_key=key), stats

    params, (features, scores, new), stats = jax.eval_shape(run, key(), image)
    edges = tuple(edge // network.output_stride for edge in (16, 16, 32))
    assert features.shape == (2, *edges, network.features)
    assert features.dtype == jnp.dtype(dtype)
    assert scores.shape == (2, *edges, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, new, scores))} == {jnp.dtype("float32")}
    assert jax.tree.structure(new) == jax.tree.structure(stats)
    assert network.uses_dropout == (name in ("deepict", "residual_unet", "swin_unet"))


def reach(network: Any, edge: int) -> list[int]:
    """Spans of input voxels along one axis that the outputs near its middle depend on, found by perturbation."""
    params, stats = network.init(key())
    # Positive weights: no ReLU closes and nothing cancels.
    params = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.05, params)
    thin = network.stride
    image = jnp.linspace(1.0, 2.0, edge)[None, None, None, :, None] * jnp.ones((1, thin, thin, edge, 1))

    @jax.jit
    def slopes(at: jax.Array) -> jax.Array:
        def output(image: jax.Array) -> jax.Array:
            scores = network.apply(params, stats, image, train=False)[1]
            return (scores[0, 0, 0, :, 1] * jax.nn.one_hot(at, scores.shape[3])).sum()

        return jax.grad(output)(image)[0].sum(axis=(0, 1, 3))

    spans = []
    middle = edge // 2 // network.stride * network.stride // network.output_stride
    for at in range(middle, middle + network.stride // network.output_stride):
        found = np.asarray(slopes(jnp.asarray(at)))
        assert np.isfinite(found).all()
        touched = np.flatnonzero(found)
        spans.append(int(touched[-1] - touched[0] + 1))
    return spans


@pytest.mark.parametrize(
    ("name", "model", "options"),
    [
        ("deepict", {"batch_norm": False}, {"depth": 1, "initial_features": 2}),
        ("deepict", {"batch_norm": False}, {"depth": 2, "initial_features": 2}),
    ],
)
def test_receptive_field_is_what_an_output_depends_on(
    name: str, model: dict[str, Any], options: dict[str, Any]
) -> None:
    network = built(name, model=model, **options)
    expected = network.receptive_field
    spans = reach(network, -(-(2 * expected) // network.stride + 1) * network.stride)
    # A max-pool passes the gradient of its largest voxel alone: up to one voxel a level is missing at the low end.
    assert expected - 2 * network.stride <= max(spans) <= expected


@pytest.mark.parametrize("name", ["flexunet", "residual_unet", "swin_unet"])
def test_receptive_field_by_construction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the statistics of normalisation, which see the whole patch, the stated field is that of a gradient."""
    monkeypatch.setattr("robpicker_jax.models.layers.GroupNorm.__call__", lambda self, x: x)
    network = {
        "flexunet": lambda: built("flexunet", model={"widths": (2,) * 5}, blocks=(1, 1, 1, 1)),
        "residual_unet": lambda: built("residual_unet", model={"widths": (1, 1, 1)}, blocks=(1, 1, 1)),
        "swin_unet": lambda: built("swin_unet", model={"widths": (2, 2)}, window=2, blocks=2),
    }[name]()
    expected = network.receptive_field
    grid = 32 if name == "flexunet" else network.stride
    spans = reach(network, -(-(2 * expected) // grid + 1) * grid)
    assert max(spans) <= expected
    assert max(spans) >= expected - 2 * grid


def test_flexunet_continues_an_image_by_its_last_voxels() -> None:
    network = tiny("flexunet")
    params, stats = network.init(key())
    image = jax.random.normal(key(1), (1, 32, 20, 26, 1))
    padded = jnp.asarray(np.pad(image, ((0, 0), (0, 0), (0, 12), (0, 6), (0, 0)), mode="edge"))
    run = jax.jit(lambda image: network.apply(params, stats, image, False)[1])
    np.testing.assert_allclose(run(image), run(padded)[:, :, :10, :13], rtol=1e-5, atol=1e-5)


def test_shortcuts_of_type_a_pass_a_gradient_on_request_alone() -> None:
    network = tiny("flexunet")
    params, stats = network.init(key())
    # The other branch of each block off: what is left of a transition between resolutions is its shortcut.
    off = {
        name: jax.tree.map(jnp.zeros_like, part) if name.startswith("down") else part for name, part in params.items()
    }
    image = jax.random.normal(key(1), (1, 32, 32, 32, 1))

    def slope(open_: bool) -> float:
        variant = built("flexunet", model={"widths": network.widths}, blocks=network.blocks, shortcut_gradient=open_)

        def bottom(params: Any) -> jax.Array:
            # All skips end at the stem's map, which is cut off here: the gradient can only come through the bottom.
            captured = variant._module(dropout=False).apply(
                {"params": params, "batch_stats": stats},
                image,
                False,
                capture_intermediates=True,
                mutable=["intermediates"],
            )[1]["intermediates"]["down4_0"]["__call__"][0]
            return (captured**2).sum()

        gradient = jax.jit(jax.grad(bottom))(off)["stem"]["conv"]["kernel"]
        return float(jnp.abs(gradient).max())

    assert slope(False) == 0
    assert slope(True) > 0


def test_windows_are_cut_and_put_back_and_wrapped_tokens_are_kept_apart() -> None:
    grid, window, shift = (4, 4, 6), 2, 1
    tokens = jnp.arange(np.prod(grid)).reshape(1, *grid, 1)
    windows = to_windows(tokens, window)
    np.testing.assert_array_equal(windows[0, 1, :, 0].reshape(2, 2, 2), tokens[0, :2, :2, 2:4, 0])
    np.testing.assert_array_equal(from_windows(windows, grid, window), tokens)
    # Two tokens of a window of the rolled grid may see each other where they are no further apart than a window's edge.
    rolled = to_windows(jnp.roll(tokens, [-shift] * 3, (1, 2, 3)), window)[0, ..., 0]
    at = np.stack(np.unravel_index(np.asarray(rolled), grid), -1)
    far = (np.abs(at[:, :, None] - at[:, None]) >= window).any(-1)
    np.testing.assert_array_equal(apart(grid, window, (shift,) * 3), far)
    assert not apart(grid, window, (0, 0, 0)).any()


@pytest.mark.parametrize(
    ("name", "fields", "options", "parts"),
    [
        ("flexunet", {"batch_norm": False}, {}, ["model.batch_norm", "flexunet", "leave it out"]),
        ("flexunet", {"widths": (8, 8)}, {}, ["model.widths", "5 widths"]),
        ("deepict", {"widths": (8, 8)}, {}, ["model.widths", "deepict"]),
        ("residual_unet", {"widths": (8,)}, {}, ["model.widths", "two or more"]),
        ("residual_unet", {}, {"blocks": (1, 1)}, ["blocks", "give 4"]),
        ("swin_unet", {"widths": (31,)}, {}, ["model.widths", "multiples of 12"]),
        ("swin_unet", {"convs_per_block": 2}, {}, ["model.convs_per_block", "swin_unet"]),
        ("deepict", {}, {"preset": "huge"}, ["preset", "example"]),
    ],
)
def test_what_a_network_does_not_have_is_refused(
    name: str, fields: dict[str, Any], options: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        built(name, model=fields, **options)
    for part in parts:
        assert part in str(caught.value)


def test_dropout_is_drawn_from_its_key_alone_and_in_training_alone() -> None:
    network = tiny("deepict")
    params, stats = network.init(key())
    image = jax.random.normal(key(1), (1, 8, 8, 8, 1))

    @jax.jit
    def scores(dropout_key: jax.Array) -> jax.Array:
        found: jax.Array = network.apply(params, stats, image, True, dropout_key=dropout_key)[1]
        return found

    first, again, other = (scores(jax.random.PRNGKey(number)) for number in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first - other)).max() > 1e-3
    without = network.apply(params, stats, image, True)[1]
    rate_0 = built("deepict", depth=1, initial_features=2, decoder_dropout=0.0)
    np.testing.assert_allclose(without, rate_0.apply(params, stats, image, True)[1], atol=1e-6)
    picked = network.apply(params, stats, image, False, dropout_key=jax.random.PRNGKey(0))[1]
    np.testing.assert_allclose(picked, network.apply(params, stats, image, False)[1], atol=1e-6)


def test_all_evaluations_of_a_step_share_the_dropout_masks() -> None:
    """A difference of the inner loss along v is ⟨gradient, v⟩: with masks of its own each evaluation would be off."""
    network = tiny("deepict")
    networks = objective.Networks(network.apply, unused, unused, dropout=True, head=network.head)
    inner = objective.inner_loss(networks)
    params, stats = network.init(key())
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.standard_normal((2, 8, 8, 8, 1), np.float32))
    batch = objective.Batch(image, jnp.asarray(rng.integers(0, 3, image.shape[:4])), jnp.zeros(2, int))
    v = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape, np.float32)), params)

    @jax.jit
    def loss(t: float, number: int) -> tuple[jax.Array, jax.Array]:
        state = objective.NetworkState(stats, jax.random.PRNGKey(number))

        def at(t: jax.Array) -> jax.Array:
            moved = jax.tree.map(lambda p, d: p + t * d, params, v)
            value: jax.Array = inner(moved, {}, state, batch, moved)[0]
            return value

        return jax.value_and_grad(at)(jnp.asarray(t, jnp.float32))

    step = 1e-3
    slope = float(loss(0.0, 0)[1])
    difference = float(loss(step, 0)[0] - loss(-step, 0)[0]) / (2 * step)
    other = float(loss(step, 0)[0] - loss(-step, 1)[0]) / (2 * step)
    assert difference == pytest.approx(slope, rel=0.1)
    assert abs(other - slope) > abs(slope)


def unused(*_: Any) -> Any:
    """A meta network that no step asks for."""
    raise AssertionError


def test_deep_supervision_is_the_weighted_mean_of_the_levels_losses() -> None:
    rng = np.random.default_rng(0)
    image = jnp.zeros((2, 4, 4, 4, 1))
    levels = [jnp.asarray(rng.standard_normal((2, 4, 4, 4, 3), np.float32)) for _ in range(3)]
    networks = objective.Networks(
        lambda params, stats, image, **_: (image, params * levels[0], stats),
        unused,
        unused,
        deep=lambda params, stats, image, **_: tuple(params * level for level in levels[1:]),
    )
    label = jnp.asarray(rng.integers(0, 3, (2, 4, 4, 4)))
    batch = objective.Batch(image, label, jnp.zeros(2, int))
    state = objective.NetworkState({}, jax.random.PRNGKey(0))
    found, (_, aux) = objective.inner_loss(networks)(jnp.ones(()), {}, state, batch, jnp.ones(()))
    one_hot = jax.nn.one_hot(label, 3)
    losses = [np.asarray(dice(jax.nn.softmax(level, axis=-1), one_hot).per_patch) for level in levels]
    assert float(found) == pytest.approx((4 * losses[0] + 2 * losses[1] + losses[2]).mean() / 7, rel=1e-5)
    np.testing.assert_allclose(aux.loss, losses[0], rtol=1e-5)  # what is recorded is the finest level's


def test_a_residual_network_gives_its_coarser_levels_at_the_images_resolution() -> None:
    image = jax.ShapeDtypeStruct((2, 8, 8, 16, 1), jnp.float32)

    def shapes(**options: Any) -> list[tuple[int, ...]]:
        network = built("residual_unet", model={"widths": (2, 3, 4)}, blocks=(1, 1, 1), **options)
        return [
            level.shape for level in jax.eval_shape(network.deep_scores, *jax.eval_shape(network.init, key()), image)
        ]

    assert shapes() == [(2, 8, 8, 16, 3)]  # the level at half resolution; the bottom has no head
    assert shapes(deep_supervision=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_remat_changes_memory_and_nothing_else(name: str) -> None:
    edge = 32 if name == "flexunet" else 8
    image = jax.random.normal(key(1), (1, edge, edge, edge, 1))
    params, stats = tiny(name).init(key())

    def gradient(remat: bool) -> Any:
        network = tiny(name, remat=remat)
        dropout_key = jax.random.PRNGKey(5) if network.uses_dropout else None

        def loss(params: Any) -> jax.Array:
            return (network.apply(params, stats, image, True, dropout_key=dropout_key)[1] ** 2).mean()

        return jax.jit(jax.grad(loss))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), gradient(True), gradient(False))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_scores_are_near_those_of_float32(name: str) -> None:
    edge = 32 if name == "flexunet" else 16
    image = jax.random.normal(key(1), (1, edge, edge, edge, 1))
    params, stats = tiny(name).init(key())
    wide, narrow = (
        np.asarray(jax.jit(tiny(name, compute_dtype=dtype).apply, static_argnums=3)(params, stats, image, False)[1])
        for dtype in ("float32", "bfloat16")
    )
    assert 0 < np.abs(narrow - wide).max() < 0.1 * np.abs(wide).max()


TRAINED: dict[str, tuple[dict[str, Any], str]] = {
    "deepict": ({}, "{depth: 1, initial_features: 2, decoder_dropout: 0.3}"),
    "flexunet": ({"widths": [2, 2, 3, 3, 4]}, "{blocks: [1, 1, 1, 1], shortcut_gradient: true}"),
    "residual_unet": ({"widths": [2, 3, 4]}, "{blocks: [1, 1, 1]}"),
    "swin_unet": ({"widths": [2], "dropout": 0.3}, "{window: 2}"),
}


@pytest.mark.parametrize(
    "name",
    ["deepict", *(pytest.param(name, marks=pytest.mark.slow) for name in ("flexunet", "residual_unet", "swin_unet"))],
)
def test_a_bilevel_step_moves_every_parameter(name: str, tmp_path: Path) -> None:
    fields, options = TRAINED[name]
    unset = dict.fromkeys(("widths", "convs_per_block", "bottleneck_convs", "decoder_convs"), "null")
    edge = 32 if name == "flexunet" else 8
    overrides = [f"model.{field}={value}" for field, value in (unset | fields).items()]
    overrides += [f"model.backbone={name}", f"model.backbone_options={options}"]
    overrides += [f"patches.size={edge}", "patches.shift_vox=2", "inference.tile=null", "inference.overlap_vox=2"]
    overrides += ["train.inner.learning_rate=1e-2", "train.variant=dr_only", "train.meta_lambda=0"]
    experiment = build_experiment(load_config(write_tiny(tmp_path / "tiny.yaml"), overrides))
    before = jax.tree.map(np.asarray, experiment.state)
    state, metrics = experiment.step(experiment.state, *noise_batches(experiment, np.random.default_rng(0)))
    assert 0 < float(metrics.hypergradient_norm) < np.inf
    assert np.isfinite(float(metrics.outer_loss))
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == b).all()), state.params, before.params)
    still = [jax.tree_util.keystr(path) for path, unchanged in jax.tree_util.tree_leaves_with_path(same) if unchanged]
    assert still == []
