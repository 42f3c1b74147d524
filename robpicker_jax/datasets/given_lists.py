"""Lists that lie elsewhere than beside the tomograms: `data.lists`, or those of a flat folder.

data.lists: lists                                   a folder, of which each list belongs where its name says
data.lists: [a/TS_01.star, particles.star]          files and folders
data.lists: {ribosome: r.star, p97: {folder}}       one file, or one folder of lists, for each class
data.lists: {ribosome: r.star, "*": corrected}      … and lists of all classes, which count alone for their tomograms

Names pair lists with tomograms as they do beside the volumes (`pairing`). A single list that is named after no tomogram
is one for all. It counts for the tomograms that its rows name, so it is read here for their names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from robpicker_jax.annotations import read_annotations
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.annotations.options import options_for
from robpicker_jax.config import ALL_CLASSES, DataConfig
from robpicker_jax.datasets.discovery import TomogramFiles, is_of_folder
from robpicker_jax.datasets.pairing import SHARED_LIST, Lists, annotation_stem, pairs
from robpicker_jax.datasets.stamps import changed_at
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.system.notes import gathered_notes
from robpicker_jax.volumes import is_volume, open_volume


def list_paths(data: DataConfig) -> list[tuple[str, Path]]:
    """The files and folders of `data.lists`, each with its class; "" where the lists themselves say it, and these last."""
    given = data.lists
    if isinstance(given, Mapping):
        by_class = [(name, Path(path)) for name, path in given.items() if name != ALL_CLASSES]
        return by_class + [("", Path(given[name])) for name in given if name == ALL_CLASSES]
    return [("", Path(path)) for path in ((given,) if isinstance(given, str) else given)]


def with_lists(
    tomograms: Sequence[TomogramFiles], data: DataConfig, folder: Path, *, of_folder: bool = False
) -> list[TomogramFiles]:
    """The tomograms with their lists; without one where none of the lists is of the tomogram.

    Args:
        tomograms: all tomograms of the data set, without lists.
        data: `data.lists`, the species, and how lists are read.
        folder: the folder of the data set.
        of_folder: take the lists in that folder, since `data.lists` names none.

    Raises:
        InputError: a path of `data.lists` that does not exist or holds no list, two lists of one tomogram, several lists
            that may be for all, one for all that names no tomogram, or lists of all classes beside those by class that
            are of no tomogram.
    """
    names = ListNames(tomograms, data, NameRule.of(data.name_pattern, "data.name_pattern"))
    given = list_paths(data) or ([("", folder)] if of_folder else [])
    by_class = isinstance(data.lists, Mapping) and bool(data.lists)
    found = list(tomograms)
    for group in [[pair] for pair in given] if by_class else [given]:
        class_name = group[0][0] if by_class else ""
        key = f"data.lists.{class_name or ALL_CLASSES}" if by_class else "data.lists"
        files = dict(_files(group, key, must_hold=not of_folder))
        explicit = {path for _, path in group if path.is_file()}
        paired = enumerate(_paired(names, files, explicit, folder, class_name))
        if class_name or not by_class:
            for number, lists in paired:
                found[number] = _with(found[number], lists, class_name)
            continue
        # Lists of all classes leave those of single classes to the tomograms that they are not of.
        of_all = {number: _with(tomograms[number], lists, "") for number, lists in paired}
        of_all = {number: tomogram for number, tomogram in of_all.items() if names.has_list(tomogram)}
        if not of_all:
            fix = "call its lists after the tomograms; data.name_pattern says what of a name counts"
            raise InputError(f"{key}: of no tomogram of the data set", where=group[0][1], fix=fix)
        for number, tomogram in of_all.items():
            found[number] = tomogram
    return [files if names.has_list(files) else replace(files, **_NONE) for files in found]


_NONE: dict[str, Any] = {"annotation_path": None, "class_lists": (), "folder_lists": (), "shared": ()}


@dataclass(frozen=True)
class _Shared(Lists):
    """The lists of one tomogram, and those of them that are for all."""

    shared: tuple[Path, ...] = ()


def _with(tomogram: TomogramFiles, lists: _Shared, class_name: str) -> TomogramFiles:
    """The tomogram with its lists: all of them, or one more of a class."""
    shared = tomogram.shared + lists.shared
    if not class_name:
        of_folder = lists.of_folder
        return replace(
            tomogram, annotation_path=lists.own, class_lists=lists.by_class, folder_lists=of_folder, shared=shared
        )
    if lists.own is None:
        return tomogram
    return replace(tomogram, class_lists=(*tomogram.class_lists, (class_name, lists.own)), shared=shared)


def _files(given: Sequence[tuple[str, Path]], key: str, *, must_hold: bool) -> Iterator[tuple[str, Path]]:
    """The lists by their file names; `key` is that of the configuration, for messages."""
    seen: dict[str, Path] = {}
    for _, path in given:
        if not path.exists():
            raise InputError(f"{key}: no such file or folder", where=path, fix="correct the path")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        lists = [file for file in inside if not file.name.startswith(".") and annotation_stem(file.name)]
        lists = [file for file in lists if file.is_file() and not is_volume(file)]
        if must_hold and not lists:
            what = "no particle list in it" if path.is_dir() else "no annotation format has this suffix"
            raise InputError(f"{key}: {what}", where=path, fix="name the lists' folder, or convert them first")
        for file in lists:
            if (other := seen.setdefault(file.name, file)) != file:
                fix = "leave one out, or give them by class: data.lists: {CLASS: PATH, …}"
                raise InputError(f"{key}: a second list of this name, beside {other}", where=file, fix=fix)
            yield file.name, file


def _paired(
    names: ListNames, files: Mapping[str, Path], explicit: Set[Path], folder: Path, class_name: str
) -> Iterator[_Shared]:
    """The lists of each tomogram.

    Args:
        names: the tomograms, and which of them lists name.
        files: the lists by file name.
        explicit: those of them that `data.lists` names one by one, so that they cannot be passed over.
        folder: the folder of the data set, for messages.
        class_name: the class whose lists they are; "" where they say themselves.
    """
    stems = {tomogram.name for tomogram in names.tomograms}
    by_name = pairs(stems, stems, files, names.rule, folder)
    used = {path for lists in by_name.values() for path in (lists.own, *(path for _, path in lists.by_class))}
    rest = [path for path in files.values() if path not in used]
    species = [entry.name for entry in names.data.species]
    strange = [path for path in rest if path in explicit and not any(is_of_folder(path, name) for name in species)]
    if (class_name and len(rest) > 1) or (len(rest) > 1 and species and strange):
        first = (strange or rest)[0]
        fix = "call lists after tomograms, or give one for each class: data.lists: {CLASS: PATH, …}"
        raise InputError("named after no tomogram and no species, and not the only such list", where=first, fix=fix)
    alone = rest[0] if len(rest) == 1 and (rest[0] in explicit or names.is_list_of_all(rest[0])) else None
    for tomogram in names.tomograms:
        lists = by_name[tomogram.name]
        own = lists.own
        if own is None and not lists.by_class:
            own = alone
        theirs = {own, *(path for _, path in lists.of_folder)}
        shared = [path for path in files.values() if path in theirs and (path in rest or SHARED_LIST.match(path.name))]
        yield _Shared(own, lists.by_class, lists.of_folder, tuple(shared))


@dataclass(frozen=True)
class ListNames:
    """Which tomograms the rows of lists name."""

    tomograms: Sequence[TomogramFiles]
    data: DataConfig
    rule: NameRule

    def has_list(self, tomogram: TomogramFiles) -> bool:
        """Whether one of a tomogram's lists is its own, or names it.

        Raises:
            InputError: a list for all that names no tomograms.
        """
        species = [entry.name for entry in self.data.species]
        lists = tomogram.lists(species)
        if not species:  # the lists are to tell which there are
            further = [(name, path) for name, path in tomogram.folder_lists if self.is_list_of_all(path)]
            lists = lists + tomogram.class_lists + tuple(further)
        return any(self._holds(path, class_name, tomogram) for class_name, path in lists)

    def is_list_of_all(self, path: Path) -> bool:
        """Whether a file is a list at all, of a single tomogram or with the names of its tomograms."""
        try:
            return self.named(path) is not None or len(self.tomograms) == 1
        except InputError:
            return False

    def _holds(self, path: Path, class_name: str, tomogram: TomogramFiles) -> bool:
        if path not in tomogram.shared and not (class_name and is_of_folder(path, class_name)):
            return True
        names = self.named(path)
        if names is None and len(self.tomograms) > 1:
            raise InputError(
                f"names no tomograms, and there are {len(self.tomograms)}, so that it cannot be the list of all",
                where=path,
                fix=f"call it after its tomogram, such as {tomogram.name}{path.suffix}",
            )
        with located(path):
            return names is None or bool(self.rule.matching(tomogram.name, names))

    def named(self, path: Path) -> tuple[str, ...] | None:
        """The tomograms that a list names; None where it names none."""
        options = options_for(path, self.data.annotation_options)
        species = tuple(entry.name for entry in self.data.species)
        key = json.dumps(options, sort_keys=True, default=str)
        return _names_in(path, changed_at(path), key, *self._first_header(), species)

    def _first_header(self) -> tuple[float | None, tuple[int, int, int]]:
        """Voxel size and shape of a tomogram: centred coordinates need some, whatever names are asked for."""
        for tomogram in self.tomograms:
            with suppress(InputError), gathered_notes(), open_volume(tomogram.volume_path) as reader:
                return self.data.voxel_size_angstrom or reader.voxel_size_angstrom, reader.shape_zyx
        return self.data.voxel_size_angstrom, (1, 1, 1)


@lru_cache(maxsize=64)
def _names_in(
    path: Path,
    changed: int,
    options: str,
    voxel_size_angstrom: float | None,
    shape_zyx: tuple[int, int, int],
    species: tuple[str, ...],
) -> tuple[str, ...] | None:
    """The tomograms that a list names, None where it names none; read once for each state (`changed`) of the file."""
    with gathered_notes():
        listed = read_annotations(
            path,
            voxel_size_angstrom=voxel_size_angstrom,
            shape_zyx=shape_zyx,
            class_labels={name: number for number, name in enumerate(species, start=1)} or None,
            allow_empty=True,
            **json.loads(options),
        )
    if listed.tomograms is None:
        return None if len(listed) else ()
    return tuple(dict.fromkeys(str(name) for name in listed.tomograms))
