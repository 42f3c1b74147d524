"""A data set made ready to train on: densities in memory or in their files, particles, label maps or their recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from robpicker_jax.annotations import Particles
from robpicker_jax.config import DataConfig, ModelConfig, ParallelConfig, PatchConfig, TrainConfig
from robpicker_jax.datasets import OpenedTomogram, Scalings, Survey, TomogramFiles, dataset, load_target, survey
from robpicker_jax.datasets.tomogram import Mode
from robpicker_jax.labels import LabelMaker, Region, label_maker
from robpicker_jax.patches import BatchSource, PatchTomogram, TomogramSet, check_names
from robpicker_jax.patches.device import Stack
from robpicker_jax.system.errors import located
from robpicker_jax.training.feeding import Batches, device_batches, resident_batches
from robpicker_jax.training.held_out import MetaParts, check_species, divide, fixed_batches, kept_stack, part_of
from robpicker_jax.training.input_forms import Shape, labels_are_drawn, lives_on_devices
from robpicker_jax.training.objective import Batch
from robpicker_jax.training.workload import step_bytes

__all__ = ["TrainingData", "device_batches", "load_training_data"]

Labels = np.ndarray | Callable[[Region], np.ndarray]
Kind = Literal["train", "meta"]


@dataclass(frozen=True)
class TrainingData:
    """The splits of a data set.

    Attributes:
        train_config: the section `train`: seed and batch sizes.
        patches: the section `patches`: how patches are drawn and cut.
        survey: the data set as it was found, for opening tomograms of val and test.
        train, meta: tomograms with their particles; densities are arrays, or read from their files box by box.
        label_maps: labels of each tomogram of train and meta, by split and name: a map, uint8 (z, y, x), or a function
            region → map that draws it when it is needed.
        stacks: the tomograms of "train" and "meta" as one array each, to be copied to the devices, without what is held
            out; empty: they stay on the host.
        kept: scalings of tomograms that were opened.
    """

    train_config: TrainConfig
    patches: PatchConfig
    survey: Survey
    train: list[OpenedTomogram]
    meta: list[OpenedTomogram]
    label_maps: dict[tuple[str, str], Labels]
    stacks: dict[str, Stack] = field(default_factory=dict)
    kept: Scalings = field(default_factory=Scalings)

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Voxel size of all tomograms; None where it is not known."""
        return self.survey.voxel_size_angstrom

    def open(self, split: str, mode: Mode = "memory") -> list[OpenedTomogram]:
        """Open the tomograms of a split: read into memory, or ("mapped") left in their files, to be read box by box.

        Raises:
            InputError: a volume or a mask that cannot be used.
        """
        return [self._open(files, mode) for files in self.survey.splits[split]]

    def check_voxels(self, split: str) -> None:
        """Read the tomograms of a split, one after the other, so that one that cannot be used is found before training.

        What is found on the way (their scalings) is kept for later.

        Raises:
            InputError: a volume or a mask that cannot be used.
        """
        for files in self.survey.splits[split]:
            self._open(files, "mapped").close()
        self.kept.save()

    def _open(self, files: TomogramFiles, mode: Mode) -> OpenedTomogram:
        tomogram = self.survey.open(files, mode=mode, scaling=self.kept.known(files, self.survey.data))
        self.kept.remember(files, self.survey.data, tomogram.scaling)
        return tomogram

    def source(self) -> BatchSource:
        """Batches of this data, as functions of the step."""
        return self._source(self.train_config.meta_share, self.patches)

    def place(self, kind: Kind, step: int, row: int) -> str:
        """Which patch a row of a batch is, see `BatchSource.place`."""
        return self.source().place(kind, step, row)

    def noisy_source(self, *, augmented: bool = True, anywhere: bool = False) -> BatchSource:
        """The same without meta patches in training batches, for looking at what becomes of noisy labels.

        Args:
            augmented: as in training, or as the tomograms are.
            anywhere: at uniformly random positions, whatever is labelled there.
        """
        patches = self.patches if augmented else replace(self.patches, augment=())
        return self._source(0.0, replace(patches, train_sampler="uniform") if anywhere else patches)

    def _source(self, meta_share: float, patches: PatchConfig) -> BatchSource:
        train = self.train_config
        return BatchSource(
            [self._patches("train", tomogram) for tomogram in self.train],
            self._meta_parts(self._parts.kept),
            patches,
            seed=train.seed,
            batch_size=train.batch_size,
            meta_batch_size=train.meta_rows,
            meta_share=meta_share,
            threads=patches.threads or min(8, os.cpu_count() or 1),
        )

    @cached_property
    def held_out(self) -> list[Batch]:
        """Clean patches that no batch holds: of the validation tomograms, or of a part of the meta set; may be none."""
        rows, size = self.train_config.meta_batch, self.patches.size
        if self.train_config.meta_held_out != "val":
            return fixed_batches(self._meta_parts(self._parts.held), size, rows)
        with ExitStack() as stack:
            return fixed_batches(self._validation_patches(stack), size, rows)

    def _validation_patches(self, stack: ExitStack) -> list[PatchTomogram]:
        """Validation tomograms that have particles and room for a patch, left in their files while the stack is open.

        Their labels are made as those of the meta tomograms. Where these are stored maps, a tomogram without one is left out.
        """
        maker = _maker("meta", self.survey.data, self.voxel_size_angstrom)
        chosen = []
        for tomogram in self.open("val", "mapped"):
            stack.callback(tomogram.close)
            has_label = tomogram.files.target_path is not None or maker is not None
            if tomogram.particles is None or not has_label or min(tomogram.shape_zyx) < self.patches.size:
                continue
            labels = _labels(tomogram, maker, len(self.survey.data.species), drawn=True)
            patches = PatchTomogram(tomogram.name, tomogram, tomogram.particles, labels, tomogram.mask)
            if TomogramSet([patches], self.patches.size).n_particles:
                chosen.append(patches)
        return chosen

    @cached_property
    def _parts(self) -> MetaParts:
        """What of the meta tomograms is trained on, and what is held out."""
        return divide([tomogram.shape_zyx for tomogram in self.meta], self.train_config, self.patches.size)

    def _meta_parts(self, regions: Sequence[Region | None]) -> list[PatchTomogram]:
        pairs = zip(self.meta, regions, strict=True)
        return [part_of(self._patches("meta", tomogram), region) for tomogram, region in pairs if region is not None]

    def batches(self, mesh: Mesh) -> Batches:
        """The batches, cut where the tomograms are; tomograms that are to be kept on the devices are copied there now."""
        if self.stacks:
            return resident_batches(self.source(), self.stacks, self.train_config, self.patches, mesh)
        return device_batches(self.source(), self.train_config, mesh)

    @property
    def resident_bytes(self) -> int:
        """Memory that tomograms and label maps take on each device."""
        kinds = ("train", "meta") if self.train_config.uses_meta_batches else ("train",)
        return sum(leaf.nbytes for kind in kinds for leaf in jax.tree.leaves(self.stacks.get(kind)))

    def _patches(self, split: str, tomogram: OpenedTomogram) -> PatchTomogram:
        density: Any = tomogram if tomogram.density is None else tomogram.density
        labels = self.label_maps[split, tomogram.name]
        return PatchTomogram(tomogram.name, density, _known(tomogram), labels, tomogram.mask)


