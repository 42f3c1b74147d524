"""A data set made ready to train on: densities in memory or in their files, particles, label maps or their recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from robpicker_jax import parallel
from robpicker_jax.annotations import Particles
from robpicker_jax.config import Config
from robpicker_jax.datasets.discovery import Tomogram, discover
from robpicker_jax.datasets.loading import (
    LoadedTomogram,
    agreed_voxel_size,
    check_dataset,
    load_mask,
    load_particles,
    load_target,
)
from robpicker_jax.datasets.mapped import MappedDensity, Scalings
from robpicker_jax.datasets.streaming import StreamedTomogram, stream_tomogram
from robpicker_jax.labels import LabelMaker, Region, label_maker
from robpicker_jax.patches import BatchSource, PatchTomogram, check_names
from robpicker_jax.patches.device import Stack
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.memory import device_bytes, machine_bytes
from robpicker_jax.training.feeding import Batches, device_batches, resident_batches
from robpicker_jax.training.workload import step_bytes
from robpicker_jax.volumes import open_volume
from robpicker_jax.volumes.normalisation import scaling
from robpicker_jax.volumes.volume import slabs

__all__ = ["TrainingData", "device_batches", "load_training_data"]

Labels = np.ndarray | Callable[[Region], np.ndarray]
Shape = tuple[int, int, int]
_USABLE = 0.8
_STEP_DOUBT = 2.0  # the estimate of a step's memory is good to about this factor
_LABEL_SHARE = 0.25  # of the free memory, for label maps of tomograms that stay in their files


@dataclass(frozen=True)
class TrainingData:
    """The splits of a data set.

    Attributes:
        config: the configuration it was read with.
        splits: tomograms by split, as found.
        train, meta: tomograms with their particles; densities are arrays, or read from their files box by box.
        label_maps: labels of each tomogram of train and meta, by split and name: a map, uint8 (z, y, x), or a function
            region → map that draws it when it is wanted.
        voxel_size_angstrom: of all tomograms; None where nobody knows it.
        stacks: the tomograms of "train" and "meta" as one array each, to be placed on the devices; empty: they stay
            on the host.
    """

    config: Config
    splits: dict[str, list[Tomogram]]
    train: list[LoadedTomogram]
    meta: list[LoadedTomogram]
    label_maps: dict[tuple[str, str], Labels]
    voxel_size_angstrom: float | None
    stacks: dict[str, Stack] = field(default_factory=dict)

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
            threads=self.config.patches.threads or min(8, os.cpu_count() or 1),
        )

    def batches(self, mesh: Mesh) -> Batches:
        """The batches, cut where the tomograms are; tomograms that are to live on the devices are placed there now."""
        if self.stacks:
            return resident_batches(self.source(), self.stacks, self.config, mesh)
        return device_batches(self.source(), self.config, mesh)

    @property
    def resident_bytes(self) -> int:
        """Memory that tomograms and label maps take on each device."""
        kinds = ("train",) if self.config.train.variant == "supervised" else ("train", "meta")
        return sum(leaf.nbytes for kind in kinds for leaf in jax.tree.leaves(self.stacks.get(kind)))

    def _patches(self, split: str, tomogram: LoadedTomogram) -> PatchTomogram:
        assert tomogram.particles is not None  # train and meta without are refused
        labels = self.label_maps[split, tomogram.name]
        return PatchTomogram(tomogram.name, tomogram.density, tomogram.particles, labels, tomogram.mask)


def load_training_data(config: Config, directory: Path, *, scalings: Path | None = None) -> TrainingData:
    """Read and check a data set, and make the label maps of its training and meta tomograms.

    Args:
        config: the configuration; `patches.input` and `patches.labels` say where densities and label maps are kept.
        directory: the data set.
        scalings: file in which the tomograms' scalings are kept from one start to the next.

    Raises:
        InputError: whatever is wrong with it, named by file.
    """
    check_names(config.patches)
    splits = discover(directory)
    voxel_size = check_dataset(splits, config.data, config.patches.size)
    shapes = {split: [_shape(tomogram) for tomogram in splits[split]] for split in ("train", "meta")}
    resident = lives_on_devices(config, shapes)
    kept = Scalings(scalings)
    loaded: dict[str, list[LoadedTomogram]] = {}
    label_maps: dict[tuple[str, str], Labels] = {}
    stacks: dict[str, Stack] = {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "loading") as pool:
        for split, kind in (("train", config.data.train_labels), ("meta", config.data.meta_labels)):
            found, sizes = splits[split], shapes[split]
            places: Sequence[np.ndarray | None] = [None] * len(found)
            if resident:
                density = _stack(sizes, np.float32)
                places = [density[i, :z, :y, :x] for i, (z, y, x) in enumerate(sizes)]
            loads = pool.map(lambda one: _load(one[0], config, one[1], kept), zip(found, places, strict=True))
            loaded[split] = list(loads)
            maker = None if kind == "map" else label_maker(config.data.species, kind, voxel_size_angstrom=voxel_size)
            drawn = maker is not None and _drawn(config, split, loaded[split], resident)
            maps: Sequence[np.ndarray | None] = [None] * len(found)
            labels = None
            if resident and not drawn:
                labels = _stack(sizes, np.uint8)
                maps = [labels[i, :z, :y, :x] for i, (z, y, x) in enumerate(sizes)]
            made = pool.map(
                lambda one: _labels(one[0], maker, config, one[1], drawn),  # noqa: B023  (consumed in this turn)
                zip(loaded[split], maps, strict=True),
            )
            for tomogram, label in zip(loaded[split], made, strict=True):
                label_maps[split, tomogram.name] = label
            if resident:
                stacks[split] = Stack(density, labels, np.array(sizes, np.int32))
    kept.save()
    return TrainingData(config, splits, loaded["train"], loaded["meta"], label_maps, voxel_size, stacks)


def lives_on_devices(config: Config, shapes: dict[str, list[Shape]]) -> bool:
    """Whether tomograms and label maps are kept on the devices: as told, or where they fit beside a training step."""
    if config.patches.input != "auto":
        return config.patches.input == "device"
    voxels = sum(len(sizes) * int(np.prod(np.max(sizes, axis=0))) for sizes in shapes.values() if sizes)
    devices = jax.local_devices()[: config.parallel.devices]
    copies = len(devices) if devices[0].platform == "cpu" else 1
    step = _STEP_DOUBT * step_bytes(config, 0) / (len(devices) * jax.process_count() / copies)
    limit: float | None
    if config.parallel.memory_limit_gib is not None:
        limit = config.parallel.memory_limit_gib * 2**30
    else:
        free = [amount for device in devices if (amount := device_bytes(device, free=True)) is not None]
        limit = _USABLE * min(free) if free else None
    fits = limit is not None and 5 * voxels * copies + step <= limit
    return not parallel.any_process(not fits)


def _drawn(config: Config, split: str, tomograms: Sequence[LoadedTomogram], resident: bool) -> bool:
    """Whether patches' labels are drawn from coordinates: as told, or where whole maps are more work or do not fit."""
    if config.patches.labels != "auto":
        return config.patches.labels == "drawn"
    train, patches = config.train, config.patches
    voxels = sum(int(np.prod(tomogram.density.shape)) for tomogram in tomograms)
    if not resident and voxels > _LABEL_SHARE * (machine_bytes(free=True) or np.inf):
        return True
    count = sum(0 if tomogram.particles is None else len(tomogram.particles) for tomogram in tomograms)
    reach = patches.size + 2 * max(species.radius_vox for species in config.data.species)
    near = max(1.0, count * reach**3 / voxels)
    rows = train.batch_size * train.inner_steps if split == "train" else train.meta_batch_size or train.batch_size
    return train.steps * rows * near < count


