"""The scalings of tomograms, kept in a file so that they are found only once."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.discovery import TomogramFiles
from robpicker_jax.datasets.stamps import changed_at, stamp
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text
from robpicker_jax.volumes import Scaling


class Scalings:
    """The scaling of each tomogram, kept in a file so that a second start need not read every voxel to find it.

    An entry holds as long as its files do not change: volume and mask keep their stamp (see `stamps`) and their time of
    change, and the configuration its normalisation and contrast.

    Args:
        path: JSON file; None keeps nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._stored: dict[str, Any] = {}
        if path is None:
            return
        with suppress(InputError):  # none yet, or damaged: the file only saves time
            self._stored = read_json_object(path)

    def known(self, files: TomogramFiles, data: DataConfig) -> Scaling | None:
        """The scaling that an earlier start found; None where there is none that still holds."""
        entry = self._stored.get(str(files.volume_path.resolve()))
        try:
            if entry is None or entry["of"] != _stamp(files, data):
                return None
            return Scaling(**{key: float(value) for key, value in entry["scaling"].items()})
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def remember(self, files: TomogramFiles, data: DataConfig, found: Scaling) -> None:
        """Add a scaling, in memory until `save` writes the file."""
        entry = {"of": _stamp(files, data), "scaling": asdict(found)}
        self._stored[str(files.volume_path.resolve())] = entry

    def save(self) -> None:
        """Write the file."""
        if self._path is not None:
            write_text(self._path, json.dumps(self._stored, indent=1) + "\n")


def _stamp(files: TomogramFiles, data: DataConfig) -> list[Any]:
    """What a scaling depends on, short of all the voxels themselves."""
    paths = (files.volume_path, files.mask_path)
    stamps = [None if path is None else [str(path), changed_at(path), stamp(path)] for path in paths]
    return [data.normalise, data.invert_contrast, *stamps]