def load_training_data(
    directory: Path,
    *,
    data: DataConfig,
    patches: PatchConfig,
    model: ModelConfig,
    train: TrainConfig,
    parallel: ParallelConfig,
    scalings: Path | None = None,
) -> TrainingData:
    """Read and check a data set, and make the label maps of its training and meta tomograms.

    Args:
        directory: the data set.
        data: the section `data`.
        patches: the section `patches`; its `input` and `labels` say where densities and label maps are kept.
        model, train, parallel: the sections that the memory of a training step depends on. Where the input is "auto",
            the tomograms are kept on the devices if they fit there beside a step.
        scalings: file in which the tomograms' scalings are kept from one start to the next.

    Raises:
        InputError: whatever is wrong with it, named by file.
    """
    check_names(patches)
    found = survey(dataset(directory, data), data, patches.size, needs_meta=train.uses_meta_tomograms)
    kept = Scalings(scalings)
    activations = step_bytes(
        model,
        train,
        n_classes=len(data.species) + 1,
        patch_size=patches.size,
        micro_batches=parallel.micro_batches,
        parameters=0,
    )
    try:
        resident = lives_on_devices(_shapes(found), patches, parallel, activations)
        loaded = _loaded(found, data, patches, train, resident, kept)
    except BaseException:
        found.close()
        raise
    kept.save()
    return loaded


