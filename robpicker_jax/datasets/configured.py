"""The data set that a configuration names: a folder of splits, a flat folder, or a copick project. Decided here alone."""

from __future__ import annotations

from pathlib import Path

from robpicker_jax.annotations.names import NameRule
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.copick_project import is_project, project_tomograms
from robpicker_jax.datasets.discovery import SPLITS, TomogramFiles, discover, split_folder, tomograms_in
from robpicker_jax.datasets.flat_folder import check_layout, describes_flat, flat_dataset
from robpicker_jax.datasets.given_lists import list_paths, with_lists
from robpicker_jax.datasets.pairing import DEFAULT_RULE
from robpicker_jax.system.errors import InputError


def dataset(directory: str | Path, data: DataConfig) -> dict[str, list[TomogramFiles]]:
    """The tomograms of a data set by split.

    Args:
        directory: its folder, or the `copick_config.json` of a project.
        data: the section `data`: what each tomogram is for, where lists lie, how names are matched, and what of a
            copick project is taken.

    Raises:
        InputError: as `discover`, `flat_dataset` or `project_tomograms`; settings for one of these that are given with
            another.
    """
    if is_project(directory):
        if describes_flat(data):
            raise InputError(
                "a copick project, for which data.splits, data.lists and data.volumes mean nothing",
                where=directory,
                fix="use data.copick.train, meta, val, test, user, session and prefer",
            )
        return project_tomograms(directory, data.copick)
    if check_layout(Path(directory), data):
        return flat_dataset(directory, data)
    found = discover(directory, name_pattern=data.name_pattern, annotations=not list_paths(data))
    if list_paths(data):
        everything = with_lists([files for split in SPLITS for files in found[split]], data, Path(directory))
        found = {split: [files for files in everything if files.split == split] for split in SPLITS}
    return found


def one_split(
    path: Path, split: str, data: DataConfig | None = None, *, annotations: bool = True, rule: NameRule = DEFAULT_RULE
) -> list[TomogramFiles]:
    """The tomograms of one split of a folder that a command line names; all, where it is no data set.

    Args:
        path: the folder.
        split: the split.
        data: a configuration's section, which counts where the folder is the data set that it names.
        annotations: whether lists are looked for.
        rule: which names mean the same tomogram.

    Raises:
        InputError: as `dataset`; a data set without this split.
    """
    if data is not None and is_own(path, data) and describes_flat(data):
        return dataset(path, data)[split]
    return tomograms_in(split_folder(path, split), annotations=annotations, rule=rule)


def is_own(path: str | Path, data: DataConfig) -> bool:
    """Whether a folder is the data set of a configuration."""
    return data.dir is not None and Path(data.dir).resolve() == Path(path).resolve()
