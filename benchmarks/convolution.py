"""3D convolutions of a small U-Net: output, input gradient and weight gradient against PyTorch and the matmul rate.

Each layer is timed by itself, compiled as the trainer compiles its step, in this package's form for the platform, in
XLA's native form, and in PyTorch (channels last). Shares are of the rate of a 2048³ matrix product in the same run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._common import Row, main, row, seconds
from robpicker_jax.models.conv import conv3d
from robpicker_jax.system.compilation import jit

NAME = "convolution"
MATMUL = 2048
LAYERS = [(4, 32, 1, 16), (4, 32, 16, 16), (4, 32, 32, 16), (4, 16, 16, 24), (4, 16, 48, 24), (4, 8, 32, 32)]
"""Samples, edge, channels in, channels out."""
QUICK = [(4, 32, 1, 16), (4, 16, 24, 24)]
PAPER = [(25, 64, 32, 32), (25, 64, 96, 32), (25, 32, 48, 48), (25, 16, 64, 64)]
SUMS = ("output", "input gradient", "weight gradient")


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of a compiled call."""
    return seconds(lambda: jax.block_until_ready(function(*arguments)), repeats=7, warmup=2)


def matmul(dtype: Any = jnp.float32, edge: int = MATMUL) -> tuple[Callable[[], Any], float]:
    """One square matrix product, compiled, as a call that waits; and its operations."""
    a, product = jnp.ones((edge, edge), dtype), jit(lambda a, b: a @ b)
    jax.block_until_ready(product(a, a))
    return lambda: jax.block_until_ready(product(a, a)), 2.0 * edge**3


def matmul_rate(dtype: Any = jnp.float32, edge: int = MATMUL) -> float:
    """Operations a second of one square matrix product."""
    call, operations = matmul(dtype, edge)
    return operations / seconds(call, repeats=7, warmup=2)


def maps(operation: Callable[[Any, Any], Any]) -> dict[str, Callable[..., Any]]:
    """The three maps of a bilinear operation on (x, kernel) as functions of (x, kernel, g)."""

    def output(x: Any, kernel: Any, g: Any) -> Any:
        return operation(x, kernel)

    def input_gradient(x: Any, kernel: Any, g: Any) -> Any:
        return jax.linear_transpose(lambda x: operation(x, kernel), x)(g)[0]

    def weight_gradient(x: Any, kernel: Any, g: Any) -> Any:
        return jax.linear_transpose(lambda kernel: operation(x, kernel), kernel)(g)[0]

    return dict(zip(SUMS, (output, input_gradient, weight_gradient), strict=True))


def torch_maps(x: np.ndarray, kernel: np.ndarray, g: np.ndarray, dtype: str) -> dict[str, Callable[[], Any]]:
    """The same in PyTorch, as calls without arguments.

    Raises:
        ImportError: torch is not installed.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True  # let cuDNN choose by trial, as XLA does
    kind = getattr(torch, dtype)

    def put(array: np.ndarray, axes: tuple[int, ...]) -> Any:
        moved = torch.tensor(array).permute(axes).to(device, kind)
        return moved.contiguous(memory_format=torch.channels_last_3d)

    volume = (0, 4, 1, 2, 3)
    tx, tg, tk = put(x, volume), put(g, volume), put(kernel, (4, 3, 0, 1, 2))
    padding = [size // 2 for size in kernel.shape[:3]]

    def backward(wanted: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(
            tg, tx, tk, None, [1] * 3, padding, [1] * 3, False, [0] * 3, 1, [*wanted, False]
        )

    calls = [
        lambda: torch.nn.functional.conv3d(tx, tk, padding=padding),
        lambda: backward([True, False]),
        lambda: backward([False, True]),
    ]
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def waiting(call: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (call(), wait())

    return {name: waiting(call) for name, call in zip(SUMS, calls, strict=True)}


def layer_rows(layer: tuple[int, int, int, int], dtype: str, rate: float) -> Iterator[Row]:
    """One layer in all forms."""
    n, edge, channels, features = layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, edge, edge, edge, channels), np.float32)
    kernel = rng.standard_normal((3, 3, 3, channels, features), np.float32)
    g = rng.standard_normal((n, edge, edge, edge, features), np.float32)
    arguments = [jnp.asarray(array, dtype) for array in (x, kernel, g)]
    work = 2 * 27 * channels * features * n * edge**3
    theirs, why = {}, ""
    try:
        theirs = torch_maps(x, kernel, g, dtype)
    except ImportError:
        why = "torch is not installed"
    for name, function in maps(conv3d).items():
        record = functools.partial(row, NAME, f"{n} × {edge}³, {channels} → {features}, {dtype}: {name}", why=why)
        ours = timed(jit(function), *arguments)
        native = timed(jit(maps(functools.partial(conv3d, lowering="native"))[name]), *arguments)
        torch_s = seconds(theirs[name], repeats=7, warmup=2) if theirs else None
        yield record("time", ours * 1e3, "ms")
        yield record("rate", work / ours / 1e9, "GFLOP/s")
        yield record("share of the matmul rate", work / ours / rate, "", better="higher")
        yield record("time over XLA's native 3D convolution", ours / native, "x", better="lower")
        yield record("PyTorch, time", None if torch_s is None else torch_s * 1e3, "ms")
        yield record("time over PyTorch", None if torch_s is None else ours / torch_s, "x", better="lower")


def run(quick: bool) -> Iterator[Row]:
    """Rows of all layers; the paper's sizes where there is an accelerator."""
    rate = matmul_rate()
    yield row(NAME, f"matrix product {MATMUL}³, float32", "rate", rate / 1e9, "GFLOP/s")
    for layer in QUICK if quick else LAYERS:
        yield from layer_rows(layer, "float32", rate)
    if jax.default_backend() == "cpu":
        for dtype in ("float32", "bfloat16"):
            for n, edge, channels, features in PAPER:
                case = f"{n} × {edge}³, {channels} → {features}, {dtype}, accelerator"
                yield row(NAME, case, "rate", None, "GFLOP/s", why="no accelerator here")
        return
    for dtype in ("float32", "bfloat16"):
        rate = matmul_rate(dtype, 8192)
        yield row(NAME, f"matrix product 8192³, {dtype}", "rate", rate / 1e9, "GFLOP/s")
        for layer in PAPER[:1] if quick else PAPER:
            yield from layer_rows(layer, dtype, rate)


if __name__ == "__main__":
    main(NAME, run)
