"""Batches of patches, cut on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.config.schema import PatchConfig
from robpicker_jax.patches.augmentation import draw_turn, rotated_patch
from robpicker_jax.patches.sampling import Choice, PatchPlan, PatchSampler, PatchTomogram
from robpicker_jax.system.errors import InputError

Batch = dict[str, np.ndarray]
Kind = Literal["train", "meta"]
_STREAM = {"train": 1, "meta": 2}


class BatchSource:
    """Training and meta batches as pure functions of (seed, step).

    Row i of a batch depends on (seed, step, i) alone: not on the batch size, the number of hosts, or what was drawn
    before. So a resumed run goes on with the very batches, and each host cuts only its own rows.

    Training patches: a share `background_share` anywhere; the others around a particle, shifted by up to `shift_vox`
    along each axis. Meta patches: a species uniformly, one of its particles uniformly, the patch around it.

    Args:
        train: tomograms of the noisy training set.
        meta: tomograms of the clean meta set; may be empty where no meta batch is wanted.
        patches: sampling and augmentation.
        seed: seed of all draws.
        batch_size: rows of a training batch.
        meta_batch_size: rows of a meta batch; None: `batch_size`.
        particle_choice: how a training patch's particle is chosen: "particle", every one equally likely (imbalanced
            as the data are), or "species", balanced.
        meta_shift_vox: largest shift of a meta patch; None: half of `patches.shift_vox`.
        augment_meta: whether meta patches are turned too.
        threads: threads that cut the rows of a batch.

    Raises:
        InputError: no training tomogram, no particles where particle-centred patches are asked for, or a volume
            smaller than a patch.
    """

    def __init__(
        self,
        train: Sequence[PatchTomogram],
        meta: Sequence[PatchTomogram],
        patches: PatchConfig,
        *,
        seed: int,
        batch_size: int,
        meta_batch_size: int | None = None,
        particle_choice: Choice = "particle",
        meta_shift_vox: int | None = None,
        augment_meta: bool = True,
        threads: int = 1,
    ) -> None:
        self._tomograms: dict[str, tuple[PatchTomogram, ...]] = {"train": tuple(train), "meta": tuple(meta)}
        self._samplers = {"train": PatchSampler(train, patches.size)}
        if patches.background_share < 1 and not self._samplers["train"].n_particles:
            raise InputError("the training set has no particles", fix="check its annotations and masks")
        if meta:
            self._samplers["meta"] = PatchSampler(meta, patches.size)
            if not self._samplers["meta"].n_particles:
                raise InputError("the meta set has no particles", fix="check its annotations and masks")
        self._rows = {"train": batch_size, "meta": meta_batch_size or batch_size}
        self._config, self._seed, self._choice = patches, seed, particle_choice
        self._meta_shift = patches.shift_vox // 2 if meta_shift_vox is None else meta_shift_vox
        self._turned = {"train": True, "meta": augment_meta}
        self._pool = ThreadPoolExecutor(threads, "patch-cutter") if threads > 1 else None

    def train_batch(self, step: int, *, shard: tuple[int, int] = (0, 1)) -> Batch:
        """The training batch of a step.

        Args:
            step: from 0.
            shard: (index, count): only the rows of the index-th of count equal, contiguous parts of the batch.

        Returns:
            "image" float32 (n, D, H, W, 1); "label" uint8 (n, D, H, W), 0 background; "center_class" int32 (n,),
            the class of the particle each patch was drawn for, 0 for background patches.

        Raises:
            InputError: a batch that does not divide into `count` parts.
        """
        return self._batch("train", step, shard)

    def meta_batch(self, step: int, *, shard: tuple[int, int] = (0, 1)) -> Batch:
        """The class-balanced meta batch of a step; arguments and result as in `train_batch`."""
        return self._batch("meta", step, shard)

    def batches(self, steps: Iterable[int], *, shard: tuple[int, int] = (0, 1)) -> Iterator[tuple[Batch, Batch]]:
        """The (training, meta) batches of several steps, in order."""
        for step in steps:
            yield self.train_batch(step, shard=shard), self.meta_batch(step, shard=shard)

    def plan(self, kind: Kind, step: int, row: int) -> PatchPlan:
        """Where row `row` of the "train" or "meta" batch of a step is cut, and how it is turned."""
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(_STREAM[kind], step, row)))
        sampler, config = self._samplers[kind], self._config
        if kind == "meta":
            plan = sampler.around_particle(rng, "species", self._meta_shift)
        elif rng.random() < config.background_share:
            plan = sampler.background(rng)
        else:
            plan = sampler.around_particle(rng, self._choice, config.shift_vox)
        if not self._turned[kind]:
            return plan
        rotation = random_rotations(1, rng)[0] if config.rotate_any else None
        return dataclasses.replace(plan, turn=draw_turn(config, rng), rotation=rotation)

    def plans(self, kind: Kind, step: int, *, shard: tuple[int, int] = (0, 1)) -> list[PatchPlan]:
        """The plans of all rows of a batch, or of a part of it.

        Raises:
            InputError: as `train_batch` and `meta_batch`.
        """
        if kind not in self._samplers:
            raise InputError("there is no meta set", fix="add tomograms to meta/, or train the supervised variant")
        index, count = shard
        if self._rows[kind] % count or not 0 <= index < count:
            raise InputError(
                f"a {kind} batch of {self._rows[kind]} patches has no part {index} of {count} equal ones",
                fix="choose a batch size that is a multiple of the number of hosts",
            )
        rows = self._rows[kind] // count
        return [self.plan(kind, step, index * rows + row) for row in range(rows)]

    def cut_labels(self, kind: Kind, plans: Sequence[PatchPlan]) -> np.ndarray:
        """Label patches of plans, uint8 (n, D, H, W)."""
        label = np.empty((len(plans), *(self._config.size,) * 3), np.uint8)

        def cut(row: int) -> None:
            label[row] = self._cut_one(self._tomograms[kind][plans[row].tomogram], plans[row], density=False)

        self._for_each_row(cut, len(plans))
        return label

    def _batch(self, kind: Kind, step: int, shard: tuple[int, int]) -> Batch:
        plans = self.plans(kind, step, shard=shard)
        size = self._config.size
        image = np.empty((len(plans), size, size, size, 1), np.float32)
        label = np.empty((len(plans), size, size, size), np.uint8)

        def cut(row: int) -> None:
            tomogram = self._tomograms[kind][plans[row].tomogram]
            image[row, ..., 0] = self._cut_one(tomogram, plans[row], density=True)
            label[row] = self._cut_one(tomogram, plans[row], density=False)

        self._for_each_row(cut, len(plans))
        return {"image": image, "label": label, "center_class": np.array([plan.label for plan in plans], np.int32)}

    def _for_each_row(self, cut: Callable[[int], None], rows: int) -> None:
        for _ in map(cut, range(rows)) if self._pool is None else self._pool.map(cut, range(rows)):
            pass

    def _cut_one(self, tomogram: PatchTomogram, plan: PatchPlan, *, density: bool) -> np.ndarray:
        size, read = self._config.size, tomogram.density_in if density else tomogram.labels_in
        if plan.rotation is None:
            z, y, x = (slice(start, start + size) for start in plan.corner_zyx)
            return plan.turn.apply(read((z, y, x)))
        shape, order = tomogram.density.shape, 1 if density else 0
        return plan.turn.apply(rotated_patch(read, shape, plan.corner_zyx, size, plan.rotation, order=order))
