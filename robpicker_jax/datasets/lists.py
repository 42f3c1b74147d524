"""Particle lists on disk → truth and picks by tomogram, with one set of class labels."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations, suffixes
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.annotations.options import options_for
from robpicker_jax.config import CopickConfig, DataConfig
from robpicker_jax.datasets.configured import is_own, one_split
from robpicker_jax.datasets.copick_project import is_project, project_tomograms
from robpicker_jax.datasets.discovery import TomogramFiles, class_of_stem, split_folder
from robpicker_jax.datasets.given_lists import list_paths
from robpicker_jax.datasets.headers import agreed_voxel_size
from robpicker_jax.datasets.pairing import DEFAULT_RULE, list_suffix
from robpicker_jax.datasets.particle_lists import read_list
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import is_volume, open_volume

_MARKERS = re.compile(r"(_truth)?(_objl|_picks)?$")


def read_lists(
    path: str | Path,
    *,
    split: str = "test",
    fmt: str | None = None,
    voxel_size_angstrom: float | None = None,
    shape_zyx: tuple[int, int, int] | None = None,
    class_names: Sequence[str] | None = None,
    allow_empty: bool = False,
    options: Mapping[str, Any] | None = None,
    rule: NameRule = DEFAULT_RULE,
    truth: bool = True,
    copick: CopickConfig | None = None,
    data: DataConfig | None = None,
) -> dict[str, Particles]:
    """Read the particle lists of a file or folder, by tomogram.

    A file is one tomogram's list, named after it, or a list that names several. A folder holds one list for each
    tomogram (`{name}.xml`, `{name}_objl.xml`, `{name}.star`, …) or, with `class_names`, one for each class
    (`{name}_{class}.star`). Where several hold one tomogram's, `{name}_truth…` goes before others (so a data set keeps
    the clean truth of noisy annotations), and then the order of `annotations.FORMATS` decides. Of a folder with volumes,
    the lists of these volumes are taken; of a data set (folders train/, meta/, val/, test/), one split.

    Args:
        path: file or folder.
        split: which split of a data set.
        fmt: annotation format; by default, suffix and content of the file decide.
        voxel_size_angstrom: for formats in Å; by default the one in the header of the volume beside each list.
        shape_zyx: size of the tomograms, for formats that count from the centre; that of the volume beside a list goes
            before it.
        class_names: name of class 1, 2, …, for formats that name classes.
        allow_empty: accept lists without particles.
        options: how the lists are read, as `data.annotation_options` has it.
        rule: which names mean the same tomogram.
        truth: whether `{name}_truth…` goes before others; without, it is read only where it is a tomogram's only list
            in a folder without volumes.
        data: a configuration's section, by which the data set that it names is read: its splits and its lists.
        copick: of a copick project, named by its configuration: whose picks of which runs; the options `user` and
            `session` go before it.

    Raises:
        InputError: nothing there, no list in the folder, a list that cannot be read, two lists of one tomogram.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder", where=path)
    labels = None if class_names is None else {name: index + 1 for index, name in enumerate(class_names)}

    def read(file: Path) -> Particles:
        reading = options_for(file, options, fmt=fmt)
        return read_annotations(
            file,
            voxel_size_angstrom=voxel_size_angstrom,
            shape_zyx=shape_zyx,
            class_labels=labels,
            allow_empty=allow_empty,
            **reading,
        )

    def read_beside(files: TomogramFiles) -> Particles:
        with open_volume(files.volume_path) as reader:
            voxel_size, shape = voxel_size_angstrom or reader.voxel_size_angstrom, reader.shape_zyx
            origin = reader.origin_angstrom
        return read_list(
            files,
            voxel_size_angstrom=voxel_size,
            shape_zyx=shape,
            volume_origin_angstrom=origin,
            class_labels=labels,
            options=options,
            rule=rule,
            fmt=fmt,
        )

    if is_project(path):
        section = copick or CopickConfig()
        chosen = options or {}
        section = replace(
            section,
            user=_text(chosen.get("user", section.user)),
            session=_text(chosen.get("session", section.session)),
            prefer=() if {"user", "session"} & set(chosen) else section.prefer,
        )
        runs = project_tomograms(path, section)[split]
        objects = class_names or sorted({name for run in runs for name, _ in run.class_lists})
        labels = {name: index + 1 for index, name in enumerate(objects)}
        return _beside_volumes(path, runs, read_beside, objects, truth=truth)
    if path.is_file():
        return _by_tomogram(read(path), list_name(path))
    if _holds_copick(path):
        picks = read(path)
        return _by_tomogram(picks, str(picks.tomograms[0]) if picks.tomograms is not None and len(picks) else path.name)
    if tomograms := one_split(path, split, data, rule=rule):
        return _beside_volumes(path, tomograms, read_beside, class_names or (), truth=truth)
    folder = split_folder(path, split)
    found: dict[str, Particles] = {}
    by_class: dict[str, set[str]] = {}
    for (name, species), file in _choose(folder, class_names or (), truth=truth).items():
        listed = read(file)
        if species:
            label = (labels or {})[species]
            listed = listed.with_(labels=np.full(len(listed), label), class_names=np.full(len(listed), species))
        for tomogram, particles in _by_tomogram(listed, name).items():
            others = by_class.setdefault(tomogram, set())
            if tomogram in found and (not species or species in others or "" in others):
                raise InputError(f"a second list of tomogram {tomogram}", where=file, fix="keep one of them")
            others.add(species)
            found[tomogram] = Particles.concatenate([found[tomogram], particles]) if tomogram in found else particles
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def files_read(path: str | Path, data: DataConfig | None = None) -> list[Path]:
    """The lists and volumes that a file or folder of lists, or a data set with its splits, holds; others are no input.

    Of JSON files, copick's picks and projects are. Of the data set that a configuration names, those that it calls its
    lists are, too.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    if data is not None and data.lists and is_own(path, data):
        return files_read(path) + [
            file for _, given in list_paths(data) if given.exists() for file in files_read(given)
        ]
    folders = [path, *(path / name for name in ("train", "meta", "val", "valid", "test") if (path / name).is_dir())]
    return [file for folder in folders for file in folder.iterdir() if is_volume(file) or _is_list(file)]


def _is_list(file: Path) -> bool:
    suffix = list_suffix(file.name) if file.is_file() else None
    if suffix != ".json":
        return suffix is not None
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and ("points" in content or "pickable_objects" in content)


def header_voxel_size(
    path: str | Path, *, split: str = "test", configured: float | None = None, data: DataConfig | None = None
) -> float | None:
    """Voxel size in Å that the volumes beside the lists and the configuration agree on; None where it is not known.

    Raises:
        InputError: two of them disagree.
    """
    path = Path(path)
    if not path.is_dir():
        return configured
    return agreed_voxel_size(one_split(path, split, data, annotations=False), configured)


def pair_tomograms(
    truth: Mapping[str, Particles], picks: Mapping[str, Particles], rule: NameRule = DEFAULT_RULE
) -> tuple[dict[str, Particles], list[str]]:
    """Picks under the truth's names of tomograms, and the names of the picks that have no truth.

    Names agree as `annotations.names` has it; one list against one list needs no names.

    Raises:
        InputError: two lists of picks for one tomogram.
    """
    if len(truth) == 1 and len(picks) == 1:
        return {next(iter(truth)): next(iter(picks.values()))}, []
    paired: dict[str, Particles] = {}
    unknown = []
    for name, particles in picks.items():
        matching = rule.matching(name, truth)
        if not matching:
            unknown.append(name)
        elif matching[0] in paired:
            raise InputError(f"two lists of picks for tomogram {matching[0]}", where="picks", fix="keep one of them")
        else:
            paired[matching[0]] = particles
    return paired, unknown


def agree_on_classes(
    truth: Mapping[str, Particles], picks: Mapping[str, Particles], class_names: Sequence[str] | None = None
) -> tuple[dict[str, Particles], dict[str, Particles], list[str]]:
    """Truth and picks with the same class labels, and the classes' names.

    With `class_names`, particles that carry one of these names get its label, others keep theirs. Without, the lists
    decide: by name where every particle has one, else by label; lists without any class are of one class. Where there
    is only one class, a list without any is of that class.

    Raises:
        InputError: some particles have a name alone and others a label alone.
    """
    lists = [item for item in (*truth.values(), *picks.values()) if not _is_bare(item)]
    bare = len(lists) < len(truth) + len(picks)
    everything = Particles.concatenate(lists) if lists else Particles.empty()
    names, labels = everything.class_names, everything.labels
    if class_names is not None:
        chosen = [str(name) for name in class_names]
    elif names is not None and np.all(names != ""):
        first = {str(name): int(label) for name, label in zip(names[::-1], labels[::-1], strict=True)}
        chosen = sorted(first, key=lambda name: (first[name], name))
    elif not labels.any():
        return *(_all_of_class_one(group) for group in (truth, picks)), ["particle"]  # type: ignore[return-value]
    elif (labels == 0).any() or (bare and labels.max() > 1):
        raise InputError(
            "some particles have a class label and others only a class name, or none",
            fix="give --classes with the names of label 1, 2, … or a --config",
        )
    else:
        chosen = [_name_of_label(everything, label) for label in range(1, int(labels.max()) + 1)]
        if len(chosen) > 1:
            return dict(truth), dict(picks), chosen
    return (
        {name: _relabelled(particles, chosen) for name, particles in truth.items()},
        {name: _relabelled(particles, chosen) for name, particles in picks.items()},
        chosen,
    )


def _is_bare(particles: Particles) -> bool:
    """Whether a list has particles and names no class for any of them."""
    names = particles.class_names
    return len(particles) > 0 and not particles.labels.any() and (names is None or not np.any(names != ""))


def _all_of_class_one(lists: Mapping[str, Particles]) -> dict[str, Particles]:
    return {name: item.with_(labels=np.ones(len(item), dtype=np.int32)) for name, item in lists.items()}


def _name_of_label(particles: Particles, label: int) -> str:
    names = particles.class_names
    known = [] if names is None else sorted({str(name) for name in names[particles.labels == label]} - {""})
    return known[0] if len(known) == 1 else f"class {label}"


def _relabelled(particles: Particles, names: Sequence[str]) -> Particles:
    if _is_bare(particles) and len(names) == 1:
        return particles.with_(labels=np.ones(len(particles), dtype=np.int32))
    if particles.class_names is None:
        return particles
    labels = particles.labels.copy()
    for index, name in enumerate(names):
        labels[particles.class_names == name] = index + 1
    return particles.with_(labels=labels)


def _beside_volumes(
    folder: Path,
    tomograms: Sequence[TomogramFiles],
    read: Callable[[TomogramFiles], Particles],
    class_names: Sequence[str],
    *,
    truth: bool,
) -> dict[str, Particles]:
    found: dict[str, Particles] = {}
    endings = suffixes() if truth else ()
    for tomogram in tomograms:
        beside = tomogram.volume_path.parent
        clean = [file for suffix in endings if (file := beside / f"{tomogram.name}_truth_objl{suffix}").is_file()]
        if not clean and not tomogram.lists(class_names):
            continue
        files = tomogram.with_list(clean[0]) if clean else tomogram
        found[tomogram.name] = read(files)
    if not found:
        fix = "say whose picks count" if is_project(folder) else "put {name}_objl.xml beside {name}"
        raise InputError("no tomogram in it has a particle list", where=folder, fix=fix)
    return found


def _holds_copick(folder: Path) -> bool:
    """Whether a folder holds copick's picks and no other list, as `pick --format copick` leaves it."""
    others = any(_is_list(file) for file in folder.iterdir() if not file.name.startswith("."))
    return not others and next(folder.glob("**/Picks/*.json"), None) is not None