def _shapes(found: Survey) -> dict[str, list[Shape]]:
    """Sizes of the training and meta tomograms, voxels."""
    return {split: [found.shapes_zyx[files] for files in found.splits[split]] for split in ("train", "meta")}


def _loaded(
    found: Survey, data: DataConfig, patches: PatchConfig, train: TrainConfig, resident: bool, kept: Scalings
) -> TrainingData:
    """Open the training and meta tomograms of a surveyed data set, and make their label maps."""
    shapes = _shapes(found)
    parts = divide(shapes["meta"], train, patches.size)
    opened: dict[str, list[OpenedTomogram]] = {}
    label_maps: dict[tuple[str, str], Labels] = {}
    stacks: dict[str, Stack] = {}
    kinds: tuple[Kind, ...] = ("train", "meta")
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "loading") as pool:
        for kind in kinds:
            if not shapes[kind]:  # a training without meta tomograms
                opened[kind] = []
                continue
            density = _stack(shapes[kind], np.float32) if resident else None
            opened[kind] = _open_split(found, kind, density, kept, pool)
            drawn = _labels_are_drawn(kind, opened[kind], data, patches, train, resident)
            labels = _stack(shapes[kind], np.uint8) if resident and not drawn else None
            maker = _maker(kind, data, found.voxel_size_angstrom)
            made = _label_split(opened[kind], maker, len(data.species), labels, drawn, pool)
            label_maps |= {(kind, tomogram.name): one for tomogram, one in zip(opened[kind], made, strict=True)}
            if density is not None:
                stacks[kind] = Stack(density, labels, np.array(shapes[kind], np.int32))
    check_species([_known(tomogram) for tomogram in opened["meta"]], parts, data.species)
    if resident and parts.is_divided:
        stacks["meta"] = kept_stack(stacks["meta"], parts)
    if train.meta_share and resident:
        stacks["train"] = _joined(stacks["train"], stacks["meta"])
    return TrainingData(train, patches, found, opened["train"], opened["meta"], label_maps, stacks, kept)


def _open_split(
    found: Survey, split: Kind, stack: np.ndarray | None, kept: Scalings, pool: ThreadPoolExecutor
) -> list[OpenedTomogram]:
    """Open the tomograms of a split: their densities read into the stack, or left in their files where it is None."""
    tomograms = found.splits[split]

    def load(files: TomogramFiles, into: np.ndarray | None) -> OpenedTomogram:
        known = kept.known(files, found.data)
        tomogram = found.open(files, mode="mapped" if into is None else "memory", into=into, scaling=known)
        kept.remember(files, found.data, tomogram.scaling)
        return tomogram

    return list(pool.map(load, tomograms, _parts(stack, [found.shapes_zyx[files] for files in tomograms])))


