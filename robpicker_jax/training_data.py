"""A data set in memory, ready to train on: densities, particles, label maps, and the batches cut from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from robpicker_jax import parallel
from robpicker_jax.bilevel.robpicker import Batch
from robpicker_jax.config import Config
from robpicker_jax.dataset import LoadedTomogram, check_dataset, load_target, load_tomogram
from robpicker_jax.discovery import Tomogram, discover
from robpicker_jax.errors import InputError
from robpicker_jax.labels import LabelMaker, label_maker
from robpicker_jax.patches import BatchSource, PatchTomogram, prefetch


@dataclass(frozen=True)
class TrainingData:
    """The splits of a data set.

    Attributes:
        config: the configuration it was read with.
        splits: tomograms by split, as found.
        train, meta: loaded tomograms.
        label_maps: label map of each loaded tomogram of train and meta, uint8 (z, y, x), by split and name.
        voxel_size_angstrom: of all tomograms; None where nobody knows it.
    """

    config: Config
    splits: dict[str, list[Tomogram]]
    train: list[LoadedTomogram]
    meta: list[LoadedTomogram]
    label_maps: dict[tuple[str, str], np.ndarray]
    voxel_size_angstrom: float | None

    def source(self) -> BatchSource:
        """Batches of this data, as functions of the step."""
        train = self.config.train
        return BatchSource(
            [self._patches("train", tomogram) for tomogram in self.train],
            [self._patches("meta", tomogram) for tomogram in self.meta],
            self.config.patches,
            seed=train.seed,
            batch_size=train.batch_size,
            meta_batch_size=train.meta_batch_size,
        )

    def _patches(self, split: str, tomogram: LoadedTomogram) -> PatchTomogram:
        assert tomogram.particles is not None  # load_tomogram refuses train and meta without
        labels = self.label_maps[split, tomogram.name]
        return PatchTomogram(tomogram.name, tomogram.density, tomogram.particles, labels, tomogram.mask)


def load_training_data(config: Config, directory: Path) -> TrainingData:
    """Read and check a data set, and make the label maps of its training and meta tomograms.

    Raises:
        InputError: whatever is wrong with it, named by file.
    """
    splits = discover(directory)
    voxel_size = check_dataset(splits, config.data, config.patches.size)
    loaded: dict[str, list[LoadedTomogram]] = {}
    label_maps = {}
    for split, kind in (("train", config.data.train_labels), ("meta", config.data.meta_labels)):
        maker = None if kind == "map" else label_maker(config.data.species, kind, voxel_size_angstrom=voxel_size)
        loaded[split] = [load_tomogram(tomogram, config.data) for tomogram in splits[split]]
        for tomogram in loaded[split]:
            label_maps[split, tomogram.name] = _label_map(tomogram, maker, len(config.data.species))
    return TrainingData(config, splits, loaded["train"], loaded["meta"], label_maps, voxel_size)


def device_batches(source: BatchSource, config: Config, mesh: Mesh) -> Callable[[int], Iterator[tuple[Batch, Batch]]]:
    """First step → iterator of (training batches, meta batch), cut ahead by a thread and placed on the devices.

    Training batches have a leading axis of `train.inner_steps`. Each process cuts only its own rows.
    """
    k = config.train.inner_steps
    supervised = config.train.variant == "supervised"
    share = parallel.process_share()

    def host(step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = [source.train_batch(step * k + inner, shard=share) for inner in range(k)]
        train = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        # Supervised training has no meta level: an empty batch keeps the step's signature.
        empty = {name: value[0, :0] for name, value in train.items()}
        meta = empty if supervised else source.meta_batch(step, shard=share)
        return train, meta

    def place(train: dict[str, Any], meta: dict[str, Any]) -> tuple[Batch, Batch]:
        return parallel.shard(Batch(**train), mesh, axis=1), parallel.shard(Batch(**meta), mesh)

    def iterate(start: int) -> Iterator[tuple[Batch, Batch]]:
        def ahead() -> Iterator[tuple[Batch, Batch]]:
            for step in range(start, config.train.steps):
                yield place(*host(step))

        with prefetch(ahead, depth=2) as ready:
            yield from ready

    return iterate


def _label_map(tomogram: LoadedTomogram, maker: LabelMaker | None, n_species: int) -> np.ndarray:
    shape = tomogram.density.shape
    if maker is None:
        return load_target(tomogram.tomogram, n_species, shape)
    assert tomogram.particles is not None
    try:
        return maker.labels(shape, tomogram.particles)
    except InputError as error:
        raise InputError(error.what, where=tomogram.tomogram.annotation_path or "", mend=error.mend) from None
