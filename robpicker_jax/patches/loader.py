"""Batches of patches, cut on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from robpicker_jax.config import PatchConfig
from robpicker_jax.labels import Region
from robpicker_jax.patches.augmentation import Augmenter, reflected
from robpicker_jax.patches.samplers import SAMPLERS, Draw, SamplerSettings
from robpicker_jax.patches.tomogram_set import PatchPlan, PatchTomogram, TomogramSet
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.registry import look_up

Batch = dict[str, np.ndarray]
Kind = Literal["train", "meta"]
_STREAM = {"train": 1, "meta": 2}


class BatchSource:
    """Training and meta batches as pure functions of (seed, step).

    Row i of a batch depends on (seed, step, i) alone: not on the batch size, the number of hosts, or what was drawn
    before. So a resumed run continues with the same batches, and each host cuts only its own rows.

    Patches are drawn by the samplers `patches.train_sampler` and `patches.meta_sampler`; meta patches have a share of
    background of their own, and shifts of at most half of `patches.shift_vox`. Both are then augmented.

    Args:
        train: tomograms of the noisy training set.
        meta: tomograms of the clean meta set; may be empty if no meta batch is asked for.
        patches: sampling and augmentation.
        seed: seed of all draws.
        batch_size: rows of a training batch.
        meta_batch_size: rows of a meta batch; None: `batch_size`.
        meta_share: share of training patches that are drawn from the meta set, with its clean labels.
        threads: threads that cut the rows of a batch.

    Raises:
        InputError: an unknown sampler or augmentation, no training tomogram, a set that its sampler cannot draw from
            (no particles), or a volume smaller than a patch.
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
        meta_share: float = 0.0,
        threads: int = 1,
    ) -> None:
        self._tomograms: dict[str, tuple[PatchTomogram, ...]] = {"train": tuple(train), "meta": tuple(meta)}
        self._n_noisy, self._meta_share = len(train), meta_share
        self._size, self._seed = patches.size, seed
        self._augmenter = Augmenter(patches.augment, patches.size)
        settings = {
            "train": SamplerSettings(patches.background_share, patches.shift_vox, patches.class_weights),
            "meta": SamplerSettings(patches.meta_background_share, patches.shift_vox // 2, patches.class_weights),
        }
        names = {"train": patches.train_sampler, "meta": patches.meta_sampler}
        titles = {"train": "training set", "meta": "meta set"}
        self._draws: dict[str, Draw] = {}
        check_names(patches)
        for kind, tomograms in self._tomograms.items():
            if tomograms or kind == "train":
                chosen = TomogramSet(tomograms, patches.size, name=titles[kind])
                self._draws[kind] = SAMPLERS[names[kind]](chosen, settings[kind])
        if meta_share:
            # Meta patches of a training batch are drawn as training patches are.
            clean = TomogramSet(meta, patches.size, name=titles["meta"])
            self._draws["clean"] = SAMPLERS[patches.train_sampler](clean, settings["train"])
            self._tomograms["train"] = (*train, *meta)
        self._rows = {"train": batch_size, "meta": meta_batch_size or batch_size}
        self._pool = ThreadPoolExecutor(threads, "patch-cutter") if threads > 1 else None

    def train_batch(self, step: int, *, shard: tuple[int, int] = (0, 1)) -> Batch:
        """The training batch of a step.

        Args:
            step: from 0.
            shard: (index, count): only the rows of the index-th of count equal, contiguous parts of the batch.

        Returns:
            "image" float32 (n, D, H, W, 1); "label" uint8 (n, D, H, W), 0 background; "center_class" int32 (n,),
            the class of the particle each patch was drawn for, 0 for background patches; with a share of meta patches
            also "is_clean" bool (n,), whether a patch is one of them.

        Raises:
            InputError: a batch that does not divide into `count` parts.
        """
        return self._batch("train", step, shard)

    def meta_batch(self, step: int, *, shard: tuple[int, int] = (0, 1)) -> Batch:
        """The meta batch of a step; arguments and result as in `train_batch`."""
        return self._batch("meta", step, shard)

    def batches(self, steps: Iterable[int], *, shard: tuple[int, int] = (0, 1)) -> Iterator[tuple[Batch, Batch]]:
        """The (training, meta) batches of several steps, in order."""
        for step in steps:
            yield self.train_batch(step, shard=shard), self.meta_batch(step, shard=shard)

    def plan(self, kind: Kind, step: int, row: int) -> PatchPlan:
        """Where row `row` of the "train" or "meta" batch of a step is cut, and how it is augmented."""
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(_STREAM[kind], step, row)))
        if kind == "train" and self._meta_share and rng.random() < self._meta_share:
            plan = self._draws["clean"](rng)
            plan = dataclasses.replace(plan, tomogram=plan.tomogram + self._n_noisy)
        else:
            plan = self._draws[kind](rng)
        return dataclasses.replace(plan, drawn=self._augmenter.draw(rng))

    def plans(self, kind: Kind, step: int, *, shard: tuple[int, int] = (0, 1)) -> list[PatchPlan]:
        """The plans of all rows of a batch, or of a part of it.

        Raises:
            InputError: as `train_batch` and `meta_batch`.
        """
        if kind not in self._draws:
            raise InputError("there is no meta set", fix="add tomograms to meta/, or train the supervised variant")
        index, count = shard
        if self._rows[kind] % count or not 0 <= index < count:
            raise InputError(
                f"a {kind} batch of {self._rows[kind]} patches has no part {index} of {count} equal ones",
                fix="choose a batch size that is a multiple of the number of hosts",
            )
        rows = self._rows[kind] // count
        return [self.plan(kind, step, index * rows + row) for row in range(rows)]

    def place(self, kind: Kind, step: int, row: int) -> str:
        """Which patch row `row` of a batch is: its tomogram, and its first voxel there."""
        plan = self.plan(kind, step, row)
        z, y, x = plan.corner_zyx
        return f"of {self._tomograms[kind][plan.tomogram].name} from z {z}, y {y}, x {x} on"

    def are_clean(self, kind: Kind, plans: Sequence[PatchPlan]) -> np.ndarray:
        """Which patches have clean labels, bool (n,): all of "meta", and those of "train" that lie in meta tomograms."""
        return np.array([kind == "meta" or plan.tomogram >= self._n_noisy for plan in plans], bool)

    def cut_labels(self, kind: Kind, plans: Sequence[PatchPlan]) -> np.ndarray:
        """Label patches of plans, uint8 (n, D, H, W)."""
        label = np.empty((len(plans), *(self._size,) * 3), np.uint8)

        def cut(row: int) -> None:
            tomogram = self._tomograms[kind][plans[row].tomogram]
            label[row] = self._cut_one(tomogram.labels_in, tomogram, plans[row], nearest=True)

        self._for_each_row(cut, len(plans))
        return label

    def cut_map(self, kind: Kind, plan: PatchPlan, label_map: np.ndarray) -> np.ndarray:
        """A plan's patch (D, H, W) of another label map of its tomogram, such as the map of the true shapes."""
        return self._cut_one(lambda region: label_map[region], self._tomograms[kind][plan.tomogram], plan, nearest=True)

    def _batch(self, kind: Kind, step: int, shard: tuple[int, int]) -> Batch:
        plans = self.plans(kind, step, shard=shard)
        size = self._size
        image = np.empty((len(plans), size, size, size, 1), np.float32)
        label = np.empty((len(plans), size, size, size), np.uint8)

        def cut(row: int) -> None:
            tomogram = self._tomograms[kind][plans[row].tomogram]
            image[row, ..., 0] = self._cut_one(tomogram.density_in, tomogram, plans[row], nearest=False)
            label[row] = self._cut_one(tomogram.labels_in, tomogram, plans[row], nearest=True)

        self._for_each_row(cut, len(plans))
        batch: Batch = {
            "image": image,
            "label": label,
            "center_class": np.array([plan.label for plan in plans], np.int32),
        }
        if kind == "train" and self._meta_share:
            batch["is_clean"] = self.are_clean(kind, plans)
        return batch

    def _for_each_row(self, cut: Callable[[int], None], rows: int) -> None:
        for _ in map(cut, range(rows)) if self._pool is None else self._pool.map(cut, range(rows)):
            pass

    def _cut_one(
        self, read: Callable[[Region], np.ndarray], tomogram: PatchTomogram, plan: PatchPlan, *, nearest: bool
    ) -> np.ndarray:
        """One augmented patch; `read` gives a box of the volume."""
        patch = cut_box(read, tomogram.density.shape, plan.corner_zyx, self._size, self._augmenter.margin)
        return np.asarray(self._augmenter.apply(patch, plan.drawn, nearest=nearest))