def _load(tomogram: Tomogram, config: Config, place: np.ndarray | None, kept: Scalings) -> LoadedTomogram:
    """A tomogram with its particles: its density read into `place`, or left in its file where there is none."""
    data = config.data
    voxel_size = agreed_voxel_size([tomogram], data.voxel_size_angstrom)
    shape = _shape(tomogram)
    particles = load_particles(
        tomogram,
        species_names=[species.name for species in data.species],
        shape_zyx=shape,
        voxel_size_angstrom=voxel_size,
        options=data.annotation_options,
    )
    known = kept.known(tomogram, data)
    density: Any
    if place is None:
        if known is None:
            streamed = stream_tomogram(tomogram, data)
            known = streamed.scaling
        else:
            reader = open_volume(tomogram.volume_path)
            mask = load_mask(tomogram, shape)
            streamed = StreamedTomogram(tomogram, reader, known, data.invert_contrast, voxel_size, mask)
        density, mask = MappedDensity(streamed), streamed.mask
    else:
        mask = load_mask(tomogram, shape)
        with open_volume(tomogram.volume_path) as reader:
            for first, last in slabs(shape):
                place[first:last] = reader.read((slice(first, last), slice(None), slice(None)), check=False)
        if data.invert_contrast:
            np.negative(place, out=place)
        try:
            known = known or scaling(lambda first, last: place[first:last], shape, data.normalise, mask=mask)
        except InputError as error:
            raise InputError(error.what, where=error.where or tomogram.volume_path, fix=error.fix) from None
        density = known.apply(place)
    kept.remember(tomogram, data, known)
    return LoadedTomogram(tomogram.name, density, particles, voxel_size, tomogram, mask)


def _labels(
    tomogram: LoadedTomogram, maker: LabelMaker | None, config: Config, place: np.ndarray | None, drawn: bool
) -> Labels:
    shape = tomogram.density.shape
    if maker is None:
        labels = load_target(tomogram.tomogram, len(config.data.species), shape)
    else:
        particles: Particles | None = tomogram.particles
        assert particles is not None
        try:
            if drawn:
                return maker.bind(shape, particles)
            labels = maker.labels(shape, particles)
        except InputError as error:
            raise InputError(error.what, where=tomogram.tomogram.annotation_path or "", fix=error.fix) from None
    if place is None:
        return labels
    place[...] = labels
    return place


def _shape(tomogram: Tomogram) -> Shape:
    with open_volume(tomogram.volume_path) as reader:
        return reader.shape_zyx


def _stack(sizes: Sequence[Shape], dtype: Any) -> np.ndarray:
    """Zeros (t, Z, Y, X) at an address that a CPU device takes as it is, without a copy."""
    shape = (len(sizes), *np.max(sizes, axis=0))
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(n_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes].view(dtype).reshape(shape)
