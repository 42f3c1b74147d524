"""3D convolution, pooling and upsampling, channels last: one definition, lowered per platform.

A convolution here is `lax.conv_general_dilated` with stride 1 and "SAME" zero padding. It is bilinear, and the three
maps that arise from it (output from input and kernel, input gradient from output gradient and kernel, weight gradient
from input and output gradient) are closed under transposition: each one's derivatives are the other two. Two JAX
primitives with bilinear rules therefore give forward and reverse mode to any order, each map lowered to what the
platform does well: folded 2D convolutions and matrix products on CPU (`folded.py`), the native channels-last
convolution on GPU and TPU. `jax.custom_vjp` would give up forward mode, which exact hypergradients need.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from robpicker_jax.models import folded
from robpicker_jax.models.maxima import larger, maximum_along

Lowering = Literal["folded", "native"]
_LAYOUT = ("NDHWC", "DHWIO", "NDHWC")


def padding(size: tuple[int, ...], mirrored: bool) -> list[tuple[int, int]]:
    """Zeros before and after each axis that a convolution with a kernel of that size adds."""
    return [(-offsets[0], offsets[-1]) for offsets in (folded.taps(edge, mirrored) for edge in size)]


def _native_convolution(x: jax.Array, kernel: jax.Array, mirrored: bool = False) -> jax.Array:
    pads = padding(kernel.shape[:3], mirrored)
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), pads, dimension_numbers=_LAYOUT)


def _native_weight_gradient(x: jax.Array, g: jax.Array, size: tuple[int, int, int], mirrored: bool) -> jax.Array:
    """The convolution that XLA's own transpose rule gives: batch and channels are exchanged."""
    layout = ("CDHWN", "IDHWO", "DHWNC")
    return lax.conv_general_dilated(x, g, (1, 1, 1), padding(size, mirrored), dimension_numbers=layout)


def exchanged(kernel: jax.Array) -> jax.Array:
    """Kernel of the input gradient: mirrored in space, input and output channels exchanged."""
    return kernel[::-1, ::-1, ::-1].transpose(0, 1, 2, 4, 3)


convolution_p = Primitive("robpicker_conv3d")
weight_gradient_p = Primitive("robpicker_conv3d_weight_gradient")


def _convolution(x: jax.Array, kernel: jax.Array, mirrored: bool, lowering: Lowering | None) -> jax.Array:
    y: jax.Array = convolution_p.bind(*_same_variance(x, kernel), mirrored=mirrored, lowering=lowering)
    return y


def _weight_gradient(
    x: jax.Array, g: jax.Array, size: tuple[int, int, int], mirrored: bool, lowering: Lowering | None
) -> jax.Array:
    operands = _same_variance(x, g)
    gradient: jax.Array = weight_gradient_p.bind(*operands, size=size, mirrored=mirrored, lowering=lowering)
    return gradient


def _varying(x: Any) -> frozenset[str]:
    """Mesh axes of an enclosing `shard_map` along which `x` is marked as varying."""
    aval = jax.typeof(x)
    return getattr(getattr(aval, "manual_axis_type", aval), "varying", getattr(aval, "vma", frozenset()))


def _same_variance(*operands: jax.Array) -> list[jax.Array]:
    """Mark all operands as varying along the same axes, as JAX does for its own operations under `shard_map`.

    The transpose of the mark is the sum over devices, so a replicated kernel gets the gradient of the whole batch.
    """
    union = frozenset().union(*(_varying(x) for x in operands))
    if not union:
        return list(operands)
    missing = [tuple(sorted(union - _varying(x))) for x in operands]
    return [lax.pcast(x, axes, to="varying") if axes else x for x, axes in zip(operands, missing, strict=True)]


def _convolution_shape(x: Any, kernel: Any, *, mirrored: bool, lowering: Lowering | None) -> Any:
    if x.ndim != 5 or kernel.ndim != 5 or x.shape[-1] != kernel.shape[3] or x.dtype != kernel.dtype:
        raise TypeError(f"conv3d takes (n, z, y, x, C) and (kz, ky, kx, C, F) of one type, got {x} and {kernel}")
    return x.update(shape=(*x.shape[:4], kernel.shape[4]), weak_type=False)


