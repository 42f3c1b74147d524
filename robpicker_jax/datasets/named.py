"""The tomograms that a person names: volume files, folders, patterns, and copick projects."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from robpicker_jax.config import CopickConfig
from robpicker_jax.datasets.copick_project import is_project, project_tomograms
from robpicker_jax.datasets.discovery import TomogramFiles, tomograms_from
from robpicker_jax.system.errors import InputError


def named_tomograms(
    paths: Sequence[str | Path], section: CopickConfig, *, only: Sequence[str] = ()
) -> list[TomogramFiles]:
    """The tomograms of files, folders, patterns and projects, without their lists; each once, and none is opened.

    Args:
        paths: as `tomograms_from` takes them, or the `copick_config.json` of a project.
        section: which tomograms of a project are meant.
        only: runs of projects that are taken, by name or pattern; none: all.

    Raises:
        InputError: a path that is no tomogram, no folder of some and no project; a project without such tomograms or such
            a run.
    """
    found: list[TomogramFiles] = []
    for of_projects, group in groupby(paths, is_project):
        if of_projects:
            found += [one for path in group for one in _of_project(path, section, only)]
        else:
            found += tomograms_from(list(group), annotations=False)
    return list(dict.fromkeys(found))


def _of_project(path: str | Path, section: CopickConfig, only: Sequence[str]) -> list[TomogramFiles]:
    splits = project_tomograms(path, section, picks=False, only=only)
    runs = sorted((one for split in splits.values() for one in split), key=lambda one: one.name)
    if not runs:
        fix = "set data.copick.tomo_type and data.copick.voxel_spacing_angstrom"
        raise InputError(f"no tomogram of type {section.tomo_type!r} in this project", where=path, fix=fix)
    return runs
