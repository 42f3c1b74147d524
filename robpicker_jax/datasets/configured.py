"""The data set that a configuration names: a folder of splits, or a copick project."""

from __future__ import annotations

from pathlib import Path

from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.copick_project import is_project, project_tomograms
from robpicker_jax.datasets.discovery import TomogramFiles, discover


def dataset(directory: str | Path, data: DataConfig) -> dict[str, list[TomogramFiles]]:
    """The tomograms of a data set by split.

    Args:
        directory: its folder, or the `copick_config.json` of a project.
        data: the section `data`: how names are matched, and what of a copick project is taken.

    Raises:
        InputError: as `discover` or `project_tomograms`.
    """
    if is_project(directory):
        return project_tomograms(directory, data.copick)
    return discover(directory, name_pattern=data.name_pattern)
