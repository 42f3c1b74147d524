"""Prediction shared by the devices of this process: each takes its part of every batch of tiles."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from robpicker_jax.parallel import DATA_AXIS, batch_sharding, replicated
from robpicker_jax.system.compilation import jit


def prediction_mesh(most: int | None = None) -> Mesh:
    """A mesh of one axis, `data`, over this process's devices, `most` at most.

    Other than training's it never spans processes, since one of them picks alone; and a run may be applied on a machine
    with fewer devices than it was trained on.
    """
    return Mesh(np.array(jax.local_devices()[:most]), (DATA_AXIS,), axis_types=(AxisType.Auto,))


class DevicePredictor:
    """A network with its parameters on every device of a mesh: tiles → class probabilities.

    Args:
        predict: compiled (*variables, tiles (n, z, y, x, 1)) → probabilities (n, z, y, x, c).
        variables: the parameters.
        mesh: the devices. A batch has a multiple of their number of tiles; each device runs the program of one device
            on its part, so that nothing depends on how many there are.
    """

    def __init__(self, predict: Callable[..., jax.Array], variables: tuple[Any, ...], mesh: Mesh) -> None:
        several = mesh.size > 1
        self.first = mesh.devices.flat[0]
        self._sharding = batch_sharding(mesh) if several else self.first
        self._predict = _on_each(predict, len(variables), mesh) if several else predict
        self._variables = jax.device_put(variables, replicated(mesh) if several else self.first)

    def to_devices(self, tiles: np.ndarray) -> jax.Array:
        """Put a batch on the devices."""
        batch: jax.Array = jax.device_put(tiles, self._sharding)
        return batch

    def __call__(self, tiles: Any) -> jax.Array:
        """Class probabilities of a batch."""
        return self._predict(*self._variables, tiles)


@functools.lru_cache(maxsize=8)
def _on_each(predict: Callable[..., jax.Array], n_variables: int, mesh: Mesh) -> Callable[..., jax.Array]:
    share = PartitionSpec(DATA_AXIS)
    specs = (*[PartitionSpec()] * n_variables, share)
    predict = inspect.unwrap(predict)  # compiler options belong to the outermost jit alone
    return jit(jax.shard_map(predict, mesh=mesh, in_specs=specs, out_specs=share, check_vma=False))
