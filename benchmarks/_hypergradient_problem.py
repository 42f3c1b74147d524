"""The problems that the hypergradient benchmark measures: RobPicker's own, at a given size and precision, on a given device."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from robpicker_jax.bilevel import BilevelProblem, hypergradient
from robpicker_jax.config import ModelConfig
from robpicker_jax.models import PRESETS, UNet, UNetShape, build_data_reweighting, build_label_correction
from robpicker_jax.training import objective
from robpicker_jax.training.objective import Batch, Networks, NetworkState

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 5e-4
"""The paper's inner optimiser."""


@dataclass(frozen=True)
class Case:
    """A network, a batch, and where they run."""

    shape: UNetShape
    edge: int
    batch: int
    n_classes: int
    dtype: str = "float32"
    platform: str = "cpu"
    rounds: int = 5

    @property
    def name(self) -> str:
        """The case as the table names it."""
        widths = "/".join(map(str, self.shape.widths))
        return f"U-Net {widths}, {self.edge}³, batch {self.batch}, {self.dtype}, {self.platform}"

    @property
    def device(self) -> jax.Device:
        """The first device of the platform."""
        return jax.devices(self.platform)[0]


def custom(widths: tuple[int, ...]) -> UNetShape:
    """The package's small network (batch norm, transposed convolutions), with these widths."""
    return UNetShape(**{**vars(PRESETS["custom"]), "widths": widths})


def paper_model() -> ModelConfig:
    """The meta networks of the paper: a head of their own, and one alpha a class."""
    return ModelConfig(
        correction="head", alpha_channels="classes", alpha_bias=-2.0, reweighting_inputs="loss", weight_reach=None
    )


def alive(params: Any, seed: int) -> Any:
    """Parameters with random numbers in place of layers that start at zero, behind which every gradient is zero."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [
        0.3 * jax.random.normal(key, leaf.shape) if leaf.ndim > 1 and not leaf.any() else leaf
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


@functools.lru_cache(maxsize=4)
def trees(shape: UNetShape, n_classes: int) -> dict[str, Any]:
    """Initial weights of the three networks as float32 NumPy arrays, the same for every method and precision."""
    unet, model = UNet(shape, n_classes), paper_model()
    correction = build_label_correction(model, n_classes, unet.features)
    params, batch_stats = unet.init(jax.random.key(0))
    meta = {
        "correction": alive(correction.init(jax.random.key(1)), 3),
        "reweighting": alive(build_data_reweighting(model).init(jax.random.key(2)), 4),
    }
    host: dict[str, Any] = jax.tree.map(np.asarray, {"params": params, "batch_stats": batch_stats, "meta": meta})
    return host


def batch(case: Case, seed: int, lead: tuple[int, ...] = ()) -> Batch:
    """Blocks of classes under noise, float32 NumPy arrays; `lead` leading axes."""
    rng = np.random.default_rng(seed)
    block = case.edge // 4
    label = rng.integers(0, case.n_classes, (*lead, case.batch, 4, 4, 4))
    for axis in (-1, -2, -3):
        label = label.repeat(block, axis)
    image = (label / case.n_classes + rng.standard_normal(label.shape))[..., None]
    arrays: Any = image.astype(np.float32), label.astype(np.int32), np.ones((*lead, case.batch), np.int32)
    return Batch(*arrays)


class Setup(NamedTuple):
    """A problem and the arguments of its estimators, on the case's device."""

    problem: BilevelProblem
    arguments: tuple[Any, ...]


def setup(case: Case, dtype: str, inner_steps: int = 1, *, stops: bool = True) -> Setup:
    """RobPicker's problem computed in `dtype`; parameters are float64 for "float64", else float32.

    `stops` is whether the inner gradient is kept out of targets and weights, which is the default of training.
    """
    unet, model = UNet(case.shape, case.n_classes, dtype), paper_model()
    correct = build_label_correction(model, case.n_classes, unet.features).apply
    networks = Networks(unet.apply, correct, build_data_reweighting(model).apply)
    optimizer = optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(LEARNING_RATE, momentum=MOMENTUM))
    problem = objective.robpicker_problem(networks, optimizer, stop_gradient_label=stops, stop_gradient_weight=stops)
    wide = np.float64 if dtype == "float64" else np.float32

    def put(tree: Any) -> Any:
        cast = jax.tree.map(lambda leaf: leaf.astype(wide) if leaf.dtype == np.float32 else leaf, tree)
        return jax.device_put(cast, case.device)

    weights = put(trees(case.shape, case.n_classes))
    state = NetworkState(weights["batch_stats"], put(np.zeros(2, np.uint32)))
    opt_state = jax.device_put(optimizer.init(weights["params"]), case.device)
    batches = put(batch(case, 1, (inner_steps,))), put(batch(case, 2))
    return Setup(problem, (weights["params"], weights["meta"], state, opt_state, *batches))


def double_precision() -> AbstractContextManager[Any]:
    """64-bit types inside the block; jax has moved the switch between versions."""
    switch: Callable[[bool], AbstractContextManager[Any]] | None = getattr(jax, "enable_x64", None)
    if switch is None:
        switch = importlib.import_module("jax.experimental").enable_x64
        assert switch is not None
    return switch(True)


@functools.lru_cache(maxsize=8)
def oracle(case: Case, inner_steps: int = 1, *, stops: bool = True) -> np.ndarray:
    """The hypergradient by `unrolled` in float64, as one vector.

    It is compiled with the compiler's default options, so that it shares none with the methods that it judges.
    """
    with double_precision():
        problem, arguments = setup(case, "float64", inner_steps, stops=stops)
        estimate = jax.jit(hypergradient("unrolled", problem, inner_steps))
        return flat(estimate(*arguments).hypergradient)


def flat(tree: Any) -> np.ndarray:
    """All leaves as one float64 vector."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def relative_error(value: np.ndarray, reference: np.ndarray) -> float:
    """‖value − reference‖ / ‖reference‖."""
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def cosine(value: np.ndarray, reference: np.ndarray) -> float | None:
    """Cosine of the angle between two vectors; None where one is zero."""
    norms = float(np.linalg.norm(value) * np.linalg.norm(reference))
    return float(value @ reference) / norms if norms > 0 else None
