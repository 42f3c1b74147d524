"""Small bi-level problems for the tests of hypergradients: a batch-normed network with meta heads, a quadratic."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robpicker_jax.bilevel import BilevelProblem

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.sgd(0.3),
    "momentum": lambda: optax.chain(optax.add_decayed_weights(5e-3), optax.sgd(0.2, momentum=0.9)),
    "adam": lambda: optax.adam(0.05, eps_root=1e-12),
}


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Double precision inside the block; the name of the switch differs between versions of jax."""
    switch = getattr(jax, "enable_x64", None)
    if switch is None:
        from jax.experimental import enable_x64 as switch
    with switch(True):
        yield


class Case(NamedTuple):
    """A problem and the arguments of its estimators."""

    problem: BilevelProblem
    params: Any
    meta: Any
    state: Any
    inner_batches: Any
    outer_batch: Any

    def arguments(self) -> tuple[Any, ...]:
        return self.params, self.meta, self.state, self.opt_state(), self.inner_batches, self.outer_batch

    def opt_state(self) -> Any:
        """The optimiser's state after two updates: Adam's first update is the sign of the gradient, a singular case."""
        optimizer = self.problem.inner_optimizer
        state = optimizer.init(self.params)
        for size in (0.3, -0.2):
            _, state = optimizer.update(
                jax.tree.map(lambda p, s=size: jnp.full_like(p, s), self.params), state, self.params
            )
        return state


def _network(params: Any, running: Any, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Dense layer, batch norm, tanh, dense head at each pixel: features, probability of class 1, new running mean."""
    h = x @ params["dense"]
    mean = jnp.mean(h, (0, 1))
    centred = h - mean[None, None]
    h = jnp.tanh(
        params["scale"][None, None] * centred * jax.lax.rsqrt(jnp.mean(centred**2, (0, 1), keepdims=True) + 1e-3)
    )
    return h, jax.nn.sigmoid(h @ params["head"]), 0.9 * running + 0.1 * mean


def network_case(
    optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    uses_frozen: bool = False,
    direct: bool = False,
    dtype: Any = None,
    batch: int = 4,
    seed: int = 0,
) -> Case:
    """Segmentation of images of 6 pixels into 2 classes, with a label-correcting and a weighting meta head.

    With `uses_frozen` the corrected label and the loss that sets the weight are computed from the frozen copy of the
    parameters, as targets; without it they are live. With `direct` the outer loss depends on the meta parameters too.
    """

    def inner_loss(params: Any, meta: Any, state: Any, batch: Any, frozen: Any = None) -> Any:
        x, labels = batch
        features, probability, running = _network(params, state["running"], x)
        still_features, still_probability = features, probability
        if frozen is not None:
            still_features, still_probability, _ = _network(frozen, state["running"], x)
        alpha = jax.nn.sigmoid(meta["alpha"])
        target = alpha * jax.nn.sigmoid(still_features @ meta["correct"]) + (1 - alpha) * labels
        losses = jnp.mean((probability - target) ** 2, 1)
        weights = jax.nn.sigmoid(meta["weight"] * jnp.mean((still_probability - target) ** 2, 1))
        new_state = {"running": running, "key": state["key"], "count": state["count"] + 1}
        return jnp.mean(losses * weights), (new_state, {"losses": losses, "weights": weights})

    def outer_loss(params: Any, state: Any, batch: Any) -> Any:
        x, labels = batch
        losses = jnp.mean((_network(params, state["running"], x)[1] - labels) ** 2, 1)
        return jnp.mean(losses), losses

    def outer_loss_with_meta(params: Any, meta: Any, state: Any, batch: Any) -> Any:
        loss, aux = outer_loss(params, state, batch)
        return loss + 0.1 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(meta)), aux

    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape), dtype)

    def images(*shape: int) -> tuple[jax.Array, jax.Array]:
        x = normal(*shape, 6, 2)
        return x, (x[..., 0] + 0.5 * normal(*shape, 6) > 0).astype(x.dtype)

    params = {"dense": normal(2, 3), "scale": 1 + 0.1 * normal(3), "head": normal(3)}
    meta = {"correct": normal(3), "alpha": normal(), "weight": 3 * normal()}
    state = {"running": 0 * normal(3), "key": jax.random.key(0), "count": jnp.zeros((), jnp.int32)}
    problem = BilevelProblem(
        inner_loss,
        outer_loss_with_meta if direct else outer_loss,
        optimizer,
        outer_loss_uses_meta=direct,
        inner_loss_uses_frozen=uses_frozen,
    )
    return Case(problem, params, meta, state, images(inner_steps, batch), images(batch))


class Quadratic(NamedTuple):
    """L = ½ θᵀAθ − θᵀBm, F = ½ ‖θ − t‖², with θ*(m) = A⁻¹Bm and dF/dm = Bᵀ A⁻¹ (θ* − t)."""

    case: Case
    a: np.ndarray
    b: np.ndarray
    target: np.ndarray

    def closed_form(self, params: Any, damping: float = 0.0) -> np.ndarray:
        return self.b.T @ np.linalg.solve(self.a + damping * np.eye(len(self.a)), np.asarray(params) - self.target)


def quadratic(learning_rate: float, inner_steps: int = 1, *, indefinite: bool = False) -> Quadratic:
    """A quadratic problem that starts at its stationary point; A has eigenvalues in [0.5, 2] (or of both signs)."""
    rng = np.random.default_rng(1)
    n, m = 6, 3
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    values = np.linspace(0.5, 2.0, n)
    if indefinite:
        values[:3] *= -1
    a, b, target = q @ np.diag(values) @ q.T, rng.standard_normal((n, m)), rng.standard_normal(n)
    meta = rng.standard_normal(m)

    def inner_loss(params: Any, meta: Any, state: Any, batch: Any) -> Any:
        return 0.5 * params @ jnp.asarray(a) @ params - params @ jnp.asarray(b) @ meta, (state, None)

    def outer_loss(params: Any, state: Any, batch: Any) -> Any:
        return 0.5 * jnp.sum((params - jnp.asarray(target)) ** 2), None

    params = jnp.asarray(np.linalg.solve(a, b @ meta))
    problem = BilevelProblem(inner_loss, outer_loss, optax.sgd(learning_rate))
    return Quadratic(Case(problem, params, jnp.asarray(meta), (), jnp.zeros(inner_steps), ()), a, b, target)


def flat(tree: Any) -> np.ndarray:
    """All leaves as one float64 vector."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def relative_error(value: Any, reference: Any) -> float:
    """‖value − reference‖ / ‖reference‖ over whole trees."""
    value, reference = flat(value), flat(reference)
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))
