"""Batches of patches, and a thread that cuts them ahead of time."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Literal, TypeVar

import numpy as np

from robpicker_jax.config.schema import PatchConfig
from robpicker_jax.errors import InputError
from robpicker_jax.geometry import random_rotations
from robpicker_jax.patches.augmentation import draw_turn, rotated_patch
from robpicker_jax.patches.sampling import Choice, PatchPlan, PatchSampler, PatchTomogram

T = TypeVar("T")
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
    ) -> None:
        self._tomograms: dict[str, tuple[PatchTomogram, ...]] = {"train": tuple(train), "meta": tuple(meta)}
        self._samplers = {"train": PatchSampler(train, patches.size)}
        if patches.background_share < 1 and not self._samplers["train"].n_particles:
            raise InputError("the training set has no particles", mend="check its annotations and masks")
        if meta:
            self._samplers["meta"] = PatchSampler(meta, patches.size)
            if not self._samplers["meta"].n_particles:
                raise InputError("the meta set has no particles", mend="check its annotations and masks")
        self._rows = {"train": batch_size, "meta": meta_batch_size or batch_size}
        self._config, self._seed, self._choice = patches, seed, particle_choice
        self._meta_shift = patches.shift_vox // 2 if meta_shift_vox is None else meta_shift_vox
        self._turned = {"train": True, "meta": augment_meta}

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
        if "meta" not in self._samplers:
            raise InputError("there is no meta set", mend="add tomograms to meta/, or train the supervised variant")
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

    def _batch(self, kind: Kind, step: int, shard: tuple[int, int]) -> Batch:
        index, count = shard
        if self._rows[kind] % count or not 0 <= index < count:
            raise InputError(
                f"a {kind} batch of {self._rows[kind]} patches has no part {index} of {count} equal ones",
                mend="choose a batch size that is a multiple of the number of hosts",
            )
        rows = self._rows[kind] // count
        size = self._config.size
        image = np.empty((rows, size, size, size, 1), np.float32)
        label = np.empty((rows, size, size, size), np.uint8)
        center_class = np.empty(rows, np.int32)
        for row in range(rows):
            plan = self.plan(kind, step, index * rows + row)
            density, classes = self._cut(self._tomograms[kind][plan.tomogram], plan)
            image[row, ..., 0] = density
            label[row] = classes
            center_class[row] = plan.label
        return {"image": image, "label": label, "center_class": center_class}

    def _cut(self, tomogram: PatchTomogram, plan: PatchPlan) -> tuple[np.ndarray, np.ndarray]:
        size = self._config.size
        if plan.rotation is None:
            z, y, x = (slice(start, start + size) for start in plan.corner_zyx)
            density, classes = tomogram.density_in((z, y, x)), tomogram.labels_in((z, y, x))
        else:
            shape, corner = tomogram.density.shape, plan.corner_zyx
            density = rotated_patch(tomogram.density_in, shape, corner, size, plan.rotation, order=1)
            classes = rotated_patch(tomogram.labels_in, shape, corner, size, plan.rotation, order=0)
        return plan.turn.apply(density), plan.turn.apply(classes)


class Prefetcher(Generic[T]):
    """An iterator whose items a background thread prepares, `depth` of them ahead; made by `prefetch`.

    Items come in the order of the iterable. An exception raised by the iterable is raised to the consumer, after the
    items before it. Leaving the `with` block, `close`, or dropping the last reference stops the thread.
    """

    def __init__(self, iterable_fn: Callable[[], Iterable[T]], depth: int) -> None:
        self._stop = threading.Event()
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self._queue: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(depth)
        # The thread knows the queue and the event, not this object, so that an abandoned prefetcher can be collected.
        self._thread = threading.Thread(
            target=_produce, args=(iterable_fn, self._queue, self._stop), name="patch-prefetch", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while True:
            if self._stop.is_set():
                raise StopIteration
            try:
                kind, value = self._queue.get(timeout=0.1)
                break
            except queue.Empty:  # look again: another thread may have closed this
                continue
        if kind == "item":
            return value  # type: ignore[return-value]
        self.close()
        if kind == "error":
            assert isinstance(value, BaseException)
            raise value
        raise StopIteration

    def close(self) -> None:
        """Stop the thread and wait for the item it is making; items already made are dropped."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._stop.set()


def prefetch(iterable_fn: Callable[[], Iterable[T]], depth: int = 2) -> Prefetcher[T]:
    """Iterate over `iterable_fn()` in a background thread, `depth` items ahead.

    ```python
    with prefetch(lambda: source.batches(range(start, steps))) as batches:
        for train, meta in batches: ...
    ```
    """
    return Prefetcher(iterable_fn, depth)


def _produce(
    iterable_fn: Callable[[], Iterable[T]],
    items: queue.Queue[tuple[str, T | BaseException | None]],
    stop: threading.Event,
) -> None:
    def put(kind: str, value: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                items.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    try:
        for item in iterable_fn():
            if not put("item", item):
                return
        put("end", None)
    except BaseException as error:  # whatever it is, it belongs to the consumer
        put("error", error)
