"""The scalings of tomograms, kept in a file so that they are found only once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.discovery import TomogramFiles
from robpicker_jax.system.files import write_text
from robpicker_jax.volumes import Scaling


class Scalings:
    """The scaling of each tomogram, kept in a file so that a second start need not read every voxel to find it.

    An entry holds as long as its files do not change: volume and mask keep their size and time of change, and the
    configuration its normalisation and contrast.

    Args:
        path: JSON file; None keeps nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._stored: dict[str, Any] = {}
        if path is None:
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or damaged: the file only saves time
            return
        self._stored = found if isinstance(found, dict) else {}

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
    """What a scaling depends on, short of the voxels themselves."""
    stamp: list[Any] = [data.normalise, data.invert_contrast]
    for path in (files.volume_path, files.mask_path):
        status = None if path is None else path.stat()
        stamp.append(None if status is None else [str(path), status.st_size, status.st_mtime_ns])
    return stamp
