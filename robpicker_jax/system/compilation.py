"""How steps are compiled: options of the platform, and the persistent compilation cache."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_MOST_CACHED_BYTES = 2 << 30

# XLA's default CPU path for convolutions is about three times slower than its YNNPACK library path. XLA also
# drops optimisation barriers before it fuses operations; arrays that the convolutions hold in memory would then be
# computed again, element by element, wherever they are used.
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
    "xla_disable_hlo_passes": "cse_barrier_expander",
}


@functools.cache
def _cpu_options_work() -> bool:
    """Whether this jaxlib knows `_CPU_OPTIONS` and computes a small convolution rightly with them."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 6, 6, 4)), rng.standard_normal((3, 3, 4, 5))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(padded[:, i : i + 6, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3))

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        barrier: Callable[..., Any] = jax.lax.optimization_barrier  # has no types
        x, kernel = barrier((2.0 * x, 0.5 * kernel))
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    arguments = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    try:
        cpu = jax.local_devices(backend="cpu")[0]
        found = jax.jit(convolve, compiler_options=_CPU_OPTIONS)(*jax.device_put(arguments, cpu))
    except Exception:  # an unknown option raises whatever the compiler's binding raises
        return False
    return bool(np.allclose(found, expected, rtol=1e-4, atol=1e-4))


def compile_options(backend: str | None = None) -> dict[str, Any]:
    """Compiler options for `jax.jit(..., compiler_options=...)` on `backend` (None: the default backend).

    On CPU, XLA's library path for convolutions and matrix products, if this jaxlib has it and a probe gives the right
    numbers; elsewhere nothing.
    """
    if (backend or jax.default_backend()) != "cpu":
        return {}
    return dict(_CPU_OPTIONS) if _cpu_options_work() else {}


def jit(
    fun: Callable[Parameters, Result], *, compiler_options: dict[str, Any] | None = None, **kwargs: Any
) -> Callable[Parameters, Result]:
    """`jax.jit` with the platform's compiler options; those given win over them."""
    options = {**compile_options(), **(compiler_options or {})}
    compiled: Callable[Parameters, Result] = jax.jit(fun, compiler_options=options, **kwargs)
    return compiled


def cache_folder() -> Path:
    """Where compiled programs are kept: `$ROBPICKER_CACHE`, else robpicker_jax in the user's cache folder."""
    if "ROBPICKER_CACHE" in os.environ:
        return Path(os.environ["ROBPICKER_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "robpicker_jax"


def enable_persistent_cache(folder: Path | str | None = None) -> Path | None:
    """Keep compiled programs in `folder` (made if absent), so that a second start need not compile again.

    Args:
        folder: by default `cache_folder()`.

    Returns:
        The folder; None where it cannot be made: then everything is compiled at every start.
    """
    path = Path(cache_folder() if folder is None else folder).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    update: Callable[..., None] = jax.config.update  # has no types
    update("jax_compilation_cache_dir", str(path))
    update("jax_persistent_cache_min_compile_time_secs", 0.0)
    update("jax_persistent_cache_min_entry_size_bytes", -1)
    _trim(path)
    return path


def _trim(folder: Path, most_bytes: int = _MOST_CACHED_BYTES) -> None:
    """Delete the programs that were not used for longest until the others take no more than so many bytes.

    JAX notes the last use of each program in a small file beside it.
    """
    found = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may be trimming, too
            used = path.with_name(path.name.removesuffix("-cache") + "-atime")
            found.append(((used if used.exists() else path).stat().st_mtime, path.stat().st_size, path, used))
    excess = sum(size for _, size, *_ in found) - most_bytes
    for _, size, path, used in sorted(found, key=lambda entry: entry[0]):
        if excess <= 0:
            return
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            used.unlink(missing_ok=True)
        excess -= size
