"""Devices: a one-dimensional `data` mesh, the batch split along it, the state on every device."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from robpicker_jax.errors import InputError

Tree = TypeVar("Tree")


def data_mesh(n_devices: int | None = None) -> Mesh:
    """A mesh of one axis, `data`, over the first `n_devices` devices (all when None).

    Raises:
        InputError: more devices asked for than there are.
    """
    devices = jax.devices()
    if n_devices is not None and n_devices > len(devices):
        raise InputError(
            f"parallel.devices is {n_devices}, but this machine has {len(devices)}", mend="lower it or leave it out"
        )
    chosen = devices[:n_devices]
    return jax.make_mesh((len(chosen),), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=chosen)


def check_batch(name: str, size: int, mesh: Mesh) -> None:
    """Refuse a batch that the devices cannot share equally.

    Raises:
        InputError: naming the key and the nearest sizes that fit.
    """
    n = mesh.size
    if size % n:
        lower = size - size % n
        fits = f"{lower} or {lower + n}" if lower else str(n)
        raise InputError(f"{name} {size} does not divide by {n} devices", mend=f"use {fits}, or fewer parallel.devices")


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Sharding of a batch whose axis `axis` is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Place a copy of every array on every device."""
    return jax.device_put(tree, replicated(mesh))


def shard(batch: Tree, mesh: Mesh, axis: int = 0) -> Tree:
    """Split host arrays over the devices along `axis`."""
    sharding: Any = batch_sharding(mesh, axis)
    return jax.device_put(batch, sharding)
