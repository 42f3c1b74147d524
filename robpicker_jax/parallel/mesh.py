"""Devices of all processes in a row, arrays split over them or copied to each."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from robpicker_jax.system.errors import InputError

Tree = TypeVar("Tree")
DATA_AXIS = "data"


def data_mesh(n_devices: int | None = None) -> Mesh:
    """A mesh of one axis, `data`, over the first `n_devices` devices of each process (all when None).

    Devices stand in the order of processes, so that each process holds a contiguous part of every batch.

    Raises:
        InputError: more devices asked for than a process has, or processes with different numbers of them.
    """
    by_process: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        by_process.setdefault(device.process_index, []).append(device)
    counts = [len(devices) for devices in by_process.values()]
    if n_devices is not None and n_devices > min(counts):
        raise InputError(
            f"parallel.devices is {n_devices}, but this machine has {min(counts)}", fix="lower it or leave it out"
        )
    if n_devices is None and len(set(counts)) > 1:
        raise InputError(
            f"the processes have different numbers of devices ({', '.join(map(str, counts))})",
            fix=f"set parallel.devices to {min(counts)}",
        )
    chosen = [device for devices in by_process.values() for device in devices[:n_devices]]
    return Mesh(np.array(chosen), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def check_batch(name: str, size: int, mesh: Mesh | AbstractMesh, micro_batches: int = 1) -> None:
    """Refuse a batch that the devices cannot share equally, each share in equal micro-batches.

    Raises:
        InputError: naming the key and the nearest sizes that fit.
    """
    n = mesh.size * micro_batches
    if size % n:
        lower = size - size % n
        fits = f"{lower} or {lower + n}" if lower else str(n)
        parts = f"{mesh.size} devices" + (f" times {micro_batches} micro-batches" if micro_batches > 1 else "")
        fewer = "fewer parallel.devices" + (" or parallel.micro_batches" if micro_batches > 1 else "")
        raise InputError(f"{name} {size} does not divide by {parts}", fix=f"use {fits}, or {fewer}")


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Sharding of a batch whose axis `axis` is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Place a copy of every array on every device; all processes must give the same values."""
    sharding: Any = replicated(mesh)
    copies: Tree
    if jax.process_count() == 1:
        copies = jax.device_put(tree, sharding)
    else:
        copies = jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)
    return copies


def shard(batch: Tree, mesh: Mesh, axis: int = 0) -> Tree:
    """Split host arrays over the devices along `axis`.

    With several processes each gives its own share of the batch (`process_share`), and nothing is sent between them.
    """
    sharding: Any = batch_sharding(mesh, axis)

    def place(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        shape = list(leaf.shape)
        shape[axis] *= jax.process_count()
        return jax.make_array_from_process_local_data(sharding, leaf, tuple(shape))

    parts: Tree = jax.device_put(batch, sharding) if jax.process_count() == 1 else jax.tree.map(place, batch)
    return parts


def joined(batch: Tree, mesh: Mesh, axis: int = 0) -> Tree:
    """Shares that each process has on its own devices, split along `axis`, as one batch; nothing moves."""
    sharding = batch_sharding(mesh, axis)

    def join(leaf: jax.Array) -> jax.Array:
        shape = list(leaf.shape)
        shape[axis] *= jax.process_count()
        parts = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(tuple(shape), sharding, parts)

    whole: Tree = jax.tree.map(join, batch)
    return whole


def local(tree: Tree) -> Tree:
    """Replicated arrays as arrays on this process's first device, so that work on them is this process's alone."""
    own: Tree = jax.tree.map(lambda leaf: leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf, tree)
    return own
