"""What lies in a folder: a data set of folders, a copick project, or a project of RELION, Warp or anybody else.

Of a project, the folder with most tomograms is taken, and the lists that name these, wherever in the project they lie.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from robpicker_jax.annotations.copick_json import PICKER, REVIEWER
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.annotations.registry import format_of
from robpicker_jax.annotations.relion_tables import read_tomograms
from robpicker_jax.config import CopickConfig, DataConfig
from robpicker_jax.datasets import SPLITS, TomogramFiles, agreed_voxel_size
from robpicker_jax.datasets.copick_project import is_project, open_project, project_tomograms
from robpicker_jax.datasets.discovery import discover, has_split_folders, tomograms_in
from robpicker_jax.datasets.flat_folder import flat_tomograms
from robpicker_jax.datasets.given_lists import ListNames, with_lists
from robpicker_jax.datasets.pairing import list_suffix, pairs
from robpicker_jax.models.shipped import GENERAL
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.run_folder import PICKS, REPORT, is_run_folder
from robpicker_jax.volumes import is_volume

_DEPTH = 4
_MOST_FOLDERS = 5000
_HEAD = 1 << 14
_NO_TOMOGRAMS = re.compile(
    r"(even|odd|half.*|tiltstack|frames|average|averages|masks?|templates?|references?|picks|report)$", re.IGNORECASE
)
_PICKED, _REVIEWED = ((one["user_id"], one["session_id"]) for one in (PICKER, REVIEWER))
_SIZED = re.compile(r"_(\d+(?:\.\d+)?)Apx$", re.IGNORECASE)
_LISTS_FIX = "say which are meant with --lists PATH, or --lists CLASS=PATH for each class"
_NO_LISTS_FIX = f"where there are none yet, robpicker pick --model {GENERAL} makes picks to review and to begin with"


@dataclass(frozen=True)
class Source:
    """Where the tomograms and the lists are.

    Attributes:
        data: `dir`, `volumes`, `lists`, `annotation_options` and `copick` of the configuration.
        is_flat: whether the splits are still to be chosen.
        tomograms: all tomograms; of folders and projects that are not flat with their splits.
        voxel_size_angstrom: of all of them.
        radii_angstrom: radius of each species, where the project states it.
        remarks: what is worth saying, by the key of the configuration.
    """

    data: DataConfig
    is_flat: bool
    tomograms: tuple[TomogramFiles, ...]
    voxel_size_angstrom: float
    radii_angstrom: Mapping[str, float] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)


def find_source(
    folder: Path, *, lists: Sequence[str] = (), voxel_size: float | None = None, name_pattern: str | None = None
) -> Source:
    """Look at a folder.

    Args:
        folder: the folder, or a copick project's configuration.
        lists: where the lists are, as PATH or CLASS=PATH; by default they are looked for.
        voxel_size: voxel size in Å, where headers do not say it.
        name_pattern: as `data.name_pattern`.

    Raises:
        InputError: nothing there that could be used; the message says what to give.
    """
    if not folder.exists():
        raise InputError("no such folder", where=folder)
    projects = [folder] if folder.is_file() else [path for path in sorted(folder.glob("*.json")) if is_project(path)]
    if projects and is_project(projects[0]):
        return _of_copick(projects[0], voxel_size)
    if not folder.is_dir():
        raise InputError("not a folder, and no copick project", where=folder, fix="give the folder of the tomograms")
    data = DataConfig(dir=str(folder.resolve()), name_pattern=name_pattern, lists=_given(lists))
    if has_split_folders(folder):
        found = discover(folder, name_pattern=name_pattern, annotations=not data.lists)
        tomograms = tuple(files for split in SPLITS for files in found[split])
        if data.lists:
            tomograms = tuple(with_lists(tomograms, data, folder))
        return Source(data, False, tomograms, _voxel_size(tomograms, voxel_size))
    home = _richest(folder, NameRule.of(name_pattern))
    data = replace(data, dir=str(home.resolve()))
    data, said = _with_volumes(home, data)
    bare = flat_tomograms(home, data)
    size = _voxel_size(bare, voxel_size)
    if not data.lists:
        data = _with_found_lists(folder, bare, replace(data, voxel_size_angstrom=size))
    annotated = with_lists(bare, data, home, of_folder=not data.lists)
    return Source(replace(data, voxel_size_angstrom=size), True, tuple(annotated), size, {}, said)


def _given(lists: Sequence[str]) -> tuple[str, ...] | dict[str, str]:
    pairs_ = [text.partition("=") for text in lists]
    if not any(equals for _, equals, _ in pairs_):
        return tuple(str(Path(text).resolve()) for text in lists)
    if not all(equals for _, equals, _ in pairs_):
        raise InputError(
            "some name a class and others do not", where="--lists", fix="give PATH each, or CLASS=PATH each"
        )
    return {name: str(Path(path).resolve()) for name, _, path in pairs_}


def _voxel_size(tomograms: Sequence[TomogramFiles], given: float | None) -> float:
    size = agreed_voxel_size(tomograms, given, source="--voxel-size")
    if size is None:
        raise InputError("no header states the voxel size", where=tomograms[0].volume_path, fix="give --voxel-size")
    return round(size, 4)


def _folders(root: Path) -> Iterator[Path]:
    """The folders of a project, nearest first in each branch.

    Left out are volumes that are folders themselves, and the picks and reports inside the folder of a training run:
    picks are lists of the project's tomograms too, but nobody's annotations.
    """
    for count, (place, inside, _) in enumerate(os.walk(root)):
        depth = len(Path(place).relative_to(root).parts)
        inside[:] = sorted(n for n in inside if depth < _DEPTH and n[0] != "." and not is_volume(Path(place, n)))
        if is_run_folder(Path(place)):
            inside[:] = [name for name in inside if name not in (PICKS, REPORT)]
        if count >= _MOST_FOLDERS:
            return
        yield Path(place)


def _richest(root: Path, rule: NameRule) -> Path:
    """The folder with most tomograms; of equals the least deep, and of these the last, which is the latest job."""
    best, found = (0, 0, ""), root
    for folder in _folders(root):
        if folder != root and _NO_TOMOGRAMS.match(folder.name):
            continue
        keys = {rule.key(files.name) for files in tomograms_in(folder, annotations=False)}
        rank = (len(keys), -len(folder.relative_to(root).parts), str(folder))
        if keys and rank > best:
            best, found = rank, folder
    if not best[0]:
        raise InputError("no tomogram in it", where=root, fix="give the folder of the tomograms")
    return found


def _with_volumes(home: Path, data: DataConfig) -> tuple[DataConfig, dict[str, str]]:
    """Which volumes count, where tomograms are there at several voxel sizes: most of them, and of equals the coarsest."""
    try:
        flat_tomograms(home, data)
        return data, {}
    except InputError:
        names = [files.name for files in tomograms_in(home, annotations=False)]
        sizes = Counter(match[1] for name in names if (match := _SIZED.search(name)))
        if not sizes:
            raise
    size = max(sizes, key=lambda text: (sizes[text], float(text)))
    others = ", ".join(f"*_{text}Apx" for text in sizes if text != size)
    return replace(data, volumes=f"*_{size}Apx.*"), {"volumes": f"there are {others} too"}


def _with_found_lists(root: Path, tomograms: Sequence[TomogramFiles], data: DataConfig) -> DataConfig:
    """The section with the lists that a project holds; as it is, where they lie beside the tomograms."""
    home = Path(data.dir or root)
    names = ListNames(tomograms, data, NameRule.of(data.name_pattern, "data.name_pattern"))
    if any(_is_list(names, files) for files in with_lists(tomograms, data, home, of_folder=True)):
        return data
    own: dict[Path, int] = {}
    shared: list[Path] = []
    for folder in _folders(root):
        files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and list_suffix(path.name)}
        files = {name: path for name, path in files.items() if not is_volume(path) and name[0] != "."}
        stems = {tomogram.name for tomogram in tomograms}
        try:
            paired = pairs(stems, stems, files, names.rule, folder)
        except InputError:
            paired = {}
        used = {
            path for lists in paired.values() for path in (lists.own, *(path for _, path in lists.by_class)) if path
        }
        theirs = [path for path in used if _named(names, path) is not None]
        own[folder] = sum(1 for lists in paired.values() if {lists.own, *(p for _, p in lists.by_class)} & set(theirs))
        shared += [path for path in files.values() if _names_some(names, path)]
    most = max(own, key=lambda folder: own[folder], default=root)
    sets = [path for path in shared if path.name.startswith(("optimisation_set", "optimization_set"))]
    shared = sets[-1:] or shared
    if own.get(most, 0) > 0 and not shared:
        return replace(data, lists=(str(most.resolve()),))
    if not shared:
        raise InputError("no particle list of its tomograms", where=root, fix=f"{_LISTS_FIX}; {_NO_LISTS_FIX}")
    if len(shared) > 1:
        if len({path.parent for path in shared}) > 1:
            shown = ", ".join(str(path.relative_to(root)) for path in shared[:4])
            raise InputError(f"several lists: {shown}", where=root, fix=_LISTS_FIX)
        data = replace(data, lists={_class_name(path): str(path.resolve()) for path in shared})
    else:
        data = replace(data, lists=(str(shared[0].resolve()),))
    return _with_table(root, shared, data)


def _class_name(path: Path) -> str:
    return path.name[: -len(list_suffix(path.name) or path.suffix)]


def _is_list(names: ListNames, files: TomogramFiles) -> bool:
    return any(
        _named(names, path) is not None for _, path in (*files.lists(()), *files.class_lists, *files.folder_lists)
    )


def _named(names: ListNames, path: Path) -> tuple[str, ...] | None:
    """The tomograms that a list names, none where it names none; None where it is no list."""
    try:
        return names.named(path) or ()
    except InputError:
        return None


def _names_some(names: ListNames, path: Path) -> bool:
    """Whether a list names tomograms, and one of the project's at least."""
    found = _named(names, path) or ()
    own = {names.rule.key(tomogram.name) for tomogram in names.tomograms}
    return any(names.rule.key(name) in own for name in found)


