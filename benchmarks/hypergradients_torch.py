"""The same networks, losses and weights in PyTorch: plain step, finite differences, exact double backward.

Written as a PyTorch user would: native convolutions on `channels_last_3d` tensors, autograd, `create_graph` for the
exact hypergradient. The weights are the flax trees of `benchmarks.hypergradients`, converted once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks._hypergradient_problem import paper_model
from robpicker_jax.models.presets import UNetShape
from robpicker_jax.training.losses.dice import SMOOTHING_VOX

ALPHA_BIAS, ALPHA_REACH = paper_model().alpha_bias, paper_model().alpha_reach

Tree = Any


class TorchBatch(NamedTuple):
    """Image (n, 1, z, y, x), `channels_last_3d`; one-hot label (n, z, y, x, c)."""

    image: Tensor
    label: Tensor


class TorchEstimate(NamedTuple):
    """What a step computed; the hypergradient's leaves are in the order of the flax tree's."""

    inner_loss: float
    outer_loss: float | None
    hypergradient: np.ndarray | None


def _kernel(path: str, leaf: np.ndarray) -> np.ndarray:
    """A leaf in PyTorch's order: (out, in, z, y, x) for convolutions, (in, out, …) transposed, (out, in) for linear."""
    if leaf.ndim == 5 and "upsample']['kernel" in path:
        return leaf.transpose(3, 4, 0, 1, 2)
    if leaf.ndim == 5:
        return leaf.transpose(4, 3, 0, 1, 2)
    return leaf.T if leaf.ndim == 2 else leaf