def _choose(folder: Path, class_names: Sequence[str], *, truth: bool) -> dict[tuple[str, str], Path]:
    """One list for each tomogram of a folder without volumes, or for each of its classes: by names of both, or name and ""."""
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".") and _is_list(file)]
    chosen: dict[tuple[str, str], tuple[tuple[bool, int], Path]] = {}
    for file in files:
        suffix = list_suffix(file.name)
        assert suffix is not None
        rank = (("_truth" in file.name) != truth, suffixes().index(suffix))
        name = class_of_stem(list_name(file), class_names)
        if name not in chosen or rank < chosen[name][0]:
            chosen[name] = (rank, file)
    if not chosen:
        raise InputError("no particle list in it", where=folder, fix=f"known suffixes: {' '.join(suffixes())}")
    return {name: file for name, (_, file) in chosen.items()}


def list_name(file: Path) -> str:
    """Tomogram that a list is named after."""
    suffix = list_suffix(file.name)
    stem = file.name[: -len(suffix)] if suffix else file.stem
    return _MARKERS.sub("", stem, count=1) or stem


def _by_tomogram(particles: Particles, name: str) -> dict[str, Particles]:
    """One entry for each tomogram that a list names; one that names a single tomogram is called after its file."""
    if particles.tomograms is None or len(set(particles.tomograms)) < 2:
        return {name: particles}
    names = np.asarray(particles.tomograms)
    return {str(other): particles.select(names == other) for other in dict.fromkeys(names.tolist())}
