"""Which of some lists belong to which tomogram, by their names.

A tomogram's own list goes first, then lists of it for each class; one list for all, or one for each class of all, serves
the tomograms that have none of these. `discovery` describes the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from robpicker_jax.annotations import suffixes
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import is_volume

SHARED_LIST = re.compile(r"(objl|object_list|particles|optimi[sz]ation_set)([_.-].*)?$")
DEFAULT_RULE = NameRule()


@dataclass(frozen=True)
class Lists:
    """The lists that may hold a tomogram's particles; see `TomogramFiles`.

    Attributes:
        own: its own list, or the list for all.
        by_class: lists named after it and something more: (what more, the list).
        of_folder: further lists, which may be a class's for all tomograms: (name, list).
    """

    own: Path | None = None
    by_class: tuple[tuple[str, Path], ...] = ()
    of_folder: tuple[tuple[str, Path], ...] = ()


def pairs(
    names: Iterable[str], stems: Set[str], files: Mapping[str, Path], rule: NameRule, where: Path
) -> dict[str, Lists]:
    """The lists of each tomogram among some files.

    Args:
        names: the tomograms.
        stems: all volumes beside them: a list that is called like one of these is no other's.
        files: the files by name; those that are no lists are passed over.
        rule: which names mean the same tomogram.
        where: what holds the files, for messages.

    Raises:
        InputError: two lists of one tomogram, or two for all.
    """
    shared = [path for name, path in files.items() if (stem := annotation_stem(name)) and SHARED_LIST.match(stem)]
    shared = [path for path in shared if annotation_stem(path.name) not in stems]
    by_rule = _class_lists_by_rule(files, stems, rule)
    of_folder = _class_lists_of_folder(files, stems)
    found = {}
    for name in names:
        own = _annotation_of(name, files) or _annotation_by_rule(name, files, stems, rule)
        by_class: tuple[tuple[str, Path], ...] = ()
        if own is None:
            by_class = _class_lists(name, files, stems) + tuple(by_rule.get(rule.key(name), ()))
            own = _only(shared, where, "lists for the whole folder")
        found[name] = Lists(own, by_class, of_folder if own is None and not by_class else ())
    return found


def letters(name: str) -> str:
    """A class's name as it may stand in a file's name."""
    return "".join(character for character in name.lower() if character.isalnum())


def list_suffix(name: str) -> str | None:
    """The longest suffix of an annotation format that a file's name ends in; None where it is no particle list."""
    return max((suffix for suffix in suffixes() if name.lower().endswith(suffix)), key=len, default=None)


def annotation_stem(name: str) -> str | None:
    """A list's file name without the suffix of its format; None where it is no particle list."""
    suffix = list_suffix(name)
    return None if suffix is None else name[: -len(suffix)]


def _annotation_of(name: str, files: Mapping[str, Path]) -> Path | None:
    """The annotation file of one tomogram: DeepFinder's names first, in the order of the module's table."""
    stems = [name, f"tomo{name}"]
    if name.isdigit():
        stems += [f"{name:0>4}", f"tomo{name:0>4}"]
    stems = list(dict.fromkeys(stems))
    for stem in stems:
        if f"{stem}_objl.xml" in files:
            return files[f"{stem}_objl.xml"]
    for marker in ("_objl", ""):
        names = {f"{stem}{marker}{suffix}" for stem in stems for suffix in suffixes()}
        candidates = [path for file_name, path in files.items() if file_name in names and not is_volume(path)]
        if candidates:
            return _only(candidates, candidates[0].parent, f"annotation files for tomogram {name}")
    return None


def _class_lists(name: str, files: Mapping[str, Path], stems: Set[str]) -> tuple[tuple[str, Path], ...]:
    """Lists called `{name}_{something}`, by the something; not those that go with a volume of a longer name."""
    found = []
    for file_name, path in files.items():
        stem = annotation_stem(file_name)
        stem = None if stem is None or is_volume(path) else stem.removesuffix("_objl")
        if stem is None or not stem.startswith(f"{name}_") or SHARED_LIST.match(stem):
            continue
        longer = any(len(other) > len(name) and (stem == other or stem.startswith(f"{other}_")) for other in stems)
        rest = stem[len(name) + 1 :]
        if not longer and rest and rest != "truth":
            found.append((rest, path))
    return tuple(found)


def _class_lists_by_rule(
    files: Mapping[str, Path], stems: Set[str], rule: NameRule
) -> dict[str, list[tuple[str, Path]]]:
    """Lists called `{name}_{something}` of a name that means a tomogram without being a volume's, by the rule's key of it."""
    keys = {rule.key(stem) for stem in stems}
    found: dict[str, list[tuple[str, Path]]] = {}
    for file_name, path in files.items():
        stem = annotation_stem(file_name)
        stem = None if stem is None or is_volume(path) or SHARED_LIST.match(stem) else stem.removesuffix("_objl")
        if not stem or stem in stems:
            continue
        cuts = [i for i, character in enumerate(stem) if character == "_" and i]
        if any(stem[:cut] in stems for cut in cuts):
            continue
        for cut in reversed(cuts):  # the closest to the whole name first
            key, rest = rule.key(stem[:cut]), stem[cut + 1 :]
            if key in keys and rest and rest != "truth":
                found.setdefault(key, []).append((rest, path))
                break
    return found


def _class_lists_of_folder(files: Mapping[str, Path], stems: Set[str]) -> tuple[tuple[str, Path], ...]:
    """Lists that may be one class's for the whole folder, `{class}.star`, by that name; which of them are, classes tell."""
    found = []
    for file_name, path in files.items():
        stem = annotation_stem(file_name)
        if stem and stem not in stems and not is_volume(path) and not SHARED_LIST.match(stem):
            found.append((stem, path))
    return tuple(found)


def _annotation_by_rule(name: str, files: Mapping[str, Path], stems: Set[str], rule: NameRule) -> Path | None:
    """The list whose name means this tomogram without being equal to it, unless it is another volume's by its name."""
    candidates: dict[Path, str] = {}
    for file_name, path in files.items():
        stem = annotation_stem(file_name)
        stem = None if stem is None or SHARED_LIST.match(stem) else stem.removesuffix("_objl")
        if stem and stem not in stems and not is_volume(path):
            candidates[path] = stem
    meant = rule.matching(name, candidates.values())
    found = [path for path, stem in candidates.items() if stem in meant]
    return _only(found, files[next(iter(files))].parent, f"annotation files for tomogram {name}") if found else None


def _only(candidates: Sequence[Path], folder: Path, what: str) -> Path | None:
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise InputError(f"several {what}: {names}", where=folder, fix="keep one of them")
    return candidates[0] if candidates else None