def _with_table(root: Path, lists: Sequence[Path], data: DataConfig) -> DataConfig:
    """The section with RELION's or Warp's table of tomograms, where a list counts from the centre."""
    if not any(b"rlnCenteredCoordinate" in path.read_bytes()[:_HEAD] for path in lists):
        return data
    formats = [format_of(path, None) for path in lists]
    if not all("tomograms" in known.reading_options for known in formats):
        return data
    for folder in _folders(root):
        for path in sorted(folder.glob("*.star")):
            try:
                read_tomograms(path)
            except InputError:
                continue
            # Said of these formats alone, so that lists of others, such as a review's, can be read beside them.
            table = {"tomograms": str(path.resolve())}
            return replace(data, annotation_options={known.name: table for known in formats})
    return data


def _of_copick(path: Path, voxel_size: float | None) -> Source:
    """A copick project: the spacing, type and user with most runs, where there are several."""
    project = open_project(path)
    kinds: Counter[tuple[float, str]] = Counter()
    sources: Counter[tuple[str, str]] = Counter()
    several = False
    everybody = {(str(p.user_id), str(p.session_id)) for run in project.runs for p in run.picks}
    # What a picker found is no annotation, and what a review left goes before annotations; unless there is nothing else.
    people = everybody - {_PICKED}
    apart = {_PICKED, _REVIEWED} if people - {_REVIEWED} else {_PICKED} if people else set()
    for run in project.runs:
        picks = [(p.pickable_object_name, str(p.user_id), str(p.session_id)) for p in run.picks]
        kinds.update((float(s.voxel_size), t.tomo_type) for s in run.voxel_spacings for t in s.tomograms)
        annotated = [entry for entry in picks if entry[1:] not in apart]
        several |= len({name for name, *_ in annotated}) < len(annotated)
        sources.update((user, session) for _, user, session in annotated)
    fitting = {kind: n for kind, n in kinds.items() if voxel_size is None or abs(kind[0] / voxel_size - 1) < 0.01}
    if not fitting:
        fix = "give another --voxel-size" if kinds else "add tomograms to it"
        raise InputError("no tomogram in this project", where=path, fix=fix)
    size, kind = max(fitting, key=lambda each: (fitting[each], each[1] == "wbp", each))
    remarks = {}
    if len(kinds) > 1:
        listed = ", ".join(f"{k} at {s:g} Å" for s, k in sorted(kinds) if (s, k) != (size, kind))
        remarks["copick.tomo_type"] = f"there are {listed} too"
    section = CopickConfig(voxel_spacing_angstrom=size, tomo_type=kind)
    if _REVIEWED in apart & everybody:
        section = replace(section, prefer=("/".join(_REVIEWED),))
    if len(sources) == 1:  # said, so that picks which are added to the project later do not make it a question
        ((user, session),) = sources
        section = replace(section, user=user, session=session)
    elif several:
        user, session = max(sources, key=lambda each: (sources[each], each))
        section = replace(section, user=user, session=session)
        others = ", ".join(f"{u} {s}" for u, s in sorted(sources) if (u, s) != (user, session))
        remarks["copick.user"] = f"whose picks count is yours to decide; there are those of {others} too"
    data = DataConfig(dir=str(path.resolve()), copick=section, voxel_size_angstrom=size)
    found = project_tomograms(path, section)
    tomograms = tuple(files for split in SPLITS for files in found[split])
    picked = {name for files in tomograms for name, _ in files.class_lists}
    objects = [entry for entry in project.config.pickable_objects if entry.is_particle]
    radii = {entry.name: float(entry.radius) for entry in objects if entry.name in picked and entry.radius}
    if left := [entry.name for entry in objects if entry.name not in radii]:
        remarks["species"] = f"objects without picks or without a radius are left out: {', '.join(left)}"
    return Source(data, True, tomograms, size, radii, remarks)
