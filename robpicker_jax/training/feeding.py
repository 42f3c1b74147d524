"""Batches for the trainer, made ahead by a thread and placed on the devices: cut on the host, or on the devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from robpicker_jax import parallel
from robpicker_jax.config import PatchConfig, TrainConfig
from robpicker_jax.patches import BatchSource, prefetch
from robpicker_jax.patches.device import BatchPlan, Stack, cut
from robpicker_jax.patches.loader import Kind
from robpicker_jax.training.objective import Batch

Batches = Callable[[int], Iterator[tuple[Batch, Batch]]]
"""First step → iterator of (training batches, meta batch). Training batches have a leading axis of inner steps."""

_DEPTH = 2


def device_batches(source: BatchSource, train: TrainConfig, mesh: Mesh) -> Batches:
    """Batches cut on the host; each process cuts only its own rows."""
    k = train.inner_steps
    share = parallel.process_share()

    def host(step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = [source.train_batch(step * k + inner, shard=share) for inner in range(k)]
        inner = {name: np.stack([row[name] for row in rows]) if k > 1 else rows[0][name][None] for name in rows[0]}
        # Supervised training has no meta level: an empty batch keeps the step's signature.
        empty = {name: value[0, :0] for name, value in inner.items() if name != "is_clean"}
        return inner, source.meta_batch(step, shard=share) if train.uses_meta_batches else empty

    def make(step: int) -> tuple[Batch, Batch]:
        inner, meta = host(step)
        return parallel.shard(Batch(**inner), mesh, axis=1), parallel.shard(Batch(**meta), mesh)

    return _ahead(make, train.steps)


def resident_batches(
    source: BatchSource, stacks: Mapping[str, Stack], train: TrainConfig, patches: PatchConfig, mesh: Mesh
) -> Batches:
    """Batches cut on the devices from tomograms that are copied there now; the same batches as `device_batches`.

    Each process cuts by programs of its own devices alone. A program over all processes must be started in the same
    order everywhere (TPUs refuse anything else), and the thread that cuts does not wait for the one that trains.

    Args:
        source: the draws, and labels where a stack has none.
        stacks: the tomograms of "train" and "meta", in the order of the source's; host arrays.
        train: batch sizes and inner steps.
        patches: size and augmentation of the patches.
        mesh: the devices; each gets all tomograms, and cuts its own share of a batch.
    """
    k = train.inner_steps
    share = parallel.process_share()
    own = Mesh(np.array(mesh.local_devices), mesh.axis_names, axis_types=mesh.axis_types)
    placed = {
        kind: jax.device_put(stacks[kind], parallel.replicated(own))
        for kind in (("train", "meta") if train.uses_meta_batches else ("train",))
    }
    axes = {"train": 1, "meta": 0}
    programs = {kind: _cutter(patches, own, axes[kind]) for kind in placed}
    edge = patches.size
    none: tuple[Any, ...] = (
        np.zeros((0, edge, edge, edge, 1), np.float32),
        np.zeros((0, edge, edge, edge), np.uint8),
        np.zeros(0, np.int32),
    )
    empty = parallel.shard(Batch(*none), mesh)

    def batch(kind: Kind, step: int) -> Batch:
        draws = [step * k + inner for inner in range(k)] if kind == "train" else [step]
        plans = [source.plans(kind, draw, shard=share) for draw in draws]
        drawn = None
        if placed[kind].labels is None:
            drawn = np.stack([source.cut_labels(kind, row) for row in plans])
        host = (
            jax.tree.map(lambda *leaves: np.stack(leaves), *(BatchPlan.of(row) for row in plans)),
            np.array([[plan.label for plan in row] for row in plans], np.int32),
            drawn,
            np.array([source.are_clean(kind, row) for row in plans]) if train.meta_share and kind == "train" else None,
        )
        if kind == "meta":
            host = jax.tree.map(lambda leaf: leaf[0], host)
        rows = programs[kind](placed[kind], *jax.device_put(host, parallel.batch_sharding(own, axes[kind])))
        return rows if share[1] == 1 else parallel.joined(rows, mesh, axis=axes[kind])

    def make(step: int) -> tuple[Batch, Batch]:
        return batch("train", step), batch("meta", step) if train.uses_meta_batches else empty

    return _ahead(make, train.steps)


def _cutter(patches: PatchConfig, mesh: Mesh, axis: int) -> Callable[..., Batch]:
    """Compiled (stack, plan, classes, drawn labels or None) → batch; rows along `axis`, each device cuts its own."""

    def cut_batch(
        stack: Stack, plan: BatchPlan, center_class: jax.Array, drawn: jax.Array | None, is_clean: jax.Array | None
    ) -> Batch:
        lead = center_class.shape
        flat = jax.tree.map(lambda leaf: leaf.reshape(math.prod(lead), *leaf.shape[len(lead) :]), plan)
        image = cut(stack.density, stack.shape_zyx, flat, patches)
        label = drawn
        if stack.labels is not None:
            label = cut(stack.labels, stack.shape_zyx, flat, patches, nearest=True)
            label = label.reshape(*lead, *label.shape[1:])
        return Batch(image.reshape(*lead, *image.shape[1:], 1), label, center_class, is_clean)  # type: ignore[arg-type]

    rows = PartitionSpec(*[None] * axis, parallel.DATA_AXIS)
    mapped = jax.shard_map(
        cut_batch, mesh=mesh, in_specs=(PartitionSpec(), rows, rows, rows, rows), out_specs=rows, check_vma=False
    )
    return jax.jit(mapped)


def _ahead(make: Callable[[int], tuple[Batch, Batch]], steps: int) -> Batches:
    def iterate(start: int) -> Iterator[tuple[Batch, Batch]]:
        def produce() -> Iterator[tuple[Batch, Batch]]:
            for step in range(start, steps):
                # Ready when handed over, so that time spent waiting for it is seen.
                yield jax.block_until_ready(make(step))

        with prefetch(produce, depth=_DEPTH) as ready:
            yield from ready

    return iterate