class TorchProblem:
    """The bi-level problem of one step in PyTorch, inner optimiser SGD with momentum (at rest) and weight decay."""

    def __init__(
        self,
        shape: UNetShape,
        weights: Tree,
        meta: Tree,
        *,
        learning_rate: float,
        weight_decay: float,
        compute_dtype: str,
        device: str,
    ) -> None:
        """Convert the trees; `device` is PyTorch's name, `compute_dtype` other than float32 is done by autocast."""
        self.shape, self.learning_rate, self.weight_decay = shape, learning_rate, weight_decay
        self.device, self.compute_dtype = device, compute_dtype
        torch.backends.cudnn.benchmark = True  # let cuDNN choose by trial, as XLA does
        self.params = self._tensors(weights)
        self.meta = self._tensors(meta)
        self.running: dict[str, tuple[Tensor, Tensor]] = {}

    def _tensors(self, tree: Tree) -> dict[str, Tensor]:
        result = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = jax.tree_util.keystr(path)
            tensor = torch.tensor(_kernel(name, np.asarray(leaf, np.float32)), device=self.device)
            if tensor.ndim == 5:
                tensor = tensor.contiguous(memory_format=torch.channels_last_3d)
            result[name] = tensor.requires_grad_()
        return result

    def batch(self, image: np.ndarray, label: np.ndarray, n_classes: int) -> TorchBatch:
        """A batch from image (n, z, y, x, 1) and label (n, z, y, x)."""
        x = torch.tensor(np.moveaxis(image, -1, 1), dtype=torch.float32, device=self.device)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        one_hot = functional.one_hot(torch.tensor(label, dtype=torch.int64, device=self.device), n_classes)
        return TorchBatch(x, one_hot.to(torch.float32))

    # The networks.

    def _convs(self, params: dict[str, Tensor], x: Tensor, block: str, count: int, keep_running: bool) -> Tensor:
        for i in range(count):
            at = f"['{block}']['_Conv_{i}']"
            x = functional.conv3d(x, params[at + "['kernel']"], params.get(at + "['bias']"), padding=1)
            if self.shape.batch_norm:
                at = f"['{block}']['BatchNorm_{i}']"
                scale, bias = params[at + "['scale']"], params[at + "['bias']"]
                zero, one = torch.zeros_like(scale, requires_grad=False), torch.ones_like(scale, requires_grad=False)
                mean, variance = self.running.setdefault(at, (zero, one)) if keep_running else (None, None)
                x = functional.batch_norm(x, mean, variance, scale, bias, training=True, eps=1e-5)
            x = functional.relu(x)
        return x

    def _upsample(self, params: dict[str, Tensor], x: Tensor, block: str) -> Tensor:
        if self.shape.upsampling == "transposed":
            at = f"['{block}']"
            return functional.conv_transpose3d(x, params[at + "['kernel']"], params[at + "['bias']"], stride=2)
        at = f"['{block}']['_Conv_0']"
        x = functional.pad(functional.interpolate(x, scale_factor=2, mode="nearest"), (0, 1, 0, 1, 0, 1))
        return functional.relu(functional.conv3d(x, params[at + "['kernel']"], params[at + "['bias']"]))

    def segment(self, params: dict[str, Tensor], image: Tensor, *, keep_running: bool) -> tuple[Tensor, Tensor]:
        """Features and class probabilities, both (n, z, y, x, channel) and float32."""
        shape, skips = self.shape, []
        with self._autocast():
            x = image
            for level in range(shape.levels):
                x = self._convs(params, x, f"down{level}_fine", shape.convs_before_pool, keep_running)
                skips.append(x)
                x = functional.max_pool3d(x, 2)
                x = self._convs(params, x, f"down{level}_coarse", shape.convs_after_pool, keep_running)
            x = self._convs(params, x, "bottleneck", shape.bottleneck_convs, keep_running)
            for level in reversed(range(shape.levels)):
                x = torch.cat([self._upsample(params, x, f"up{level}_upsample"), skips[level]], dim=1)
                x = self._convs(params, x, f"up{level}", shape.decoder_convs, keep_running)
            logits = functional.conv3d(x, params["['classes']['kernel']"], params["['classes']['bias']"])
        features = x.permute(0, 2, 3, 4, 1).float()
        return features, torch.softmax(logits.permute(0, 2, 3, 4, 1).float(), dim=-1)

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        if self.compute_dtype == "float32":
            yield
            return
        with torch.autocast(self.device.split(":")[0], dtype=getattr(torch, self.compute_dtype)):
            yield

    def _dense(self, meta: dict[str, Tensor], network: str, layer: str, x: Tensor) -> Tensor:
        at = f"['{network}']['{layer}']"
        return functional.linear(x, meta[at + "['kernel']"], meta[at + "['bias']"])

    def _correct(self, meta: dict[str, Tensor], features: Tensor, label: Tensor) -> Tensor:
        proposal = torch.softmax(self._dense(meta, "correction", "scores", features), dim=-1)
        hidden = functional.leaky_relu(
            self._dense(meta, "correction", "hidden", torch.cat([proposal, label], dim=-1)), 0.1
        )
        change = self._dense(meta, "correction", "alpha", hidden)
        alpha = torch.sigmoid(ALPHA_BIAS + ALPHA_REACH * torch.tanh(change / ALPHA_REACH))
        corrected = alpha * proposal + (1.0 - alpha) * label
        return corrected / corrected.sum(-1, keepdim=True)

    def _reweight(self, meta: dict[str, Tensor], losses: Tensor) -> Tensor:
        hidden = functional.relu(self._dense(meta, "reweighting", "hidden", losses[:, None]))
        return torch.sigmoid(self._dense(meta, "reweighting", "weight", hidden))[:, 0]

    # The losses: as in robpicker_jax.training.objective, both stop-gradients on.

    def inner_loss(self, params: dict[str, Tensor], batch: TorchBatch, *, keep_running: bool = False) -> Tensor:
        """Mean of the weighted Dice losses against the corrected labels."""
        features, probabilities = self.segment(params, batch.image, keep_running=keep_running)
        target = self._correct(self.meta, features.detach(), batch.label)
        losses = _class_dice(probabilities, target).mean(-1)
        present = (batch.label.sum((1, 2, 3)) >= 0.5).float()
        seen = (_class_dice(probabilities.detach(), target) * present).sum(-1) / present.sum(-1)
        return (self._reweight(self.meta, seen) * losses).mean()

    def outer_loss(self, params: dict[str, Tensor], batch: TorchBatch) -> Tensor:
        """Mean Dice loss against the clean labels."""
        return _class_dice(self.segment(params, batch.image, keep_running=False)[1], batch.label).mean()

    # The steps.

    def _updated(self, gradient: tuple[Tensor, ...]) -> dict[str, Tensor]:
        pairs = zip(self.params.items(), gradient, strict=True)
        return {name: p - self.learning_rate * (g + self.weight_decay * p) for (name, p), g in pairs}

    def plain(self, train: TorchBatch, meta_batch: TorchBatch) -> TorchEstimate:
        """Forward, backward, update."""
        del meta_batch
        loss = self.inner_loss(self.params, train, keep_running=True)
        gradient = torch.autograd.grad(loss, list(self.params.values()))
        with torch.no_grad():
            self._updated(gradient)
        return TorchEstimate(loss.item(), None, None)

    def exact(self, train: TorchBatch, meta_batch: TorchBatch) -> TorchEstimate:
        """Double backward: the outer loss's gradient through the inner step."""
        inner = self.inner_loss(self.params, train, keep_running=True)
        gradient = torch.autograd.grad(inner, list(self.params.values()), create_graph=True)
        outer = self.outer_loss(self._updated(gradient), meta_batch)
        found = torch.autograd.grad(outer, list(self.meta.values()))
        return TorchEstimate(inner.item(), outer.item(), self._flat(found))

    def finite_difference(self, train: TorchBatch, meta_batch: TorchBatch) -> TorchEstimate:
        """The paper's eq. 12–13: central differences at the old parameters, ε = 0.01/‖v‖, times −η."""
        return self._differences(train, meta_batch, at_updated=False, factor=-self.learning_rate)

    def darts(self, train: TorchBatch, meta_batch: TorchBatch) -> TorchEstimate:
        """What the published code computes: at the updated parameters, ε = 0.01/‖v‖, without η."""
        return self._differences(train, meta_batch, at_updated=True, factor=-1.0)

    def _differences(
        self, train: TorchBatch, meta_batch: TorchBatch, *, at_updated: bool, factor: float
    ) -> TorchEstimate:
        names = list(self.params)
        inner = self.inner_loss(self.params, train, keep_running=True)
        gradient = torch.autograd.grad(inner, list(self.params.values()))
        with torch.no_grad():
            updated = {name: p.detach() for name, p in self._updated(gradient).items()}
        leaves = {name: p.requires_grad_() for name, p in updated.items()}
        outer = self.outer_loss(leaves, meta_batch)
        v = torch.autograd.grad(outer, list(leaves.values()))
        epsilon = 0.01 / torch.sqrt(sum((d.detach() ** 2).sum() for d in v))
        center = leaves if at_updated else self.params

        def meta_gradient(sign: float) -> tuple[Tensor, ...]:
            shifted = {n: center[n].detach() + sign * epsilon * d for n, d in zip(names, v, strict=True)}
            loss = self.inner_loss(shifted, train)
            gradient: tuple[Tensor, ...] = torch.autograd.grad(loss, list(self.meta.values()))
            return gradient

        pairs = zip(meta_gradient(1.0), meta_gradient(-1.0), strict=True)
        found = tuple(factor * (plus - minus) / (2 * epsilon) for plus, minus in pairs)
        return TorchEstimate(inner.item(), outer.item(), self._flat(found))

    def _flat(self, leaves: tuple[Tensor, ...]) -> np.ndarray:
        """One float64 vector, each leaf in flax's orientation."""
        arrays = [leaf.detach().cpu().numpy().astype(np.float64) for leaf in leaves]
        return np.concatenate([(a.T if a.ndim == 2 else a).ravel() for a in arrays])

    def synchronise(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def device_peak_mib(self, call: Callable[[], Any]) -> float:
        """By how much a call raises the accelerator's allocated memory at most, MiB."""
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return float(torch.cuda.max_memory_allocated() - before) / 2**20

    def steps(self) -> dict[str, Callable[[TorchBatch, TorchBatch], TorchEstimate]]:
        """Every step by name."""
        return {
            "plain": self.plain,
            "finite_difference": self.finite_difference,
            "darts": self.darts,
            "exact double backward": self.exact,
        }


def _class_dice(predicted: Tensor, label: Tensor) -> Tensor:
    space = (1, 2, 3)
    overlap = (predicted * label).sum(space)
    size = predicted.sum(space) + label.sum(space)
    return 1.0 - (2.0 * overlap + SMOOTHING_VOX) / (size + SMOOTHING_VOX)