def _label_split(
    tomograms: Sequence[OpenedTomogram],
    maker: LabelMaker | None,
    n_species: int,
    stack: np.ndarray | None,
    drawn: bool,
    pool: ThreadPoolExecutor,
) -> list[Labels]:
    """The labels of a split's tomograms, written into the stack where there is one."""

    def label(tomogram: OpenedTomogram, into: np.ndarray | None) -> Labels:
        made = _labels(tomogram, maker, n_species, drawn)
        if into is None or not isinstance(made, np.ndarray):
            return made
        into[...] = made
        return into

    return list(pool.map(label, tomograms, _parts(stack, [tomogram.shape_zyx for tomogram in tomograms])))


def _labels(tomogram: OpenedTomogram, maker: LabelMaker | None, n_species: int, drawn: bool) -> Labels:
    """The stored label map where there is no maker, else one made from the particles, or the function that draws it."""
    if maker is None:
        return load_target(tomogram.files, n_species, tomogram.shape_zyx)
    assert tomogram.particles is not None
    make = maker.bind if drawn else maker.labels
    with located(tomogram.files.annotation_path or tomogram.files.volume_path):
        return make(tomogram.shape_zyx, tomogram.particles)


def _known(tomogram: OpenedTomogram) -> Particles:
    """The particles of a tomogram of train or meta, where tomograms without particles are refused."""
    assert tomogram.particles is not None
    return tomogram.particles


def _maker(split: Kind, data: DataConfig, voxel_size_angstrom: float | None) -> LabelMaker | None:
    """What makes the label maps of a split; None where they are stored."""
    kind = data.train_labels if split == "train" else data.meta_labels
    return None if kind == "map" else label_maker(data.species, kind, voxel_size_angstrom=voxel_size_angstrom)


def _labels_are_drawn(
    split: Kind,
    tomograms: Sequence[OpenedTomogram],
    data: DataConfig,
    patches: PatchConfig,
    train: TrainConfig,
    resident: bool,
) -> bool:
    """Whether the labels of a split are drawn patch by patch: never where they are stored as maps."""
    stored = (data.train_labels if split == "train" else data.meta_labels) == "map"
    rows = _rows_per_step(train)[split]
    return not stored and labels_are_drawn(
        tomograms, rows, patches=patches, train=train, species=data.species, resident=resident
    )


def _rows_per_step(train: TrainConfig) -> Mapping[Kind, int]:
    """Patches that a training step takes of each split."""
    return {"train": train.batch_size * train.inner_steps, "meta": train.meta_rows}


def _stack(sizes: Sequence[Shape], dtype: Any) -> np.ndarray:
    """Zeros (t, Z, Y, X) at an address that a CPU device takes as it is, without a copy."""
    shape = (len(sizes), *np.max(sizes, axis=0))
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(n_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    stack: np.ndarray = raw[start : start + n_bytes].view(dtype).reshape(shape)
    return stack


def _joined(noisy: Stack, clean: Stack) -> Stack:
    """Both sets of tomograms as one, the noisy ones first; without label maps where either set draws its labels."""
    z, y, x = (max(sizes) for sizes in zip(noisy.density.shape[1:], clean.density.shape[1:], strict=True))

    def join(parts: Sequence[np.ndarray]) -> np.ndarray:
        whole = _stack([(z, y, x)] * sum(len(part) for part in parts), parts[0].dtype)
        for part, at in zip(parts, (0, len(parts[0])), strict=True):
            whole[at : at + len(part), : part.shape[1], : part.shape[2], : part.shape[3]] = part
        return whole

    labels = None
    if noisy.labels is not None and clean.labels is not None:
        labels = join([np.asarray(noisy.labels), np.asarray(clean.labels)])
    density = join([np.asarray(noisy.density), np.asarray(clean.density)])
    return Stack(density, labels, np.concatenate([noisy.shape_zyx, clean.shape_zyx]))


def _parts(stack: np.ndarray | None, sizes: Sequence[Shape]) -> list[np.ndarray | None]:
    """The part of a stack that each tomogram fills; None for each where there is no stack."""
    if stack is None:
        return [None] * len(sizes)
    return [stack[index, :z, :y, :x] for index, (z, y, x) in enumerate(sizes)]
