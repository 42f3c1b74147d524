"""Data sets on disk: which tomograms there are, and what belongs to each.

A data set is a folder with `train/ meta/ [val/] test/`; DeepFinder's `valid/` counts as `val`. In each lies, per
tomogram:

    {name}.mrc                         the volume (.rec, .map, .st, compressed, and other volume formats too)
    {name}_objl.xml                    its particles; also `tomo{name}_objl.xml`, `{name}` zero-padded to four digits,
    {name}.star, {name}.csv, …         or any other annotation format, as `{name}.suffix` or `{name}_objl.suffix`;
                                       where none is called so, a list whose name means the same tomogram
                                       (`annotations.names`): `TS_01.star` for `TS_01_10.00Apx.mrc`
    {name}_{class}.star, …             where a tomogram has no list of its own: one list for each class, whose name its file
                                       name ends in; here too `TS_01_ribosome.star` is a list of `TS_01_10.00Apx.mrc`
    {name}_target.mrc                  optional: its label map, as DeepFinder stores it
    {name}_mask.mrc                    optional: where the sample is (not 0); normalisation, patch centres, picks
                                       and evaluation keep to it

One list for the whole folder (`objl*`, `object_list*`, `particles*` or RELION's `optimisation_set*`) serves the
tomograms that have none of their own; or one for each class, called like the class (`ribosome.star`), whose rows name
their tomograms.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robpicker_jax.annotations.names import NameRule
from robpicker_jax.datasets.pairing import DEFAULT_RULE, Lists, annotation_stem, letters, pairs
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import VOLUME_SUFFIXES, is_volume, volume_stem

SPLITS = ("train", "meta", "val", "test")
_FOLDERS = {"train": "train", "meta": "meta", "val": "val", "valid": "val", "test": "test"}
_NOT_TOMOGRAMS = ("_target", "_mask")


@dataclass(frozen=True)
class TomogramFiles:
    """One tomogram of a data set, by its files.

    Attributes:
        name: file name of the volume without suffix.
        split: "train", "meta", "val" or "test"; "" for a tomogram outside a data set.
        volume_path: the volume.
        annotation_path: its particles, None where there are none.
        target_path: its stored label map, None where there is none.
        mask_path: its mask of the sample, None where there is none.
        class_lists: where it has no list of its own, lists that are named after it and something more, which may be a
            class: (what more, the list). Which of them count is decided where the classes are known; where none does,
            the list of the whole folder serves.
        folder_lists: where it has none of these, further lists of the folder: (name, list). Those that are called like a
            class are that class's for the whole folder.
        shared: those of its lists that hold other tomograms' particles too, whatever they are called.
    """

    name: str
    split: str
    volume_path: Path
    annotation_path: Path | None = None
    target_path: Path | None = None
    mask_path: Path | None = None
    class_lists: tuple[tuple[str, Path], ...] = ()
    folder_lists: tuple[tuple[str, Path], ...] = ()
    shared: tuple[Path, ...] = ()

    def lists(self, class_names: Sequence[str]) -> tuple[tuple[str, Path], ...]:
        """The lists of its particles: ("", its own list), or (class, list) for each class that has one; none are empty."""
        known = {letters(name): name for name in class_names}
        by_class: tuple[tuple[str, Path], ...] = ()
        for lists in (self.class_lists, self.folder_lists):
            by_class = by_class or tuple((known[letters(text)], path) for text, path in lists if letters(text) in known)
        if by_class or self.annotation_path is None:
            return by_class
        return (("", self.annotation_path),)

    def with_list(self, path: Path) -> TomogramFiles:
        """The tomogram with another list in place of all that it has."""
        return replace(self, annotation_path=path, class_lists=(), folder_lists=(), shared=())


def class_of_stem(stem: str, class_names: Sequence[str]) -> tuple[str, str]:
    """A file's name without suffix as (tomogram, class), where it ends in one of the classes; else (stem, "")."""
    known = {letters(name): name for name in class_names}
    for cut in (i for i, character in enumerate(stem) if character == "_"):
        if cut and (name := known.get(letters(stem[cut + 1 :]))):
            return stem[:cut], name
    return stem, ""


def is_of_folder(path: Path, class_name: str) -> bool:
    """Whether a list is that of a class for the whole folder, `{class}.star`, and not one tomogram's."""
    return letters(annotation_stem(path.name) or "") == letters(class_name)


