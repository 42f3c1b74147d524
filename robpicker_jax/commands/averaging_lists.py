"""The picks that `average` reads: of every tomogram one list a class, each read with its own tomogram's size and origin."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.annotations.conversion import parse_options
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.annotations.options import options_for
from robpicker_jax.averaging import Source
from robpicker_jax.config import Config, DataConfig
from robpicker_jax.datasets import dataset
from robpicker_jax.datasets.configured import is_own
from robpicker_jax.datasets.discovery import SPLITS, tomograms_in
from robpicker_jax.datasets.flat_folder import describes_flat
from robpicker_jax.datasets.lists import agree_on_classes, list_name, read_lists
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import VolumeReader


@dataclass(frozen=True)
class _Reading:
    """How lists are read: format and options, and what is known of the tomograms."""

    fmt: str | None
    options: Mapping[str, Any]
    class_names: Sequence[str] | None
    voxel_size_angstrom: float
    rule: NameRule
    readers: Mapping[str, VolumeReader]
    data: DataConfig

    @property
    def labels(self) -> dict[str, int] | None:
        """Label of each class, where the names are given."""
        if self.class_names is None:
            return None
        return {name: index for index, name in enumerate(self.class_names, start=1)}


def read_picks(
    options: Namespace, config: Config, sources: Sequence[Source], voxel_size_angstrom: float, has_species: bool
) -> tuple[list[Particles], list[str]]:
    """The picks of each tomogram with class labels, and the names of the classes.

    Raises:
        InputError: a list that cannot be read, two lists of one class in one tomogram (its particles would come into both
            halves), no list of any tomogram, picks of no known class.
    """
    reading = _Reading(
        options.picks_format,
        config.data.annotation_options | parse_options(options.picks_option, "--picks-option"),
        [entry.name for entry in config.data.species] if has_species else options.classes,
        voxel_size_angstrom,
        NameRule.of(config.data.name_pattern, "data.name_pattern"),
        {source.name: source.reader for source in sources},
        config.data,
    )
    parts: dict[str, Particles] = {}
    of: dict[str, tuple[str, Path]] = {}
    for path in options.picks:
        for name, particles in _read(path, reading):
            key = str(len(parts))
            parts[key], of[key] = _scored(particles, options.min_score), (name, path)
    if not parts:
        raise InputError(
            "no list is of any of the tomograms",
            where="--picks",
            fix=f"lists must name {', '.join(list(reading.readers)[:3])} or be called after them",
        )
    parts, _, names = agree_on_classes(parts, {}, reading.class_names)
    together: dict[str, list[Particles]] = {source.name: [] for source in sources}
    first: dict[tuple[str, int], str] = {}
    for key, particles in parts.items():
        name, path = of[key]
        unknown = int((particles.labels < 1).sum())
        if unknown:
            raise InputError(
                f"{unknown} picks in {name} are of no known class",
                where=path,
                fix="name all classes with --classes or --config",
            )
        for label in np.unique(particles.labels).tolist():
            other = first.setdefault((name, label), key)
            if other != key:
                raise InputError(
                    f"a second list of {names[label - 1] if label <= len(names) else label} in tomogram {name}, "
                    f"beside {of[other][1].name}",
                    where=path,
                    fix="give one of them: particles listed twice come into both halves",
                )
        together[name].append(particles)
    return [Particles.concatenate(together[source.name]) for source in sources], names


def _read(path: Path, reading: _Reading) -> Iterator[tuple[str, Particles]]:
    """The lists of a file or folder that are of one of the tomograms, with the tomogram's name."""
    if path.is_file():
        yield from _of_file(path, reading)
        return
    for folder, split in _folders(path, reading):
        lists = read_lists(
            folder,
            split=split,
            data=reading.data,
            fmt=reading.fmt,
            voxel_size_angstrom=reading.voxel_size_angstrom,
            class_names=reading.class_names,
            options=reading.options,
            rule=reading.rule,
            truth=False,
        )
        for name, particles in lists.items():
            if matching := reading.rule.matching(name, reading.readers):
                yield matching[0], particles


def _folders(path: Path, reading: _Reading) -> list[tuple[Path, str]]:
    """Those splits of a data set that hold one of the tomograms, by folder and name; the folder itself where it is none."""
    if is_own(path, reading.data) and describes_flat(reading.data):
        found = dataset(path, reading.data)
        return [(path, split) for split in SPLITS if any(_is_named(files.name, reading) for files in found[split])]
    splits = [path / name for name in (*SPLITS, "valid") if (path / name).is_dir()]
    if not splits:
        return [(path, "test")]
    return [
        (folder, "test")
        for folder in splits
        if any(_is_named(files.name, reading) for files in tomograms_in(folder, annotations=False, rule=reading.rule))
    ]


def _is_named(name: str, reading: _Reading) -> bool:
    return bool(reading.rule.matching(name, reading.readers))


def _of_file(path: Path, reading: _Reading) -> Iterator[tuple[str, Particles]]:
    """The particles of each tomogram in a file, read with this tomogram's own size and origin."""
    how = options_for(path, reading.options, fmt=reading.fmt)
    known: dict[tuple[Any, Any], dict[str, Particles]] = {}

    def read(reader: VolumeReader) -> dict[str, Particles]:
        shape, origin = reader.shape_zyx, reader.origin_angstrom
        if (shape, origin) not in known:
            particles = read_annotations(
                path,
                class_labels=reading.labels,
                voxel_size_angstrom=reading.voxel_size_angstrom,
                shape_zyx=shape,
                volume_origin_angstrom=origin,
                **how,
            )
            known[shape, origin] = _by_name(particles, path, reading)
        return known[shape, origin]

    own = reading.rule.matching(list_name(path), reading.readers)
    for name in read(reading.readers[own[0] if own else next(iter(reading.readers))]):
        yield name, read(reading.readers[name])[name]


def _by_name(particles: Particles, path: Path, reading: _Reading) -> dict[str, Particles]:
    """A list's particles by the names that the tomograms have here."""
    readers, rule = reading.readers, reading.rule
    if particles.tomograms is None:
        matching = rule.matching(list_name(path), readers)
        if not matching and len(readers) == 1:
            matching = list(readers)  # one list and one tomogram need no names
        return {matching[0]: particles} if matching else {}
    found: dict[str, list[Particles]] = {}
    for name in dict.fromkeys(particles.tomograms.tolist()):
        if matching := rule.matching(str(name), readers):
            found.setdefault(matching[0], []).append(particles.select(particles.tomograms == name))
    return {name: Particles.concatenate(parts) for name, parts in found.items()}


def _scored(particles: Particles, least: float | None) -> Particles:
    if least is None or not len(particles):
        return particles
    if particles.scores is None:
        raise InputError("the lists give no scores", where="--min-score")
    return particles.select(particles.scores >= least)
