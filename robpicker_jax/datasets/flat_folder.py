"""A flat folder of tomograms as a data set: `data.splits` says what each is for, and nothing is moved or linked.

A split takes the tomograms that it names. What no split names is of `train` where it has a list, and else of `test`; a
split that names its tomograms takes no others.

Names are those of the volumes without suffix, or what means the same (`annotations.names`: `TS_01` for
`rec_TS_01_10.00Apx.mrc`), or patterns with `*`, `?` and `[…]` of either; a name goes before a pattern. Of a tomogram and
its half maps (`_half1`, `_even`, …) the tomogram counts; of several volumes of one tomogram `data.volumes` chooses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from robpicker_jax.annotations.names import NameRule
from robpicker_jax.config import DataConfig, SplitsConfig
from robpicker_jax.datasets.discovery import SPLITS, TomogramFiles, has_split_folders, tomograms_in
from robpicker_jax.datasets.given_lists import list_paths, with_lists
from robpicker_jax.system.errors import InputError

_HALF = re.compile(r"[_.-](half[_-]?[12]|even|evn|odd)$", re.IGNORECASE)
_PATTERN = re.compile(r"[*?[]")


def describes_flat(data: DataConfig) -> bool:
    """Whether the section `data` says how a flat folder is a data set."""
    return bool(data.volumes or list_paths(data) or any(getattr(data.splits, split) for split in SPLITS))


def flat_dataset(directory: str | Path, data: DataConfig) -> dict[str, list[TomogramFiles]]:
    """The tomograms of a flat folder by split.

    Args:
        directory: the folder.
        data: which volumes of it count, what each is for, and where their lists lie.

    Raises:
        InputError: no such folder or no volume in it, several volumes of one tomogram, a name that no tomogram has, a
            tomogram in two splits, or whatever is wrong with the lists (`given_lists`).
    """
    directory = Path(directory)
    tomograms = with_lists(flat_tomograms(directory, data), data, directory, of_folder=not list_paths(data))
    listed = [entry.name for entry in data.species]
    rule = NameRule.of(data.name_pattern, "data.name_pattern")
    has_list = {tomogram.name: bool(tomogram.lists(listed)) for tomogram in tomograms}
    split_of = assigned_splits(has_list, data.splits, rule, where=directory)
    found: dict[str, list[TomogramFiles]] = {split: [] for split in SPLITS}
    for tomogram in tomograms:
        if split := split_of.get(tomogram.name):
            found[split].append(replace(tomogram, split=split))
    return found


def assigned_splits(
    has_list: Mapping[str, bool], splits: SplitsConfig, rule: NameRule, *, where: Path, key: str = "data.splits."
) -> dict[str, str]:
    """The split of each tomogram that is in one, by name.

    Args:
        has_list: names of the tomograms, and whether each has a list of particles.
        splits: the names and patterns of each split.
        rule: which names mean the same tomogram.
        where: the folder of the tomograms, for messages.
        key: what stands before the name of a split where the user names its tomograms, for messages.

    Raises:
        InputError: a name that no tomogram has, one that several may have, or a tomogram in two splits.
    """
    named = named_splits(list(has_list), splits, rule, where=where, key=key)
    rest = {name: "train" if listed else "test" for name, listed in has_list.items()}
    return {name: split for name, split in rest.items() if not getattr(splits, split)} | named


def named_splits(
    names: Sequence[str], splits: SplitsConfig, rule: NameRule, *, where: Path, key: str = "data.splits."
) -> dict[str, str]:
    """The split of each tomogram that one names; arguments and errors as for `assigned_splits`."""
    by_name: dict[str, str] = {}
    by_pattern: dict[str, str] = {}
    for split in SPLITS:
        for entry in getattr(splits, split):
            exact = [entry] if entry in names else rule.matching(entry, names)
            meant = exact or [name for name in names if _fits(name, entry, rule)]
            if not meant:
                shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
                raise InputError(f"{key}{split}: no tomogram {entry!r}", where=where, fix=f"there are {shown}")
            chosen = by_name if exact else by_pattern
            for name in meant:
                if chosen.setdefault(name, split) != split:
                    what = f"{name} is in {key}{chosen[name]} and in {key}{split}"
                    raise InputError(what, where=where, fix="name it in one of them")
    return by_pattern | by_name


def flat_tomograms(directory: Path, data: DataConfig) -> list[TomogramFiles]:
    """The tomograms of a flat folder, by name, without lists.

    Raises:
        InputError: as `flat_dataset`.
    """
    if not directory.is_dir():
        raise InputError("no such folder" if not directory.exists() else "not a folder", where=directory)
    everything = tomograms_in(directory, annotations=False)
    found = [files for files in everything if fnmatchcase(files.volume_path.name, data.volumes or "*")]
    if not found:
        what = f"no volume that data.volumes ({data.volumes}) fits" if everything else "no volume in it"
        raise InputError(what, where=directory, fix="set data.dir to the folder of the tomograms")
    rule = NameRule.of(data.name_pattern, "data.name_pattern")
    same: dict[str, list[TomogramFiles]] = {}
    for files in found:
        same.setdefault(rule.key(files.name), []).append(files)
    chosen = [_whole(group) for group in same.values()]
    return sorted(chosen, key=lambda files: files.name)


def _whole(group: Sequence[TomogramFiles]) -> TomogramFiles:
    """The one volume of a tomogram that is no half map."""
    whole = [files for files in group if not _HALF.search(files.name)] if len(group) > 1 else group
    if len(whole) != 1:
        names = ", ".join(files.volume_path.name for files in group[:4])
        raise InputError(
            f"several volumes of one tomogram: {names}",
            where=group[0].volume_path.parent,
            fix=f"say which count, such as data.volumes: '*{group[0].volume_path.name[-12:]}'",
        )
    return whole[0]


def _fits(name: str, pattern: str, rule: NameRule) -> bool:
    if not _PATTERN.search(pattern):
        return False
    return fnmatchcase(name, pattern) or fnmatchcase(rule.key(name), pattern.lower())


def check_layout(directory: Path, data: DataConfig) -> bool:
    """Whether a data set is a flat folder.

    Raises:
        InputError: it has folders for its splits, and `data.splits` or `data.volumes` says otherwise.
    """
    if not describes_flat(data):
        return False
    if not has_split_folders(directory):
        return True
    if data.volumes or any(getattr(data.splits, split) for split in SPLITS):
        raise InputError(
            "holds train/, meta/ …, and data.splits or data.volumes is set too",
            where=directory,
            fix="leave these out, or set data.dir to a folder that holds tomograms alone",
        )
    return False