def check_names(patches: PatchConfig) -> None:
    """Refuse samplers and augmentations that do not exist, before any data are read.

    Raises:
        InputError: an unknown name; the message lists the known ones.
    """
    for key in ("train_sampler", "meta_sampler"):
        look_up(SAMPLERS, getattr(patches, key), key=f"patches.{key}")
    Augmenter(patches.augment, patches.size)


def cut_box(
    read: Callable[[Region], np.ndarray], shape_zyx: Sequence[int], corner_zyx: Sequence[int], size: int, margin: int
) -> np.ndarray:
    """A cube of a volume, continued by reflection where its margin reaches beyond the volume.

    Args:
        read: gives a box of the volume; asked once, for what lies inside.
        shape_zyx: shape of the whole volume.
        corner_zyx: first voxel of the cube without its margin.
        size: edge without margin, voxels.
        margin: voxels beyond each face.

    Returns:
        (n, n, n), n = size + 2 margin, of the volume's type.
    """
    indices = [
        np.asarray(reflected(np.arange(corner - margin, corner + size + margin), edge - 1))
        for corner, edge in zip(corner_zyx, shape_zyx, strict=True)
    ]
    lows = [int(index.min()) for index in indices]
    z, y, x = (slice(low, int(index.max()) + 1) for low, index in zip(lows, indices, strict=True))
    box = read((z, y, x))
    if margin == 0:
        return box
    reflections = np.ix_(*(index - low for index, low in zip(indices, lows, strict=True)))
    return np.asarray(box[reflections])
