"""The networks of `robpicker_jax.models` written again in PyTorch, for the weights of a Flax tree.

They are written from the networks' descriptions with PyTorch's own layers (strided and transposed convolutions, max-pools with
padding, group norm, trilinear interpolation). Windowed attention is computed as dense attention over all tokens, with those of
other windows masked: another way to the same numbers than rolled and cut windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from robpicker_jax.models.deepict import DeePiCt
from robpicker_jax.models.flexunet import FlexUNet
from robpicker_jax.models.residual_unet import ResidualUNet
from robpicker_jax.models.swin_unet import SwinUNet
from robpicker_jax.models.unet import UNet

Weights = dict[str, Tensor]


def tensors(tree: Any, dtype: torch.dtype = torch.float32) -> Weights:
    """The leaves of a Flax tree by their path (`a/b/kernel`), in PyTorch's order of axes."""
    result = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name, array = "/".join(part.key for part in path), np.asarray(leaf)
        if array.ndim == 5:
            array = array.transpose((3, 4, 0, 1, 2) if "_upsample/kernel" in name else (4, 3, 0, 1, 2))
        elif array.ndim == 2 and name.endswith("kernel"):
            array = array.T
        result[name] = torch.tensor(np.ascontiguousarray(array), dtype=dtype)
    return result


class _Layers:
    """PyTorch's layers with weights by name."""

    def __init__(self, params: Weights, stats: Weights, *, train: bool) -> None:
        self.params, self.stats, self.train = params, stats, train

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = self.params[f"{name}/kernel"]
        return functional.conv3d(
            x, kernel, self.params.get(f"{name}/bias"), stride=stride, padding=kernel.shape[-1] // 2
        )

    def transposed(self, x: Tensor, name: str) -> Tensor:
        return functional.conv_transpose3d(x, self.params[f"{name}/kernel"], self.params[f"{name}/bias"], stride=2)

    def batch_norm(self, x: Tensor, name: str, epsilon: float = 1e-5) -> Tensor:
        scale, bias = self.params[f"{name}/scale"], self.params[f"{name}/bias"]
        if self.train:
            return functional.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)
        return functional.batch_norm(
            x, self.stats[f"{name}/mean"], self.stats[f"{name}/var"], scale, bias, training=False, eps=epsilon
        )

    def group_norm(self, x: Tensor, name: str) -> Tensor:
        groups = int(np.gcd(8, x.shape[1]))
        return functional.group_norm(x, groups, self.params[f"{name}/scale"], self.params[f"{name}/bias"], eps=1e-5)

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], self.params[f"{name}/scale"], self.params[f"{name}/bias"], eps=1e-5
        )

    def linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.params[f"{name}/kernel"], self.params.get(f"{name}/bias"))


def _deepfinder(net: UNet, of: _Layers, image: Tensor) -> tuple[Tensor, Tensor]:
    def pair(x: Tensor, block: str, count: int) -> Tensor:
        for i in range(count):
            x = functional.relu(of.conv(x, f"{block}/_Conv_{i}"))
        return x

    def up(x: Tensor, name: str) -> Tensor:
        x = functional.pad(functional.interpolate(x, scale_factor=2, mode="nearest"), (0, 1, 0, 1, 0, 1))
        at = f"{name}/_Conv_0"
        return functional.relu(functional.conv3d(x, of.params[f"{at}/kernel"], of.params[f"{at}/bias"]))

    high = pair(image, "down0_fine", 2)
    middle = pair(functional.max_pool3d(high, 2), "down1_fine", 2)
    x = pair(functional.max_pool3d(middle, 2), "bottleneck", 4)
    x = pair(torch.cat([up(x, "up1_upsample"), middle], 1), "up1", 2)
    x = pair(torch.cat([up(x, "up0_upsample"), high], 1), "up0", 2)
    return x, of.conv(x, "classes")


def _deepict(net: DeePiCt, of: _Layers, image: Tensor) -> tuple[Tensor, Tensor]:
    def block(x: Tensor, name: str, norm: bool) -> Tensor:
        for i in range(2):
            x = functional.relu(of.conv(x, f"{name}/conv{i}"))
            if norm:
                x = of.batch_norm(x, f"{name}/norm{i}")
        return x

    x, skips = image, []
    for level in range(net.depth):
        x = block(x, f"down{level}", net.batch_norm)
        skips.append(x)
        x = functional.max_pool3d(x, 2)
    x = block(x, "bottom", False)
    for level in reversed(range(net.depth)):
        x = block(torch.cat([skips[level], of.transposed(x, f"up{level}_upsample")], 1), f"up{level}", net.batch_norm)
    return x, of.conv(x, "classes")


def _flexunet(net: FlexUNet, of: _Layers, image: Tensor) -> tuple[Tensor, Tensor]:
    def layer(x: Tensor, name: str, stride: int = 1, epsilon: float = 1e-5) -> Tensor:
        return of.batch_norm(of.conv(x, f"{name}/conv", stride), f"{name}/norm", epsilon)

    x = functional.relu(layer(image, "stem", 2))
    maps = [x]
    x = functional.max_pool3d(x, 3, stride=2, padding=1)
    for level, count in enumerate(net.blocks, 1):
        for i in range(count):
            stride, name = (2 if level > 1 and i == 0 else 1), f"down{level}_{i}"
            y = layer(functional.relu(layer(x, f"{name}/first", stride)), f"{name}/second")
            if stride == 2:
                short = functional.avg_pool3d(x, 1, stride=2)
                short = short if net.shortcut_gradient else short.detach()
                x = torch.cat([short, short.new_zeros(len(x), y.shape[1] - x.shape[1], *short.shape[2:])], 1)
            x = functional.relu(y + x)
        maps.append(x)
    for level in (3, 2, 1, 0):
        x = functional.interpolate(of.conv(x, f"up{level}/halve"), scale_factor=2, mode="nearest")
        x = torch.cat([maps[level], x], 1)
        for name in ("first", "second"):
            x = functional.relu(layer(x, f"up{level}/{name}", epsilon=1e-3))
    return x, of.conv(x, "classes")