def _weight_gradient_shape(
    x: Any, g: Any, *, size: tuple[int, int, int], mirrored: bool, lowering: Lowering | None
) -> Any:
    return g.update(shape=(*size, x.shape[4], g.shape[4]), weak_type=False)


def _convolution_on(platform: Lowering, x: jax.Array, kernel: jax.Array, **params: Any) -> jax.Array:
    form = params["lowering"] or platform
    return (folded.convolution if form == "folded" else _native_convolution)(x, kernel, params["mirrored"])


def _weight_gradient_on(platform: Lowering, x: jax.Array, g: jax.Array, **params: Any) -> jax.Array:
    form = folded.weight_gradient if (params["lowering"] or platform) == "folded" else _native_weight_gradient
    return form(x, g, params["size"], params["mirrored"])


def _batched_convolution(args: Any, dims: Any, *, mirrored: bool, lowering: Lowering | None) -> Any:
    x, kernel = args
    if dims[1] is None:  # only x is mapped: the mapped axis becomes more samples
        x = jnp.moveaxis(x, dims[0], 0)
        y = _convolution(x.reshape(-1, *x.shape[2:]), kernel, mirrored, lowering)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    return jax.vmap(functools.partial(_native_convolution, mirrored=mirrored), dims)(x, kernel), 0


def _batched_weight_gradient(args: Any, dims: Any, *, size: Any, mirrored: bool, lowering: Lowering | None) -> Any:
    return jax.vmap(functools.partial(_native_weight_gradient, size=size, mirrored=mirrored), dims)(*args), 0


def _register(primitive: Primitive, shape: Any, on: Any, x_rule: Any, other_rule: Any, batched: Any) -> None:
    primitive.def_abstract_eval(shape)
    ad.defbilinear(primitive, x_rule, other_rule)
    batching.primitive_batchers[primitive] = batched
    for platform, form in ((None, "native"), ("cpu", "folded")):
        rule = mlir.lower_fun(functools.partial(on, form), multiple_results=False)
        mlir.register_lowering(primitive, rule, platform=platform)

    @functools.partial(jax.jit, static_argnames=("size", "mirrored", "lowering"))
    def eager(x: jax.Array, other: jax.Array, **params: Any) -> jax.Array:
        result: jax.Array = primitive.bind(x, other, **params)
        return result

    primitive.def_impl(eager)


# The transposes, from <g, convolution(x, kernel)> = <weight_gradient(x, g), kernel> = <convolution(g, exchanged), x>.
_register(
    convolution_p,
    _convolution_shape,
    _convolution_on,
    lambda g, x, kernel, *, mirrored, lowering: _convolution(g, exchanged(kernel), not mirrored, lowering),
    lambda g, x, kernel, *, mirrored, lowering: _weight_gradient(x, g, kernel.aval.shape[:3], mirrored, lowering),
    _batched_convolution,
)
_register(
    weight_gradient_p,
    _weight_gradient_shape,
    _weight_gradient_on,
    lambda k, x, g, *, size, mirrored, lowering: _convolution(g, exchanged(k), not mirrored, lowering),
    lambda k, x, g, *, size, mirrored, lowering: _convolution(x, k, mirrored, lowering),
    _batched_weight_gradient,
)


def conv3d(x: jax.Array, kernel: jax.Array, *, lowering: Lowering | None = None) -> jax.Array:
    """3D convolution with stride 1 and "SAME" zero padding, differentiable in both modes to any order.

    Args:
        x: `(n, z, y, x, C)`.
        kernel: `(kz, ky, kx, C, F)`, of the same type.
        lowering: "folded" (2D convolutions and matrix products) or "native" (XLA's 3D convolution) whatever the
            platform; None takes "folded" on CPU, "native" elsewhere, decided when the program is lowered.

    Returns:
        `(n, z, y, x, F)`.

    Raises:
        TypeError: shapes or types do not fit together.
    """
    if kernel.shape[:3] == (1, 1, 1):
        return x @ kernel[0, 0, 0]
    return _convolution(x, kernel, False, lowering)


