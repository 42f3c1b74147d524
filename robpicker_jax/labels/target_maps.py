"""Label maps of a data set's tomograms, written beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robpicker_jax.annotations.names import NameRule
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets import TomogramFiles, agreed_voxel_size, dataset, load_particles
from robpicker_jax.datasets.pairing import list_suffix
from robpicker_jax.labels import LabelMaker, label_maker
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.system.progress import progress, say
from robpicker_jax.volumes import open_volume, write_mrc


def write_targets(
    data: DataConfig,
    directory: str | Path,
    *,
    labels: str | None = None,
    lists: str | Path | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write the label maps of a data set's annotated tomograms.

    Args:
        data: species, kinds of labels, voxel size.
        directory: the data set.
        labels: "sphere" or "shape" for all splits; None: `data.train_labels` for train, else `data.meta_labels`.
        lists: folder of lists to take instead of those beside the tomograms, {name}_objl.xml or {name}.star …, such as the
            ones with orientations that averaging leaves; tomograms without one are left out.
        overwrite: whether to write maps that exist already anew.

    Returns:
        The files written.

    Raises:
        InputError: whatever is wrong with the data set, named by file; nothing to do; shapes without orientations.
    """
    tomograms = [tomogram for split in dataset(directory, data).values() for tomogram in split]
    names = [species.name for species in data.species]
    if lists is not None:
        tomograms = _listed(tomograms, Path(lists), data)
    annotated = [tomogram for tomogram in tomograms if tomogram.lists(names)]
    if not annotated:
        raise InputError("no annotated tomogram in it", where=directory, fix="put {name}_objl.xml beside {name}.mrc")
    voxel_size = agreed_voxel_size(annotated, data.voxel_size_angstrom)
    todo = [tomogram for tomogram in annotated if overwrite or tomogram.target_path is None]
    makers: dict[str, LabelMaker] = {}
    written = []
    with progress("label maps", len(todo)) as bar:
        for tomogram in todo:
            kind = labels or _kind(data, tomogram)
            if kind not in makers:
                makers[kind] = label_maker(
                    data.species,
                    "sphere" if kind == "sphere" else "shape",
                    voxel_size_angstrom=voxel_size,
                )
            written.append(_write(tomogram, data, makers[kind], voxel_size))
            bar.advance()
    return written


def _listed(tomograms: Sequence[TomogramFiles], folder: Path, data: DataConfig) -> list[TomogramFiles]:
    """The tomograms that have a list in a folder, with that list."""
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, fix="give the folder of the lists")
    rule = NameRule.of(data.name_pattern, "data.name_pattern")
    found = {}
    for path in sorted(folder.iterdir()):
        if suffix := list_suffix(path.name):
            found[path.name[: -len(suffix)].removesuffix("_objl")] = path
    taken = [
        tomogram.with_list(found[matching[0]])
        for tomogram in tomograms
        if (matching := rule.matching(tomogram.name, found))
    ]
    if not taken:
        raise InputError("no list in it is of a tomogram of the data set", where=folder)
    return taken


def _kind(data: DataConfig, tomogram: TomogramFiles) -> str:
    key = "train_labels" if tomogram.split == "train" else "meta_labels"
    kind = data.train_labels if tomogram.split == "train" else data.meta_labels
    if kind == "map":
        raise InputError(
            f"data.{key} is map: there is nothing to make it from",
            where=tomogram.volume_path,
            fix="give --labels sphere or --labels shape",
        )
    return kind


def _write(tomogram: TomogramFiles, data: DataConfig, maker: LabelMaker, voxel_size: float | None) -> Path:
    with open_volume(tomogram.volume_path) as reader:
        shape, origin = reader.shape_zyx, reader.origin_angstrom
    particles = load_particles(tomogram, data, shape, voxel_size, origin)
    with located(tomogram.annotation_path or tomogram.volume_path):
        label_map = maker.labels(shape, particles)
    path = tomogram.target_path or tomogram.volume_path.with_name(f"{tomogram.name}_target.mrc")
    write_mrc(path, label_map, voxel_size, origin)
    share = np.count_nonzero(label_map) / label_map.size
    say(f"{path}: {len(particles)} particles, {share:.2%} of the voxels")
    return path