def _residual(net: ResidualUNet, of: _Layers, image: Tensor) -> tuple[Tensor, Tensor]:
    def block(x: Tensor, name: str) -> Tensor:
        y = x
        for i in range(2):
            y = of.conv(functional.relu(of.group_norm(y, f"{name}/norm{i}")), f"{name}/conv{i}")
        return x + y

    x, skips = image, []
    for level, count in enumerate(net.blocks):
        x = of.conv(x, f"enter{level}", 1 if level == 0 else 2)
        for i in range(count):
            x = block(x, f"down{level}_{i}")
        skips.append(x)
    for level in reversed(range(len(net.widths) - 1)):
        x = functional.interpolate(of.conv(x, f"narrow{level}"), scale_factor=2, mode="trilinear")
        x = block(x + skips[level], f"up{level}")
    x = functional.relu(of.group_norm(x, "last/norm"))
    return x, of.conv(x, "last/classes")


def _swin(net: SwinUNet, of: _Layers, image: Tensor) -> tuple[Tensor, Tensor]:
    def convs(x: Tensor, name: str, count: int) -> Tensor:
        for i in range(count):
            x = functional.relu(of.group_norm(of.conv(x, f"{name}/conv{i}"), f"{name}/norm{i}"))
        return x

    stem, skips = convs(image, "stem", 1), []
    tokens = image.permute(0, 2, 3, 4, 1)
    for stage in range(len(net.widths)):
        parts = [tokens[:, a::2, b::2, c::2] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
        tokens = torch.cat(parts, -1)
        if stage > 0:
            tokens = of.layer_norm(tokens, f"merge{stage}_norm")
        tokens = of.linear(tokens, f"merge{stage}")
        for i in range(net.blocks):
            tokens = _attention_block(net, of, tokens, f"stage{stage}_{i}", shifted=i % 2 == 1)
        skips.append(of.layer_norm(tokens, f"stage{stage}_norm").permute(0, 4, 1, 2, 3))
    x = skips.pop()
    for level, skip in reversed(list(enumerate([stem, *skips]))):
        x = convs(torch.cat([skip, of.transposed(x, f"up{level}_upsample")], 1), f"up{level}", 2)
    return x, of.conv(x, "classes")


def _attention_block(net: SwinUNet, of: _Layers, x: Tensor, name: str, *, shifted: bool) -> Tensor:
    """Dense attention: a token sees those whose shifted window is its own, with a bias by relative position."""
    n, *grid, channels = x.shape
    heads, window = max(channels // 12, 1), net.window
    at = torch.stack(torch.meshgrid(*[torch.arange(edge) for edge in grid], indexing="ij"), -1).reshape(-1, 3)
    shift = torch.tensor([window // 2 if shifted and edge > window else 0 for edge in grid])
    home = torch.div(at - shift, window, rounding_mode="floor")
    together = (home[:, None] == home[None, :]).all(-1)
    relative = (at[:, None] - at[None, :]).clamp(1 - window, window - 1) + window - 1
    span = 2 * window - 1
    number = (relative[..., 0] * span + relative[..., 1]) * span + relative[..., 2]
    bias = of.params[f"{name}/table"][number].permute(2, 0, 1).masked_fill(~together, float("-inf"))
    y = of.linear(of.layer_norm(x, f"{name}/norm0"), f"{name}/qkv").reshape(n, len(at), 3, heads, -1)
    q, k, v = y.permute(2, 0, 3, 1, 4)
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    x = x + of.linear(y.transpose(1, 2).reshape(x.shape), f"{name}/out")
    y = functional.gelu(of.linear(of.layer_norm(x, f"{name}/norm1"), f"{name}/mlp0"))
    return x + of.linear(y, f"{name}/mlp1")


_TWINS: dict[type, Callable[..., tuple[Tensor, Tensor]]] = {
    UNet: _deepfinder,
    DeePiCt: _deepict,
    FlexUNet: _flexunet,
    ResidualUNet: _residual,
    SwinUNet: _swin,
}


def segment(network: Any, params: Weights, stats: Weights, image: np.ndarray, *, train: bool) -> tuple[Tensor, Tensor]:
    """Features and class scores `(n, z, y, x, C)` of a network's PyTorch twin, without dropout.

    Args:
        network: the backbone; a U-Net must be of DeepFinder's shape.
        params: its parameters, by `tensors`.
        stats: its running statistics, by `tensors`.
        image: `(n, z, y, x, 1)`.
        train: batch norm by the batch's own statistics, or by the running ones.
    """
    dtype = next(iter(params.values())).dtype
    x = torch.tensor(np.moveaxis(image, -1, 1), dtype=dtype)
    features, scores = _TWINS[type(network)](network, _Layers(params, stats, train=train), x)
    if network.head == "sigmoid":
        scores = torch.cat([-scores.amax(1, keepdim=True), scores], 1)
    return features.movedim(1, -1), scores.movedim(1, -1)