def discover(
    directory: str | Path, *, name_pattern: str | None = None, annotations: bool = True
) -> dict[str, list[TomogramFiles]]:
    """Find the tomograms of a data set.

    Args:
        directory: the data set's folder.
        name_pattern: what of a name counts where lists are found by it, as `data.name_pattern` has it.
        annotations: look for the lists beside the volumes.

    Returns:
        The tomograms of each of the four splits, by name; a split that is absent is an empty list. Tomograms without
        annotations are kept: inference needs none.

    Raises:
        InputError: the folder is missing, has no split folder or no volume, or a tomogram has two volumes or two lists.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError("no such folder" if not directory.exists() else "not a folder", where=directory)
    found: dict[str, list[TomogramFiles]] = {split: [] for split in SPLITS}
    rule = NameRule.of(name_pattern, "data.name_pattern")
    folders = [name for name in _FOLDERS if (directory / name).is_dir()]
    if not folders:
        raise InputError(
            "no train, meta, val or test folder in it",
            where=directory,
            fix="put the tomograms into train/, meta/, test/, or say with data.splits what each is for",
        )
    for folder in folders:
        found[_FOLDERS[folder]] += _in_folder(directory / folder, _FOLDERS[folder], rule=rule, annotations=annotations)
    if not any(found.values()):
        raise InputError(
            f"no volume in {', '.join(f'{name}/' for name in folders)}",
            where=directory,
            fix=f"known: {_suffix_list()}",
        )
    for split, tomograms in found.items():
        _refuse_repeats(tomograms, split)
        tomograms.sort(key=lambda tomogram: tomogram.name)
    return found


def tomograms_from(paths: Iterable[str | Path], *, annotations: bool = True) -> list[TomogramFiles]:
    """The tomograms named on a command line: volume files, folders of them, and patterns that match either.

    A path that does not exist is taken as a pattern where it has `*`, `?` or `[`; `**` stands for folders at any depth.
    Masks and label maps are no tomograms of a folder or a pattern, unless a pattern matches nothing else.

    Args:
        paths: the files, folders and patterns.
        annotations: look for the lists beside the volumes. Without, a volume with several lists is accepted.

    Raises:
        InputError: a path that does not exist, is no volume, or is a folder without volumes; a pattern without matches.
    """
    given = [path for text in paths for path in _matches(Path(text))]
    for path in given:
        if not path.exists():
            raise InputError("no such file", where=path)
        if not path.is_dir() and not is_volume(path):
            raise InputError("no volume format has this suffix", where=path, fix=f"known: {_suffix_list()}")
    # Each folder is listed once, however many of its files are named.
    named: dict[Path, list[str]] = {}
    for path in filter(is_volume, given):
        named.setdefault(path.parent, []).append(path.name)
    of_files = {
        tomogram.volume_path: tomogram
        for folder, names in named.items()
        for tomogram in _in_folder(folder, "", annotations=annotations, only=names)
    }
    found: list[TomogramFiles] = []
    for path in given:
        if is_volume(path):
            found.append(of_files[path])
            continue
        inside = _in_folder(path, "", annotations=annotations)
        if not inside:
            raise InputError("no volume in this folder", where=path, fix=f"known: {_suffix_list()}")
        found += inside
    return list(dict.fromkeys(found))


def _matches(path: Path) -> list[Path]:
    """What a pattern matches, by name; of a path that exists, or is no pattern, that path.

    Raises:
        InputError: a pattern that matches neither a volume nor a folder.
    """
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matched = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    usable = [match for match in matched if match.is_dir() or is_volume(match)]
    if not usable:
        what = "no file matches this pattern" if not matched else "no volume among what this pattern matches"
        raise InputError(what, where=path, fix=f"known: {_suffix_list()}" if matched else "")
    tomograms = [match for match in usable if not volume_stem(match).endswith(_NOT_TOMOGRAMS)]
    return tomograms or usable


def tomograms_in(folder: Path, *, annotations: bool = True, rule: NameRule = DEFAULT_RULE) -> list[TomogramFiles]:
    """The tomograms of a folder that is no data set, by name of file; none where it holds no volume.

    Raises:
        InputError: with `annotations`, a tomogram with two lists.
    """
    return _in_folder(folder, "", annotations=annotations, rule=rule)


def has_split_folders(path: Path) -> bool:
    """Whether a folder is laid out as a data set."""
    return any((path / name).is_dir() for name in _FOLDERS)


def split_folder(path: Path, split: str) -> Path:
    """The folder of one split of a data set; `path` itself where it is no data set.

    Raises:
        InputError: a data set without this split.
    """
    if not has_split_folders(path):
        return path
    for name, meant in _FOLDERS.items():
        if split in (name, meant) and (path / name).is_dir():
            return path / name
    raise InputError(f"no {split} folder in it", where=path, fix="name another --split")


def _suffix_list() -> str:
    return " ".join(VOLUME_SUFFIXES)


def _in_folder(
    folder: Path,
    split: str,
    *,
    annotations: bool = True,
    only: Iterable[str] | None = None,
    rule: NameRule = DEFAULT_RULE,
) -> list[TomogramFiles]:
    """The tomograms of a folder, or those whose volumes are the files `only`."""
    files = {path.name: path for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    volumes = [path for path in files.values() if is_volume(path)]
    beside = {volume_stem(path): path for path in volumes if volume_stem(path).endswith(_NOT_TOMOGRAMS)}
    tomograms = [path for path in volumes if not volume_stem(path).endswith(_NOT_TOMOGRAMS)]
    stems = {volume_stem(path) for path in tomograms}
    if only is not None:
        tomograms = [folder / name for name in dict.fromkeys(only)]
    names = [volume_stem(path) for path in tomograms]
    paired = pairs(names, stems, files, rule, folder) if annotations else {}
    found = []
    for path, name in zip(tomograms, names, strict=True):
        lists = paired.get(name, Lists())
        target, mask = beside.get(f"{name}_target"), beside.get(f"{name}_mask")
        found.append(
            TomogramFiles(
                name, split, path, lists.own, target, mask, class_lists=lists.by_class, folder_lists=lists.of_folder
            )
        )
    return found


def _refuse_repeats(tomograms: Sequence[TomogramFiles], split: str) -> None:
    seen: dict[str, TomogramFiles] = {}
    for tomogram in tomograms:
        if tomogram.name in seen:
            raise InputError(
                f"two volumes named {tomogram.name} in {split}: {seen[tomogram.name].volume_path.name} and this one",
                where=tomogram.volume_path,
                fix="keep one of them or rename it",
            )
        seen[tomogram.name] = tomogram
