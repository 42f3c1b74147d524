"""The published code's parts of training: label pyramids, cross-entropy, mixtures, meta modules and their own batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robpicker_jax.bilevel import hypergradient
from robpicker_jax.bilevel.step import bilevel_step, initial_state
from robpicker_jax.config import ModelConfig, OptimizerConfig, TrainConfig, load_config
from robpicker_jax.models import ClassWeights, MixupNetwork, VoxelWeights, build_label_correction, n_parameters
from robpicker_jax.models.conv import conv3d
from robpicker_jax.models.norm import normalise
from robpicker_jax.models.published_corrections import SeparateCorrection
from robpicker_jax.system.errors import InputError
from robpicker_jax.training import objective
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.label_grid import LabelGrid, pooled_channels, pooled_distribution
from robpicker_jax.training.losses import LOSSES, build_loss, weighted_cross_entropy
from robpicker_jax.training.meta_travel import meta_travel, travel_warnings
from robpicker_jax.training.mixing import Mixup, drawn_mixture, learned_mixture
from robpicker_jax.training.objective import Batch, Networks, NetworkState
from robpicker_jax.training.optimizers import build_optimizer
from tests.steps import noise_batches

N = 3
WEIGHTS = (1.0, 6.0, 3.0)
RNG = np.random.default_rng(0)


@pytest.fixture
def float64() -> Iterator[None]:
    """Double precision for one test."""
    former = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", former)


# --- labels at the network's resolution -----------------------------------------------------------------------------


def test_pyramids_by_loops() -> None:
    soft = RNG.dirichlet((0.2, 0.2, 0.2), (2, 4, 6, 4)).astype(np.float32)
    points = np.asarray(jax.nn.one_hot(RNG.choice(3, (2, 4, 6, 4), p=(0.8, 0.1, 0.1)), 3))
    for label in (soft, points):
        distribution, channels = (
            np.asarray(pool(jnp.asarray(label), 2)) for pool in (pooled_distribution, pooled_channels)
        )
        for n, z, y, x in product(range(2), range(2), range(3), range(2)):
            block = label[n, 2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1, 3)
            np.testing.assert_array_equal(channels[n, z, y, x], block.max(0))
            species = block[:, 1:].max(0)
            whole = np.array([1 - min(1, species.sum()), *species])
            np.testing.assert_allclose(distribution[n, z, y, x], whole / whole.sum(), rtol=1e-6)
        np.testing.assert_allclose(distribution.sum(-1), 1, rtol=1e-6)
    # The published pyramid of a corrected label keeps a background beside a particle's voxel; ours does not.
    alone = np.zeros((1, 2, 2, 2, 3), np.float32)
    alone[..., 0] = 1
    alone[0, 0, 0, 0] = 0, 1, 0
    alone = jnp.asarray(alone)
    np.testing.assert_array_equal(np.ravel(pooled_channels(alone, 2)), [1, 1, 0])
    np.testing.assert_array_equal(np.ravel(pooled_distribution(alone, 2)), [0, 1, 0])


# --- losses ---------------------------------------------------------------------------------------------------------


def test_cross_entropy_with_weights_by_numpy() -> None:
    p = RNG.dirichlet((1, 1, 1), (2, 3, 4, 5)).astype(np.float32)
    y = RNG.random((2, 3, 4, 5, 3)).astype(np.float32)  # not a distribution, as under the published pyramid
    entropy = -y.astype(np.float64) * np.log(p.astype(np.float64))
    per_class = entropy.mean((1, 2, 3))
    p, y = jnp.asarray(p), jnp.asarray(y)
    found = build_loss(TrainConfig(loss="cross_entropy", loss_options={"class_weights": list(WEIGHTS)}))(p, y)
    np.testing.assert_allclose(found.per_patch, per_class @ np.array(WEIGHTS), rtol=1e-5)
    again = weighted_cross_entropy(p, y, jnp.asarray(WEIGHTS))
    np.testing.assert_allclose(again.per_patch, found.per_patch, rtol=1e-5)
    net = VoxelWeights()
    params = jax.tree.map(lambda leaf: leaf + 0.3 * RNG.normal(size=leaf.shape), net.init(jax.random.key(0)))
    x = entropy.sum(-1)[..., None]
    for layer in ("first", "second", "weight"):
        x = x @ np.asarray(params[layer]["kernel"]) + np.asarray(params[layer]["bias"])
        x = np.maximum(x, 0) if layer != "weight" else 1 / (1 + np.exp(-x))
    expected = (entropy * x).mean((1, 2, 3)) @ np.array(WEIGHTS)
    weighted = weighted_cross_entropy(p, y, jnp.asarray(WEIGHTS), partial(net.apply, params))
    np.testing.assert_allclose(weighted.per_patch, expected, rtol=1e-4)


def test_a_sure_and_wrong_voxel_still_learns() -> None:
    label = jnp.zeros((1, 1, 1, 1, 2)).at[..., 1].set(1.0)

    def loss(name: str, score: jax.Array) -> jax.Array:
        scores = jnp.stack([score, 0.0 * score])[None, None, None, None]
        return LOSSES[name](jax.nn.softmax(scores), label).per_patch[0]

    for score in (5.0, 20.0, 38.0):
        assert jax.grad(partial(loss, "cross_entropy"))(score) == pytest.approx(1.0, abs=0.01)
        assert np.isfinite(jax.grad(jax.grad(partial(loss, "cross_entropy")))(score))


# --- modules --------------------------------------------------------------------------------------------------------


def test_modules_are_those_of_the_published_code() -> None:
    """Parameters with two species as counted there, and what each does at the start."""
    key = jax.random.key(0)
    labels = build_label_correction(ModelConfig(correction="labels", alpha_bias=-2.0), N, 8)
    voxels, mixing = VoxelWeights(), MixupNetwork(N)
    assert n_parameters(labels.init(key)) == 2612
    assert n_parameters(voxels.init(key)) == 321
    assert n_parameters(mixing.init(key)) == 10_897
    one_hot = jax.nn.one_hot(RNG.integers(0, N, (1, 4, 4, 4)), N)
    corrected = labels.apply(labels.init(key), one_hot, one_hot, one_hot, one_hot[..., :1])
    np.testing.assert_allclose(corrected.alpha, 1 / (1 + np.exp(2)), rtol=1e-6)  # 0.119
    np.testing.assert_allclose(corrected.label, 0.1192 * corrected.proposal + 0.8808 * one_hot, atol=1e-4)
    np.testing.assert_allclose(voxels.apply(voxels.init(key), jnp.arange(3.0)), 1 / (1 + np.exp(-2)), rtol=1e-6)  # 0.88
    for form in ("log", "raw"):
        module = ClassWeights((1.0, 64.0, 512.0), form)
        np.testing.assert_allclose(module.apply(module.init(key)), (1, 64, 512), rtol=1e-6)


def test_a_correction_from_labels_alone_by_scipy() -> None:
    from scipy.ndimage import correlate

    module = build_label_correction(ModelConfig(correction="labels", alpha_bias=-2.0), N, 8)
    on_device = module.init(jax.random.key(1))
    params = jax.device_get(on_device)
    labels = RNG.random((5, 6, 4, N)).astype(np.float32)
    x = labels
    for layer in range(2):
        kernel, bias = params[f"conv_{layer}"]["kernel"], params[f"conv_{layer}"]["bias"]
        maps = [
            sum(correlate(x[..., i], kernel[..., i, o], mode="constant") for i in range(x.shape[-1])) + bias[o]
            for o in range(kernel.shape[-1])
        ]
        x = np.stack(maps, -1)
        x = np.maximum(x, 0) if layer == 0 else x
    proposal = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    given = jnp.asarray(labels[None])
    found = module.apply(on_device, given, given, given, given[..., :1])
    np.testing.assert_allclose(found.proposal[0], proposal, atol=1e-5)


# --- mixtures -------------------------------------------------------------------------------------------------------


def test_mixtures_by_numpy() -> None:
    values = jnp.asarray(RNG.normal(size=(5, 2, 2, 2, 3)), jnp.float32)
    mixture = drawn_mixture(jax.random.PRNGKey(4), 5, Mixup(1.0))
    partner, share = np.asarray(mixture.partner), np.asarray(mixture.coefficient)
    assert sorted(partner.tolist()) == list(range(5))
    assert np.ptp(share) > 0.1
    np.testing.assert_allclose(mixture.of(values), share * values + (1 - share) * values[partner], rtol=1e-5)
    coarse = learned_mixture(jax.random.PRNGKey(4), values[..., :1], values, lambda a, b, c, d: jax.nn.sigmoid(a - b))
    at = np.asarray(coarse.coefficient).mean((1, 2, 3), keepdims=True)
    other = np.asarray(coarse.partner)
    pooled = values[:, :1, :1, :1]
    np.testing.assert_allclose(coarse.of(pooled), at * pooled + (1 - at) * pooled[other], rtol=1e-5)


def test_a_share_of_the_batches_is_mixed() -> None:
    drawn = jax.vmap(lambda key: drawn_mixture(key, 4, Mixup(0.25, 1.0)).coefficient)
    shares = np.asarray(jax.jit(drawn)(jax.random.split(jax.random.PRNGKey(0), 2000)))[..., 0, 0, 0, 0]
    mixed = (shares != 1).any(axis=1)
    assert abs(mixed.sum() - 500) < 80
    values = shares[mixed].ravel()
    assert abs(values.mean() - 0.5) < 0.03  # Beta(1, 1) is uniform
    assert abs(values.var() - 1 / 12) < 0.01


# --- the bi-level problem -------------------------------------------------------------------------------------------


class OneLayer:
    """A convolution with batch norm and softplus, a matrix of scores, and both pooled to half the resolution."""

    features, stride, output_stride = 4, 2, 2

    def init(self, key: jax.Array) -> Any:
        first, second = jax.random.split(key)
        kernel = 0.3 * jax.random.normal(first, (3, 3, 3, 1, self.features))
        return {"kernel": kernel, "head": jax.random.normal(second, (self.features, N))}, {}

    def apply(self, params: Any, stats: Any, image: jax.Array, train: bool, *, dropout_key: Any = None) -> Any:
        ones, zeros = jnp.ones(self.features), jnp.zeros(self.features)
        x = normalise(conv3d(image, params["kernel"]), ones, zeros, jnp.asarray(1e-3))[0]
        n, z, y, x_edge, _ = x.shape
        blocks = jax.nn.softplus(x).reshape(n, z // 2, 2, y // 2, 2, x_edge // 2, 2, self.features)
        features = blocks.mean((2, 4, 6))
        return features, features @ params["head"], stats


def published(correction: str, pooling: str, form: str = "log") -> tuple[Networks, dict[str, Any], dict[str, Any]]:
    """Tiny networks of that kind at half resolution, their parameters in double precision, and the meta parameters."""
    net = OneLayer()
    model = ModelConfig(
        preset="custom", widths=(2, 3), convs_per_block=1, bottleneck_convs=1, decoder_convs=1, batch_norm=True,
        correction=correction, correction_hidden=4, alpha_bias=-1.0,
    )  # fmt: skip
    corrects = build_label_correction(model, N, net.features)
    if isinstance(corrects, SeparateCorrection):  # single precision would hide small differences of the loss
        corrects = replace(corrects, backbone=replace(corrects.backbone, compute_dtype="float64"))
    classes, voxels, mixing = ClassWeights(WEIGHTS, form), VoxelWeights(5), MixupNetwork(N, 4)
    networks = Networks(
        net.apply, corrects.apply, lambda *_: None, grid=LabelGrid(pooling, 2),
        corrects_labels_alone=corrects.sees_labels_alone, class_weights=classes.apply, voxel_weights=voxels.apply,
        coefficient=mixing.apply, fixed_class_weights=WEIGHTS, n_classes=N,
    )  # fmt: skip
    keys = iter(jax.random.split(jax.random.PRNGKey(5), 5))
    params, stats = net.init(next(keys))
    modules = {"correction": corrects, "class_weights": classes, "voxel_weights": voxels, "mixup": mixing}
    meta = {name: module.init(next(keys)) for name, module in modules.items()}
    rng = np.random.default_rng(3)
    # Layers that start at zero leave those before them without a gradient.
    meta = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), meta)
    double = partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.float64))
    return networks, double({"params": params, "stats": stats}), double(meta)


def batch(seed: int, n: int = 4) -> Batch:
    rng = np.random.default_rng(seed)
    label = rng.choice(N, (n, 8, 8, 8), p=(0.9, 0.05, 0.05))
    image = (rng.normal(size=label.shape) + label)[..., None]
    return Batch(jnp.asarray(image), jnp.asarray(label), jnp.ones(n, jnp.int32))


MIXED = Mixup(1.0, 1.0, meta=True)
CASES: list[Any] = [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in (
        ("labels", "distribution", ("correction", "class_weights", "voxel_weights"), "log"),
        ("labels", "channels", ("correction", "class_weights", "mixup"), "raw"),
        ("separate", "distribution", ("correction", "voxel_weights"), "log"),
        ("tied", "channels", ("correction", "mixup"), "log"),
    )
]


@pytest.mark.parametrize(("correction", "pooling", "names", "form"), CASES)
def test_hypergradients_of_the_modules_are_central_differences(
    float64: None, correction: str, pooling: str, names: tuple[str, ...], form: str
) -> None:
    """One step of Adam, plain mixtures where no module mixes, everything else as published."""
    networks, trees, meta = published(correction, pooling, form)
    meta = {name: meta[name] for name in names}
    loss = build_loss(TrainConfig(loss="cross_entropy", loss_options={"class_weights": WEIGHTS}))
    problem = objective.robpicker_problem(networks, optax.adam(0.01, eps_root=1e-12), loss, mixup=MIXED)
    state = NetworkState(trees["stats"], jax.random.PRNGKey(9))
    opt_state = problem.inner_optimizer.init(trees["params"])
    inner, outer = jax.tree.map(lambda leaf: leaf[None], batch(1)), batch(2)
    estimate = jax.jit(hypergradient("unrolled", problem))
    found = estimate(trees["params"], meta, state, opt_state, inner, outer)

    def value(meta: Any) -> jax.Array:
        return estimate(trees["params"], meta, state, opt_state, inner, outer).outer_loss

    for name in names:
        # Along the hypergradient itself, where the derivative is its norm, as large as any direction gives.
        norm = float(optax.tree.norm(found.hypergradient[name]))
        assert norm > 1e-9, name
        direction = jax.tree.map(lambda leaf, norm=norm: leaf / norm, found.hypergradient[name])

        def moved(by: float, name: str = name, direction: Any = direction) -> Any:
            return meta | {name: jax.tree.map(lambda leaf, d: leaf + by * d, meta[name], direction)}

        # A step must be so small that no relu changes its side, and so large that rounding does not decide: the better
        # of two counts.
        measured = [float(value(moved(h)) - value(moved(-h))) / (2 * h) for h in (1e-6, 1e-7)]
        assert min(abs(norm - each) for each in measured) <= max(1e-4 * norm, 1e-9), (name, norm, measured)


@pytest.mark.slow
def test_all_evaluations_of_a_step_see_one_mixture(float64: None) -> None:
    """Central differences in the parameters give the exact mixed product: the two losses differ in these alone."""
    networks, trees, meta = published("labels", "distribution")
    meta = {"class_weights": meta["class_weights"], "correction": meta["correction"]}
    loss = build_loss(TrainConfig(loss="cross_entropy", loss_options={"class_weights": WEIGHTS}))
    problem = objective.robpicker_problem(networks, optax.sgd(0.01), loss, mixup=Mixup(1.0))
    state = NetworkState(trees["stats"], jax.random.PRNGKey(9))
    inner, outer = jax.tree.map(lambda leaf: leaf[None], batch(1)), batch(2)
    results = []
    for method in ("tangent", "finite_difference"):
        estimate = jax.jit(hypergradient(method, problem))
        out = estimate(trees["params"], meta, state, problem.inner_optimizer.init(trees["params"]), inner, outer)
        results.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(out.hypergradient)]))
    exact, differences = results
    cosine = exact @ differences / np.linalg.norm(exact) / np.linalg.norm(differences)
    assert cosine == pytest.approx(1.0, abs=1e-3)
    assert np.linalg.norm(differences) == pytest.approx(np.linalg.norm(exact), rel=0.01)


@pytest.mark.slow
def test_each_module_may_have_its_own_meta_batch(float64: None) -> None:
    networks, trees, meta = published("labels", "distribution")
    meta = {name: meta[name] for name in ("class_weights", "correction", "voxel_weights")}
    loss = build_loss(TrainConfig(loss="cross_entropy", loss_options={"class_weights": WEIGHTS}))
    problem = objective.robpicker_problem(networks, optax.sgd(0.05), loss)
    optimizers = dict.fromkeys(meta, optax.sgd(1.0))
    state = initial_state(
        trees["params"], NetworkState(trees["stats"], jax.random.PRNGKey(9)), meta, problem.inner_optimizer, optimizers
    )
    inner, outer = jax.tree.map(lambda leaf: leaf[None], batch(1)), batch(2, 6)
    together, metrics = jax.jit(bilevel_step(problem, optimizers, own_batches=True))(state, inner, outer)
    alone = jax.jit(bilevel_step(problem, optimizers))
    losses = []
    for index, name in enumerate(sorted(meta)):
        after, of_part = alone(state, inner, jax.tree.map(lambda leaf, i=index: leaf[i::3], outer))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9), after.meta[name], together.meta[name])
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9), after.params, together.params)
        losses.append(float(of_part.outer_loss))
    assert metrics.outer_loss == pytest.approx(np.mean(losses))
    with pytest.raises(InputError, match="4 rows for 3"):
        bilevel_step(problem, optimizers, own_batches=True)(state, inner, batch(2, 4))


# --- the published schedule -----------------------------------------------------------------------------------------

PUBLISHED = OptimizerConfig("adam", 2e-4, schedule="cosine", warmup_steps=50)


def test_the_published_defaults_leave_alpha_and_class_weights_where_they_are() -> None:
    """Whatever the gradients: 1,500 meta steps, each pushing the same way, are the most that can happen."""
    optimizer = build_optimizer(PUBLISHED, 1500)
    raw, log = (ClassWeights((1.0, 64.0, 512.0), form) for form in ("raw", "log"))
    key = jax.random.key(0)
    params = {"raw": raw.init(key), "log": log.init(key), "alpha": jnp.float32(-2.0)}

    @jax.jit
    def run(params: Any) -> Any:
        def one(_: Any, carry: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 1500, one, (params, optimizer.init(params)))[0]

    after = run(params)
    moved = float(params["alpha"] - after["alpha"])
    assert 0.14 < moved < 0.155
    assert 1 / (1 + np.exp(2 - moved)) < 0.137  # alpha from 0.119 to 0.136 at most, or down to 0.104
    assert 1 / (1 + np.exp(2 + moved)) > 0.103
    np.testing.assert_allclose(raw.apply(after["raw"]), (0.85, 63.85, 511.85), atol=0.01)
    # As logarithms all weights move by the same share, and with our rate by far more.
    np.testing.assert_allclose(np.array([1, 64, 512]) / log.apply(after["log"]), np.exp(moved), rtol=1e-4)
    train = TrainConfig(
        variant="lc_only", modules=("class_weights",), steps=1500, module=PUBLISHED, correction=PUBLISHED
    )
    travel = meta_travel(train)
    assert travel["class_weights"] == pytest.approx(moved, rel=0.05)
    assert any("class_weights" in line and "train.module.learning_rate" in line for line in travel_warnings(train))
    ours = replace(train, module=OptimizerConfig("adam", 1e-3), correction=OptimizerConfig("adam", 1e-3))
    assert meta_travel(ours)["class_weights"] > 1
    assert not travel_warnings(ours)


@pytest.mark.slow
def test_a_configuration_trains_all_modules(tiny_config: Any) -> None:
    """Names, optimisers, batches of their own, the truncated schedule: finite, and every module moves."""
    overrides = [
        "train.variant=lc_only",
        "train.modules=[class_weights, voxel_weights]",
        "train.loss=cross_entropy",
        "train.loss_options.class_weights=[1, 64, 512]",
        "train.mixup=0.5",
        "train.mixup_meta=true",
        "train.meta_batches=own",
        "train.inner_steps=2",
        "train.hypergradient=truncated",
        "train.meta_lambda=0",
        "train.meta_alpha=0",
        "model.correction=labels",
        "model.alpha_bias=-2",
    ]
    config = load_config(tiny_config, overrides)
    experiment = build_experiment(config)
    inner, outer = noise_batches(experiment, np.random.default_rng(0))
    assert len(outer.label) == 3 * config.train.meta_batch
    before = jax.device_get(experiment.state.meta)
    state = experiment.state
    for _ in range(2):
        state, metrics = experiment.step(state, inner, outer)
    assert np.isfinite(metrics.hypergradient_norm)
    assert metrics.hypergradient_norm > 0
    for name in ("correction", "class_weights", "voxel_weights"):
        moves = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before[name], jax.device_get(state.meta[name]))
        assert 0 < max(jax.tree.leaves(moves)) < 0.01, name
    np.testing.assert_allclose(np.exp(before["class_weights"]["weights"]), (1, 64, 512), rtol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.modules=[class_weights]"], "set train.loss: cross_entropy"),
        (
            ["train.loss=cross_entropy", "train.loss_options.class_weights=[1, 2]"],
            "2 weights for 3 classes",
        ),
    ],
)
def test_modules_without_a_place_are_refused(tiny_config: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_experiment(load_config(tiny_config, overrides))