def strided_conv3d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3D convolution with stride 2 and (k − 1) / 2 voxels of zero padding on each side, as PyTorch pads it.

    Blocks of 2³ voxels become channels, and the taps of the kernel are sorted alike: a convolution of stride 1 with about
    half the taps along each axis. It takes (k + 1)³ / k³ times the operations, and no gradient with dilated operands, which
    XLA's platforms do badly.

    Args:
        x: `(n, z, y, x, C)`, z, y and x even.
        kernel: `(k, k, k, C, F)` with k = 1, 3 or 7, of the same type.

    Returns:
        `(n, z/2, y/2, x/2, F)`, `out[i] = Σ_o x[2 i + o] @ kernel[o + (k − 1) / 2]`.
    """
    size, channels, features = kernel.shape[0], *kernel.shape[3:]
    if size == 1:
        return every_second(x) @ kernel[0, 0, 0]
    half = (size + 1) // 2
    # The first offset, −(k − 1) / 2, is odd: one tap of zeros before it, and pairs of taps fall on whole blocks.
    taps = jnp.pad(kernel, ((1, 0), (1, 0), (1, 0), (0, 0), (0, 0))).reshape(
        half, 2, half, 2, half, 2, channels, features
    )
    taps = taps.transpose(0, 2, 4, 1, 3, 5, 6, 7).reshape(half, half, half, 8 * channels, features)
    return _convolution(blocks_as_channels(x), taps, True, None)


def blocks_as_channels(x: jax.Array) -> jax.Array:
    """Blocks of 2³ voxels as channels: `(n, z/2, y/2, x/2, 8 C)`."""
    n, depth, height, width, channels = x.shape
    x = x.reshape(n, depth // 2, 2, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(n, depth // 2, height // 2, width // 2, 8 * channels)


def every_second(x: jax.Array) -> jax.Array:
    """Voxels of even index of `(n, z, y, x, C)`; z, y and x even."""
    every_other: jax.Array = lax.slice(x, (0,) * 5, x.shape, (1, 2, 2, 2, 1))
    return every_other


def transposed_conv3d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution of stride 2 with a 2×2×2 kernel, as a matrix product and a reshape.

    Args:
        x: `(n, z, y, x, C)`.
        kernel: `(2, 2, 2, C, F)`; `out[2z+a, 2y+b, 2x+c] = x[z, y, x] @ kernel[a, b, c]`.

    Returns:
        `(n, 2z, 2y, 2x, F)`.
    """
    n, depth, height, width, channels = x.shape
    features = kernel.shape[-1]
    y = x.reshape(-1, channels) @ kernel.transpose(3, 0, 1, 2, 4).reshape(channels, -1)
    y = y.reshape(n, depth, height, width, 2, 2, 2, features).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return y.reshape(n, 2 * depth, 2 * height, 2 * width, features)


def max_pool3d(x: jax.Array) -> jax.Array:
    """2× max-pool of `(n, z, y, x, C)`; z, y and x even. Of tied maxima one has the gradient."""
    for axis in (1, 2, 3):
        x = maximum_along(_pairs(x, axis), axis + 1)
    return x


def overlapping_max_pool3d(x: jax.Array) -> jax.Array:
    """Max-pool of 3³ voxels with stride 2 about the voxels of even index of `(n, z, y, x, C)`; z, y and x even.

    Of tied maxima one has the gradient.
    """
    for axis in (1, 2, 3):
        pairs = _pairs(x, axis)
        even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
        # Before the first voxel lies nothing: its own value in that place changes no maximum.
        first = lax.slice_in_dim(even, 0, 1, axis=axis)
        before = lax.concatenate([first, lax.slice_in_dim(odd, 0, odd.shape[axis] - 1, axis=axis)], axis)
        x = larger(larger(even, odd), before)
    return x


def _pairs(x: jax.Array, axis: int) -> jax.Array:
    """Neighbours along an axis, which becomes two: half as many pairs, and the two of each."""
    return x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])


def upsample_nearest3d(x: jax.Array) -> jax.Array:
    """Each voxel of `(n, z, y, x, C)` repeated twice along z, y and x."""
    n, depth, height, width, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None, :, None], (n, depth, 2, height, 2, width, 2, channels))
    return wide.reshape(n, 2 * depth, 2 * height, 2 * width, channels)
